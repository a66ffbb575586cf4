"""The task graph as a picture, every layer in the colour of its device.

Layers stand at their depth (longest path from an input); long networks wrap into several bands,
very large ones are drawn as a map without names.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from csp_embed.ir.network import Edge, Plan, Platform, TaskGraph
from csp_embed.report.gantt import device_colours, import_matplotlib, save_figure

_CROSSING, _STAYING = "#B00020", "#888888"
_BAND = 26  # depths per band
_MANY = 400  # above this many layers one band, drawn as a map
_UNIT = 0.62  # inches between layers
_MAP = (26.0, 15.0)  # inches of a map
_ARROWS = 1500  # above this many edges plain lines, drawn at once
_LABELS = 140  # above this many layers names would only be grey noise


def draw_graph(graph: TaskGraph, plan: Plan, platform: Platform, path: str | Path) -> None:
    """Writes the picture (SVG, PNG or PDF by the ending). Raises: MissingLibrary."""
    _, pyplot = import_matplotlib()
    device_of = plan.device_of()
    spots = layout(graph)
    colours = device_colours(platform)
    depth = {t: int(x) for t, (x, _) in spots.items()}
    deepest = max(depth.values(), default=0) + 1
    many = len(spots) > _MANY
    width = deepest if many else _BAND
    bands, tops = _bands(spots, width)
    band = min(width, deepest)
    height = sum(tops) + 1.0
    size = _MAP if many else (max(6.0, _UNIT * band), max(2.0, _UNIT * height))
    figure, axes = pyplot.subplots(figsize=size)
    where = {}
    for task, (x, y) in spots.items():
        b = int(x) // width
        where[task] = (x - b * width, bands[b] + y)
    crossing = {e for e in graph.edges if device_of.get(e.src) != device_of.get(e.dst)}
    if many or len(graph.edges) > _ARROWS:
        _lines(axes, graph, where, crossing)
    else:
        _arrows(axes, graph, where, crossing, depth)
    places = list(where.values())
    fill = [colours.get(device_of.get(task, ""), "#FFFFFF") for task in where]
    axes.scatter(
        [x for x, _ in places], [y for _, y in places], s=8 if many else 150, color=fill,
        edgecolors="black", linewidths=0.1 if many else 0.6, zorder=3,
    )  # fmt: skip
    if len(where) <= _LABELS:
        for task, (x, y) in where.items():
            axes.text(x, y + 0.38, _short(task), ha="center", va="center", fontsize=4.5, zorder=4)
    used = [d.name for d in platform.devices if d.name in set(device_of.values())]
    handles = [
        pyplot.Line2D([], [], marker="o", linestyle="", color=colours[d], markersize=8, label=d)
        for d in used
    ]
    handles.append(pyplot.Line2D([], [], color=_CROSSING, label="changes device"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncol=8,
                frameon=False, fontsize=8)  # fmt: skip
    axes.set_xlim(-0.7, band - 0.3)
    axes.set_ylim(height - 0.3, -0.8)
    axes.axis("off")
    what = "latency" if plan.goal == "latency" else "period"
    value = "" if plan.objective is None else f", {what} {plan.objective:.5g} ms"
    copy = f" (first of {len(plan.replicas)} replicas)" if len(plan.replicas) > 1 else ""
    axes.set_title(f"{graph.name}: {len(graph.tasks)} layers{value}{copy}", fontsize=10)
    save_figure(figure, path)
    pyplot.close(figure)


def _arrows(
    axes: Any,
    graph: TaskGraph,
    where: Mapping[str, tuple[float, float]],
    crossing: Set[Edge],
    depth: Mapping[str, int],
) -> None:
    """An arrow per edge; edges along a row bend so that they miss the layers between."""
    for edge in graph.edges:
        (x0, y0), (x1, y1) = where[edge.src], where[edge.dst]
        away = edge in crossing
        wraps = depth[edge.src] // _BAND != depth[edge.dst] // _BAND
        axes.annotate(
            "",
            xy=(x1, y1),
            xytext=(x0, y0),
            arrowprops={
                "arrowstyle": "-|>",
                "color": _CROSSING if away else _STAYING,
                "linewidth": 1.3 if away else 0.6,
                "alpha": 0.35 if wraps else 0.9,
                "shrinkA": 7,
                "shrinkB": 7,
                "connectionstyle": "arc3,rad=0.12" if abs(y1 - y0) < 0.01 and x1 - x0 > 1 else None,
            },
        )


def _lines(
    axes: Any,
    graph: TaskGraph,
    where: Mapping[str, tuple[float, float]],
    crossing: Set[Edge],
) -> None:
    """All edges as thin lines."""
    from matplotlib.collections import LineCollection

    for colour, width, edges in (
        (_STAYING, 0.15, [e for e in graph.edges if e not in crossing]),
        (_CROSSING, 0.2, [e for e in graph.edges if e in crossing]),
    ):
        pairs = [(where[e.src], where[e.dst]) for e in edges]
        axes.add_collection(LineCollection(pairs, colors=colour, linewidths=width, alpha=0.6))


def layout(graph: TaskGraph) -> dict[str, tuple[float, float]]:
    """(depth, place within the depth) of every task; places follow the predecessors' mean."""
    before: dict[str, list[str]] = {t.id: [] for t in graph.tasks}
    for edge in graph.edges:
        before[edge.dst].append(edge.src)
    depth: dict[str, int] = {}
    for task in graph.order():
        depth[task] = max((depth[p] + 1 for p in before[task]), default=0)
    columns: dict[int, list[str]] = {}
    for task in graph.order():
        columns.setdefault(depth[task], []).append(task)
    spots: dict[str, tuple[float, float]] = {}
    for x in sorted(columns):
        column = columns[x]
        pull = {t: _mean([spots[p][1] for p in before[t]]) for t in column}
        column.sort(key=lambda t: pull[t])
        middle = _mean(list(pull.values()))
        for at, task in enumerate(column):
            spots[task] = (float(x), middle + at - (len(column) - 1) / 2)
    return spots


def _bands(
    spots: Mapping[str, tuple[float, float]], width: int
) -> tuple[dict[int, float], list[float]]:
    """What to add to a place in each band, and the bands' heights."""
    rows: dict[int, list[float]] = {}
    for x, y in spots.values():
        rows.setdefault(int(x) // width, []).append(y)
    shift: dict[int, float] = {}
    heights: list[float] = []
    for b in sorted(rows):
        shift[b] = sum(heights) - min(rows[b])
        heights.append(max(rows[b]) - min(rows[b]) + 1.6)
    return shift, heights


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"
