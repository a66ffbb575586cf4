"""Runs the parts of a plan on their devices, compares every boundary tensor, measures.

Takes: parts with their models.  Leaves: a RunReport.  A device runs one part at a time, its parts
in order; a part starts as soon as its tensors are there, so unlike devices work side by side.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.run.devices import MEASURED, Runner, Timing
from csp_embed.run.parts import Part

Array = NDArray[Any]
RTOL = 1e-4
ROUNDS = 3  # parts are measured by turns: a disturbance then does not hit one part alone


@dataclass(frozen=True)
class PartResult:
    """error: measured / predicted - 1, where the part was measured or simulated."""

    part: Part
    ms: float
    how: str

    @property
    def error(self) -> float | None:
        if self.part.predicted_ms == 0 or self.how == "by cost":
            return None
        return self.ms / self.part.predicted_ms - 1.0


@dataclass(frozen=True)
class TensorResult:
    """One boundary tensor against the whole model. worst: largest difference over the tolerance's
    scale (0 for integers that agree)."""

    name: str
    maker: int
    dtype: str
    equal: bool
    worst: float


@dataclass(frozen=True)
class RunReport:
    """wall_ms: median of whole runs of the plan (of its slowest replica).

    whole_ms: the model in one piece on one core. inputs_matter: another input changes every output,
    so the comparison can fail.
    """

    parts: tuple[PartResult, ...]
    tensors: tuple[TensorResult, ...]
    wall_ms: float
    whole_ms: float
    runs: int
    inputs_matter: bool
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def equal(self) -> bool:
        return all(t.equal for t in self.tensors)

    @property
    def median_error(self) -> float | None:
        """Median of |measured / predicted - 1| over parts that were measured."""
        errors = [abs(r.error) for r in self.parts if r.how == MEASURED and r.error is not None]
        return statistics.median(errors) if errors else None


def run_parts(
    parts: Sequence[Part],
    runners: Mapping[str, Runner],
    files: Mapping[int, Path],
    feeds: Mapping[str, Array],
    timing: Timing,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[dict[str, Array], list[tuple[float, str]], float]:
    """(boundary tensors, (ms, how) of each part measured alone, median wall-clock ms of the plan).

    Raises: SimError where a part waits for a tensor that nobody makes.
    """
    for part in parts:
        runners[part.device].load(part, files[part.index])
    total = timing.runs + ROUNDS * len(parts)
    values = _once(parts, runners, feeds)
    taken: list[list[tuple[float, str]]] = [[] for _ in parts]
    for turn in range(ROUNDS):
        for at, part in enumerate(parts):
            if progress is not None:
                progress(f"measuring {part.name}", turn * len(parts) + at, total)
            taken[at].append(runners[part.device].time(part, values, timing))
    times = [(statistics.median(ms for ms, _ in rows), rows[0][1]) for rows in taken]
    walls: list[float] = []
    for turn in range(timing.runs):
        if progress is not None:
            progress("running the plan", ROUNDS * len(parts) + turn, total)
        begin = time.perf_counter_ns()
        _once(parts, runners, feeds)
        walls.append((time.perf_counter_ns() - begin) / 1e6)
    return values, times, statistics.median(walls)


def _once(
    parts: Sequence[Part],
    runners: Mapping[str, Runner],
    feeds: Mapping[str, Array],
) -> dict[str, Array]:
    """One input through all parts; returns every boundary tensor."""
    values: dict[str, Array] = dict(feeds)
    queues: dict[str, list[Part]] = {}
    for part in parts:
        queues.setdefault(part.device, []).append(part)
    busy: dict[str, Part] = {}
    while queues or busy:
        moved = False
        for device in list(queues):
            part = queues[device][0]
            if device not in busy and all(n in values for n in part.reads):
                runners[device].start(part, values)
                busy[device] = part
                queues[device].pop(0)
                if not queues[device]:
                    del queues[device]
                moved = True
        for device in list(busy):
            if runners[device].ready(0.0):
                done = runners[device].finish()
                del busy[device]
                values.update(done.outputs)
                moved = True
        if not moved:
            if not busy:
                part = next(iter(queues.values()))[0]
                lost = [n for n in part.reads if n not in values]
                raise SimError(
                    f"{part.name} waits for {lost[0]!r}, which no earlier part makes",
                    hint="run csp-embed check on the plan",
                )
            next(iter(runners[d] for d in busy)).ready(0.0005)
    return values


def compare(
    found: Mapping[str, Array], expected: Mapping[str, Array], parts: Sequence[Part]
) -> list[TensorResult]:
    """Every tensor that a part makes for others, against the whole model.

    Integers must be equal. Floats: |a - b| <= RTOL * (|b| + root mean square of b): the second term
    covers sums that cancel, whose order of addition a cut may change.
    """
    results = []
    for part in parts:
        for name in part.makes:
            a, b = found.get(name), expected[name]
            if a is None or a.shape != b.shape or a.dtype != b.dtype:
                results.append(TensorResult(name, part.index, str(b.dtype), False, float("inf")))
                continue
            equal, worst = _agree(a, b)
            results.append(TensorResult(name, part.index, str(b.dtype), equal, worst))
    return results


def _agree(a: Array, b: Array) -> tuple[bool, float]:
    if b.dtype.kind not in "fc":
        return bool(np.array_equal(a, b)), 0.0 if np.array_equal(a, b) else float("inf")
    if not b.size:
        return True, 0.0
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    same_nan = np.isnan(wide_a) == np.isnan(wide_b)
    scale = np.abs(wide_b) + np.sqrt(np.nanmean(wide_b**2))
    with np.errstate(invalid="ignore"):
        far = np.abs(wide_a - wide_b) / np.where(scale > 0, scale, 1.0)
    worst = float(np.nanmax(far)) if far.size else 0.0
    return bool(same_nan.all()) and worst <= RTOL, worst
