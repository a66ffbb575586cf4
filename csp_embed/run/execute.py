"""Runs the parts of a plan on their devices, compares every boundary tensor, measures.

Takes: parts with their models.  Leaves: a RunReport.  A device runs one part at a time, its parts
in order; a part starts as soon as its tensors are there, so unlike devices work side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from csp_embed.errors import SimError, WorkerDied
from csp_embed.network.onnx.runtime import PLAIN
from csp_embed.run.agreement import agree, tolerance
from csp_embed.run.device_parts import Part
from csp_embed.run.in_flight import Rate
from csp_embed.run.runner import MEASURED, Array, Runner, Timing

ROUNDS = 3  # parts are measured by turns: a disturbance then does not hit one part alone


@dataclass(frozen=True)
class PartResult:
    """error: measured / predicted - 1, where the part was measured or simulated."""

    part: Part
    ms: float
    how: str

    @property
    def error(self) -> float | None:
        # What is not measured agrees with its prediction by definition.
        if self.part.predicted_ms == 0 or self.how == "by cost":
            return None
        return self.ms / self.part.predicted_ms - 1.0


@dataclass(frozen=True)
class TensorResult:
    """One boundary tensor against the whole model. worst: largest difference over the tolerance's
    scale (0 for integers that agree). allowed: the largest that counts as equal."""

    name: str
    maker: int
    dtype: str
    equal: bool
    worst: float
    allowed: float = 0.0


@dataclass(frozen=True)
class RunReport:
    """wall_ms: median of whole runs of the plan (of its slowest replica).

    whole_ms: the model in one piece on one core. inputs_matter: another input changes every output,
    so the comparison can fail. rate: with several inputs in flight, where asked. form: of the
    sessions that were compared.
    """

    parts: tuple[PartResult, ...]
    tensors: tuple[TensorResult, ...]
    wall_ms: float
    whole_ms: float
    runs: int
    inputs_matter: bool
    notes: tuple[str, ...] = field(default_factory=tuple)
    rate: Rate | None = None
    form: str = PLAIN

    @property
    def equal(self) -> bool:
        return all(t.equal for t in self.tensors) and not (self.rate and self.rate.wrong)

    @property
    def median_error(self) -> float | None:
        """Median of |measured / predicted - 1| over parts that were measured."""
        # Simulated parts have no error of measurement.
        errors = [abs(r.error) for r in self.parts if r.how == MEASURED and r.error is not None]
        return median(errors) if errors else None


def run_parts(
    parts: Sequence[Part],
    runners: Mapping[str, Runner],
    files: Mapping[int, Path],
    feeds: Mapping[str, Array],
    timing: Timing,
    progress: Callable[[str, int, int], None] | None = None,
    form: str = PLAIN,
) -> tuple[dict[str, Array], list[tuple[float, str]], float]:
    """(boundary tensors, (ms, how) of each part measured alone, median wall-clock ms of the plan).

    form: of the sessions that the tensors come from: plain ones, since graph optimisations round
    quantised networks differently wherever they are cut, or those of integer kernels alone. What
    is measured is as fast as onnxruntime makes it.
    Raises: SimError where a part waits for a tensor that nobody makes; WorkerDied, saying what was
    finished and what remained to be done.
    """
    # For the message of a run that a worker's death ends.
    left = [part.name for part in parts]
    remaining = "not run: "
    taken: list[list[tuple[float, str]]] = [[] for _ in parts]
    walls: list[float] = []
    try:
        # This form first: what is compared is the same however a model is cut.
        for part in parts:
            runners[part.device].load(part, files[part.index], form=form)
        values = run_once_through(parts, runners, feeds, left)
        left, remaining = [part.name for part in parts], "every part ran; not measured: "
        for part in parts:
            runners[part.device].load(part, files[part.index])
        total = timing.runs + ROUNDS * len(parts)
        # Rounds over all parts: a disturbance hits each of them once, not one of them wholly.
        for turn in range(ROUNDS):
            for at, part in enumerate(parts):
                if progress is not None:
                    progress(f"measuring {part.name}", turn * len(parts) + at, total)
                taken[at].append(runners[part.device].time(part, values, timing))
                if turn == ROUNDS - 1:
                    left.remove(part.name)
        # Median over rounds, which forgets the disturbed one.
        times = [(median(ms for ms, _ in rows), rows[0][1]) for rows in taken]
        for turn in range(timing.runs):
            # Of the whole plan: what counts then is how many runs are missing.
            left, remaining = [f"{timing.runs - turn} of {timing.runs} runs"], "of the whole plan: "
            if progress is not None:
                progress("running the plan", ROUNDS * len(parts) + turn, total)
            begin = time.perf_counter_ns()
            run_once_through(parts, runners, feeds)
            walls.append((time.perf_counter_ns() - begin) / 1e6)
    except WorkerDied as error:
        # The error says what was done and what was not, since results are lost.
        waiting = left if remaining.startswith("not run") else ()
        raise WorkerDied(
            error.what,
            where=error.where,
            why=f"{error.why}; {_finished(parts, waiting, taken, walls)}; "
            f"remained {remaining}{', '.join(left) or 'nothing'}",
            hint=error.hint,
        ).of(error.device) from error
    return values, times, median(walls)


def _finished(
    parts: Sequence[Part], left: Sequence[str], taken: Sequence[Sequence[tuple[float, str]]],
    walls: Sequence[float],
) -> str:  # fmt: skip
    """What is known of a run that a worker's death ended, with the figures so far."""
    if walls:
        return f"finished: {len(walls)} runs of the whole plan, median {median(walls):.4g} ms"
    if any(taken):
        rows = [
            f"{p.name} {median(x for x, _ in t):.4g} ms"
            for p, t in zip(parts, taken, strict=True)
            if t
        ]
        return f"finished: every part ran; measured so far: {', '.join(rows)}"
    ran = [part.name for part in parts if part.name not in left]
    return f"finished: {', '.join(ran) or 'nothing'}"


