"""`csp_embed.partition(graph, platform, …)`: files or values in, a checked plan out."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.ir.network import Plan, Platform, TaskGraph
from csp_embed.nearest import did_you_mean
from csp_embed.network.files.graph import read_graph
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.partition.effects import without_effect
from csp_embed.partition.solve import solve

# Kinds of the keywords that are numbers or names, and those that may be absent.
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("replicas", "batch", "workers", "seed"), (int,)),
    **dict.fromkeys(("max_latency", "min_throughput", "time_limit", "effort", "gap"), (int, float)),
    **dict.fromkeys(("objective", "method", "cost_model"), (str,)),
    "share": (bool,),
    "fix": (Mapping,),
    "start": (Plan,),
}
MAY_BE_NONE = ("max_latency", "min_throughput", "time_limit", "fix", "start")


def partition(
    graph: TaskGraph | str | Path, platform: Platform | str | Path | None = None, **options: Any
) -> Plan:
    """Places and schedules a task graph on a platform.

    graph: a TaskGraph or a graph file; platform: a Platform, a platform file or the name of a
    shipped one; it may be left
    out where the graph file names its own. options: those of `csp_embed.partition.solve.solve`,
    e.g.
    objective="throughput", method="split". ONNX models go through the command line, which also
    costs their layers.
    Raises: InputError, Infeasible.
    """
    _refuse(options)
    for name, value, kind in (("graph", graph, TaskGraph), ("platform", platform, Platform)):
        if not isinstance(value, (kind, str, Path)) and not (name == "platform" and value is None):
            raise InputError(
                f"{name} is {value!r}",
                where=name,
                why=f"a {kind.__name__} or the name of a file is wanted",
                hint="csp_embed.partition('graph.json', 'cpu_2gpu')",
            )
    inside = None
    if not isinstance(graph, TaskGraph):
        graph, inside = read_graph(graph)
    if platform is None:
        platform = inside
    elif not isinstance(platform, Platform):
        platform = read_platform(find_platform(str(platform)))
    if platform is None:
        raise InputError("no platform is given", hint="name a platform file")
    return solve(graph, platform, **options)


def _refuse(options: dict[str, Any]) -> None:
    """Raises: InputError for a keyword that `solve` does not know, or that would have no effect."""
    known = [name for name, p in signature(solve).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise InputError(
                f"csp_embed.partition has no keyword {name!r}",
                where=name,
                why=f"there are {', '.join(known)}",
                hint=did_you_mean(name, known, f"leave out {name}"),
            )
        wanted, given = KINDS.get(name), options[name]
        if wanted is not None and (isinstance(given, bool) or not isinstance(given, wanted)):
            if given is None and name in MAY_BE_NONE:
                continue
            raise InputError(
                f"{name} is {given!r}",
                where=name,
                why=f"{' or '.join(kind.__name__ for kind in wanted)} is wanted",
                hint=f"{name}=1" if int in wanted else f"leave out {name}",
            )
    for name, mode in without_effect(options).items():
        if name in options:
            raise InputError(
                f"{name} has no effect with {mode}", where=name, hint=f"leave out {name}"
            )
