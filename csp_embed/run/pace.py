"""Which of the parts that wait a device takes first, with several inputs in flight.

A pipeline in which a sample returns to a device fills badly in the order of arrival, or with the
oldest sample first: a device works off all last parts, then all first ones, and the devices behind
it stand idle meanwhile. In an even pipeline with K samples under way each sample takes K periods.
So every part gets a moment at which it is due, its sample's turn plus its share of those periods,
and what is due first goes first: no device runs ahead while another one starves.
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
from csp_embed.run.turn import needs_of


@dataclass(frozen=True)
class Alone:
    """One sample that had all devices to itself. values: the outputs, and what crosses
    from one device to another. starts: of each
    part by its index, ms after the sample's first, as its tensors allowed. end: when all was done.
    work: ms that each part took on its device."""

    values: Mapping[str, Array]
    starts: Mapping[int, float]
    end: float
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
    # Inputs are there at once; each other tensor when the part that makes it is back.
    there = dict.fromkeys(feeds, 0.0)
    starts: dict[int, float] = {}
    work: dict[int, float] = {}
    end = 0.0
    needs = needs_of(parts, outputs)
    for part in parts:
        given = {n: values[n] for n in part.reads if n in values}
        begin = time.perf_counter()
        ran = runners[part.device].run(part, given, needs[part.index].turn(sample, 0.0))
        ms = 1e3 * (time.perf_counter() - begin)
        starts[part.index] = max((there[n] for n in part.reads), default=0.0)
        work[part.index] = ran.ms
        values |= ran.outputs
        there |= dict.fromkeys(part.makes, starts[part.index] + ms)
        end = max(end, starts[part.index] + ms)
    return Alone(values, starts, end, work)


@dataclass(frozen=True)
class Pace:
    """period: ms a sample that the busiest device needs. latency: ms of a sample alone, of the
    slowest replica. due: of each part by its index, ms after its sample's turn."""

    period: float
    latency: float
    due: Mapping[int, float]

    def rank(self, sample: int, part: Part) -> float:
        """When the part of that sample is due, ms: what is least goes first."""
        return sample * self.period + self.due.get(part.index, 0.0)

    @property
    def fills(self) -> int:
        """Samples under way that keep the busiest device busy: each part waits about as long as it
        runs and travels, so twice what a sample alone would ask for."""
        return max(1, ceil(2 * self.latency / self.period)) if self.period > 0 else 1


NO_PACE = Pace(0.0, 0.0, {})


def pace_of(
    parts: Sequence[Part], alone: Sequence[Alone], shares: Sequence[float], in_flight: int = 1
) -> Pace:
    """alone: of each replica. shares: of samples, by replica; equal ones where empty."""
    rates = [s / sum(shares) for s in shares] or [1.0 / len(alone)] * len(alone)
    load: dict[str, float] = {}
    for part in parts:
        ms = rates[part.replica] * alone[part.replica].work[part.index]
        load[part.device] = load.get(part.device, 0.0) + ms
    period, latency = max(load.values()), max(a.end for a in alone)
    due: dict[int, float] = {}
    for one in alone:
        # Never earlier than a sample alone could be there.
        stretch = max(1.0, in_flight * period / one.end) if one.end > 0 else 1.0
        due |= {index: stretch * ms for index, ms in one.starts.items()}
    return Pace(period, latency, due)
