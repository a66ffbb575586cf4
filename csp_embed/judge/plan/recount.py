"""A plan's decisions recounted: the least makespan of the sequences that it states, exactly.

Imports nothing of the solvers. Decisions are: each task's device, and the order in which tasks and
transfers take turns on devices, contended links and buses (by stated start, then finish, then place
in the graph). Whatever rounding the stated times carry, it cannot add up in what comes out here.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from csp_embed.ir.network import TaskGraph, Transfer
from csp_embed.judge.plan.rules import exact

Hop = tuple[Transfer, Fraction, str | None]  # the hop, what it takes in ms, its queue


def recount(
    graph: TaskGraph,
    device: Mapping[str, str],
    times: Mapping[str, tuple[Fraction, Fraction]],
    costs: Mapping[str, Fraction],
    hops: Sequence[Hop],
) -> Fraction | None:
    """ms, by the longest path over data and turns; None where turns contradict data."""
    place = {t: i for i, t in enumerate(graph.order())}
    length = [costs[t] for t in times]
    number = {t: i for i, t in enumerate(times)}
    # (stated start, stated finish, place in the graph, hops after their producer, index)
    key = [(*times[t], place[t], 0, i) for t, i in number.items()]
    turns: dict[str, list[int]] = defaultdict(list)
    for t, i in number.items():
        turns[device[t]].append(i)
    brought: dict[tuple[str, str, str], int] = {}
    before: list[list[int]] = [[] for _ in length]
    for hop, need, queue in sorted(hops, key=lambda h: (h[0].start or 0.0, h[0].finish or 0.0)):
        i, value = len(length), (hop.src_task, hop.tensor)
        length.append(need)
        start, finish = exact(hop.start or 0.0), exact(hop.finish or 0.0)
        key.append((start, finish, place[hop.src_task], 1, i))
        came = brought.get((*value, hop.from_device), number[hop.src_task])
        before.append([came])
        brought.setdefault((*value, hop.to_device), i)
        if queue is not None:
            turns[queue].append(i)
    for src, tensor, _, consumers in graph.values():
        for c in consumers:
            if device[c] == device[src]:
                before[number[c]].append(number[src])
            else:
                before[number[c]].append(brought[src, tensor, device[c]])
    for some in turns.values():
        some.sort(key=lambda i: key[i])
        for one, two in itertools.pairwise(some):
            before[two].append(one)
    return _longest(before, length)


def _longest(before: list[list[int]], length: list[Fraction]) -> Fraction | None:
    """The longest path; None where there is a cycle."""
    after: list[list[int]] = [[] for _ in before]
    for i, some in enumerate(before):
        for j in some:
            after[j].append(i)
    waiting = [len(some) for some in before]
    ready = [i for i, count in enumerate(waiting) if not count]
    end = [Fraction(0)] * len(before)
    for i in ready:  # grows while we walk it
        end[i] = max((end[j] for j in before[i]), default=Fraction(0)) + length[i]
        for j in after[i]:
            waiting[j] -= 1
            if not waiting[j]:
                ready.append(j)
    return max(end, default=Fraction(0)) if len(ready) == len(before) else None
