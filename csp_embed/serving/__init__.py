"""Large models over unequal servers: which machine holds which layers, and how good that can get.

    read.read_instance(path) -> Instance             layer-placement-1, or a cluster of one's own
    plan.plan(instance, …) -> ServingPlan            the search, with a proved bound
    check.check(document, plan) -> list[Fault]       the judge: exact arithmetic, no solver
    plan_file.write_plan / read_plan                 csp-embed-serving/1

The problem and its bounds stand in docs/serving.md.
"""

import sys
from types import ModuleType
from typing import Any


class _Serving(ModuleType):
    """`csp_embed.serve(…)` resolves to this package; the call goes to the planner."""

    def __call__(self, instance: Any, **options: Any) -> Any:
        # Here, not above: the planner imports this package.
        from csp_embed.serving.plan import serve

        return serve(instance, **options)


# Calls look up `__call__` on the class, so an attribute of the module would not do.
sys.modules[__name__].__class__ = _Serving
