"""What a message takes of a device that computes: measured on busy workers.

A plan whose period is that of its devices keeps them busy all the time, so whatever their core does
for messages comes on top: receiving, waking threads, sending, and the network's own work, which no
process is charged for. So it is measured as it happens: each worker gets a queue of echoes that
keep its core as busy as parts do; what an echo lasts longer than its work is the messages' share.
All workers at once, since the coordinator may share their cores.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping

import numpy as np

from csp_embed.ir.network import Handling
from csp_embed.run.hosts.client import HostWorker
from csp_embed.run.hosts.wire import Message

DEEP = 4  # echoes under way: the next one is there when one ends
COUNT, REPEATS = 20, 5
WORK_MS = 6.0
# Of the time of an echo's work, so that the link is never what is waited for.
LINK_SHARE = 0.4
MOST_BYTES = 1 << 22


def measure_handling(
    workers: Mapping[str, HostWorker], rates: Mapping[str, float]
) -> dict[str, Handling]:
    """By device. rates: bytes per ms of the slower way to each worker. Raises: WorkerDied."""
    work = {d: _rounds(w) for d, w in workers.items()}
    sizes = {d: int(min(LINK_SHARE * WORK_MS * rates[d], MOST_BYTES)) for d in workers}
    empty = _extra(workers, dict.fromkeys(workers, 0), work)
    loaded = _extra(workers, sizes, work)
    # An echo is one message each way, and carries its tensor both ways.
    return {
        d: Handling(
            empty[d] / 2,
            2 * sizes[d] / (loaded[d] - empty[d]) if sizes[d] and loaded[d] > empty[d] else None,
        )
        for d in workers
    }


def _rounds(worker: HostWorker) -> tuple[int, float]:
    """Rounds of work of about WORK_MS, and what they take undisturbed, in ms."""
    few = 50
    one = min(_echo(worker, few) for _ in range(5)) / few
    rounds = max(1, round(WORK_MS / one))
    return rounds, min(_echo(worker, rounds) for _ in range(7))


def _echo(worker: HostWorker, rounds: int) -> float:
    call = worker.ask("measuring the worker", Message("echo", {"back": False, "work": rounds}))
    return float(worker.finish(call).fields["ms"])


def _extra(
    workers: Mapping[str, HostWorker],
    sizes: Mapping[str, int],
    work: Mapping[str, tuple[int, float]],
) -> dict[str, float]:
    """ms by which an echo of that size lasts longer than its work; the median of some runs."""
    found: dict[str, list[float]] = {d: [] for d in workers}
    failed: list[Exception] = []

    def stream(device: str) -> None:
        rounds, alone = work[device]
        try:
            found[device].append(_paced(workers[device], sizes[device], rounds) - alone)
        except Exception as error:  # noqa: BLE001 (raised by whoever waits for the threads)
            failed.append(error)

    for _ in range(REPEATS):
        threads = [threading.Thread(target=stream, args=(d,), daemon=True) for d in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
    return {d: max(0.0, statistics.median(xs)) for d, xs in found.items()}


def _paced(worker: HostWorker, size: int, rounds: int) -> float:
    """ms from one echo to the next, of a queue that never is empty."""
    fields, tensors = {"back": True, "work": rounds}, {"x": np.zeros(size, np.uint8)}
    calls = [
        worker.ask("measuring the worker", Message("echo", fields, tensors)) for _ in range(DEEP)
    ]
    worker.finish(calls.pop(0))
    begin = time.perf_counter()
    for _ in range(COUNT):
        calls.append(worker.ask("measuring the worker", Message("echo", fields, tensors)))
        worker.finish(calls.pop(0))
    per_echo = 1e3 * (time.perf_counter() - begin) / COUNT
    for call in calls:
        worker.finish(call)
    return per_echo
