"""The task graph as a picture, every layer in the colour of its device.

Layers stand at their depth (longest path from an input); long networks wrap into several bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from csp_embed.ir.network import Plan, Platform, TaskGraph
from csp_embed.report.gantt import device_colours, import_matplotlib, save_figure

_BAND = 26  # depths per band
_LABELS = 140  # above this many layers names would only be grey noise


def draw_graph(graph: TaskGraph, plan: Plan, platform: Platform, path: str | Path) -> None:
    """Writes the picture (SVG, PNG or PDF by the ending). Raises: MissingLibrary."""
    _, pyplot = import_matplotlib()
    device_of = plan.device_of()
    spots = layout(graph)
    colours = device_colours(platform)
    depth = {t: int(x) for t, (x, _) in spots.items()}
    bands, tops = _bands(spots)
    band = min(_BAND, max(depth.values(), default=0) + 1)
    height = sum(tops) + 1.0
    figure, axes = pyplot.subplots(figsize=(max(6.0, 0.62 * band), max(2.0, 0.62 * height)))
    where = {}
    for task, (x, y) in spots.items():
        b = int(x) // _BAND
        where[task] = (x - b * _BAND, bands[b] + y)
    for edge in graph.edges:
        (x0, y0), (x1, y1) = where[edge.src], where[edge.dst]
        crossing = device_of.get(edge.src) != device_of.get(edge.dst)
        wraps = depth[edge.src] // _BAND != depth[edge.dst] // _BAND
        axes.annotate(
            "",
            xy=(x1, y1),
            xytext=(x0, y0),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#B00020" if crossing else "#888888",
                "linewidth": 1.3 if crossing else 0.6,
                "alpha": 0.35 if wraps else 0.9,
                "shrinkA": 7,
                "shrinkB": 7,
                "connectionstyle": "arc3,rad=0.12" if abs(y1 - y0) < 0.01 and x1 - x0 > 1 else None,
            },
        )
    for task, (x, y) in where.items():
        colour = colours.get(device_of.get(task, ""), "#FFFFFF")
        axes.scatter([x], [y], s=150, color=colour, edgecolors="black", linewidths=0.6, zorder=3)
        if len(where) <= _LABELS:
            axes.text(x, y + 0.38, _short(task), ha="center", va="center", fontsize=4.5, zorder=4)
    used = [d.name for d in platform.devices if d.name in set(device_of.values())]
    handles = [
        pyplot.Line2D([], [], marker="o", linestyle="", color=colours[d], markersize=8, label=d)
        for d in used
    ]
    handles.append(pyplot.Line2D([], [], color="#B00020", label="changes device"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncol=8,
                frameon=False, fontsize=8)  # fmt: skip
    axes.set_xlim(-0.7, band - 0.3)
    axes.set_ylim(height - 0.3, -0.8)
    axes.axis("off")
    what = "latency" if plan.goal == "latency" else "period"
    value = "" if plan.objective is None else f", {what} {plan.objective:.5g} ms"
    axes.set_title(f"{graph.name}: {len(graph.tasks)} layers{value}", fontsize=10)
    save_figure(figure, path)
    pyplot.close(figure)


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


def _bands(spots: Mapping[str, tuple[float, float]]) -> tuple[dict[int, float], list[float]]:
    """What to add to a place in each band, and the bands' heights."""
    rows: dict[int, list[float]] = {}
    for x, y in spots.values():
        rows.setdefault(int(x) // _BAND, []).append(y)
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
