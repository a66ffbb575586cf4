"""The compiled loop of the cycle engine: plain int64 arrays in, cycles out.

Queues and compute steps are evaluated by time stamps (an instruction starts when the queue is idle,
the instruction has been dispatched and its tokens have been pushed). Only the read port needs
global order: there each burst of each load, and of the instruction fetch, is arbitrated at its own
cycle. A long load costs a few dozen bursts: once every tag is held by bursts of full length that
follow each other without a gap, the port repeats itself and the loop skips whole periods.

Why this is exact. All requests known at cycle t are settled at t in the port's fixed priority. A
queue that waits for something unknown waits, in the end, for data of a burst not yet asked for, and
so cannot ask for one of its own before that burst has been served: no later news can change t.

Why `run` is one long function. Its three parts share the state of the port: twenty numbers that are
read and written for every burst, and stay in registers for as long as they are locals of one loop.
In an array, or handed from function to function as a tuple, they are loaded and stored each time.
Even part 1, which needs none of them, costs as two functions 3.8 to 6.6 times the time of the whole
(streams of scripts/bench_cycles; inlined, with tuples or single arrays): Numba counts references to
every array that a call is given. What is called rarely stands in functions of its own.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.sim.cycles.layout import (
    ADDRESS,
    BEAT_BYTES,
    BOTTOM,
    BURST_BEATS,
    COMMAND,
    DELAY,
    DISPATCH,
    DONE,
    FETCH_DRAIN,
    FETCH_PORT,
    FETCH_START,
    FETCH_TURN,
    FINISH,
    INSTRUCTION_BYTES,
    KIND,
    LATENCY,
    LOAD,
    MIDDLE,
    POP_NEXT,
    POP_PREV,
    PORT,
    PUSH_NEXT,
    PUSH_PREV,
    QUEUE,
    QUEUE_DEPTH,
    RATE,
    RATE_UNIT,
    REARM,
    RETURN,
    ROW,
    ROWS,
    SKIP,
    SPAN,
    STRIDE,
    STUCK,
    TAGS,
    TAIL,
    TOKEN,
    TOKEN_LIMIT,
    TOKENS,
    TOKENS_LOST,
    TOP,
    TURN,
    WAIT_FETCH,
    WAIT_NEXT,
    WAIT_NONE,
    WAIT_PREV,
    WAKE,
)

# Later than any cycle that a program can reach, with room to add to it.
FAR = 1 << 62


@njit(cache=True, error_model="numpy", no_cpython_wrapper=True)
def _duration(beats, cost):  # pragma: no cover - compiled
    """Cycles for `beats` beats on the port."""
    # Whole beats a cycle: the usual case, without a division for every burst.
    if cost[RATE] == cost[BEAT_BYTES] * RATE_UNIT:
        return beats
    return -((-beats * cost[BEAT_BYTES] * RATE_UNIT) // cost[RATE])


@njit(cache=True, error_model="numpy", no_cpython_wrapper=True)
def _write_zeros(zeros, free, passing):  # pragma: no cover - compiled
    """Zeros above, beside, below: `free` cycles without data, `passing` that only skip rows."""
    for phase in range(3):
        step = min(max(free, 0), zeros[phase])
        # A pass without data only moves along rows whose zeros above are written.
        zeros[phase] -= step
        free -= step
    if passing > 0 and zeros[0] == 0:
        zeros[1] = max(0, zeros[1] - passing)


@njit(cache=True, error_model="numpy", no_cpython_wrapper=True)
def _record(segments, used, owner, first, stop):  # pragma: no cover - compiled
    """Notes a use of the read port, joined to the one before where it goes on; returns how many."""
    joins = 0 < used <= segments.shape[0] and segments[used - 1, 0] == owner
    # Most uses follow the one before of the same load: joined, a trace has thousands of rows less.
    if joins and segments[used - 1, 2] == first:
        segments[used - 1, 2] = stop
        return used
    if used < segments.shape[0]:
        segments[used, 0] = owner
        segments[used, 1] = first
        segments[used, 2] = stop
    return used + 1


@njit(cache=True, error_model="numpy", no_cpython_wrapper=True)
def _push(flags, q, done, push_time, pushed):  # pragma: no cover - compiled
    """The tokens that an instruction of queue q leaves when it is done."""
    if flags & PUSH_PREV:
        push_time[2 * q - 1, pushed[2 * q - 1]] = done
        pushed[2 * q - 1] += 1
    if flags & PUSH_NEXT:
        push_time[2 * q, pushed[2 * q]] = done
        pushed[2 * q] += 1


@njit(cache=True, error_model="numpy", no_cpython_wrapper=True)
def _overfull(limit, pushed, push_time, popped, pop_time):  # pragma: no cover - compiled
    """The last direction in which more than `limit` tokens wait at some time, or -1."""
    # Both times are sorted, because a FIFO pops in the order of its pushes.
    found = -1
    for direction in range(len(pushed)):
        gone = 0
        for k in range(limit, pushed[direction]):
            while gone < popped[direction] and pop_time[direction, gone] <= push_time[direction, k]:
                gone += 1
            if k + 1 - gone > limit:
                found = direction
                break
    return found


@njit(cache=True, error_model="numpy")
def run(table, n_queues, cost, start, end, dispatch, wait, port_wait, segments):  # pragma: no cover
    """Simulates one program.

    table: int64[n, COLUMNS]; cost: int64[COSTS].
    Filled: start, end, dispatch (cycle, -1 if never), wait (reason), port_wait (cycles that a load
    waited for other users of the port): int64[n]; segments: int64[m, 3] of read-port use as
    (instruction or -1 for fetch, first cycle, end cycle), as far as there is room.

    Returns int64[8]: status, total cycles, segments written or wanted, bursts, fetch bursts, beats,
    fetch beats, direction of lost tokens.
    """
    n = table.shape[0]
    result = np.zeros(8, np.int64)
    depth, tags = cost[QUEUE_DEPTH], cost[TAGS]
    burst, beat_bytes = cost[BURST_BEATS], cost[BEAT_BYTES]
    # Addresses are counted in beats; beat_bytes is a power of two (`costs`).
    beat_shift = 0
    while (1 << beat_shift) < beat_bytes:
        beat_shift += 1
    full = _duration(burst, cost)
    wake, latency, back = cost[WAKE], cost[LATENCY], cost[RETURN]
    turn, token, rearm = cost[TURN], cost[TOKEN], cost[REARM]
    shift_dispatch = cost[DISPATCH]

    # Instructions of each queue in program order, filled by dispatch.
    counts = np.zeros(n_queues + 1, np.int64)
    # Everything that `_run` hands over is unset memory.
    for i in range(n):
        counts[table[i, QUEUE] + 1] += 1
        start[i] = -1
        end[i] = -1
        dispatch[i] = -1
        wait[i] = 0
        port_wait[i] = 0
    base = np.cumsum(counts)
    members = np.empty(n, np.int64)
    sent = np.zeros(n_queues, np.int64)
    taken = np.zeros(n_queues, np.int64)
    idle = np.zeros(n_queues, np.int64)

    # Tokens: direction 2q is queue q to q+1, 2q+1 is queue q+1 to q.
    directions = max(2 * (n_queues - 1), 1)
    push_time = np.empty((directions, n), np.int64)
    pop_time = np.empty((directions, n), np.int64)
    pushed = np.zeros(directions, np.int64)
    popped = np.zeros(directions, np.int64)

    # Users of the read port: one a queue (at most one load of a queue is under way), then fetch.
    users = n_queues + 1
    fetch = n_queues
    head = np.full(users, FAR, np.int64)  # cycle at which the arbiter sees the next command
    priority = np.zeros(users, np.int64)
    current = np.full(users, -1, np.int64)  # instruction of the load under way
    beat = np.zeros(users, np.int64)  # next beat's address, in beats
    left = np.zeros(users, np.int64)  # beats left in the row
    rows = np.zeros(users, np.int64)
    row_byte = np.zeros(users, np.int64)
    own_end = np.zeros(users, np.int64)
    pad = np.zeros((users, 3), np.int64)  # zeros still to write above, beside, below
    pad_at = np.zeros(users, np.int64)

    # The port: bursts are accepted in the order of the arbiter.
    slots = 1
    # A power of two, so that a ring index is a mask and no division, for every burst.
    while slots < tags:
        slots *= 2
    mask = slots - 1
    ring = np.zeros(slots, np.int64)  # cycle of each burst's last beat at the port
    issued = 0
    freed = 0
    last_accept = -1
    last_grant = -1
    last_end = -1
    regular = 0  # newest bursts that have full length and no gap between them
    n_segments = 0
    bursts = 0
    fetch_bursts = 0
    beats = 0
    fetch_beats = 0

    per_burst = burst * beat_bytes // cost[INSTRUCTION_BYTES]
    # Instructions come in bursts of the port, several at a time.
    beats_each = cost[INSTRUCTION_BYTES] // beat_bytes
    fetch_next = 0
    fetch_stop = 0
    fetch_at = 0
    draining = False
    priority[fetch] = cost[FETCH_PORT]
    if n > 0:
        head[fetch] = cost[FETCH_START] + cost[COMMAND]
        left[fetch] = min(per_burst, n) * beats_each
    finished = -1

    moved = True
    while True:
        # 1. Everything that needs no port; nothing where the last burst ended no load.
        while moved:
            moved = False
            # Fetched instructions go to their queues one a cycle, while these have room.
            while draining:
                if fetch_next == fetch_stop:
                    draining = False
                    moved = True
                    if fetch_next < n:
                        head[fetch] = fetch_at + cost[FETCH_TURN] + cost[COMMAND]
                        left[fetch] = min(per_burst, n - fetch_next) * beats_each
                    break
                q = table[fetch_next, QUEUE]
                at = fetch_at + 1
                if sent[q] >= depth:
                    # The instruction that must leave first has not run yet: fetch waits, and is
                    # asked again later.
                    if taken[q] <= sent[q] - depth:
                        break
                    room = end[members[base[q] + sent[q] - depth]] + 1
                    if room > at:
                        at = room
                dispatch[fetch_next] = at
                fetch_at = at
                members[base[q] + sent[q]] = fetch_next
                sent[q] += 1
                fetch_next += 1
                moved = True

            for q in range(n_queues):
                while current[q] < 0 and taken[q] < sent[q]:
                    i = members[base[q] + taken[q]]
                    flags = table[i, TOKENS]
                    at = idle[q]
                    why = WAIT_NONE
                    # All conditions of a start, the latest of which is the reason that a report
                    # shows.
                    ready = dispatch[i] + shift_dispatch
                    if ready > at:
                        at = ready
                        why = WAIT_FETCH
                    if flags & POP_PREV:
                        k = popped[2 * q - 2]
                        if k >= pushed[2 * q - 2]:
                            # Not pushed yet: whether it ever will be is found out when nothing
                            # moves any more.
                            break
                        ready = push_time[2 * q - 2, k] + token
                        if ready > at:
                            at = ready
                            why = WAIT_PREV
                    if flags & POP_NEXT:
                        k = popped[2 * q + 1]
                        if k >= pushed[2 * q + 1]:
                            break
                        ready = push_time[2 * q + 1, k] + token
                        if ready > at:
                            at = ready
                            why = WAIT_NEXT
                    # Popped only now: an instruction takes all of its tokens at once, or none.
                    if flags & POP_PREV:
                        pop_time[2 * q - 2, popped[2 * q - 2]] = at
                        popped[2 * q - 2] += 1
                    if flags & POP_NEXT:
                        pop_time[2 * q + 1, popped[2 * q + 1]] = at
                        popped[2 * q + 1] += 1
                    start[i] = at
                    wait[i] = why
                    moved = True
                    if table[i, KIND] == LOAD:
                        # A load ends when its last burst does; everything else has a span known
                        # beforehand.
                        current[q] = i
                        priority[q] = table[i, PORT]
                        head[q] = at + table[i, DELAY] + cost[COMMAND]
                        rows[q] = table[i, ROWS]
                        row_byte[q] = table[i, ADDRESS]
                        first = row_byte[q] >> beat_shift
                        beat[q] = first
                        stop = row_byte[q] + table[i, ROW] + beat_bytes - 1
                        left[q] = (stop >> beat_shift) - first
                        own_end[q] = 0
                        pad[q, 0] = table[i, TOP]
                        pad[q, 1] = table[i, MIDDLE]
                        pad[q, 2] = table[i, BOTTOM]
                        pad_at[q] = at + table[i, TAIL]
                        break
                    done = at + table[i, SPAN]
                    end[i] = done
                    taken[q] += 1
                    idle[q] = done + turn
                    _push(flags, q, done, push_time, pushed)
                    if table[i, KIND] == FINISH and finished < 0:
                        finished = done

        # 2. The next grant of the port: the earliest cycle with a command, a tag and no last beat.
        at = FAR
        for u in range(users):
            if head[u] < at:
                at = head[u]
        # After FINISH nobody counts: what is still under way stays unended.
        if at == FAR or (finished >= 0 and at > finished):
            break
        if at <= last_grant:
            at = last_grant + 1
        while freed < issued and ring[freed & mask] < at:
            freed += 1
        if issued - freed == tags:
            at = ring[freed & mask] + 1
            freed += 1
        while freed < issued and ring[freed & mask] == at:
            at += 1
            freed += 1
        user = -1
        for u in range(users):
            # The lowest number has priority; of equal ones the first user, as in hardware.
            if head[u] <= at and (user < 0 or priority[u] < priority[user]):
                user = u
        if user == fetch:
            # Bursts regardless of boundaries; the next is asked for when this one is dispatched.
            length = left[fetch]
            ready = at + latency + (wake if at > last_accept else 1)
            accept = ready if ready > last_end else last_end
            regular = regular + 1 if (accept == last_end and length == burst) else 0
            last_grant = at
            last_accept = accept
            last_end = accept + _duration(length, cost)
            ring[issued & mask] = last_end
            issued += 1
            n_segments = _record(segments, n_segments, -1, accept, last_end)
            fetch_bursts += 1
            fetch_beats += length
            head[fetch] = FAR
            fetch_stop = fetch_next + length // beats_each
            fetch_at = last_end + back + cost[FETCH_DRAIN] - 1
            draining = True
            moved = True
            continue

        # 3. Bursts of one load, for as long as no other user can come between.
        i = current[user]
        tail = table[i, TAIL]
        skip = table[i, SKIP]
        # A user with priority takes the port as soon as it asks; one without only if this load is
        # not ready.
        rival = FAR
        lower = FAR
        for u in range(users):
            if u != user:
                if priority[u] < priority[user]:
                    rival = min(rival, head[u])
                else:
                    lower = min(lower, head[u])
        place = beat[user]
        rest = left[user]
        mine = head[user]
        own = own_end[user]
        while True:
            # Bursts do not cross their own size, so the first and the last of a row may be short.
            length = burst - (place & (burst - 1))
            if rest < length:
                length = rest

            # A port that repeats itself is advanced by whole periods.
            if (
                regular >= tags
                and length == burst
                and rest >= 2 * burst
                and issued - freed == tags - 1
                and at == ring[(freed - 1) & mask] + 1
                and full > rearm
                and at <= last_accept
                and at + 1 + latency <= last_end
            ):
                # Not the last burst: it ends the row, and what follows is no repetition.
                periods = min(rest // burst - 1, (rival - at - 1) // full)
                if periods > 0:
                    jump = periods * full
                    # Data without a gap: zeros beside or below wait, rows to skip pass.
                    data = last_end + back + tail
                    _write_zeros(pad[user], data - pad_at[user], jump if skip else 0)
                    pad_at[user] = data
                    for k in range(slots):
                        ring[k] += jump
                    n_segments = _record(segments, n_segments, i, last_end, last_end + jump)
                    pad_at[user] += jump
                    last_end += jump
                    last_accept += jump
                    own += jump
                    at += jump
                    place += periods * burst
                    rest -= periods * burst
                    bursts += periods
                    beats += periods * burst

            ready = at + latency + (wake if at > last_accept else 1)
            accept = ready if ready > last_end else last_end
            cycles = full if length == burst else _duration(length, cost)
            regular = regular + 1 if (accept == last_end and length == burst) else 0
            last_grant = at
            last_accept = accept
            last_end = accept + cycles
            ring[issued & mask] = last_end
            issued += 1
            bursts += 1
            beats += length
            n_segments = _record(segments, n_segments, i, accept, last_end)
            # When it would have begun with the port to itself: the rest of its wait is others'
            # doing.
            expected = max(own, mine + latency + (1 if own > 0 else wake))
            if accept > expected:
                port_wait[i] += accept - expected
            own = last_end
            if pad[user, 0] + pad[user, 1] + pad[user, 2] > 0:
                # Zeros go to memory while no data arrives.
                data = accept + back + tail
                _write_zeros(pad[user], data - pad_at[user], cycles if skip else 0)
                pad_at[user] = data + cycles

            mine = at + rearm
            place += length
            rest -= length
            if rest == 0:
                rows[user] -= 1
                if rows[user] == 0:
                    break
                row_byte[user] += table[i, STRIDE]
                place = row_byte[user] >> beat_shift
                rest = ((row_byte[user] + table[i, ROW] + beat_bytes - 1) >> beat_shift) - place

            # The next grant, if no other user can have it or one before it.
            at = mine
            seen = freed
            while seen < issued and ring[seen & mask] < at:
                seen += 1
            held = issued - seen == tags
            if held:
                at = ring[seen & mask] + 1
                seen += 1
            while seen < issued and ring[seen & mask] == at:
                at += 1
                seen += 1
            if at >= rival or (lower <= at and not held):
                break
            freed = seen

        if rest > 0:
            beat[user] = place
            left[user] = rest
            head[user] = mine
            own_end[user] = own
            continue
        head[user] = FAR
        current[user] = -1
        moved = True
        done = last_end + back + tail
        zeros = pad[user, 0] + pad[user, 1] + pad[user, 2]
        if zeros > 0 and pad_at[user] + zeros > done:
            done = pad_at[user] + zeros
        end[i] = done
        taken[user] += 1
        idle[user] = done + turn
        _push(table[i, TOKENS], user, done, push_time, pushed)

    # Without FINISH the program ends with its last instruction; with work left over it hangs.
    status = DONE
    if finished < 0:
        stuck = fetch_next < n
        for q in range(n_queues):
            if taken[q] < sent[q]:
                stuck = True
            if idle[q] - turn > finished:
                finished = idle[q] - turn
        if stuck:
            status = STUCK
    lost = _overfull(cost[TOKEN_LIMIT], pushed, push_time, popped, pop_time)
    if lost >= 0:
        status = TOKENS_LOST
        result[7] = lost
    result[0] = status
    result[1] = max(finished, 0)
    result[2] = n_segments
    result[3] = bursts
    result[4] = fetch_bursts
    result[5] = beats
    result[6] = fetch_beats
    return result