def run_once_through(
    parts: Sequence[Part],
    runners: Mapping[str, Runner],
    feeds: Mapping[str, Array],
    left: list[str] | None = None,
) -> dict[str, Array]:
    """One input through all parts; returns every boundary tensor. left: names of parts, from which
    those that are done are taken."""
    values: dict[str, Array] = dict(feeds)
    queues: dict[str, list[Part]] = {}
    for part in parts:
        # Parts of a device run in their order: each has a queue.
        queues.setdefault(part.device, []).append(part)
    busy: dict[str, Part] = {}
    while queues or busy:
        moved = False
        for device in list(queues):
            part = queues[device][0]
            # A device runs one part at a time, as soon as its tensors are there.
            if device not in busy and all(n in values for n in part.reads):
                runners[device].start(part, values)
                busy[device] = part
                queues[device].pop(0)
                if not queues[device]:
                    del queues[device]
                moved = True
        for device in list(busy):
            # Never waits here: another device may be ready.
            if runners[device].ready(0.0):
                done = runners[device].finish()
                if left is not None:
                    left.remove(busy[device].name)
                del busy[device]
                values.update(done.outputs)
                moved = True
        if not moved:
            # Nothing runs and nothing can start: some tensor will never come.
            if not busy:
                part = next(iter(queues.values()))[0]
                lost = [n for n in part.reads if n not in values]
                raise SimError(
                    f"{part.name} waits for {lost[0]!r}, which no earlier part makes",
                    hint="run csp-embed check on the plan",
                )
            # Waits a little on one of the busy: polling all of them would take the core that they
            # need.
            next(iter(runners[d] for d in busy)).ready(0.0005)
    return values


def compare(
    found: Mapping[str, Array], expected: Mapping[str, Array], parts: Sequence[Part]
) -> list[TensorResult]:
    """Every tensor that a part makes for others, against the whole model.

    Integers must be equal. Floats: |a - b| <= t * (|b| + root mean square of b), t of `tolerance`:
    the second term covers sums that cancel, whose order of addition a cut may change.
    """
    results = []
    for part in parts:
        # Tensors between parts and outputs: everything that a cut touches.
        for name in part.makes:
            a, b = found.get(name), expected[name]
            if a is None or a.shape != b.shape or a.dtype != b.dtype:
                results.append(TensorResult(name, part.index, str(b.dtype), False, float("inf")))
                continue
            equal, worst = agree(a, b)
            results.append(
                TensorResult(name, part.index, str(b.dtype), equal, worst, tolerance(b.dtype))
            )
    return results
