"""Placing and scheduling a task graph on a platform; costs come in as data.

For callers (all fixed names):

    solve.solve(graph, platform, *, objective="latency"|"throughput", method="auto",
        cost_model="links"|"dnn-partitioning", contiguous=False, pipeline=False, max_latency=None,
        min_throughput=None, replicas=1, batch=1, time_limit=None, workers=1, seed=0, fix=None,
        start=None, progress=None, effort=1.0, gap=0.0, share=False) -> Plan
    solve.METHODS                    names for `method`
    pareto.pareto(graph, platform, *, points=8, ...) -> list[Plan]
    evaluate.evaluate(graph, platform, device_of, objective) -> Plan     of somebody's placement
    models.dnn_file.read_dnn(path, objective) -> (TaskGraph, Platform)   dnn-partitioning JSON

Layers, each knowing those below it only (import linter): pareto, evaluate; solve; batch_shares,
data_parallel, mixture; copies; links, dnn_solve (the two cost models); table of methods; methods;
models; proof; bounds; request, exact; timetable; kernels; view; portfolio (numbers and orders as
data). A plan is judged by `csp_embed.judge.plan.judge`.

fix: {task: device}. start: a plan to improve (devices that are gone are re-planned). A limit or a
KeyboardInterrupt with a plan in hand returns it as FEASIBLE (method says "interrupted" on Ctrl-C:
`plan.reasons` holds "interrupted"); without one: status UNKNOWN. Infeasible: errors.Infeasible.
time_limit in seconds or workers > 1 are wall-clock modes: `plan.deterministic` is False.
"""

import sys
from types import ModuleType
from typing import Any


class _Partition(ModuleType):
    """Makes `csp_embed.partition(…)` callable although this package is so named."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        # Here, not above: the planner imports this package, so that a top import would be a ring.
        from csp_embed.planner import partition

        return partition(*args, **options)


# Calls look up `__call__` on the class, so an attribute of the module would not do.
sys.modules[__name__].__class__ = _Partition
