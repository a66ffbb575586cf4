"""What comes back from any solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OPTIMAL, FEASIBLE, INFEASIBLE, UNKNOWN = "OPTIMAL", "FEASIBLE", "INFEASIBLE", "UNKNOWN"


@dataclass(frozen=True)
class Solved:
    """One finished search.

    objective: None where no solution was found or none was asked for. bound: proved, -inf or inf
    (by sense) where nothing is known. value: of a variable or expression in the best solution;
    meaningful only where `found`. interrupted: Ctrl-C ended it. work:
    deterministic units of CP-SAT, about a second each; 0 for other solvers."""

    status: str
    objective: float | None
    bound: float
    seconds: float
    value: Callable[[Any], float]
    interrupted: bool = False
    work: float = 0.0

    @property
    def found(self) -> bool:
        """Whether there is a solution."""
        return self.status in (OPTIMAL, FEASIBLE)
