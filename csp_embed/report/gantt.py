"""Plans as pictures over time: a Gantt chart (SVG) and a Perfetto trace.

Latency plans have a row per device and per direction of a link that carries something; throughput
plans have no times: their picture is the load of every device and link per sample.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.files import atomic
from csp_embed.ir.network import Plan, Platform

# Colour-blind safe (Okabe and Ito), then tints for larger platforms.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#8C6D31",
    "#7B4173", "#637939",
)  # fmt: skip
_LINK = "#999999"


def device_colours(platform: Platform) -> dict[str, str]:
    """A colour per device, in the platform's order."""
    return {d.name: _colour(i) for i, d in enumerate(platform.devices)}


def _colour(index: int) -> str:
    """The palette, then paler and paler turns of it."""
    base = COLOURS[index % len(COLOURS)]
    keep = 0.55 ** (index // len(COLOURS))
    parts = (int(base[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * keep):02X}" for part in parts)


def import_matplotlib() -> tuple[Any, Any]:
    """(matplotlib, pyplot) without a display, or one error that says how to get them."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingLibrary(
            "pictures need the package matplotlib",
            why=str(error),
            hint="pip install 'csp-embed[plot]'",
        ) from error
    # Equal input, equal bytes.
    matplotlib.rcParams["svg.hashsalt"] = "csp-embed"
    return matplotlib, pyplot


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes SVG, PNG or PDF by the ending, whole or not at all."""
    ending = Path(path).suffix.lstrip(".").lower() or "svg"
    if ending not in ("svg", "png", "pdf"):
        raise InputError(f"cannot draw a .{ending} file", hint="use .svg, .png or .pdf")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
    with atomic(path, "wb") as file:
        figure.savefig(file, format=ending, metadata=metadata, bbox_inches="tight", dpi=130)


def draw_plan(plan: Plan, platform: Platform, path: str | Path) -> None:
    """The Gantt chart of a latency plan, or the loads of a throughput plan.

    Raises: InputError where there is nothing to draw, MissingLibrary without matplotlib.
    """
    if not plan.assignments and not plan.replicas:
        raise InputError("there is no plan to draw", why=plan.status)
    _, pyplot = import_matplotlib()
    if plan.goal == "latency" and any(a.start is not None for a in _assignments(plan)):
        figure = _gantt(pyplot, plan, platform)
    else:
        figure = _loads(pyplot, plan, platform)
    save_figure(figure, path)
    pyplot.close(figure)


def _assignments(plan: Plan) -> list[Any]:
    return [*plan.assignments, *(a for r in plan.replicas for a in r.assignments)]


def _transfers(plan: Plan) -> list[Any]:
    return [*plan.transfers, *(t for r in plan.replicas for t in r.transfers)]


def _gantt(pyplot: Any, plan: Plan, platform: Platform) -> Any:
    colours = device_colours(platform)
    tasks, transfers = _assignments(plan), _transfers(plan)
    lanes = transfer_lanes(transfers)
    rows = [d.name for d in platform.devices] + sorted(set(lanes.values()))
    place = {name: at for at, name in enumerate(rows)}
    end = max((a.finish or 0.0 for a in tasks), default=1.0) or 1.0
    figure, axes = pyplot.subplots(figsize=(13, 1.4 + 0.42 * len(rows)))
    for a in tasks:
        if a.start is None or a.finish is None:
            continue
        length = a.finish - a.start
        axes.barh(
            place[a.device], length, left=a.start, height=0.7, color=colours[a.device],
            edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        # About 130 characters of this size fit the width of the axes.
        if length / end * 130 > len(a.task) + 1:
            axes.text(
                a.start + length / 2, place[a.device], a.task, ha="center", va="center",
                fontsize=7, color="black", clip_on=True,
            )  # fmt: skip
    for at, lane in lanes.items():
        t = transfers[at]
        axes.barh(
            place[lane], t.finish - t.start, left=t.start, height=0.45,
            color=colours.get(t.from_device, _LINK), alpha=0.75, edgecolor="black", linewidth=0.4,
        )  # fmt: skip
    axes.axvline(end, color="black", linewidth=0.8, linestyle="--")
    if plan.lower_bound > 0:
        axes.axvline(plan.lower_bound, color="#B00020", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, end * 1.02)
    axes.set_xlabel("ms   (dashed: end, dotted: lower bound; transfers in the sender's colour)")
    axes.set_title(_title(plan), fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def transfer_lanes(transfers: Sequence[Any]) -> dict[int, str]:
    """A row for every transfer that has times, by its index: `a > b`, and `a > b #2` where several
    pass at once (full duplex and uncontended links)."""
    ends: dict[str, list[float]] = {}
    lanes: dict[int, str] = {}
    timed = [i for i, t in enumerate(transfers) if t.start is not None and t.finish is not None]
    for at in sorted(timed, key=lambda i: (transfers[i].start, transfers[i].finish, i)):
        t = transfers[at]
        name = f"{t.from_device} > {t.to_device}"
        free = ends.setdefault(name, [])
        lane = next((i for i, end in enumerate(free) if end <= t.start + 1e-9), len(free))
        if lane == len(free):
            free.append(0.0)
        free[lane] = t.finish
        lanes[at] = name if lane == 0 else f"{name} #{lane + 1}"
    return lanes


def _loads(pyplot: Any, plan: Plan, platform: Platform) -> Any:
    colours = device_colours(platform)
    loads: dict[str, float] = dict(plan.loads)
    for replica in plan.replicas:
        for name, ms in replica.loads.items():
            loads.setdefault(name, ms)
    names = [d.name for d in platform.devices if d.name in loads]
    names += sorted(n for n in loads if n not in names)
    figure, axes = pyplot.subplots(figsize=(10, 1.4 + 0.42 * len(names)))
    for at, name in enumerate(names):
        axes.barh(at, loads[name], height=0.7, color=colours.get(name, _LINK))
        axes.text(loads[name], at, f" {loads[name]:.4g}", va="center", fontsize=8)
    if plan.lower_bound > 0:
        axes.axvline(plan.lower_bound, color="#B00020", linewidth=0.8, linestyle=":")
    # A direction of a link is called a-b:a>b; the second half says it all.
    labels = [name.partition(":")[2].replace(">", " > ") or name for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*loads.values(), plan.lower_bound, 1e-9]) * 1.1)
    axes.set_xlabel("ms per sample   (dotted: lower bound of the period)")
    axes.set_title(_title(plan), fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _title(plan: Plan) -> str:
    what = "latency" if plan.goal == "latency" else "period"
    value = "no plan" if plan.objective is None else f"{plan.objective:.5g} ms"
    return (
        f"{what} {value}, lower bound {plan.lower_bound:.5g} ms, {plan.status}, "
        f"method {plan.method}"
    )


def write_trace(plan: Plan, platform: Platform, path: str | Path) -> None:
    """A Chrome/Perfetto trace: one track per device and direction of a link, times in microseconds.

    Raises: InputError for a plan without times.
    """
    if not any(a.start is not None for a in _assignments(plan)):
        raise InputError(
            "a trace needs times", why=f"the plan's goal is {plan.goal}", hint="--objective latency"
        )
    transfers = _transfers(plan)
    lanes = transfer_lanes(transfers)
    events: list[dict[str, Any]] = []
    for process, label in ((1, "devices"), (2, "links")):
        events.append(
            {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": label}}
        )
    device_track = {d.name: at for at, d in enumerate(platform.devices)}
    link_track = {name: at for at, name in enumerate(sorted(set(lanes.values())))}
    for process, tracks in ((1, device_track), (2, link_track)):
        for name, track in tracks.items():
            events.append(
                {"ph": "M", "pid": process, "tid": track, "name": "thread_name",
                 "args": {"name": name}}
            )  # fmt: skip
    for a in _assignments(plan):
        if a.start is not None and a.finish is not None:
            events.append(_event(1, device_track[a.device], a.task, a.start, a.finish, {}))
    for at, lane in lanes.items():
        t = transfers[at]
        args = {"link": t.link, "bytes": t.bytes, "of": t.src_task}
        events.append(_event(2, link_track[lane], t.tensor, t.start, t.finish, args))
    with atomic(path) as file:
        json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)


def _event(
    process: int, track: int, name: str, start: float, finish: float, args: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": process,
        "tid": track,
        "name": name,
        "ts": start * 1e3,
        "dur": (finish - start) * 1e3,
        "args": args,
    }
