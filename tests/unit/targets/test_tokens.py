"""Tokens against a machine of queues and counters: needs are met, nothing hangs or is lost."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.ir.schedule import POP_NEXT, POP_PREV, PUSH_NEXT, PUSH_PREV
from csp_embed.targets.stream.building.tokens import Tokens

QUEUES = ("load", "compute", "store")


def run(bits: list[int], queue: list[int], order: list[int]) -> tuple[list[int], int]:
    """Rows in the order in which they ran, and the most tokens of a direction that waited.

    order: the preferred queue per turn; another one goes where it is stuck. Fails on a deadlock and
    where tokens are left.
    """
    heads = [deque(n for n, q in enumerate(queue) if q == here) for here in range(3)]
    tokens: dict[tuple[int, int], int] = {}
    done, most = [], 0

    def ready(q: int) -> bool:
        if not heads[q]:
            return False
        row = bits[heads[q][0]]
        return not (
            (row & POP_PREV and not tokens.get((q - 1, q)))
            or (row & POP_NEXT and not tokens.get((q + 1, q)))
        )

    turn = 0
    while any(heads):
        wish = order[turn % len(order)]
        turn += 1
        able = [q for q in (wish, 0, 1, 2) if ready(q)]
        assert able, f"deadlock at {[h[0] if h else None for h in heads]}"
        q = able[0]
        row = heads[q].popleft()
        for bit, source in ((POP_PREV, q - 1), (POP_NEXT, q + 1)):
            if bits[row] & bit:
                tokens[source, q] -= 1
        for bit, target in ((PUSH_PREV, q - 1), (PUSH_NEXT, q + 1)):
            if bits[row] & bit:
                tokens[q, target] = tokens.get((q, target), 0) + 1
                most = max(most, tokens[q, target])
        done.append(row)
    assert not any(tokens.values()), f"left over: {tokens}"
    return done, most


@st.composite
def programs(draw: st.DrawFn):  # type: ignore[no-untyped-def]
    """Rows in program order; each may need an earlier row of a neighbouring queue."""
    queue, needs = [], []
    for n in range(draw(st.integers(1, 30))):
        here = draw(st.integers(0, 2))
        queue.append(here)
        near = [m for m in range(n) if abs(queue[m] - here) == 1]
        wanted = draw(st.lists(st.sampled_from(near), max_size=2)) if near else []
        needs.append(sorted(wanted))
    return queue, needs


@settings(max_examples=300)
@given(programs(), st.lists(st.integers(0, 2), min_size=1, max_size=7))
def test_needs_are_met_in_any_order_of_queues(program, order) -> None:  # type: ignore[no-untyped-def]
    queue, needs = program
    tokens = Tokens(QUEUES)
    for n, q in enumerate(queue):
        assert tokens.row(QUEUES[q]) == n
        for producer in needs[n]:
            tokens.need(n, producer)
    done, _ = run(tokens.bits(), queue, order)
    place = {row: i for i, row in enumerate(done)}
    for n, wanted in enumerate(needs):
        assert all(place[m] < place[n] for m in wanted)


def test_needs_that_are_implied_cost_nothing() -> None:
    tokens = Tokens(QUEUES)
    first, second = tokens.row("load"), tokens.row("load")
    a, b = tokens.row("compute"), tokens.row("compute")
    tokens.need(a, second)
    tokens.need(b, first)
    assert tokens.bits() == [0, PUSH_NEXT, POP_PREV, 0]


@settings(max_examples=300)
@given(
    programs(), st.lists(st.integers(0, 2), min_size=1, max_size=7), st.sampled_from([1, 1, 2, 3])
)
def test_short_fifos_never_hold_more_than_they_can(program, order, capacity) -> None:  # type: ignore[no-untyped-def]
    """Whatever the order of the queues, and every need is met all the same."""
    queue, needs = program
    tokens = Tokens(QUEUES, capacity)
    for n, q in enumerate(queue):
        tokens.row(QUEUES[q])
        for producer in needs[n]:
            tokens.need(n, producer)
    done, most = run(tokens.bits(), queue, order)
    assert most <= capacity
    place = {row: i for i, row in enumerate(done)}
    for n, wanted in enumerate(needs):
        assert all(place[m] < place[n] for m in wanted)


def test_a_run_ahead_producer_stays_within_the_capacity() -> None:
    """Double buffering with far more steps than the FIFO holds tokens."""
    tokens = Tokens(QUEUES, capacity=4)
    loads = [tokens.row("load") for _ in range(40)]
    for row in loads:
        tokens.need(tokens.row("compute"), row)
    # All loads stand first in program order, so nothing may hold them back: the first computes
    # wait for more than they need.
    done, most = run(tokens.bits(), [0] * 40 + [1] * 40, [0])
    assert len(done) == 80
    assert most == 4

    tokens, queue = Tokens(QUEUES, capacity=4), []
    for _ in range(40):
        load = tokens.row("load")
        compute = tokens.row("compute")
        queue += [0, 1]
        tokens.need(compute, load)
    _, most = run(tokens.bits(), queue, [0])
    assert most == 4
