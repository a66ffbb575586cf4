"""Plans over time: a Gantt chart.

Latency plans have a row per device and per direction of a link that carries something; throughput
plans have no times: their picture is the load of every device and link per sample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.ir.network import Plan, Platform, TaskGraph
from csp_embed.report.plans.table import all_loads
from csp_embed.report.scene import (
    INK,
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
    tint,
)

# Colour-blind safe (Okabe and Ito), then tints for larger platforms.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#8C6D31",
    "#7B4173", "#637939",
)  # fmt: skip
_LINK, _BOUND, _RULE = "#999999", "#B00020", "#DDDDDD"
_ROW, _BAR, _TOP = 46, 38, 44  # pixels: a row, the bar in it, above the rows
_NARROWEST, _WIDEST, _BLOCK = 960, 4000, 26  # of the chart; aimed at for a block of a busy row
_NAME, _SMALL = 11.0, 9.0  # sizes of text


def device_colours(platform: Platform) -> dict[str, str]:
    """A colour per device, in the platform's order."""
    return {d.name: _colour(i) for i, d in enumerate(platform.devices)}


def _colour(index: int) -> str:
    """The palette, then paler and paler turns of it."""
    # After the palette's end colours come again paler.
    return tint(COLOURS[index % len(COLOURS)], 0.55 ** (index // len(COLOURS)))


def draw_plan(
    plan: Plan, platform: Platform, path: str | Path, graph: TaskGraph | None = None
) -> None:
    """The Gantt chart of a latency plan, or the loads of a throughput plan.

    graph: adds the kinds of layers to what hovering shows.
    Raises: InputError where there is nothing to draw, MissingLibrary without matplotlib.
    """
    save(plan_scene(plan, platform, graph), path)


def plan_scene(plan: Plan, platform: Platform, graph: TaskGraph | None = None) -> Scene:
    """The picture of `draw_plan`. Raises: InputError where there is nothing to draw."""
    if not plan.assignments and not plan.replicas:
        raise InputError(
            "there is no plan to draw",
            why=plan.status,
            hint="raise --time-limit, or loosen the limits that nothing meets",
        )
    # Throughput plans have no times: loads are what they are about.
    if timed(plan):
        return _gantt(plan, platform, graph)
    return _loads(plan, platform)


def timed(plan: Plan) -> bool:
    """Whether the plan says when layers run."""
    # A latency plan of another tool may lack times.
    return plan.goal == "latency" and any(a.start is not None for a in assignments(plan))


def assignments(plan: Plan) -> list[Any]:
    """Of the plan or of all its replicas."""
    # Copies have tasks of the same names; all are drawn.
    return [*plan.assignments, *(a for r in plan.replicas for a in r.assignments)]


def transfers(plan: Plan) -> list[Any]:
    """Of the plan or of all its replicas."""
    return [*plan.transfers, *(t for r in plan.replicas for t in r.transfers)]


def _gantt(plan: Plan, platform: Platform, graph: TaskGraph | None) -> Scene:
    colours = device_colours(platform)
    moves = [t for t in transfers(plan) if _placed(t)]
    lanes = transfer_lanes(moves)
    tasks = [a for a in assignments(plan) if _placed(a)]
    # Links below devices, in the order of their names.
    rows = [d.name for d in platform.devices] + sorted(set(lanes.values()))
    place = {name: _TOP + _ROW * at for at, name in enumerate(rows)}
    # A plan of length 0 still needs a scale.
    end = max((a.finish for a in tasks), default=0.0) or 1.0
    left = 16 + max(text_width(name, _NAME) for name in rows)
    busiest = max(Counter([*(a.device for a in tasks), *lanes.values()]).values(), default=1)
    # Wider the more blocks the busiest row has, within limits.
    span = min(_WIDEST, max(_NARROWEST, _BLOCK * busiest))
    per_ms = span / end
    bottom = _TOP + _ROW * len(rows)
    items: list[Item] = _axis(left, span, bottom, end)
    for name in rows:
        items.append(Words(left - 8, place[name] + _ROW / 2, name, _NAME, "end"))
    # Kinds are in the graph alone: a plan has names only.
    ops = {} if graph is None else {t.id: t.op for t in graph.tasks}
    for a in tasks:
        title = f"{a.task}{f' ({ops[a.task]})' if ops.get(a.task) else ''} on {a.device}: " + (
            _times(a.start, a.finish)
        )
        x, width = left + a.start * per_ms, (a.finish - a.start) * per_ms
        items += _block(x, place[a.device], width, colours[a.device], a.task, title, a.task)
    for at, lane in lanes.items():
        t = moves[at]
        title = f"{t.tensor} of {t.src_task}: {lane} over {t.link}, {t.bytes:,.0f} bytes, " + (
            _times(t.start, t.finish)
        )
        x, width = left + t.start * per_ms, (t.finish - t.start) * per_ms
        # A paler turn of the sender's colour tells transfers from layers.
        shade = tint(colours.get(t.from_device, _LINK), 0.45)
        items += _block(x, place[lane], width, shade, t.tensor, title, t.src_task)
    items += _mark(left + end * per_ms, bottom, f"end: {end:.5g} ms", INK, "6 3")
    # A bound of 0 says nothing; one beyond the end is of another plan.
    if 0 < plan.lower_bound <= end:
        text = f"lower bound: {plan.lower_bound:.5g} ms"
        items += _mark(left + plan.lower_bound * per_ms, bottom, text, _BOUND, "2 3")
    note = "ms;  dashed: end; dotted: lower bound; transfers pale, in the sender's colour"
    return _framed(items, plan, (left, left + span + 40), bottom, note)


def _framed(
    items: Sequence[Item], plan: Plan, sides: tuple[float, float], bottom: float, note: str
) -> Scene:
    """The picture with its title and a note below. sides: of the chart, its margin included."""
    title = _title(plan)
    under = Words(sides[0], bottom + 36, note, _NAME, fill=QUIET)
    whole: list[Item] = [Words(10, 16, title, 13, bold=True), *items, under]
    width = max(sides[1], text_width(title, 13) + 20)
    return Scene(width, bottom + 52, whole, title)


def _placed(item: Any) -> bool:
    """Whether an assignment or transfer has times that can be drawn."""
    return all(t is not None and math.isfinite(t) for t in (item.start, item.finish))


def _block(
    x: float, top: float, width: float, fill: str, name: str, title: str, key: str
) -> list[Item]:
    """A bar with its name along it, up it where it is narrow, or in its title alone."""
    y = top + (_ROW - _BAR) / 2
    # What takes no time is still there: a hair of it can be seen and pointed at.
    box = Box(x, y, max(width, 1.0), _BAR, fill, title, key, PAPER if width > 3 else "")
    ink, middle = ink_on(fill), (x + width / 2, top + _ROW / 2)
    size = _NAME if text_width(name, _NAME) <= width - 4 else _SMALL
    along, up = fitting(name, size, width - 4), fitting(name, _SMALL, _BAR - 4)
    if along and (along == name or len(along) >= len(up)):
        # Along the bar where that shows at least as much as up it.
        return [box, Words(*middle, along, size, "middle", ink, key=key)]
    if up and width >= _SMALL + 3:
        return [box, Words(*middle, up, _SMALL, "middle", ink, turned=True, key=key)]
    return [box]


def _axis(left: float, span: float, bottom: float, end: float) -> list[Item]:
    """Rules at round values, their numbers below."""
    items: list[Item] = []
    # As many numbers as have room.
    for value in ticks(end, max(2, int(span / 110))):
        x = left + span * value / end
        items.append(Line((x, _TOP - 4), (x, bottom), _RULE))
        items.append(Words(x, bottom + 12, f"{value:g}", _NAME, "middle"))
    return items


def ticks(end: float, most: int) -> list[float]:
    """0 and multiples of 1, 2 or 5 times a power of ten up to `end`: at most `most` steps."""
    rough = end / most
    power = 10.0 ** math.floor(math.log10(rough))
    # 1, 2, 5: steps that people can add up.
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [float(f"{k * step:.12g}") for k in range(int(end / step + 1e-9) + 1)]


def _mark(x: float, bottom: float, text: str, colour: str, dash: str) -> list[Item]:
    """A line through all rows; what it means stands in its title and the note."""
    return [Line((x, _TOP - 4), (x, bottom), colour, 1.2, title=text, dash=dash)]


def _times(start: float, finish: float) -> str:
    return f"{start:.6g} to {finish:.6g} ms, {finish - start:.6g} ms long"


def transfer_lanes(transfers: Sequence[Any]) -> dict[int, str]:
    """A row for every transfer that has times, by its index: `a > b`, and `a > b #2` where several
    pass at once (full duplex and uncontended links)."""
    ends: dict[str, list[float]] = {}
    lanes: dict[int, str] = {}
    timed = [i for i, t in enumerate(transfers) if t.start is not None and t.finish is not None]
    # By start: lanes are given out in the order in which transfers begin.
    for at in sorted(timed, key=lambda i: (transfers[i].start, transfers[i].finish, i)):
        t = transfers[at]
        name = f"{t.from_device} > {t.to_device}"
        free = ends.setdefault(name, [])
        # A lane is free when its last transfer has ended; rounding must not open another one.
        lane = next((i for i, end in enumerate(free) if end <= t.start + 1e-9), len(free))
        if lane == len(free):
            free.append(0.0)
        free[lane] = t.finish
        lanes[at] = name if lane == 0 else f"{name} #{lane + 1}"
    return lanes


def _loads(plan: Plan, platform: Platform) -> Scene:
    colours = device_colours(platform)
    loads = all_loads(plan)
    # Devices in the platform's order, then links by name.
    names = [d.name for d in platform.devices if d.name in loads]
    names += sorted(n for n in loads if n not in names)
    # A direction of a link is called a-b:a>b; the second half says it all.
    labels = [name.partition(":")[2].replace(">", " > ") or name for name in names]
    left = 16 + max((text_width(label, _NAME) for label in labels), default=0.0)
    span, bottom = 720.0, _TOP + _ROW * len(names)
    # Infinite loads have no place on the axis.
    finite = [v for v in (*loads.values(), plan.lower_bound) if math.isfinite(v)]
    end = max([*finite, 0.0]) or 1.0
    items: list[Item] = _axis(left, span, bottom, end)
    for at, (name, label) in enumerate(zip(names, labels, strict=True)):
        # Never beyond the axis.
        y, width = _TOP + _ROW * at, span * min(1.0, loads[name] / end)
        title = f"{label}: {loads[name]:.6g} ms per sample"
        fill = colours.get(name, _LINK)
        items.append(Words(left - 8, y + _ROW / 2, label, _NAME, "end"))
        items.append(Box(left, y + 4, max(width, 1.0), _BAR, fill, title))
        items.append(Words(left + width + 6, y + _ROW / 2, f"{loads[name]:.5g}", _NAME))
    if 0 < plan.lower_bound <= end:
        x = left + span * plan.lower_bound / end
        text = f"lower bound of the period: {plan.lower_bound:.5g} ms"
        items += _mark(x, bottom, text, _BOUND, "2 3")
    note = "ms per sample;  dotted: lower bound of the period"
    return _framed(items, plan, (left, left + span + 110), bottom, note)


def _title(plan: Plan) -> str:
    what = "latency" if plan.goal == "latency" else "period"
    value = "no plan" if plan.objective is None else f"{plan.objective:.5g} ms"
    return (
        f"{what} {value}, lower bound {plan.lower_bound:.5g} ms, {plan.status}, "
        f"method {plan.method}"
    )
