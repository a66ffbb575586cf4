"""Task graphs and platforms for tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csp_embed.ir.network import Device, Edge, Link, Platform, Task, TaskGraph

# Topcuoglu, Hariri and Wu, IEEE TPDS 2002, figure 2 and table 1.
COSTS = [
    [14, 16, 9], [13, 19, 18], [11, 13, 19], [13, 8, 17], [12, 13, 10],
    [13, 16, 9], [7, 15, 11], [5, 11, 14], [18, 12, 20], [21, 7, 16],
]  # fmt: skip
EDGES = [
    (1, 2, 18), (1, 3, 12), (1, 4, 9), (1, 5, 11), (1, 6, 14), (2, 8, 19), (2, 9, 16), (3, 7, 23),
    (4, 8, 27), (4, 9, 23), (5, 9, 13), (6, 8, 15), (7, 10, 17), (8, 10, 11), (9, 10, 13),
]  # fmt: skip


def platform(m: int = 3, **link: object) -> Platform:
    """m devices p0 …, every pair joined at 1 byte per ms."""
    return Platform(
        tuple(Device(f"p{j}", f"kind{j}") for j in range(m)),
        tuple(
            replace(Link((f"p{a}", f"p{b}"), 1.0), **link)
            for a in range(m)
            for b in range(a + 1, m)
        ),
    )


def topcuoglu() -> tuple[TaskGraph, Platform]:
    """The 10-task example on 3 processors."""
    tasks = tuple(
        Task(str(i + 1), {f"p{j}": float(c) for j, c in enumerate(row)})
        for i, row in enumerate(COSTS)
    )
    edges = tuple(Edge(str(a), str(b), float(w)) for a, b, w in EDGES)
    return TaskGraph(tasks, edges), platform()


def random_graph(n: int, m: int, seed: int, ccr: float = 1.0, integer: bool = True) -> TaskGraph:
    """n tasks with costs on p0 … p(m-1); edges from earlier to later tasks."""
    rng = np.random.default_rng(seed)
    draw = (lambda: float(rng.integers(1, 10))) if integer else (lambda: float(rng.uniform(1, 10)))
    tasks = tuple(Task(f"t{i}", {f"p{j}": draw() for j in range(m)}) for i in range(n))
    pairs = sorted(
        {(int(rng.integers(max(0, t - 4), t)), t) for t in range(1, n) for _ in range(2)}
    )
    edges = tuple(Edge(f"t{u}", f"t{t}", round(ccr * draw())) for u, t in pairs)
    return TaskGraph(tasks, edges)
