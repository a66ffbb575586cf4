"""Dependency tokens: every pair of rows in different queues that must keep its order gets a push
and a pop.

A pop waits for the next push of that direction, in order, so a need (producer, consumer) is met
when the consumer's
queue has popped as many tokens as the producer's queue has pushed up to the producer. Needs that an
earlier pop of the
same queue already implies are dropped; what remains grows on both sides, so pushes and pops match
one to one.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from csp_embed.ir.schedule import POP_NEXT, POP_PREV, PUSH_NEXT, PUSH_PREV


@dataclass
class _Direction:
    """Tokens from one queue to a neighbour: token n is pushed by pushed[n] and popped by popped[n];
    both lists grow."""

    pushed: list[int] = field(default_factory=list)
    popped: list[int] = field(default_factory=list)

    def add(self, producer: int, consumer: int) -> None:
        """A need of the newest consumer, which no earlier one implies."""
        if self.popped and self.popped[-1] == consumer:
            self.pushed[-1] = producer  # The later producer covers the earlier.
        else:
            self.pushed.append(producer)
            self.popped.append(consumer)

    def implies(self, producer: int, consumer: int) -> bool:
        # Pushes and pops both grow, so the last pop up to this row waits for the most.
        at = bisect_right(self.popped, consumer)
        return at > 0 and self.pushed[at - 1] >= producer

    def insert(self, producer: int, consumer: int) -> None:
        """A need of any consumer, which none implies; those that it implies go."""
        at = bisect_right(self.popped, consumer)
        # A pop of the same row takes the later push; one token does for both.
        first = at - 1 if at and self.popped[at - 1] == consumer else at
        # Needs of later rows for earlier producers follow from the new one.
        last = bisect_right(self.pushed, producer)
        self.pushed[first : max(first, last, at)] = [producer]
        self.popped[first : max(first, last, at)] = [consumer]

    def join(self, first: int, last: int) -> None:
        """Token `first` takes the place of those up to `last`: its consumer waits for all."""
        self.pushed[first : last + 1] = [self.pushed[last]]
        self.popped[first : last + 1] = [self.popped[first]]


class Tokens:
    """Collects rows in program order. queues: names in token order. capacity: unconsumed tokens
    that a
    direction can hold: a producer that could run further ahead waits for the consumer."""

    def __init__(self, queues: tuple[str, ...], capacity: int = 255) -> None:
        self._capacity = capacity
        self._rank = {q: i for i, q in enumerate(queues)}
        self._queue: list[int] = []
        self._synced: dict[tuple[int, int], int] = {}
        self._directions: dict[tuple[int, int], _Direction] = {}

    def row(self, queue: str) -> int:
        """A new row in that queue; returns its number."""
        self._queue.append(self._rank[queue])
        return len(self._queue) - 1

    def need(self, consumer: int, producer: int) -> None:
        """`consumer` (the newest row of its queue) may start only after `producer` has ended."""
        if producer < 0:
            return
        there, here = self._queue[producer], self._queue[consumer]
        # Same queue: program order. Or a row of this queue has waited for a later producer already.
        if there == here or self._synced.get((there, here), -1) >= producer:
            return
        assert abs(there - here) == 1, "tokens pass between neighbouring queues only"
        self._synced[there, here] = producer
        self._directions.setdefault((there, here), _Direction()).add(producer, consumer)

    def bits(self) -> list[int]:
        """Pops and pushes of every row."""
        # Bounding one direction puts tokens into the other, so both are asked until nothing
        # changes.
        while any(self._bounded(*way) for way in sorted(self._directions)):
            pass
        out = [0] * len(self._queue)
        for (there, here), tokens in self._directions.items():
            # The sign of the difference is the direction; each queue knows its neighbours as
            # previous and next.
            push, pop = (PUSH_NEXT, POP_PREV) if there < here else (PUSH_PREV, POP_NEXT)
            for producer in tokens.pushed:
                out[producer] |= push
            for consumer in tokens.popped:
                out[consumer] |= pop
        return out

    def _bounded(self, there: int, here: int) -> bool:
        """Keeps the tokens of this direction within its capacity; whether anything changed.

        A token may be pushed when the one `capacity` before it has been popped. Where that pop
        comes later in program order, it waits for the new token instead of its own: nothing may
        wait for a later row, or the queues could wait for each other.
        """
        tokens, changed = self._directions[there, here], False
        back = self._directions.setdefault((here, there), _Direction())
        n = self._capacity
        while n < len(tokens.pushed):
            producer, earlier = tokens.pushed[n], tokens.popped[n - self._capacity]
            if earlier > producer:
                tokens.join(n - self._capacity, n)
                changed = True
                # Joined tokens moved those behind: the ones before are looked at again.
                n = max(self._capacity, n - self._capacity)
                continue
            if not back.implies(earlier, producer):
                back.insert(earlier, producer)
                changed = True
            n += 1
        return changed
