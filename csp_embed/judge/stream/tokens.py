"""The queues and their tokens: in which order instructions can run, and what must precede what.

Each queue runs its instructions in program order; a token FIFO joins neighbours in each direction.
The k-th pop of a FIFO takes the k-th push, whatever the timing, so "must precede" does not depend
on the schedule: it is kept as one clock per instruction, clock[n, q] = how many instructions of
queue q are done before n starts (n itself counts as done in its own queue).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.ir.stream import Stream
from csp_embed.jit import njit
from csp_embed.judge.stream.table import Table, make_table
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.listing import line

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """order: instruction numbers in a legal order, program order where tokens allow.

    heads: per queue, the first instruction that cannot run, or -1 where the queue is done.
    clock: int32[n, queues], valid for instructions in `order`. position: place in its own queue.
    pushed / popped: int64[queues - 1, 2]: FIFO between queue k and k + 1, [0] rightwards, [1] left.
    most: int64[queues - 1, 2]: most tokens that can lie in a FIFO at once; most_at: the instruction
    whose push makes them (-1: none). over: the first push beyond the capacity (-1: none). A
    deadlock leaves heads >= 0 and ends `order` early.
    """

    order: NDArray[np.int64]
    heads: NDArray[np.int64]
    clock: NDArray[np.int32]
    position: NDArray[np.int32]
    pushed: NDArray[np.int64]
    popped: NDArray[np.int64]
    most: NDArray[np.int64]
    most_at: NDArray[np.int64]
    over: NDArray[np.int64]

    @property
    def deadlocked(self) -> bool:
        return bool((self.heads >= 0).any())


def fifos(table: Table, n_queues: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """FIFO numbers (2 * left queue + direction) popped and pushed by each instruction: int64[n, 2]
    each, prev then next, -1 for none. Tokens to neighbours that do not exist are no tokens."""
    # The first queue has no left neighbour and the last no right one: hardware ignores these bits.
    q = table.c.queue
    bits = table.tokens != 0
    has_prev, has_next = q > 0, q < n_queues - 1
    # FIFOs are numbered from the left, rightward ones even: 2k between queues k and k + 1, 2k + 1
    # back.
    left, right = 2 * (q - 1), 2 * q
    pops = np.stack(
        [
            np.where(bits[:, 0] & has_prev, left, -1),
            np.where(bits[:, 1] & has_next, right + 1, -1),
        ],
        axis=1,
    )
    pushes = np.stack(
        [
            np.where(bits[:, 2] & has_prev, left + 1, -1),
            np.where(bits[:, 3] & has_next, right, -1),
        ],
        axis=1,
    )
    return pops, pushes


def find_order(isa: Isa, table: Table, max_tokens: int | None = None) -> Order:
    """Runs the queues without time. `max_tokens`: capacity for `over` (default: the machine's)."""
    n_queues = len(isa.queues)
    capacity = isa.limits.max_tokens if max_tokens is None else max_tokens
    pops, pushes = fifos(table, n_queues)
    # A machine with one queue still gets arrays with a row, so that kernels need no case for it.
    n_fifos = max(2 * (n_queues - 1), 2)
    n = len(table)
    queue = np.ascontiguousarray(table.c.queue)
    by_queue = np.argsort(queue, kind="stable")
    starts = np.searchsorted(queue[by_queue], np.arange(n_queues + 1))
    position = np.empty(n, np.int32)
    position[by_queue] = np.arange(n) - starts[queue[by_queue]]
    order, heads = np.empty(n, np.int64), np.full(n_queues, -1, np.int64)
    clock = np.zeros((n, n_queues), np.int32)
    counts = np.zeros((2, n_fifos), np.int64)
    most, most_at = np.zeros(n_fifos, np.int64), np.full(n_fifos, -1, np.int64)
    over = np.full(n_fifos, -1, np.int64)
    done = _run(
        queue, position, by_queue, starts, pops, pushes, order, heads, clock, counts, most,
        most_at, over, capacity,
    )  # fmt: skip
    shape = (-1, 2)
    return Order(
        order[:done], heads, clock, position, counts[1].reshape(shape), counts[0].reshape(shape),
        most.reshape(shape), most_at.reshape(shape), over.reshape(shape),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _run(
    queue: Ints, position: NDArray[np.int32], by_queue: Ints, starts: Ints, pops: Ints,
    pushes: Ints, order: Ints, heads: Ints, clock: NDArray[np.int32], counts: Ints, most: Ints,
    most_at: Ints, over: Ints, capacity: int,
) -> int:  # fmt: skip
    n, n_queues, n_fifos = len(queue), len(heads), counts.shape[1]
    pushers = np.empty((n_fifos, n + 1), np.int64)
    # drained[f, p]: tokens that the first p instructions of its consumer take from FIFO f.
    drained = np.zeros((n_fifos, n + 1), np.int64)
    for q in range(n_queues):
        for p in range(starts[q + 1] - starts[q]):
            i = by_queue[starts[q] + p]
            for f in range(n_fifos):
                if f // 2 + (1 - f % 2) == q:
                    drained[f, p + 1] = drained[f, p]
            for k in range(2):
                if pops[i, k] >= 0:
                    drained[pops[i, k], p + 1] += 1
    at = starts[:n_queues].copy()
    done = 0
    while True:
        best = n
        for q in range(n_queues):
            if at[q] < starts[q + 1]:
                i = by_queue[at[q]]
                ready = True
                for k in range(2):
                    f = pops[i, k]
                    if f >= 0 and counts[0, f] >= counts[1, f]:
                        ready = False
                if ready and i < best:
                    best = i
        if best == n:
            break
        i, q = best, queue[best]
        if at[q] > starts[q]:
            before = by_queue[at[q] - 1]
            for r in range(n_queues):
                clock[i, r] = clock[before, r]
        for k in range(2):
            f = pops[i, k]
            if f >= 0:
                pusher = pushers[f, counts[0, f]]
                counts[0, f] += 1
                for r in range(n_queues):
                    clock[i, r] = max(clock[i, r], clock[pusher, r])
        clock[i, q] = position[i] + 1
        for k in range(2):
            f = pushes[i, k]
            if f >= 0:
                pushers[f, counts[1, f]] = i
                counts[1, f] += 1
                consumer = f // 2 + (1 - f % 2)
                waiting = counts[1, f] - drained[f, clock[i, consumer]]
                if waiting > most[f]:
                    most[f], most_at[f] = waiting, i
                if waiting > capacity and over[f] < 0:
                    over[f] = i
        at[q] += 1
        order[done] = i
        done += 1
    for q in range(n_queues):
        if at[q] < starts[q + 1]:
            heads[q] = by_queue[at[q]]
    return done


def waits(isa: Isa, table: Table, order: Order, n: int) -> str:
    """What instruction n, a head in a deadlock, waits for."""
    q = int(table.c.queue[n])
    parts: list[str] = []
    for pop, (neighbour, fifo, direction) in enumerate(((q - 1, q - 1, 0), (q + 1, q, 1))):
        if not table.tokens[n, pop] or not 0 <= neighbour < len(isa.queues):
            continue
        pushed, popped = int(order.pushed[fifo, direction]), int(order.popped[fifo, direction])
        if popped >= pushed:
            parts.append(
                f"token {popped + 1} from {isa.queues[neighbour]}, which has pushed {pushed}"
            )
    return " and ".join(parts)


def describe_deadlock(isa: Isa, stream: Stream, table: Table, order: Order) -> list[str]:
    """One line per queue: its head and what it waits for."""
    lines: list[str] = []
    for q, head in enumerate(order.heads):
        if head < 0:
            lines.append(f"{isa.queues[q]}: done")
            continue
        text = " ".join(line(isa, stream, int(head)).split())
        lines.append(
            f"{isa.queues[q]}: instruction {text} waits for {waits(isa, table, order, int(head))}"
        )
    return lines


def deadlock_error(isa: Isa, stream: Stream, table: Table, order: Order) -> SimError:
    """The deadlock as an error that names all queue heads."""
    heads = [f"{isa.queues[q]} {int(h)}" for q, h in enumerate(order.heads) if h >= 0]
    return SimError(
        f"deadlock after {len(order.order)} of {len(table)} instructions; "
        f"waiting: {', '.join(heads)}",
        where="\n         ".join(describe_deadlock(isa, stream, table, order)),
        why="tokens match in the order of each queue, and no queue can go on",
        hint="a pop needs its push in an earlier instruction of the neighbour's queue",
    )


def stuck(isa: Isa, stream: Stream) -> tuple[dict[str, int | None], SimError] | None:
    """None, or where `stream` deadlocks: (queue -> its head, None where it is done; the error)."""
    table = make_table(isa, stream)
    order = find_order(isa, table)
    if not order.deadlocked:
        return None
    heads = {isa.queues[q]: int(h) if h >= 0 else None for q, h in enumerate(order.heads)}
    return heads, deadlock_error(isa, stream, table, order)
