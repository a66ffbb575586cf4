"""Limits and seeds of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType

# CP-SAT parameters without which its proofs are none. OR-tools 9.15 takes enforcement literals
# off linear constraints wrongly in its presolve of at-most-ones (rule "linear + amo: removed
# enforcement literal", google/or-tools issue 5293), whatever the size of the numbers: it then
# "proves" optima that a listing of all placements beats. This limit switches that pass off.
TRUSTED = MappingProxyType({"presolve_inclusion_work_limit": 0})


@dataclass(frozen=True)
class Params:
    """seed; workers (1 = one thread, reproducible); deterministic_limit in the solver's own units
    (about seconds of one slow core, the same on every run); time_limit in seconds of wall clock
    (makes the run irreproducible). interleave: several workers in turns on fixed work shares, which
    is reproducible with workers > 1. stop: asked every now and then whether the search shall
    end."""

    seed: int = 0
    workers: int = 1
    deterministic_limit: float | None = None
    time_limit: float | None = None
    interleave: bool = False
    log: bool = False
    stop: Callable[[], bool] | None = field(default=None, compare=False)
