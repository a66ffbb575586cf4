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

from csp_embed.ir.schedule import POP_NEXT, POP_PREV, PUSH_NEXT, PUSH_PREV


class Tokens:
    """Collects rows in program order. queues: names in token order. capacity: unconsumed tokens
    that a
    direction can hold: a producer that could run further ahead waits for the consumer."""

    def __init__(self, queues: tuple[str, ...], capacity: int = 255) -> None:
        self._capacity = capacity
        self._pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._popped: dict[tuple[int, int], int] = {}
        self._rank = {q: i for i, q in enumerate(queues)}
        self.bits: list[int] = []
        self._queue: list[int] = []
        self._synced: dict[tuple[int, int], int] = {}

    def row(self, queue: str) -> int:
        """A new row in that queue; returns its number."""
        self.bits.append(0)
        self._queue.append(self._rank[queue])
        return len(self.bits) - 1

    def queue(self, row: int) -> int:
        """Position of a row's queue in token order."""
        return self._queue[row]

    def need(self, consumer: int, producer: int) -> None:
        """`consumer` (the newest row of its queue) may start only after `producer` has ended."""
        if producer < 0:
            return
        there, here = self._queue[producer], self._queue[consumer]
        if there == here or self._synced.get((there, here), -1) >= producer:
            return
        assert abs(there - here) == 1, "tokens pass between neighbouring queues only"
        self._synced[there, here] = producer
        self._popped[there, here] = consumer
        if there < here:
            self._swap(producer, PUSH_NEXT, consumer, POP_PREV)
        else:
            self._swap(producer, PUSH_PREV, consumer, POP_NEXT)

        self._bound(there, here, producer, consumer)

    def _bound(self, there: int, here: int, producer: int, consumer: int) -> None:
        """Keeps the tokens of this direction within its capacity."""
        pairs = self._pairs.setdefault((there, here), [])
        if pairs and pairs[-1][1] == consumer:
            pairs[-1] = (producer, consumer)
        else:
            pairs.append((producer, consumer))
        if len(pairs) > self._capacity:
            earlier = pairs[-self._capacity - 1][1]
            # A pop may only be added behind the pops that the producer's queue already has.
            if earlier < producer and self._popped.get((here, there), -1) <= producer:
                self.need(producer, earlier)

    def _swap(self, producer: int, push: int, consumer: int, pop: int) -> None:
        if self.bits[consumer] & pop:
            # Two needs of one row in one direction: the later producer covers the earlier.
            for row in range(producer - 1, -1, -1):
                if self._queue[row] == self._queue[producer] and self.bits[row] & push:
                    self.bits[row] &= ~push
                    break
        self.bits[producer] |= push
        self.bits[consumer] |= pop
