"""Which options of `solve` say nothing in company of others: who gives one wants something of it.

Takes: a method, a cost model and whether copies are asked for.  Leaves: names of options that would
be taken and then without effect, each with what makes it so. The command line and
`csp_embed.partition` refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csp_embed.partition.methods.lists import RULES

DNN = "dnn-partitioning"
PLACING = ("single", "greedy", "split")  # what dnn-partitioning does without chance or a solver


def without_effect(options: Mapping[str, Any]) -> dict[str, str]:
    """option -> what makes it one without effect. options: of `solve`, with its defaults where they
    are missing."""
    method, model = str(options.get("method", "auto")), options.get("cost_model") or "links"
    found: dict[str, str] = {}
    # List rules and the like do the same whatever the seed, and end by themselves.
    fixed = method in (PLACING if model == DNN else [rule.name for rule in RULES])
    if fixed:
        found |= dict.fromkeys(("seed", "effort", "gap"), f"--method {method}")
    if options.get("time_limit") is not None:
        # On the wall clock work lasts until the limit: effort would scale nothing.
        found["effort"] = "--time-limit"
    if fixed or method in ("genetic", "milp") or (model == DNN and method == "anneal"):
        # These run in one thread.
        found["workers"] = f"--method {method}"
    if model == DNN:
        # This cost model has no copies and no shares.
        found |= {"replicas": f"--cost-model {DNN}", "batch": f"--cost-model {DNN}"}
        found["share"] = f"--cost-model {DNN}"
    elif options.get("share"):
        # A mixture begins from a placement of its own.
        found["start"] = "--share"
    elif int(options.get("replicas", 1)) > 1 or int(options.get("batch", 1)) > 1:
        found["start"] = "--replicas or --batch"
    return found
