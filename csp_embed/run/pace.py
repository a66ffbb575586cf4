"""Which of the parts that wait a device takes first, with several inputs in flight.

A pipeline in which a sample returns to a device fills badly in the order of arrival, or with the
oldest sample first: a device works off all last parts, then all first ones, and the devices behind
it stand idle meanwhile. In an even pipeline with K samples under way each sample takes K periods:
its parts, the ways between them, and before each part a wait, for a device may just have begun its
longest part. So every part gets a moment at which it is due, its sample's turn plus its share of
those periods, and what is due first goes first: no device runs ahead while another one starves.
Source of the thought: due dates in proportion to the time through the shop (Conway, Maxwell,
Miller, Theory of Scheduling, 1967, chapter 11).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from csp_embed.run.device_parts import Part
from csp_embed.run.runner import Array, Runner
from csp_embed.run.turn import Turn, needs_of


@dataclass(frozen=True)
class Alone:
    """One sample that had all devices to itself. values: the outputs, and what crosses from one
    device to another. By part: ms that it took with its way there and back, and on the device."""

    values: Mapping[str, Array]
    ms: Mapping[int, float]
    work: Mapping[int, float]


def run_alone(
    parts: Sequence[Part],
    runners: Mapping[str, Runner],
    feeds: Mapping[str, Array],
    outputs: Collection[str],
    sample: int = -1,
) -> Alone:
    """Runs the parts of one replica one after the other; the way to each device and back counts.
    outputs: tensors that are wanted. sample: a number that no other sample has meanwhile.

    Raises: WorkerDied, InputError of a device.
    """
    values = dict(feeds)
    ms: dict[int, float] = {}
    work: dict[int, float] = {}
    needs = needs_of(parts, outputs)
    for part in parts:
        given = {n: values[n] for n in part.reads if n in values}
        begin = time.perf_counter()
        ran = runners[part.device].run(part, given, Turn(sample, 0.0, needs[part.index]))
        ms[part.index] = 1e3 * (time.perf_counter() - begin)
        work[part.index] = ran.ms
        values |= ran.outputs
    return Alone(values, ms, work)


@dataclass(frozen=True)
class Pace:
    """period: ms a sample that the busiest device needs. latency: ms of a sample alone, through:
    of one among others, waits included; both of the slowest replica. due: of each part by its
    index, ms after its sample's turn."""

    period: float
    latency: float
    through: float
    due: Mapping[int, float]

    def rank(self, sample: int, part: Part) -> float:
        """When the part of that sample is due, ms: what is least goes first."""
        return sample * self.period + self.due.get(part.index, 0.0)

    @property
    def fills(self) -> int:
        """Samples under way that keep the busiest device busy."""
        # A third more than on average: times vary.
        return max(1, ceil(4 / 3 * self.through / self.period)) if self.period > 0 else 1


NO_PACE = Pace(0.0, 0.0, 0.0, {})


def pace_of(
    parts: Sequence[Part], alone: Sequence[Alone], shares: Sequence[float], in_flight: int = 1
) -> Pace:
    """alone: of each replica. shares: of samples, by replica; equal ones where empty."""
    rates = [s / sum(shares) for s in shares] or [1.0 / len(alone)] * len(alone)
    load: dict[str, float] = {}
    longest: dict[str, float] = {}
    for part in parts:
        ms = alone[part.replica].work[part.index]
        load[part.device] = load.get(part.device, 0.0) + rates[part.replica] * ms
        longest[part.device] = max(longest.get(part.device, 0.0), ms)
    period = max(load.values())
    latency, through, due = 0.0, 0.0, dict[int, float]()
    for replica, one in enumerate(alone):
        own = [p for p in parts if p.replica == replica]
        _, plain = _starts(own, one, {})
        starts, slow = _starts(own, one, longest)
        # Never earlier than a sample alone could be there.
        stretch = max(in_flight * period, plain) / slow if slow > 0 else 1.0
        due |= {index: stretch * ms for index, ms in starts.items()}
        latency, through = max(latency, plain), max(through, slow)
    return Pace(period, latency, through, due)


def _starts(
    parts: Sequence[Part], alone: Alone, wait: Mapping[str, float]
) -> tuple[dict[int, float], float]:
    """(when each part starts, when all are done), ms, as tensors allow. wait: before each part of
    a device."""
    there: dict[str, float] = {}
    starts: dict[int, float] = {}
    end = 0.0
    for part in parts:
        at = max((there.get(n, 0.0) for n in part.reads), default=0.0)
        starts[part.index] = at + wait.get(part.device, 0.0)
        done = starts[part.index] + alone.ms[part.index]
        there |= dict.fromkeys(part.makes, done)
        end = max(end, done)
    return starts, end
