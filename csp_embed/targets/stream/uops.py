"""Places micro-op lists in their memory and decides when each is loaded.

Takes: the lists in order of use.  Leaves: unique words in DRAM, per list an address on chip, and
loads to do before a use.
A list that stands inside another one is shared. Where all fit, each is loaded once, several by one
instruction in order of first use; otherwise the lists that come back most stay for good, and the
rest of the memory is a ring. There, too, what is used soon comes along with what is used now:
a load stands in the queue of computation, which waits for it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
# Pairs of lists are compared up to so many.
MANY = 256
WORD = 4  # bytes
LOAD = 24  # cycles of a load beside its words
SOON = 256  # uses ahead for which lists come along


@dataclass(frozen=True)
class UopPlan:
    """words: uint32 image in DRAM. address: list number -> position on chip (static plan;
    meaningless where it
    moves). before: use index -> (dram word, on-chip position, length) to load first. at: on-chip
    position per use."""

    words: NDArray[np.uint32]
    before: dict[int, tuple[int, int, int]]
    at: list[int]


def place(lists: list[Words], uses: list[int], depth: int, batch: int = 96) -> UopPlan:
    """lists: encoded micro-ops; uses: list numbers in the order in which instructions use them."""
    # In order of first use: neighbours in time are neighbours in DRAM.
    first_use: list[int] = []
    seen: set[int] = set()
    for u in uses:
        if u not in seen:
            seen.add(u)
            first_use.append(u)
    # Longest first decides what is contained in what; DRAM order stays that of first use.
    host: dict[int, tuple[int, int]] = {}
    used = {u: n for n, u in enumerate(first_use)}
    held = _Held()
    for u in sorted(first_use, key=lambda u: (-len(lists[u]), used[u])):
        # Many lists do not fit together anyway; comparing all pairs would only take time.
        found = held.find(lists[u].tobytes()) if len(first_use) <= MANY else None
        if found is None:
            held.add(u, lists[u].tobytes())
        host[u] = found or (u, 0)
    # Only lists that stand in no other lie in DRAM.
    order, placed = [], set()
    for u in first_use:
        v = host[u][0]
        if v not in placed:
            placed.add(v)
            order.append(v)
    start, words = {}, []
    total = 0
    for v in order:
        start[v] = total
        total += len(lists[v])
        words.append(lists[v])
    image = np.concatenate(words) if words else np.zeros(0, dtype=np.uint32)
    # Everything fits: each word is loaded once.
    if total <= depth:
        return _static(image, lists, uses, host, order, start, batch)
    plans = [
        _Ring(lists, uses, host, order, depth, stay, batch).plan()
        for stay in (frozenset[int](), _staying(lists, uses, host, depth))
    ]
    return min(plans, key=_loading)


def _loading(plan: UopPlan) -> float:
    """About the cycles of the loads: a ring alone is best where lists are used in spells."""
    return sum(LOAD + length / 2 for _, _, length in plan.before.values())


def _staying(
    lists: list[Words], uses: list[int], host: dict[int, tuple[int, int]], depth: int
) -> frozenset[int]:
    """Lists to keep, those first that are loaded most often for the words that they take: where
    all take turns, a ring has lost each one when it is needed again. Two of the largest of the
    others fit beside them."""
    turns: dict[int, int] = {}
    before = -1
    for u in uses:
        v = host[u][0]
        turns[v] = turns.get(v, 0) + (v != before)
        before = v
    room = depth - 2 * max(len(lists[v]) for v in turns)
    kept = set[int]()
    # Turns by the loads that they save, for the words that they hold.
    for v in sorted(turns, key=lambda v: (-turns[v] * (1 + 2 * LOAD / len(lists[v])), v)):
        if turns[v] > 1 and len(lists[v]) <= room:
            kept.add(v)
            room -= len(lists[v])
    return frozenset(kept)


class _Held:
    """Lists one behind the other, to be searched for another one's words."""

    def __init__(self) -> None:
        self._words = b""
        self._lists: list[int] = []
        self._starts: list[int] = []

    def add(self, number: int, words: bytes) -> None:
        self._lists.append(number)
        self._starts.append(len(self._words))
        self._words += words

    def find(self, words: bytes) -> tuple[int, int] | None:
        """(list, position in it) of the first list that contains them."""
        at = self._words.find(words)
        while at >= 0:
            n = bisect_right(self._starts, at) - 1
            end = self._starts[n + 1] if n + 1 < len(self._starts) else len(self._words)
            inside = at - self._starts[n]
            # Byte positions within a word are chance.
            if inside % WORD == 0 and at + len(words) <= end:
                return self._lists[n], inside // WORD
            at = self._words.find(words, at + 1)
        return None


