"""MathOpt behind one function. OR-tools is imported inside it.

HiGHS is the default: free in the wheel and the one whose hints MathOpt passes on. (pywraplp with
HiGHS and SetHint crashes in OR-tools 9.15; MathOpt does not.)
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from csp_embed.solver.params import Params
from csp_embed.solver.status import FEASIBLE, INFEASIBLE, OPTIMAL, UNKNOWN, Solved


def new_model(name: str = "") -> Any:
    """An empty MathOpt model."""
    from ortools.math_opt.python import mathopt

    return mathopt.Model(name=name)


def solve(
    model: Any,
    params: Params,
    *,
    hint: Mapping[Any, float] | None = None,
    engine: str = "highs",
    cutoff: float | None = None,
    target: float | None = None,
) -> Solved:
    """Runs HiGHS or SCIP ("highs", "gscip") on one thread. hint: value by variable.

    A node limit serves as the deterministic limit (1000 nodes per unit); cutoff: solutions worse
    than that are of no interest (SCIP only); target: an objective value (of a minimum) at which the
    search stops (HiGHS only).
    Raises: ValueError for another engine."""
    from ortools.math_opt.python import mathopt

    engines = {"highs": mathopt.SolverType.HIGHS, "gscip": mathopt.SolverType.GSCIP}
    if engine not in engines:
        raise ValueError(f"engine {engine!r}; one of {', '.join(engines)}")
    options = mathopt.SolveParameters(
        enable_output=params.log,
        threads=None if engine == "highs" else 1,  # MathOpt cannot pass HiGHS a thread count
        random_seed=params.seed,
        time_limit=None
        if params.time_limit is None
        else datetime.timedelta(seconds=max(params.time_limit, 0.01)),
        node_limit=None
        if params.deterministic_limit is None
        else max(1, int(1000 * params.deterministic_limit)),
        cutoff_limit=cutoff if engine == "gscip" else None,
    )
    if target is not None and engine == "highs":  # MathOpt's objective_limit is refused for HiGHS
        options.highs.double_options["objective_target"] = target
    hints = [mathopt.SolutionHint(variable_values=dict(hint))] if hint else []
    started = time.perf_counter()
    result, interrupted = _interruptible(
        mathopt,
        params.stop,
        model,
        engines[engine],
        params=options,
        model_params=mathopt.ModelSolveParameters(solution_hints=hints),
    )
    reason = result.termination.reason
    found = result.has_primal_feasible_solution()
    if reason == mathopt.TerminationReason.OPTIMAL:
        status = OPTIMAL
    elif reason in (
        mathopt.TerminationReason.INFEASIBLE,
        # Our objectives are bounded from below, so this is infeasible.
        mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED,
    ):
        status = INFEASIBLE
    else:
        status = FEASIBLE if found else UNKNOWN
    # `result.variable_values()` raises where there is no solution.
    values = result.variable_values() if found else {}
    return Solved(
        status,
        result.objective_value() if found else None,
        result.dual_bound(),
        time.perf_counter() - started,
        lambda x: values[x],
        interrupted,
    )


def _interruptible(
    mathopt: Any, stop: Callable[[], bool] | None, model: Any, engine: Any, **options: Any
) -> tuple[Any, bool]:
    """mathopt.solve in a thread of its own: (result, whether Ctrl-C or `stop` ended it)."""
    from ortools.util.python.solve_interrupter import SolveInterrupter

    interrupter = SolveInterrupter()
    answer: list[Any] = []
    failure: list[BaseException] = []

    def search() -> None:
        try:
            answer.append(mathopt.solve(model, engine, interrupter=interrupter, **options))
        except Exception as error:  # noqa: BLE001 (handed to the calling thread, raised there)
            failure.append(error)

    thread, interrupted = threading.Thread(target=search, daemon=True), False
    thread.start()
    while thread.is_alive():
        try:
            thread.join(0.1)
            # Once is enough: an interrupter that was triggered stays so.
            if stop is not None and stop() and not interrupted:
                interrupted = True
                interrupter.interrupt()
        except KeyboardInterrupt:
            interrupted = True
            interrupter.interrupt()
    if failure:
        raise failure[0]
    return answer[0], interrupted
