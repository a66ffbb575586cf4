"""Limits and seeds of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


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
