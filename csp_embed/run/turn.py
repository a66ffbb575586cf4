"""What a device is told beside a part, where several samples are under way.

A tensor that a device has already must not travel to it again, and one that only this device reads
must not travel back: a plan counts neither. So requests name the sample, and a device on another
host keeps its tensors until all its parts of that sample have run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from csp_embed.run.device_parts import Part


@dataclass(frozen=True)
class Needs:
    """Of a part, whatever the sample. back: those of its tensors that somebody else needs. of: so
    many parts of a sample run on its device."""

    back: frozenset[str]
    of: int


@dataclass(frozen=True)
class Turn:
    """sample: whose tensors these are. rank: what is least goes first."""

    sample: int
    rank: float
    needs: Needs


def needs_of(parts: Sequence[Part], outputs: Collection[str]) -> Mapping[int, Needs]:
    """By the parts' indices. parts: of all replicas. outputs: tensors that the user gets."""
    found: dict[int, Needs] = {}
    for part in parts:
        own = [p for p in parts if p.replica == part.replica]
        elsewhere = {n for p in own if p.device != part.device for n in p.reads}
        back = frozenset(n for n in part.makes if n in elsewhere or n in outputs)
        found[part.index] = Needs(back, sum(p.device == part.device for p in own))
    return found
