"""The error that says what the compiler cannot use of a machine."""

from __future__ import annotations

from csp_embed.errors import SpecError
from csp_embed.machine.spec import Isa


def refused(isa: Isa, what: str, why: str, hint: str, *items: str) -> SpecError:
    """`items`: keys of the spec, the most exact first; the first that stands there is named."""
    return SpecError(
        f"{isa.name} cannot be compiled for: {what}", where=isa.where(*items), why=why, hint=hint
    )
