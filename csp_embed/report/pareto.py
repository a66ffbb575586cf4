"""Pictures and documents of a Pareto front.

Takes: a Front (embed/pareto.py).  Leaves: a JSON document, text rows, a PNG or SVG by Matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.embed.pareto import CRITERIA, Front, Member
from csp_embed.embed.pareto_space import front as needed
from csp_embed.errors import MissingLibrary
from csp_embed.files import atomic

LABELS = {
    "cycles": "cycles",
    "input_bytes": "packed input bytes",
    "host_bytes": "bytes the host moves to pack",
    "weight_bytes": "weight bytes",
    "zero_fill": "zero-filled bytes",
}
COLOURS = {
    "aligned": "#2f6db5", "im2col": "#d9782d", "toeplitz": "#3a9a5b", "diagonal": "#b23a6b",
    "mixed": "#7a5ab5",
}  # fmt: skip


def name(member: Member) -> str:
    """Its kind, as people call it."""
    return member.embedding.kind + (" commuted" if member.embedding.commuted else "")


def survives(members: Sequence[Member]) -> list[bool]:
    """Which members stay non-dominated when scheduled cycles take the analytic ones' place.

    Members without scheduled cycles are judged by the analytic ones."""
    rows = [
        [m.scheduled if m.scheduled is not None else m.criteria["cycles"],
         *(m.criteria[c] for c in CRITERIA[1:])]
        for m in members
    ]  # fmt: skip
    kept = set(needed(np.array(rows, float).reshape(len(rows), len(CRITERIA))).tolist())
    return [n in kept for n in range(len(members))]


def document(front: Front) -> dict[str, Any]:
    """What `csp-embed pareto --json` prints."""
    stays = survives(front.members)
    return {
        "status": "complete" if front.complete else "incomplete",
        "claim": front.status,
        "criteria": {
            "cycles": "analytic, without the host's part: what the search compares",
            "scheduled_cycles": "of a good schedule, by the cycle engine; null: not scheduled",
            **{c: LABELS[c] for c in CRITERIA[1:]},
        },
        "options_weighed": front.weighed,
        "members": [
            {
                "number": n, "kind": name(m), "embedding": m.embedding.formula(),
                **m.criteria, "scheduled_cycles": m.scheduled,
                "non_dominated_when_scheduled": stay,
            }
            for n, (m, stay) in enumerate(zip(front.members, stays, strict=True))
        ],
    }  # fmt: skip


def plot(front: Front, path: Path, title: str) -> None:
    """Four small charts: scheduled cycles (analytic where there are none) against each other
    criterion; numbers are those of the table, hollow dots are dominated once scheduled.

    Raises: MissingLibrary without Matplotlib; InputError where the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingLibrary(
            "the picture needs Matplotlib", hint="pip install 'csp-embed[plot]', or use --json"
        ) from error
    stays = survives(front.members)
    kinds = list(dict.fromkeys(name(m) for m in front.members))
    with matplotlib.rc_context({"svg.hashsalt": "csp-embed", "font.size": 9}):
        figure = Figure(figsize=(11, 8.2), layout="constrained")
        axes = figure.subplots(2, 2).ravel()
        for ax, criterion in zip(axes, CRITERIA[1:], strict=True):
            _chart(ax, front.members, stays, criterion)
        _legend(figure, kinds)
        state = "proved complete" if front.complete else "incomplete"
        figure.suptitle(f"{title}: {len(front.members)} non-dominated embeddings, {state}")
        suffix = path.suffix.lower().lstrip(".") or "svg"
        metadata = {"Date": None} if suffix == "svg" else {}
        with atomic(path, "wb") as file:
            figure.savefig(file, format=suffix, dpi=110, metadata=metadata)


def _chart(ax: Any, members: Sequence[Member], stays: Sequence[bool], criterion: str) -> None:
    for n, (m, stay) in enumerate(zip(members, stays, strict=True)):
        cycles = m.scheduled if m.scheduled is not None else m.criteria["cycles"]
        colour = COLOURS.get(m.embedding.kind, "#555555")
        marker = "s" if m.embedding.commuted else "o"
        ax.plot(cycles, m.criteria[criterion], marker, markersize=6, color=colour,
                markerfacecolor=colour if stay else "white")  # fmt: skip
        ax.annotate(str(n), (cycles, m.criteria[criterion]), xytext=(4, 4),
                    textcoords="offset points", fontsize=8)  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("symlog" if min(m.criteria[criterion] for m in members) <= 0 else "log")
    ax.set_xlabel("cycles")
    ax.set_ylabel(LABELS[criterion])
    ax.grid(True, which="major", color="#dddddd", linewidth=0.6)


def _legend(figure: Any, kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="s" if k.endswith("commuted") else "o",
               color=COLOURS.get(k.split()[0], "#555555"), label=k)
        for k in kinds
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
