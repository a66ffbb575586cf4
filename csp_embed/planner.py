"""`csp_embed.partition(graph, platform, …)`: files or values in, a checked plan out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.ir.network import Plan, Platform, TaskGraph
from csp_embed.network.files.graph import read_graph
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.partition.solve import solve


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
