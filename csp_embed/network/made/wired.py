"""Randomly wired networks: a random undirected graph per stage, oriented by node number.

A node is a separable 3x3 convolution on the sum of what it reads; nodes without a reader inside the
stage are averaged by the stage's output, nodes that read nothing inside read the stage's input.
Source: Xie, Kirillov, Girshick, He, "Exploring randomly wired neural networks for image
recognition", ICCV 2019; families and parameters as in its section 3.
"""

from __future__ import annotations

from typing import Any

from csp_embed.errors import InputError
from csp_embed.network.made.generate import Sketch
from csp_embed.network.profiles.work import Work

FAMILIES = ("watts-strogatz", "erdos-renyi", "barabasi-albert")
_FLOAT = 4


def wired(
    family: str,
    n: int,
    seed: int,
    *,
    stages: int = 3,
    channels: int = 64,
    size: int = 56,
    k: int = 4,
    p: float = 0.75,
    m: int = 5,
) -> Sketch:
    """n convolution nodes over `stages` stages; the size halves and the channels double from stage
    to stage.

    k neighbours and rewiring probability p for watts-strogatz; edge probability p (0.2 unless
    given) for erdos-renyi; m edges per new node for barabasi-albert. Raises: InputError.
    """
    if family not in FAMILIES:
        raise InputError(f"unknown family {family!r}", hint="one of " + ", ".join(FAMILIES))
    if stages < 1 or n < 2 * stages or channels < 1 or size < 1 or not 0 <= p <= 1:
        raise InputError(
            "wired: stages >= 1, at least two nodes a stage, 0 <= p <= 1",
            hint="partition generate watts-strogatz --n 30 -o graph.json",
        )
    works: list[Work] = []
    edges: list[tuple[str, str, int]] = []
    stem = _conv("stem", 3, channels, 2 * size, size, 1)
    works.append(stem)
    source, source_bytes = "stem", stem.written_bytes
    for stage in range(stages):
        count = n // stages + (stage < n % stages)
        # Channels double where the size halves: work stays about even.
        width = channels << stage
        extent = max(1, size >> stage)
        # Stages differ: one seed for all would repeat the same graph.
        pairs = _graph(family, count, seed * 1009 + stage, k, p, m)
        used_by: dict[int, list[int]] = {v: [] for v in range(count)}
        reads: dict[int, list[int]] = {v: [] for v in range(count)}
        for a, b in pairs:
            used_by[a].append(b)
            reads[b].append(a)
        tensor = extent * extent * width * _FLOAT
        for v in range(count):
            name = f"s{stage}.n{v}"
            first = not reads[v]
            # Only nodes that read the stage's input see the narrower tensor of the stage before.
            before = width if stage == 0 or not first else width // 2
            works.append(_separable(name, before, width, extent, max(1, len(reads[v]))))
            if first:
                edges.append((source, name, source_bytes))
            edges += [(f"s{stage}.n{a}", name, tensor) for a in reads[v]]
        # What nobody reads inside leaves the stage.
        sinks = [v for v in range(count) if not used_by[v]]
        out = f"s{stage}.out"
        elements = extent * extent * width
        works.append(
            Work(out, "Mean", (), 0, elements * len(sinks), tensor * len(sinks), tensor, 0)
        )
        edges += [(f"s{stage}.n{v}", out, tensor) for v in sinks]
        source, source_bytes = out, tensor
    width = channels << (stages - 1)
    works.append(
        Work("head", "Gemm", (), width * 1000, 2 * width * 1000, source_bytes, 4000, width * 4000)
    )
    edges.append((source, "head", source_bytes))
    return Sketch(f"{family}-n{n}-s{seed}", tuple(works), tuple(edges))


def _graph(family: str, n: int, seed: int, k: int, p: float, m: int) -> list[tuple[int, int]]:
    import networkx  # slow to load, and only this family of commands needs it

    nx: Any = networkx  # its generators have no types
    if family == "watts-strogatz":
        graph = nx.watts_strogatz_graph(n, min(k, n - 1), p, seed=seed)
    elif family == "erdos-renyi":
        graph = nx.erdos_renyi_graph(n, p, seed=seed)
    else:
        graph = nx.barabasi_albert_graph(n, min(m, n - 1), seed=seed)
    # By number: an edge goes from the lower to the higher node, so there is no cycle.
    return sorted((min(a, b), max(a, b)) for a, b in graph.edges)


def _conv(name: str, c: int, k: int, size_in: int, size_out: int, reads: int) -> Work:
    macs = size_out * size_out * k * c * 9
    read = reads * size_in * size_in * c * _FLOAT
    written = size_out * size_out * k * _FLOAT
    weights = k * c * 9 * _FLOAT
    return Work(name, "Conv", (), macs, 2 * macs, read, written, weights, kind="Conv")


def _separable(name: str, c: int, k: int, extent: int, reads: int) -> Work:
    points = extent * extent
    macs = points * (9 * c + c * k)
    # Additions of what it reads come before the convolution.
    sums = points * c * (reads - 1)
    return Work(
        layer=name,
        op="Conv",
        nodes=(),
        macs=macs,
        ops=2 * macs + sums,
        read_bytes=reads * points * c * _FLOAT,
        written_bytes=points * k * _FLOAT,
        weight_bytes=(9 * c + c * k) * _FLOAT,
        kind="SeparableConv",
    )
