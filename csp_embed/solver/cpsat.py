"""CP-SAT behind two functions. OR-tools is imported inside them: `--help` starts without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from csp_embed.solver.params import TRUSTED, Params
from csp_embed.solver.status import FEASIBLE, INFEASIBLE, OPTIMAL, UNKNOWN, Solved

if TYPE_CHECKING:
    # Types for those who build a model; at run time nothing of OR-tools is imported for them.
    from ortools.sat.python.cp_model import CpModel
    from ortools.sat.python.cp_model import IntervalVar as IntervalVar
    from ortools.sat.python.cp_model import IntVar as IntVar
    from ortools.sat.python.cp_model import LinearExpr as LinearExpr


def new_model() -> CpModel:
    """An empty model."""
    from ortools.sat.python import cp_model

    return cp_model.CpModel()


def solve(
    model: CpModel,
    params: Params,
    *,
    extra: Mapping[str, Any] | None = None,
    target: float | None = None,
) -> Solved:
    """Runs CP-SAT. extra: further SatParameters by name. target: an objective value (of a
    minimum) at which the search stops.

    Ctrl-C and params.stop end the search, which is reported as `interrupted`, with the best
    solution
    so far: the search runs in a thread of its own, so that this one receives the signal.
    Raises: ValueError where the model is malformed (our bug)."""
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    p = solver.parameters
    p.random_seed = params.seed
    p.num_workers = params.workers
    p.interleave_search = params.interleave
    p.log_search_progress = params.log
    # CP-SAT would end the process' way of handling Ctrl-C; here it ends the search only.
    p.catch_sigint_signal = False
    if params.deterministic_limit is not None:
        p.max_deterministic_time = params.deterministic_limit
    if params.time_limit is not None:
        # 0 would mean no limit.
        p.max_time_in_seconds = max(params.time_limit, 1e-3)
    # The caller's parameters come last, and may overrule the trusted ones.
    for name, value in {**TRUSTED, **(extra or {})}.items():
        setattr(p, name, value)

    class Watch(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            if target is not None and self.objective_value <= target:
                self.stop_search()

    answer: list[Any] = []
    failure: list[BaseException] = []

    def search() -> None:
        try:
            answer.append(solver.solve(model, Watch() if target is not None else None))
        except Exception as error:  # noqa: BLE001 (handed to the calling thread, raised there)
            failure.append(error)
        finally:
            done.set()

    # Not Thread.join: one that an interrupt ends says that the thread has ended too.
    done = threading.Event()
    started, interrupted = time.perf_counter(), False
    # A daemon, so that a process which is told to die need not wait for the search.
    thread = threading.Thread(target=search, daemon=True)
    thread.start()
    while not done.is_set():
        try:
            # Ten times a second is what a person takes for at once.
            done.wait(0.1)
            if params.stop is not None and params.stop():
                interrupted = True
                solver.stop_search()
        except KeyboardInterrupt:
            interrupted = True
            solver.stop_search()
    if failure:
        raise failure[0]
    # Our own names: callers need not know OR-tools' numbers.
    names = {
        cp_model.OPTIMAL: OPTIMAL,
        cp_model.FEASIBLE: FEASIBLE,
        cp_model.INFEASIBLE: INFEASIBLE,
        cp_model.UNKNOWN: UNKNOWN,
    }
    if answer[0] not in names:
        raise ValueError(f"CP-SAT refuses the model: {model.validate()}")
    status = names[answer[0]]
    found = status in (OPTIMAL, FEASIBLE)
    return Solved(
        status,
        solver.objective_value if found else None,
        # Of a minimum: also where no solution was found.
        solver.best_objective_bound,
        time.perf_counter() - started,
        solver.value,
        interrupted,
        solver.response_proto.deterministic_time,
    )
