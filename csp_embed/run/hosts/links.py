"""What the links between hosts really carry: latency and rate, measured through their workers.

Tensors between two workers travel by the coordinator, so a link's time is that from one worker here
plus that from here to the other one. Each way is timed at two sizes; the difference gives the rate,
what is left the latency. Times are the least of several: a disturbance only ever adds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from csp_embed.errors import InputError
from csp_embed.ir.network import Handling, Link, Platform
from csp_embed.run.hosts.client import HostWorker
from csp_embed.run.hosts.handling import measure_handling
from csp_embed.run.hosts.wire import Message

SMALL, ROUNDS = 64, 7
TARGET_S = 0.1  # the large tensor takes about so long


@dataclass(frozen=True)
class Way:
    """One direction between the coordinator and a worker."""

    latency_ms: float
    bytes_per_ms: float


def measure_ways(worker: HostWorker) -> tuple[Way, Way]:
    """(to the worker, from the worker). Raises: WorkerDied."""
    size = 1 << 16
    # Larger until one takes long enough to measure; at most 64 MiB.
    while _least(worker, size, False, 1) < TARGET_S and size < 1 << 26:
        size *= 4
    # An empty question and its empty answer: half of it is a message's latency.
    empty = _least(worker, SMALL, False, ROUNDS)
    there = _least(worker, size, False, ROUNDS)
    # There and back less there: only the way back is left.
    both = _least(worker, size, True, ROUNDS)
    return _way(empty, there - empty, size), _way(empty, both - there, size)


def _way(empty: float, extra: float, size: int) -> Way:
    # Two messages, so half of it is one. A rate from no extra time would be infinite.
    return Way(1e3 * empty / 2, size / max(1e3 * extra, 1e-6))


def _least(worker: HostWorker, size: int, back: bool, rounds: int) -> float:
    """Seconds of the fastest of some echoes."""
    tensor = {"x": np.zeros(size, np.uint8)}
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call = worker.ask("measuring the link", Message("echo", {"back": back}, tensor))
        worker.finish(call)
        found.append(time.perf_counter() - begin)
    return min(found)


def measured_links(
    platform: Platform, workers: Mapping[str, HostWorker], here: str | None
) -> list[Link]:
    """The platform's links whose two ends were reached, with what was measured.

    here: the device of the coordinator itself (its memory is where inputs begin); None: there is
    none. Raises: InputError where no link has both ends; WorkerDied.
    """
    ways = {device: measure_ways(worker) for device, worker in workers.items()}
    slower = {d: min(way.bytes_per_ms for way in both) for d, both in ways.items()}
    taken = measure_handling(workers, slower)
    # What is on this host travels nowhere.
    free = Way(0.0, float("inf"))
    if here is not None and here not in ways:
        ways[here] = (free, free)
    found = [
        replace(
            link,
            **_joined(*(ways[end] for end in link.between)),
            handling=tuple(taken.get(end, Handling()) for end in link.between),
        )
        for link in platform.links
        if all(end in ways for end in link.between)
    ]
    if not found:
        raise InputError(
            "no link of the platform has both ends among the workers",
            where=", ".join(ways),
            why="links are " + ", ".join(link.name for link in platform.links[:6]),
            hint="start a worker for each end: csp-embed worker --listen HOST:PORT --device NAME",
        )
    return found


def _joined(a: Sequence[Way], b: Sequence[Way]) -> dict[str, float]:
    """Both directions, the slower one counting: a link of a platform file has one rate."""
    # Tensors pass through here: both legs add up, latency as times, rates as times per byte.
    times = [
        (one[1].latency_ms + two[0].latency_ms, 1 / one[1].bytes_per_ms + 1 / two[0].bytes_per_ms)
        for one, two in ((a, b), (b, a))
    ]
    return {
        # The slower direction, since a link of the file has one rate.
        "latency_ms": max(t[0] for t in times),
        "bytes_per_ms": 1 / max(t[1] for t in times),
    }
