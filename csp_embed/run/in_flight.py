"""Several inputs in flight: how many samples a second the plan really makes.

Each device takes what is ready in the order that `pace.py` says, in as many threads as it has
lanes; a new sample enters when one leaves. Samples differ, and each one's outputs must be those
that it has when it runs alone: two samples that got mixed up would show.
Source of the setting: a throughput plan's period counts what the busiest device or link needs for a
sample, which a pipeline reaches once it is full.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from csp_embed.errors import InputError, SimError
from csp_embed.run.agreement import agree
from csp_embed.run.device_parts import Part
from csp_embed.run.pace import NO_PACE, Pace
from csp_embed.run.runner import Array, Runner
from csp_embed.run.turn import Turn, needs_of


@dataclass(frozen=True)
class Rate:
    """samples: counted ones, after the pipeline was full. ms_per_sample: wall clock. busy: share of
    that time that each device computed. wrong: samples whose outputs were not their own.
    alone_ms: a sample that had all devices to itself. fills: how many in flight keep devices busy.
    """

    samples: int
    in_flight: int
    ms_per_sample: float
    busy: Mapping[str, float]
    wrong: int
    alone_ms: float
    fills: int


def measure_rate(
    parts: Sequence[Part],
    runners: Mapping[str, Runner],
    inputs: Sequence[Mapping[str, Array]],
    expected: Sequence[Sequence[Mapping[str, Array]]],
    in_flight: int,
    samples: int,
    shares: Sequence[float] = (),
    pace: Pace = NO_PACE,
) -> Rate:
    """Runs samples + in_flight inputs, `inputs` by turns; the first in_flight are not counted.

    parts: of all replicas. shares: of samples, by replica; by turns where empty. expected: for each
    replica and each of `inputs`, the outputs that it gives alone.
    Raises: WorkerDied, InputError of a device; SimError where a part waits for ever.
    """
    # Time is taken between two ends, so one sample is not enough.
    if in_flight < 1 or samples < 2:
        raise InputError(
            f"{in_flight} in flight, {samples} samples",
            why="at least one must be under way, and two to measure between",
            hint="--in-flight 4 --samples 40",
        )
    # The first in_flight fill the pipeline and are not counted.
    flow = _Flow(parts, inputs, expected, in_flight, in_flight + samples, shares, pace)
    with ExitStack() as stack:
        for device in dict.fromkeys(p.device for p in parts):
            for _ in range(min(in_flight, runners[device].lanes)):
                # A lane is a thread: waiting for a device's answer takes no time of the others.
                thread = threading.Thread(target=flow.work, args=(device, runners[device]))
                thread.daemon = True
                thread.start()
                # Not for ever: a lane may wait for a device that is gone.
                stack.callback(thread.join, 5.0)
        try:
            flow.wait()
        finally:
            flow.stop()
    # From the last of the filling ones to the very last.
    begin, end = flow.finished[in_flight - 1], flow.finished[-1]
    busy = {d: sum(b for at, b in rows if at > begin) for d, rows in flow.busy.items()}
    return Rate(
        samples=samples,
        in_flight=in_flight,
        ms_per_sample=1e3 * (end - begin) / samples,
        # Never above the whole: a device's time may begin before the window does.
        busy={d: min(1.0, ms / (1e3 * (end - begin))) for d, ms in busy.items()},
        wrong=flow.wrong,
        alone_ms=pace.latency,
        fills=pace.fills,
    )


@dataclass
class _Sample:
    # values: the tensors that are here. there: names of those that are made, here or on a device.
    parts: list[Part]
    values: dict[str, Array]
    there: set[str]
    started: set[int] = field(default_factory=set)
    done: int = 0


class _Flow:
    """What the devices' threads share; every field is read and written under `lock`."""

    def __init__(
        self, parts: Sequence[Part], inputs: Sequence[Mapping[str, Array]],
        expected: Sequence[Sequence[Mapping[str, Array]]], in_flight: int, total: int,
        shares: Sequence[float], pace: Pace,
    ) -> None:  # fmt: skip
        self.replicas = [
            [p for p in parts if p.replica == r] for r in range(1 + max(p.replica for p in parts))
        ]
        self.inputs, self.expected, self.total, self.pace = inputs, expected, total, pace
        self.needs = needs_of(parts, {n for row in expected for one in row for n in one})
        # Without shares all replicas take the same number.
        self.route = turns(shares or [1.0] * len(self.replicas), total)
        self.lock = threading.Lock()
        self.over = threading.Condition(self.lock)
        # One for each device: a part wakes one lane of the device that it is for, and nobody else;
        # what computes needs the core.
        self.waits = {p.device: threading.Condition(self.lock) for p in parts}
        # (when it is due, sample, which of the sample's parts, the part)
        self.queues: dict[str, list[tuple[float, int, int, Part]]] = {p.device: [] for p in parts}
        self.under_way: dict[int, _Sample] = {}
        self.admitted = 0
        self.finished: list[float] = []
        self.busy: dict[str, list[tuple[float, float]]] = {p.device: [] for p in parts}
        self.wrong = 0
        self.error: Exception | None = None
        self.stopped = False
        with self.lock:
            for _ in range(min(in_flight, total)):
                # As many as are wanted under way; each end lets another one in.
                self._admit()

    def wait(self) -> None:
        """Until every sample is through. Raises: what a device raised."""
        with self.over:
            while len(self.finished) < self.total and self.error is None:
                # With a timeout Ctrl-C comes through.
                self.over.wait(0.2)
            if self.error is not None:
                raise self.error

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for lanes in self.waits.values():
                lanes.notify_all()

    def work(self, device: str, runner: Runner) -> None:
        """One lane of one device."""
        while True:
            with self.waits[device]:
                while not self.queues[device] and not self.stopped:
                    self.waits[device].wait()
                if self.stopped:
                    return
                due, number, _, part = heapq.heappop(self.queues[device])
                values = self.under_way[number].values
                # What only this device reads stayed there.
                given = {n: values[n] for n in part.reads if n in values}
            # Outside the lock: this is the work itself.
            try:
                ran = runner.run(part, given, Turn(number, due, self.needs[part.index]))
            # Whatever it is: a lane that ended in silence would be waited for without end.
            except Exception as error:  # noqa: BLE001 (handed to the waiting thread, raised there)
                with self.over:
                    # The first error is what the user is told.
                    self.error = self.error or error
                    self.over.notify()
                return
            with self.lock:
                self.busy[device].append((time.perf_counter(), ran.ms))
                self._done(number, part, ran.outputs)
                if len(self.finished) == self.total or self.error is not None:
                    self.over.notify()

    def _admit(self) -> None:
        if self.admitted == self.total:
            return
        number = self.admitted
        self.admitted += 1
        replica, which = self._of(number)
        values = dict(self.inputs[which])
        sample = _Sample(self.replicas[replica], values, set(values))
        self.under_way[number] = sample
        self._push(number, sample)
        # No part can start: it waits for a tensor that nothing makes.
        if not sample.started:
            self.error = SimError(
                f"{sample.parts[0].name} waits for a tensor that nothing makes",
                hint="run csp-embed check on the plan",
            )

    def _push(self, number: int, sample: _Sample) -> None:
        for at, part in enumerate(sample.parts):
            # Never twice: several tensors may come at the same time.
            if at not in sample.started and sample.there.issuperset(part.reads):
                sample.started.add(at)
                row = (self.pace.rank(number, part), number, at, part)
                heapq.heappush(self.queues[part.device], row)
                self.waits[part.device].notify()

    def _done(self, number: int, part: Part, outputs: Mapping[str, Array]) -> None:
        sample = self.under_way[number]
        sample.values.update(outputs)
        sample.there.update(part.makes)
        sample.done += 1
        if sample.done < len(sample.parts):
            self._push(number, sample)
            return
        del self.under_way[number]
        self.finished.append(time.perf_counter())
        replica, which = self._of(number)
        wanted = self.expected[replica][which]
        # Its own outputs: samples that got mixed up would differ.
        self.wrong += not all(agree(sample.values[n], v)[0] for n, v in wanted.items())
        self._admit()

    def _of(self, number: int) -> tuple[int, int]:
        """(replica, which of the inputs) of a sample."""
        # By turns, and the same turn for all replicas: each input runs on each of them.
        return self.route[number], number // len(self.replicas) % len(self.inputs)


def turns(shares: Sequence[float], total: int) -> list[int]:
    """Which replica each sample takes: always the one that is farthest behind its share."""
    taken = [0] * len(shares)
    found = []
    # Behind what its share of all samples so far would be.
    for number in range(total):
        behind = [
            share * (number + 1) / sum(shares) - t for share, t in zip(shares, taken, strict=True)
        ]
        found.append(max(range(len(shares)), key=behind.__getitem__))
        taken[found[-1]] += 1
    return found