def _static(
    image: Words,
    lists: list[Words],
    uses: list[int],
    host: dict[int, tuple[int, int]],
    order: list[int],
    start: dict[int, int],
    batch: int,
) -> UopPlan:
    """Every list has its place for good; what is used soon comes along with what is used now."""
    loaded: set[int] = set()
    place_of = {v: i for i, v in enumerate(order)}
    before: dict[int, tuple[int, int, int]] = {}
    at = []
    for n, u in enumerate(uses):
        v, offset = host[u]
        if v not in loaded:
            i = place_of[v]
            length = 0
            # Along with what comes next, as far as one load should go.
            while i < len(order) and order[i] not in loaded:
                size = len(lists[order[i]])
                if length and length + size > batch:
                    break
                loaded.add(order[i])
                length += size
                i += 1
            before[n] = (start[v], start[v], length)
        at.append(start[v] + offset)
    return UopPlan(image, before, at)


class _Ring:
    """Those of `stay` have places for good, at the beginning; of the others, each overwrites the
    oldest ones and is loaded again when it is needed. In DRAM those that stay stand before the
    others, so that each kind is loaded several at once."""

    def __init__(
        self, lists: list[Words], uses: list[int], host: dict[int, tuple[int, int]],
        order: list[int], depth: int, stay: frozenset[int], batch: int,
    ) -> None:  # fmt: skip
        self.uses, self.host, self.batch = uses, host, batch
        self.size = {v: len(lists[v]) for v in order}
        self.stay = stay
        self.order = [*(v for v in order if v in stay), *(v for v in order if v not in stay)]
        self.image = np.concatenate([lists[v] for v in self.order])
        ends = np.cumsum([self.size[v] for v in self.order]).tolist()
        self.start = {v: e - self.size[v] for v, e in zip(self.order, ends, strict=True)}
        self.number = {v: i for i, v in enumerate(self.order)}
        self.first, self.depth = sum(self.size[v] for v in stay), depth
        self.head = self.first
        self.where: dict[int, int] = {}
        self.turns: dict[int, list[int]] = {}
        for n, u in enumerate(uses):
            self.turns.setdefault(host[u][0], []).append(n)

    def plan(self) -> UopPlan:
        before: dict[int, tuple[int, int, int]] = {}
        at: list[int] = []
        for n, u in enumerate(self.uses):
            v, offset = self.host[u]
            if v not in self.where:
                before[n] = self._load(v, n)
            at.append(self.where[v] + offset)
        return UopPlan(self.image, before, at)

    def _load(self, v: int, now: int) -> tuple[int, int, int]:
        """A list, and those behind it in DRAM that are used soon and are not there."""
        place = self._place(v)
        assert place is not None
        length = self.size[v]
        for other in self.order[self.number[v] + 1 :]:
            size = self.size[other]
            if (
                (other in self.stay) != (v in self.stay)
                or other in self.where
                or length + size > self.batch
            ):
                break
            soon = self._next(other, now)
            # Behind the others at once, or it is a load of its own.
            if soon is None or self._place(other, place + length, now, soon) is None:
                break
            length += size
        return self.start[v], place, length

    def _next(self, v: int, now: int) -> int | None:
        """The next use of a list; None where there is none that is soon."""
        turns = self.turns[v]
        n = bisect_right(turns, now)
        return turns[n] if n < len(turns) and turns[n] <= now + SOON else None

    def _place(self, v: int, at: int | None = None, now: int = -1, until: int = -1) -> int | None:
        """Gives a list its place. at: the only one that will do; then nothing is overwritten that
        is used from `now` to `until`: it would have to be loaded again."""
        size = self.size[v]
        if v in self.stay:
            # One behind the other, in the order of first use, as they stand in DRAM.
            self.where[v] = self.start[v]
            return self.where[v]
        head = self.first if self.head + size > self.depth else self.head
        # Whatever the new list overlaps is gone.
        gone = [
            o for o, a in self.where.items()
            if o not in self.stay and a < head + size and head < a + self.size[o]
        ]  # fmt: skip
        if at is not None and (head != at or any(self._used(o, now, until) for o in gone)):
            return None
        for other in gone:
            del self.where[other]
        self.where[v], self.head = head, head + size
        return head

    def _used(self, v: int, now: int, until: int) -> bool:
        turns = self.turns[v]
        n = bisect_right(turns, now - 1)
        return n < len(turns) and turns[n] < until
