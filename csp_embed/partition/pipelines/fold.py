"""What must stay together in a pipeline, and the order that its stages keep.

Takes: a Problem, which of its tasks are backward ones.  Leaves: a `Fold`: the Problem with larger
groups, and arcs between these, without rings, along which the stage of a pipeline never falls.

A placement is contiguous where each device's forward tasks are convex and its backward tasks too.
It is so where devices stand in an order, no forward edge leads back and no backward edge leads
forth, since then a path that leaves a device never comes to it again; colocated tasks on a ring of
such edges share a device. Training graphs as operators run backward against the forward order;
some layer graphs have both parts in one direction: the direction that keeps more groups apart
serves. (Not all contiguous placements are such pipelines: devices may also form rings, and the two
parts may stand in different orders.)

Source of the ideals of one graph as prefixes of pipelines, and of folding backward onto forward
tasks: Tarnawski et al., Efficient Algorithms for Device Placement of DNN Graph Operators, 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from csp_embed.partition.arrays.view import Ints, Problem, csr


@dataclass(frozen=True)
class Fold:
    """p: its groups are the parts that stay together, numbered along an order of the arcs. after,
    before: arcs [group] -> groups, as CSR lists. whole: no pipeline is lost by folding (no backward
    tasks)."""

    p: Problem
    after_ptr: Ints
    after: Ints
    before_ptr: Ints
    before: Ints
    whole: bool

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.after_ptr) - 1

    def orders(self, more: int, seed: int = 0) -> list[Ints]:
        """Orders of the groups along the arcs: breadth first, depth first from either end, and
        `more` depth-first ones by chance."""
        r = np.random.default_rng(seed)
        flat = np.zeros(self.count)
        back = _depth_first(self.before_ptr, self.before, self.after_ptr, flat)[::-1]
        found = [
            np.arange(self.count),
            _depth_first(self.after_ptr, self.after, self.before_ptr, flat),
            back.copy(),
        ]
        for _ in range(more):
            rank = r.random(self.count)
            found.append(_depth_first(self.after_ptr, self.after, self.before_ptr, rank))
        return found


def fold(p: Problem, backward: Ints | None = None) -> Fold:
    """backward [n] 0/1; None: no task is."""
    back = np.zeros(p.n, np.int64) if backward is None else backward
    ends = [
        (int(p.group[u]), int(p.group[t]), int(back[u]))
        for u, t, _ in p.edges()
        if back[u] == back[t] and p.group[u] != p.group[t]
    ]
    # Backward edges turned round: most training graphs run backward against the forward order.
    ways = [_parts(p, [(t, u) if b else (u, t) for u, t, b in ends])]
    if back.any():
        # Some files have both parts in one direction: then nothing is to be turned.
        ways.append(_parts(p, [(u, t) for u, t, _ in ends]))
    # More labels are more freedom for the cuts.
    label, arcs = max(ways, key=lambda way: int(way[0].max(initial=-1)))
    count = int(label.max(initial=-1)) + 1
    after: list[list[int]] = [[] for _ in range(count)]
    before: list[list[int]] = [[] for _ in range(count)]
    for a, b in arcs:
        after[a].append(b)
        before[b].append(a)
    return Fold(replace(p, group=label[p.group]), *csr(after), *csr(before), not back.any())


def _parts(p: Problem, arcs: Sequence[tuple[int, int]]) -> tuple[Ints, list[tuple[int, int]]]:
    """Label of each group, equal on rings of arcs and rising along them; arcs between labels."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(int(p.group.max(initial=-1)) + 1))
    graph.add_edges_from(arcs)
    # Groups on a ring of arcs must share a stage: each strong component is one part.
    small = nx.condensation(graph)
    # Ties fall to the smallest group, so that the order is the file's where it can be.
    first = {c: min(small.nodes[c]["members"]) for c in small}
    label = np.zeros(len(graph), np.int64)
    number = {}
    for k, c in enumerate(nx.lexicographical_topological_sort(small, first.__getitem__)):
        number[c] = k
        label[list(small.nodes[c]["members"])] = k
    return label, sorted((number[a], number[b]) for a, b in small.edges)


def _depth_first(ptr: Ints, near: Ints, back_ptr: Ints, rank: np.ndarray) -> Ints:
    """An order along arcs in which the latest group that has become free comes next; of those that
    become free together the one of the highest rank."""
    waiting = np.diff(back_ptr).tolist()
    # Descending, then a stable sort: of equal ranks the smallest number is popped first.
    stack = [g for g in range(len(waiting) - 1, -1, -1) if not waiting[g]]
    stack.sort(key=lambda g: rank[g])
    order = []
    while stack:
        g = stack.pop()
        order.append(g)
        free = []
        for c in near[ptr[g] : ptr[g + 1]].tolist():
            waiting[c] -= 1
            if not waiting[c]:
                free.append(c)
        # Reversed before sorting: of equal ranks the one of the smaller number comes out first.
        stack += sorted(reversed(free), key=lambda c: rank[c])
    return np.array(order, np.int64)
