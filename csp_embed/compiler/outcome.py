"""What one check of `csp-embed isa check` found, on whatever kind of machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """kind: "equal", "cannot" (it was not run, or the machine lacks something that only such
    operators need; `text` says what) or "wrong". where: file:line of the instruction."""

    name: str
    kind: str
    text: str
    where: str
