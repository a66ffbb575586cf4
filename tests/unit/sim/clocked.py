"""A second model of the same machine, clock by clock: one loop iteration is one cycle.

It keeps every register and counter that decides timing (queues, semaphores, command generators, the
arbiter's queues and tags, the memory's request queue and delay counter) and nothing else, and has
no closed forms: slow, and independent of how the engine gets its answers. It was written from the
state machines of the public RTL and reproduces the measured programs, too.

Only full-rate ports; three queues; read clients 0 fetch, 1 narrow elements (no extra register), 2,
3, 4 wide ones, in order of priority. The table is the engine's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from csp_embed.sim.cycles.layout import (
    ADDRESS,
    BOTTOM,
    DELAY,
    FINISH,
    KIND,
    LOAD,
    MIDDLE,
    POP_NEXT,
    POP_PREV,
    PORT,
    PUSH_NEXT,
    PUSH_PREV,
    QUEUE,
    ROW,
    ROWS,
    SKIP,
    SPAN,
    STRIDE,
    TOKENS,
    TOP,
)

QUEUES, CLIENTS, BEAT, TAGS, DEPTH = 3, 5, 8, 16, 512
RING = 32  # places for requests under way, more than there are tags
# States of the fetch unit.
IDLE, COMMAND, DATA, DRAIN = 0, 1, 2, 3


@njit
def clocked(
    table: NDArray[np.int64], burst: int, delay: int, latency: int, limit: int
) -> Any:  # pragma: no cover
    """Cycles until FINISH ends, or -1 after `limit` cycles.

    delay: to which the memory's counter runs; latency: cycles that each request waits besides.
    """
    n = table.shape[0]
    fetch_state = IDLE
    fetch_left = n
    fetch_got = 0
    fetch_want = 0
    fetched = 0  # instructions received
    sent = 0  # instructions dispatched
    member = np.zeros((QUEUES, n), np.int64)
    put = np.zeros(QUEUES, np.int64)
    got = np.zeros(QUEUES, np.int64)
    working = np.zeros(QUEUES, np.int64)
    timer = np.zeros(QUEUES, np.int64)
    tokens = np.zeros(2 * QUEUES, np.int64)  # 2q: from queue q to q+1, 2q+1: back

    busy = np.zeros(CLIENTS, np.int64)
    task = np.zeros(CLIENTS, np.int64)
    row = np.zeros(CLIENTS, np.int64)
    row_byte = np.zeros(CLIENTS, np.int64)
    beat = np.zeros(CLIENTS, np.int64)
    left = np.zeros(CLIENTS, np.int64)
    passed = np.zeros(CLIENTS, np.int64)  # rows that the command generator has passed
    asked_all = np.ones(CLIENTS, np.int64)
    in_flight = np.zeros(CLIENTS, np.int64)
    arrived = np.zeros(CLIENTS, np.int64)  # register before the memory of wide elements
    zeros = np.zeros((CLIENTS, 3), np.int64)
    zeros_start = np.zeros(CLIENTS, np.int64)

    held = np.zeros(CLIENTS, np.int64)  # the arbiter's one command of each client
    held_beats = np.zeros(CLIENTS, np.int64)
    free_tags = TAGS
    request = np.zeros((RING, 3), np.int64)  # beats, client, cycle of entry
    first = 0
    last = 0
    counter = 0
    reading = 0
    remaining = 0  # the memory interface's count
    supply = 0  # the memory's own count
    supply_to = 0
    out_valid = 0
    out_to = 0
    back_valid = 0
    back_to = 0
    command = np.zeros(CLIENTS, np.int64)
    beats = np.zeros(CLIENTS, np.int64)
    ended = np.zeros(CLIENTS, np.int64)
    done = np.zeros(QUEUES, np.int64)
    begin = np.zeros(QUEUES, np.int64)
    post = np.zeros(2 * QUEUES, np.int64)
    take = np.zeros(2 * QUEUES, np.int64)

    for cycle in range(limit):
        # What the wires say in this cycle.
        last_beat = out_valid == 1 and remaining == 0
        winner = -1
        for c in range(CLIENTS):
            if held[c] and winner < 0:
                winner = c
        grant = winner >= 0 and free_tags > 0 and not last_beat
        command[:] = 0
        ended[:] = 0
        done[:] = 0
        begin[:] = 0
        post[:] = 0
        take[:] = 0
        if fetch_state == COMMAND:
            command[0] = 1
            beats[0] = min(burst, 2 * fetch_left)
        for c in range(1, CLIENTS):
            if busy[c]:
                i = task[c]
                above = table[i, DELAY] - 1
                if not asked_all[c] and above <= passed[c] < table[i, ROWS] + above:
                    command[c] = 1
                    beats[c] = min(burst - beat[c] % burst, left[c])
                if in_flight[c] == 0 and asked_all[c] and zeros_start[c] == 0:
                    ended[c] = zeros[c].sum() == 0
        some = last > first
        accept = (
            some
            and reading == 0
            and counter == delay
            and cycle > request[first % RING, 2] + latency
        )
        for q in range(QUEUES):
            i = member[q, got[q]] if got[q] < put[q] else 0
            flags = table[i, TOKENS]
            if working[q]:
                done[q] = ended[table[i, PORT]] if table[i, KIND] == LOAD else timer[q] == 0
                if done[q]:
                    if table[i, KIND] == FINISH:
                        return cycle
                    if flags & PUSH_PREV:
                        post[2 * q - 1] = 1
                    if flags & PUSH_NEXT:
                        post[2 * q] = 1
            elif got[q] < put[q]:
                prev = not flags & POP_PREV or tokens[2 * q - 2] > 0
                after = not flags & POP_NEXT or tokens[2 * q + 1] > 0
                if prev and after:
                    begin[q] = 1
                    if flags & POP_PREV:
                        take[2 * q - 2] = 1
                    if flags & POP_NEXT:
                        take[2 * q + 1] = 1
        target = -1
        if fetch_state == DRAIN and sent < fetched:
            q = table[sent, QUEUE]
            if put[q] - got[q] < DEPTH:
                target = q
        drained = sent == fetched

        # The clock's edge.
        tokens += post - take
        if fetch_state == IDLE:
            fetch_state = COMMAND if cycle == 0 else IDLE
        elif fetch_state == COMMAND:
            if not held[0]:
                fetch_state = DATA
                fetch_want = beats[0]
                fetch_got = 0
        elif fetch_state == DATA:
            if back_valid and back_to == 0:
                fetch_got += 1
                if fetch_got == fetch_want:
                    fetch_state = DRAIN
                    fetched += fetch_want // 2
                    fetch_left -= fetch_want // 2
        elif drained:
            fetch_state = COMMAND if fetch_left > 0 else IDLE
        for c in range(1, CLIENTS):
            here = back_valid == 1 and back_to == c
            fire = here if c == 1 else arrived[c] == 1
            arrived[c] = here
            fires = command[c] == 1 and not held[c]
            i = task[c]
            if zeros_start[c] > 0:
                zeros_start[c] -= 1
            elif zeros[c, 0] > 0:
                zeros[c, 0] -= not fire
            elif zeros[c, 1] > 0:
                zeros[c, 1] -= (not fire) or table[i, SKIP] == 1
            elif zeros[c, 2] > 0:
                zeros[c, 2] -= not fire
            if busy[c]:
                next_row = False
                if fires:
                    in_flight[c] += beats[c]
                    left[c] -= beats[c]
                    beat[c] += beats[c]
                    if left[c] == 0:
                        row[c] += 1
                        asked_all[c] = row[c] == table[i, ROWS]
                        next_row = not asked_all[c]
                        row_byte[c] += table[i, STRIDE]
                        beat[c] = row_byte[c] // BEAT
                        left[c] = (row_byte[c] + table[i, ROW] + BEAT - 1) // BEAT - beat[c]
                if passed[c] < table[i, DELAY] - 1 or next_row:
                    passed[c] += 1
                in_flight[c] -= fire
                if ended[c]:
                    busy[c] = 0
        for q in range(QUEUES):
            if begin[q]:
                i = member[q, got[q]]
                working[q] = 1
                timer[q] = table[i, SPAN] - 1
                if table[i, KIND] == LOAD:
                    c = table[i, PORT]
                    busy[c] = 1
                    task[c] = i
                    row[c] = 0
                    row_byte[c] = table[i, ADDRESS]
                    beat[c] = row_byte[c] // BEAT
                    left[c] = (row_byte[c] + table[i, ROW] + BEAT - 1) // BEAT - beat[c]
                    passed[c] = 0
                    asked_all[c] = 0
                    in_flight[c] = 0
                    zeros[c, 0] = table[i, TOP]
                    zeros[c, 1] = table[i, MIDDLE]
                    zeros[c, 2] = table[i, BOTTOM]
                    zeros_start[c] = c != 1
            elif done[q]:
                working[q] = 0
                got[q] += 1
            elif working[q]:
                timer[q] -= 1
        if target >= 0:
            member[target, put[target]] = sent
            put[target] += 1
            sent += 1
        for c in range(CLIENTS):
            if grant and c == winner:
                held[c] = 0
            elif command[c] == 1 and not held[c]:
                held[c] = 1
                held_beats[c] = beats[c]
        back_valid = out_valid
        back_to = out_to
        free_tags += last_beat
        if grant:
            free_tags -= 1
            request[last % RING, 0] = held_beats[winner]
            request[last % RING, 1] = winner
            request[last % RING, 2] = cycle
            last += 1
        if reading:
            if out_valid == 1 and remaining == 1:
                reading = 0
            remaining -= out_valid == 1 and remaining > 0
        elif accept:
            remaining = request[first % RING, 0] - 1
            reading = remaining > 0
        if accept:
            supply = request[first % RING, 0]
            supply_to = request[first % RING, 1]
            first += 1
        counter = min(counter + 1, delay) if some else 0
        out_valid = 1 if supply > 0 else 0
        out_to = supply_to
        supply -= out_valid
    return -1
