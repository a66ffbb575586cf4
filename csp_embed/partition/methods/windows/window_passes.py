"""Passes of windows over a task order: exact parts and annealed stretches.

Takes: a Problem, an order and devices.  Leaves: both improved, window by window, front to back.
Assumes: the first plan keeps memory.  No pass makes the makespan (by appending) longer.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints, Problem, csr
from csp_embed.partition.methods.local.cooling import TINY, UNNOTED, usual_rise
from csp_embed.partition.methods.windows import windows
from csp_embed.partition.methods.windows.exact_part import solve_part
from csp_embed.partition.methods.windows.window_anneal import anneal_window
from csp_embed.partition.methods.windows.windows import (
    Stretch,
    advance,
    backward,
    makespan,
    movable,
    tails,
    through,
)
from csp_embed.partition.request import Clock
from csp_embed.partition.times import kernels

CHUNK = 300_000  # proposals or nodes between two looks at the clock

PROBES = 20  # proposals per task from which temperatures are told

RESERVE = 1e-4  # s per task that the caller needs to turn an order into a timetable


class Sweep:
    """One order and its devices under improvement.

    value: makespan in ms by appending. parts, proved: exact parts so far, and how many were closed.
    """

    def __init__(self, p: Problem) -> None:
        self.p, self.a = p, kernels.arrays(p)
        self.lines = p.m + len(p.resources)
        member_ptr, members = csr(p.groups())
        self.groups = (members, member_ptr)
        self.parts = self.proved = 0
        self.rise: float | None = None

    def begin(self, order: Ints, dev: Ints) -> float:
        """Takes over a plan; its makespan by appending in order of starts, or in this order."""
        self.order, self.dev = order.astype(np.int64), dev.astype(np.int64)
        self.value = float(makespan(self.a, self.order, self.dev, self.lines))
        self.sort()
        return self.value

    def sort(self) -> None:
        """Puts tasks in the order of their starts, where that loses nothing."""
        p = self.p
        # In the order of starts neighbours in time are neighbours in the order, which is what
        # windows cut.
        start = starts(self.a, self.order, self.dev, self.lines)
        order = np.lexsort((np.arange(p.n), start)).astype(np.int64)
        value = float(makespan(self.a, order, self.dev, self.lines))
        # On contended links another order may queue otherwise, and lose.
        if value <= self.value * (1 + 1e-12):
            self.order, self.value = order, value

    def anneal(
        self, width: int, shift: int, steps: float, hot: float, seed: int, clock: Clock
    ) -> None:
        """A pass of annealed windows, the first one `shift` long. steps: proposals per task; hot:
        the first temperature, in usual rises of this problem."""
        # unique: a shift of 0, or a width that divides n, would make a window without tasks.
        marks = np.unique([0, *range(shift or width, self.p.n, width), self.p.n])
        if self.rise is None:
            self.rise = self._measured(marks, clock, width)
        heat = max(hot * self.rise, TINY)
        self._pass(marks, clock, float(steps * width), heat, seed)

    def _measured(self, marks: Ints, clock: Clock, width: int) -> float:
        """The usual rise of a pass at no temperature, which is then taken back."""
        kept = self.order.copy(), self.dev.copy(), self.value
        work = float(PROBES * width)
        found = usual_rise(lambda noted: self._pass(marks, clock, work, TINY, 0, noted))
        self.order, self.dev, self.value = kept
        return found

    def exact(self, marks: Ints, nodes: int, clock: Clock) -> None:
        """A pass of parts [marks[i], marks[i + 1]), each solved exactly within so many nodes."""
        self._pass(marks, clock, -float(nodes), 0.0, 0)

    def _pass(
        self, marks: Ints, clock: Clock, work: float, hot: float, seed: int,
        rises: Floats = UNNOTED,
    ) -> None:  # fmt: skip
        """hot: first temperature in ms."""
        p = self.p
        marks = np.asarray(marks, np.int64)
        behind, then = backward(self.a, self.order, self.dev, self.lines, marks[1:])
        begin = windows.before(p)
        room = p.memory - np.bincount(
            self.dev[self.groups[0][self.groups[1][:-1]]], self.a.group_weight, minlength=p.m
        )
        # Kernels cannot be interrupted: the clock is asked between chunks.
        chunk = max(1, int(CHUNK / max(abs(work), 1)))
        for k in range(0, len(marks) - 1, chunk):
            # Time is left to decode and offer what was found.
            if clock.left() < 0.05 + RESERVE * p.n:
                return
            some = marks[k : k + chunk + 1]
            value, proved = run(
                self.a, self.groups, not p.contended(), self.order, self.dev, some, room, begin,
                (behind, then[k : k + chunk]), work, hot, seed + k, self.value, rises,
            )  # fmt: skip
            self.value = float(value)
            self.parts += len(some) - 1 if work < 0 else 0
            self.proved += proved


@njit(cache=True, nogil=True)
def starts(a, order, dev, lines):
    """Start [n] of each task by appending."""
    free, finish, start = np.zeros(lines), np.zeros(len(order)), np.zeros(len(order))
    sent = np.full((len(a.value_src), a.cost.shape[1]), -1.0)
    for t in order:
        start[t] = advance(a, free, finish, sent, dev, t, dev[t])
    return start


@njit(cache=True, nogil=True)
def run(a, groups, plain, order, dev, marks, room, before, after, work, hot, seed, value, rises):
    """Windows between neighbouring marks in turn: (makespan, parts proved).

    groups: (members, member_ptr), tasks by colocation group. before: a `Before` the first mark;
    moved on to the last. after: what `backward` gives for the whole order and these marks. work >
    0: proposals per window; < 0: nodes at most. hot: first temperature in ms. Where links queue, a
    window's change is kept if the whole order agrees."""
    members, member_ptr = groups
    free, finish, sent = before.free, before.finish, before.arrive
    behind, then = after
    n, m = a.cost.shape
    lines = len(free)
    at = np.empty(n, np.int64)
    for k in range(n):
        at[order[k]] = k
    # One allocation for all windows; each only fills what is its own.
    tail, loose = np.zeros((n, m)), np.zeros(n, np.bool_)
    arrive = sent.copy()
    widest = 0
    for i in range(len(marks) - 1):
        widest = max(widest, marks[i + 1] - marks[i])
    ends, peak = np.zeros((widest + 1, lines)), np.zeros(widest + 1)
    s = Stretch(
        plain, order, dev, at, room, ends, peak, finish, sent, arrive, tail, loose, members,
        member_ptr,
    )  # fmt: skip
    # What to go back to where the whole order does not agree with a window.
    old_order, old_dev, old_room = order.copy(), dev.copy(), room.copy()
    proved = 0
    for i in range(len(marks) - 1):
        lo, hi = marks[i], marks[i + 1]
        tails(a, order, dev, at, lo, hi, behind, tail)
        movable(a, order, dev, at, lo, hi, members, member_ptr, loose)
        # The window begins when the timelines before it end.
        ends[0] = free
        if work > 0:
            cold = 0.01 * hot
            anneal_window(a, s, lo, hi, then[i], np.int64(work), hot, cold, seed + i, rises)
        else:
            now = through(a, s, lo, hi, lo, then[i])
            if not plain:
                arrive[:] = sent
            _, closed = solve_part(a, s, lo, hi, then[i], now, -work)
            proved += closed
        for k in range(lo, hi):
            loose[order[k]] = False
        if not plain:
            # A window's value is exact without queues; with them only the whole order tells.
            whole = makespan(a, order, dev, lines)
            if whole > value * (1 + 1e-12):
                order[:], dev[:], room[:] = old_order, old_dev, old_room
                for k in range(lo, hi):
                    at[order[k]] = k
            else:
                value = whole
                old_order[:], old_dev[:], old_room[:] = order, dev, room
        for k in range(lo, hi):
            # The window is closed: it belongs to what precedes the next one.
            advance(a, free, finish, sent, dev, order[k], dev[order[k]])
    if plain:
        value = makespan(a, order, dev, lines)
    return value, proved
