"""The task graph as a picture, every layer in the colour of its device.

Layers stand at their depth (longest path from an input); long networks wrap into several bands.
Every layer is a box with its kind and its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from csp_embed.ir.network import Plan, Platform, TaskGraph
from csp_embed.report.plans.gantt import device_colours
from csp_embed.report.scene import (
    PAPER,
    QUIET,
    Box,
    Item,
    Line,
    Scene,
    Words,
    fitting,
    ink_on,
    save,
    text_width,
)

CROSSING, _STAYING = "#B00020", "#6E6E6E"
_SHAPE = 1.6  # width over height that a picture should have, about a screen's
_ACROSS, _DOWN = 124.0, 52.0  # pixels from layer to layer
_WIDE, _HIGH = 92.0, 34.0  # of a layer's box
_TOP, _SIDE = 66.0, 20.0


def draw_graph(graph: TaskGraph, plan: Plan, platform: Platform, path: str | Path) -> None:
    """Writes the picture (SVG, PNG or PDF by the ending). Raises: MissingLibrary."""
    save(graph_scene(graph, plan, platform), path)


def graph_scene(graph: TaskGraph, plan: Plan, platform: Platform) -> Scene:
    """The picture of `draw_graph`. Keys are layer ids; lines go from `key` to `to`."""
    device_of = plan.device_of()
    devices, tasks = platform.by_name(), graph.by_id()
    colours = device_colours(platform)
    spots = layout(graph)
    # Long networks are folded into bands that fill a screen.
    band = _band(spots)
    bands, tops = _bands(spots, band)
    where = {
        task: (
            _SIDE + (x % band) * _ACROSS,
            _TOP + (bands[int(x) // band] + y) * _DOWN,
        )
        for task, (x, y) in spots.items()
    }
    items: list[Item] = []
    for edge in graph.edges:
        (x0, y0), (x1, y1) = where[edge.src], where[edge.dst]
        # Edges that change device are what a plan costs: red and thicker.
        away = device_of.get(edge.src) != device_of.get(edge.dst)
        # Edges from band to band run across the picture: pale.
        wraps = spots[edge.src][0] // band != spots[edge.dst][0] // band
        title = f"{edge.src} → {edge.dst}: {edge.tensor or 'value'}, {edge.bytes:,.0f} bytes"
        # Straight on it would run behind the boxes between: it goes over them.
        over = not wraps and abs(y1 - y0) < 1 and x1 - x0 > 1.5 * _ACROSS
        start = (x0 + _WIDE - 12, y0) if over else (x0 + _WIDE, y0 + _HIGH / 2)
        end = (x1 + 12, y1 - 4) if over else (x1, y1 + _HIGH / 2)
        colour, width = (CROSSING, 1.6) if away else (_STAYING, 1.0)
        items.append(Line(
            start, end, colour, width, title, edge.src, edge.dst,
            curved=True, bow=-18 if over else 0, head=True, faint=wraps,
        ))  # fmt: skip
    # Boxes come after lines, so that they lie over them.
    for task, (x, y) in where.items():
        device = device_of.get(task, "")
        fill = colours.get(device, PAPER)
        op = tasks[task].op
        title = f"{task}{f' ({op})' if op else ''} on {device or 'no device'}"
        cost = tasks[task].cost_on(devices[device]) if device in devices else None
        title += "" if cost is None else f", {cost:.6g} ms"
        items.append(Box(x, y, _WIDE, _HIGH, fill, title, task, QUIET))
        # A name of which nothing fits shows its first letters.
        name = fitting(task, 9, _WIDE - 6) or task[:8]
        middle, ink = x + _WIDE / 2, ink_on(fill)
        if op:
            kind = fitting(op, 9, _WIDE - 6) or op[:8]
            items.append(Words(middle, y + 10, kind, 9, "middle", ink, bold=True, key=task))
        # Alone in its box the name stands in the middle.
        down = _HIGH - 10 if op else _HIGH / 2
        items.append(Words(middle, y + down, name, 9, "middle", ink, key=task))
    # Only devices that are used need a legend.
    used = [d.name for d in platform.devices if d.name in set(device_of.values())]
    width = _SIDE * 2 + _ACROSS * min(band, max((s[0] for s in spots.values()), default=0) + 1)
    head, end = _head(_title(graph, plan), [(d, colours[d]) for d in used])
    height = _TOP + sum(tops) * _DOWN + 10
    return Scene(max(width, end), height, [*head, *items], _title(graph, plan))


def _title(graph: TaskGraph, plan: Plan) -> str:
    what = "latency" if plan.goal == "latency" else "period"
    value = "" if plan.objective is None else f", {what} {plan.objective:.5g} ms"
    copy = f" (first of {len(plan.replicas)} replicas)" if len(plan.replicas) > 1 else ""
    name = f"{graph.name}: " if graph.name else ""
    return f"{name}{len(graph.tasks)} layers{value}{copy}"


def _head(title: str, devices: list[tuple[str, str]]) -> tuple[list[Item], float]:
    """Title and legend, and where they end."""
    items: list[Item] = [Words(10, 16, title, 13, bold=True)]
    x = 10.0
    for name, colour in devices:
        items.append(Box(x, 32, 14, 14, colour, edge=QUIET))
        items.append(Words(x + 19, 39, name, 11))
        x += 33 + text_width(name, 11)
    items.append(Line((x, 39), (x + 20, 39), CROSSING, 1.6, head=True))
    note = "changes device"
    items.append(Words(x + 26, 39, note, 11))
    return items, max(x + 40 + text_width(note, 11), 20 + text_width(title, 14))


def layout(graph: TaskGraph) -> dict[str, tuple[float, float]]:
    """(depth, place within the depth) of every task; places follow the predecessors' mean."""
    before: dict[str, list[str]] = {t.id: [] for t in graph.tasks}
    for edge in graph.edges:
        before[edge.dst].append(edge.src)
    depth: dict[str, int] = {}
    for task in graph.order():
        # The longest way from an input: no edge leads back.
        depth[task] = max((depth[p] + 1 for p in before[task]), default=0)
    columns: dict[int, list[str]] = {}
    for task in graph.order():
        columns.setdefault(depth[task], []).append(task)
    spots: dict[str, tuple[float, float]] = {}
    for x in sorted(columns):
        column = columns[x]
        # Places follow the mean of the predecessors: edges stay short and cross less.
        pull = {t: _mean([spots[p][1] for p in before[t]]) for t in column}
        column.sort(key=lambda t: pull[t])
        middle = _mean(list(pull.values()))
        for at, task in enumerate(column):
            # The column is centred on what pulls it.
            spots[task] = (float(x), middle + at - (len(column) - 1) / 2)
    return spots


def _band(spots: Mapping[str, tuple[float, float]]) -> int:
    """Depths in a band: those that make the smallest picture of a screen's shape."""
    deepest = int(max((x for x, _ in spots.values()), default=0)) + 1
    # Each number of bands gives one width: only these need be tried.
    widths = sorted({-(-deepest // n) for n in range(1, deepest + 1)}, reverse=True)
    # The larger of both sides, in a screen's proportion.
    return min(widths, key=lambda w: max(w * _ACROSS / _SHAPE, sum(_bands(spots, w)[1]) * _DOWN))


def _bands(
    spots: Mapping[str, tuple[float, float]], width: int
) -> tuple[dict[int, float], list[float]]:
    """What to add to a place in each band, and the bands' heights, in rows."""
    rows: dict[int, list[float]] = {}
    for x, y in spots.values():
        rows.setdefault(int(x) // width, []).append(y)
    shift: dict[int, float] = {}
    heights: list[float] = []
    for b in sorted(rows):
        # Bands below each other, whatever places they have.
        shift[b] = sum(heights) - min(rows[b])
        # Room between bands for the edges that run across.
        heights.append(max(rows[b]) - min(rows[b]) + 1.6)
    return shift, heights


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
