"""All solutions of a CP-SAT model, and which assumptions contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from csp_embed.solver.params import TRUSTED, Params
from csp_embed.solver.status import FEASIBLE, INFEASIBLE, OPTIMAL, UNKNOWN


@dataclass(frozen=True)
class Found:
    """values: of the watched variables in every solution, in the order found. status: OPTIMAL where
    the list is complete (INFEASIBLE: and empty), UNKNOWN where a limit ended it. branches: taken by
    the search."""

    values: list[tuple[int, ...]]
    status: str
    branches: int


def all_solutions(model: Any, watched: Sequence[Any], params: Params, most: int) -> Found:
    """Every solution, unless the limit of `params` or `most` solutions comes first."""
    from ortools.sat.python import cp_model

    found: list[tuple[int, ...]] = []

    class Collect(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            found.append(tuple(self.value(v) for v in watched))
            if len(found) >= most:
                self.stop_search()

    solver = _solver(cp_model, params)
    solver.parameters.enumerate_all_solutions = True
    # Measured on ground models: linear relaxations and probing cost more than they save.
    solver.parameters.linearization_level = 0
    solver.parameters.cp_model_probing_level = 0
    # Presolve may drop solutions that are as good as others; here each counts.
    solver.parameters.keep_all_feasible_solutions_in_presolve = True
    status = solver.solve(model, Collect())
    names = {cp_model.INFEASIBLE: INFEASIBLE, cp_model.OPTIMAL: OPTIMAL}
    if status == cp_model.MODEL_INVALID:
        raise ValueError(f"CP-SAT refuses the model: {model.validate()}")
    return Found(found, names.get(status, UNKNOWN), solver.num_branches)


def conflict(model: Any, gates: Mapping[str, Any], params: Params) -> tuple[str, list[str]]:
    """Status under all assumptions; where INFEASIBLE, a minimal set of names that contradict.

    Minimal by deletion: without any one of them the rest is feasible (or the limit came first).
    """
    from ortools.sat.python import cp_model

    def attempt(names: Sequence[str]) -> tuple[str, list[str]]:
        model.clear_assumptions()
        model.add_assumptions([gates[n] for n in names])
        solver = _solver(cp_model, params)
        status = solver.solve(model)
        if status == cp_model.INFEASIBLE:
            # The core is sufficient, not minimal; deletion below makes it so.
            core = set(solver.sufficient_assumptions_for_infeasibility())
            return INFEASIBLE, [n for n in names if gates[n].index in core]
        return (FEASIBLE if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) else UNKNOWN), []

    status, core = attempt(list(gates))
    if status != INFEASIBLE:
        return status, []
    # Names in a fixed order: the same conflict every time.
    for name in list(core):
        rest = [n for n in core if n != name]
        if name in core and attempt(rest)[0] == INFEASIBLE:
            core = rest
    return INFEASIBLE, core


def _solver(cp_model: Any, params: Params) -> Any:
    solver = cp_model.CpSolver()
    p = solver.parameters
    p.random_seed = params.seed
    p.num_workers = params.workers
    p.log_search_progress = params.log
    for name, value in TRUSTED.items():
        setattr(p, name, value)
    # Counting in deterministic units, so that a limit cuts at the same place on every computer.
    if params.deterministic_limit is not None:
        p.max_deterministic_time = params.deterministic_limit
    if params.time_limit is not None:
        p.max_time_in_seconds = params.time_limit
    return solver
