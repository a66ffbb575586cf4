"""A run of the cycle engine as a picture: where each queue's cycles go, and a close-up.

Takes: a stream and its CycleReport with `trace`.  Leaves: an SVG (or whatever the file's ending
says). Above: the whole run in equal spans, each queue's and port's cycles by what they were spent
on. Below: single instructions in a window of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.files import atomic
from csp_embed.ir.stream import Stream
from csp_embed.machine.spec import Isa
from csp_embed.report.scene import ink_on
from csp_embed.sim.cycles import layout
from csp_embed.sim.cycles.engine import CycleReport
from csp_embed.sim.trace import instruction_queues, port_shares, slice_name, wait_name

if TYPE_CHECKING:
    from csp_embed.report.plotted import Settings, Sheet

# Spans over the whole run: about one for four pixels.
SPANS = 240
CLOSE_UP = 60  # instructions in the close-up, about

# Colours that stay apart for colour-blind readers (Okabe and Ito); waits are grey.
_COLOURS = [
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#F0E442",
    "#56B4E9",
    "#882255",
    "#117733",
]
# Waiting for instructions is another matter than waiting for tokens: darker.
_GREYS = {"wait for fetch": "#555555"}
_WAITS = ("#BBBBBB", "#DDDDDD")


def draw_timeline(
    isa: Isa,
    stream: Stream,
    report: CycleReport,
    path: str | Path,
    *,
    window: tuple[int, int] | None = None,
) -> None:
    """Draws the run to `path`, whole or not at all.

    window: cycles (first, stop) of the close-up; by default about 60 instructions at half time.

    Raises: InputError where `report` has no trace or the format is unknown; MissingLibrary without
        Matplotlib.
    """
    if report.trace is None:
        raise InputError("this cycle report has no trace", hint="simulate_cycles(..., trace=True)")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingLibrary(
            "the timeline needs Matplotlib", hint="pip install 'csp-embed[plot]'"
        ) from error
    suffix = Path(path).suffix.lower().lstrip(".") or "svg"
    if suffix not in ("svg", "png", "pdf"):
        raise InputError(
            f"cannot draw a .{suffix} file", where=str(path), hint="use .svg, .png or .pdf"
        )
    queues = instruction_queues(isa, stream, report)
    # Queues, and one more row for the port that all loads share.
    rows = len(isa.queues) + 1
    figure = Figure(figsize=(13, 1.1 + 1.6 * rows), layout="constrained")
    axes = figure.subplots(rows + 1, 1, height_ratios=[1] * rows + [0.55 * rows])
    colours = _palette(isa)
    # Shares of equal spans: single instructions are too many to draw.
    for q, name in enumerate(isa.queues):
        shares = _shares(isa, stream, report, queues[q], q)
        _stack(axes[q], shares, colours, report.total)
        axes[q].set_ylabel(name)
        axes[q].tick_params(labelbottom=False)
    # The port's cycles belong to loads or to fetching.
    port = port_shares(report, report.trace, SPANS)
    parts = {"loads": port[:, 0], "instruction fetch": port[:, 1]}
    _stack(axes[rows - 1], parts, {"loads": "#0072B2"}, report.total)
    axes[rows - 1].set_ylabel("read port")
    axes[rows - 1].set_xlabel("cycles")
    first, stop = window or _window(report, CLOSE_UP)
    _close_up(axes[rows], isa, stream, report, queues, colours, first, stop)
    for axis in axes[:rows]:
        axis.xaxis.set_major_formatter("{x:,.0f}")
        # The close-up's place in the run; where it is most of it, the shade says nothing.
        if stop - first < report.total / 2:
            axis.axvspan(first, stop, color="black", alpha=0.15, lw=0)
    axes[rows].xaxis.set_major_formatter("{x:,.0f}")
    axes[0].set_title(
        f"{isa.name} on {report.memory.name}: {report.total:,} cycles, "
        f"{report.instructions:,} instructions, utilisation {report.utilisation:.1%}",
        loc="left",
    )
    # The same run gives the same bytes: no date, and identifiers that do not change.
    dates: dict[str, dict[str, str | None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with (
        cast("Settings", matplotlib).rc_context(
            {"svg.hashsalt": "csp-embed", "svg.fonttype": "none"}
        ),
        atomic(path, "wb") as file,
    ):
        cast("Sheet", figure).savefig(file, format=suffix, metadata=dates.get(suffix))


def _palette(isa: Isa) -> dict[str, str]:
    # Finishing takes no time worth a colour.
    names = [i.name for i in isa.instructions if i.kind != "finish"]
    loads = [m.name for m in isa.memories if m.load_queue]
    keys = [
        # A load's colour is by memory: which one is what loads differ by.
        f"{i.name} {m}" if m else i.name
        for i in isa.instructions
        if i.name in names
        for m in (loads if i.kind == "load" else [""])
    ]
    return {key: _COLOURS[k % len(_COLOURS)] for k, key in enumerate(keys)}


def _shares(
    isa: Isa, stream: Stream, report: CycleReport, members: list[int], q: int
) -> dict[str, NDArray[np.float64]]:
    """Share of each span of the run by what the queue did."""
    trace = report.trace
    assert trace is not None
    # Rounded up, so that the spans cover the run.
    span = max(1, -(-report.total // SPANS))
    count = -(-max(1, report.total) // span)
    shares: dict[str, NDArray[np.float64]] = {}

    def add(name: str, first: int, stop: int) -> None:
        part = shares.setdefault(name, np.zeros(count))
        k = first // span
        while first < stop and k < count:
            # An instruction may lie in several spans.
            upto = min(stop, (k + 1) * span)
            part[k] += (upto - first) / span
            first, k = upto, k + 1

    free = 0
    for n in members:
        # `end` is the last cycle, the picture wants the one behind it.
        start, stop = int(trace.start[n]), int(trace.end[n]) + 1
        add(wait_name(isa, q, int(trace.waited[n])), free, start)
        add(slice_name(isa, stream, n), start, stop)
        free = stop
    # Work below, waits on top.
    return dict(sorted(shares.items(), key=lambda item: (item[0].startswith("wait"), item[0])))


def _stack(
    axis: Any, shares: dict[str, NDArray[np.float64]], colours: dict[str, str], total: int
) -> None:
    count = max((len(s) for s in shares.values()), default=1)
    span = max(1, -(-total // SPANS))
    edges = np.arange(count + 1) * span
    below = np.zeros(count)
    waits = 0
    for name, part in shares.items():
        if name.startswith("wait"):
            # Neighbouring waits in two greys: a boundary stays visible.
            colour = _GREYS.get(name, _WAITS[waits % 2])
            waits += name not in _GREYS
        else:
            colour = colours.get(name, "#000000")
        axis.stairs(below + part, edges, baseline=below, fill=True, color=colour, label=name)
        below = below + part
    axis.set_xlim(0, max(1, total))
    axis.set_ylim(0, 1)
    axis.set_yticks([0, 1], ["0", "1"])
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="x-small", frameon=False)


def _window(report: CycleReport, wanted: int) -> tuple[int, int]:
    """A window at half time in which about `wanted` instructions start."""
    trace = report.trace
    assert trace is not None
    starts = np.sort(trace.start[trace.start >= 0])
    if not len(starts):
        return 0, max(1, report.total)
    # At half time: loops have begun and not ended.
    middle = int(np.searchsorted(starts, report.total // 2))
    low = max(0, middle - wanted // 2)
    high = min(len(starts) - 1, low + wanted)
    return int(starts[low]), max(int(starts[high]), int(starts[low]) + 1)


def _close_up(
    axis: Any,
    isa: Isa,
    stream: Stream,
    report: CycleReport,
    queues: list[list[int]],
    colours: dict[str, str],
    first: int,
    stop: int,
) -> None:
    trace = report.trace
    assert trace is not None
    names = [*isa.queues, "read port"]
    for q, members in enumerate(queues):
        free = 0
        for n in members:
            start, end = int(trace.start[n]), int(trace.end[n]) + 1
            if end > first and start < stop:
                bar = colours.get(slice_name(isa, stream, n), "#000000")
                axis.broken_barh([(start, end - start)], (q - 0.4, 0.8), fc=bar, ec="white", lw=0.4)
                # A number fits along its block, up it, or not at all.
                shown = (min(end, stop) - max(start, first)) / (stop - first)
                if shown > 1 / 140:
                    axis.text(
                        (max(start, first) + min(end, stop)) / 2,
                        q,
                        str(n),
                        ha="center",
                        va="center",
                        fontsize=6,
                        rotation=0 if shown > 1 / 45 else 90,
                        color=ink_on(bar),
                        clip_on=True,
                    )
            # A thin bar where it waited before it began.
            if start > free and start > first and free < stop and trace.waited[n]:
                fetch = trace.waited[n] == layout.WAIT_FETCH
                colour = "#555555" if fetch else "#BBBBBB"
                axis.broken_barh([(free, start - free)], (q - 0.1, 0.2), fc=colour, lw=0)
            free = end
    # Port times in the window only.
    port = trace.port[(trace.port[:, 2] > first) & (trace.port[:, 1] < stop)]
    for n, start, end in port.tolist():
        # -1: fetching of instructions, which is no instruction itself.
        colour = colours.get(slice_name(isa, stream, n), "#000000") if n >= 0 else "#000000"
        axis.broken_barh([(start, end - start)], (len(names) - 1.4, 0.8), fc=colour, lw=0)
    axis.set_xlim(first, stop)
    # Queues from top to bottom, as in the charts above.
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel(f"cycles {first:,} to {stop:,}; numbers are instructions, thin bars waits")
