"""`partition generate`: networks made from a few numbers and a seed; equal arguments, equal bytes.

layered: random task graphs with random costs on unlike devices, the family on which list schedulers
are usually compared. The other families describe work (operations, bytes); their costs come from
the platform's roofline devices. `quantised` writes an ONNX model instead (quantised.py).
Source of the layered family: Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from csp_embed.errors import InputError
from csp_embed.ir.network import Device, Edge, Link, Platform, Task, TaskGraph
from csp_embed.network.profiles.roofline import describe, is_roofline, roofline_ms
from csp_embed.network.profiles.work import Work

# One unit for sizes: transfers are then drawn as times.
RATE_BYTES_PER_MS = 1e6


def layered(
    n: int,
    ccr: float,
    seed: int,
    *,
    related: bool = False,
    devices: int = 3,
    fat: float = 1.0,
    mean_ms: float = 10.0,
    spread: float = 1.0,
    out_degree: float = 2.0,
) -> tuple[TaskGraph, Platform]:
    """A layered random graph of n tasks on `devices` unlike devices with uncontended links.

    ccr: mean transfer time over mean task time. related: a device has one speed; else every pair of
    task and device draws its own factor within +-spread/2. fat: width over sqrt(n). out_degree:
    mean number of successors. Raises: InputError for numbers out of range.
    """
    if n < 1 or ccr < 0 or devices < 1 or fat <= 0 or mean_ms <= 0 or not 0 <= spread < 2:
        raise InputError(
            "layered: n >= 1, ccr >= 0, devices >= 1, fat > 0, mean > 0, 0 <= spread < 2",
            hint="partition generate layered --n 30 -o graph.json",
        )
    # n too: a longer graph of one seed is no continuation of a shorter one.
    rng = np.random.default_rng([seed, n])
    levels = _levels(n, fat, rng)
    names = [f"p{i}" for i in range(devices)]
    base = rng.uniform(0.2, 1.8, n) * mean_ms
    speed = rng.uniform(1 - spread / 2, 1 + spread / 2, devices)
    own = rng.uniform(1 - spread / 2, 1 + spread / 2, (n, devices))
    cost = base[:, None] * (speed[None, :] if related else own)
    tasks = tuple(
        # Rounded to what a file keeps, so that a written graph equals the made one.
        Task(f"t{i}", {d: round(float(cost[i, j]), 6) for j, d in enumerate(names)})
        for i in range(n)
    )
    mean_cost = float(cost.mean())
    edges: list[Edge] = []
    for a, b in _layered_edges(levels, out_degree, rng):
        # 0.2 .. 1.8: a mean of 1.
        size = rng.uniform(0.2, 1.8) * ccr * mean_cost * RATE_BYTES_PER_MS
        edges.append(Edge(f"t{a}", f"t{b}", float(round(size))))
    links = tuple(
        Link((a, b), RATE_BYTES_PER_MS) for i, a in enumerate(names) for b in names[i + 1 :]
    )
    platform = Platform(tuple(Device(d, d) for d in names), links, name=f"{devices}-unlike")
    name = f"layered-n{n}-ccr{ccr:g}-{'related' if related else 'unrelated'}-s{seed}"
    graph = TaskGraph(tasks, tuple(edges), name)
    graph.verify()
    return graph, platform


def _levels(n: int, fat: float, rng: np.random.Generator) -> list[list[int]]:
    """Tasks 0..n-1 in layers of random width around fat * sqrt(n)."""
    width = max(1.0, fat * math.sqrt(n))
    levels: list[list[int]] = []
    at = 0
    while at < n:
        take = int(min(n - at, max(1, round(rng.uniform(0.5, 1.5) * width))))
        levels.append(list(range(at, at + take)))
        at += take
    return levels


def _layered_edges(
    levels: Sequence[Sequence[int]], out_degree: float, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Each task reads one of the layer before; more edges reach one to three layers down."""
    edges: set[tuple[int, int]] = set()
    # Every task but the first layer's has a reader above: no loose ends.
    for above, below in pairwise(levels):
        for b in below:
            edges.add((int(rng.choice(above)), b))
    for at, level in enumerate(levels[:-1]):
        for a in level:
            # One edge is there already.
            for _ in range(rng.poisson(max(0.0, out_degree - 1))):
                target = levels[min(len(levels) - 1, at + int(rng.integers(1, 4)))]
                edges.add((a, int(rng.choice(target))))
    # A set has no order; files need one.
    return sorted(edges)


@dataclass(frozen=True)
class Sketch:
    """A network as work: what the wired and transformer families make.

    works: in topological order, by unique layer name. edges: (from, to, bytes). Each layer makes
    one tensor, so edges of one producer carry one value.
    """

    name: str
    works: tuple[Work, ...]
    edges: tuple[tuple[str, str, int], ...]


def with_costs(
    sketch: Sketch, platform: Platform, batches: Sequence[int] = (), io_free: bool = True
) -> TaskGraph:
    """The task graph of a sketch: roofline costs by kind of device.

    Raises: InputError where no device of the platform has a peak_ops_per_ms.
    """
    kinds: dict[str, list[Device]] = {}
    for device in platform.devices:
        if is_roofline(device):
            kinds.setdefault(device.kind, []).append(device)
    if not kinds:
        raise InputError(
            "generated networks take their costs from roofline devices",
            where=f"platform {platform.name}",
            why="no device has peak_ops_per_ms",
            hint="--platform cpu_2gpu, or give peak_ops_per_ms and bytes_per_ms",
        )
    keyed: dict[str, Device] = {}
    # Devices of one kind with equal rates share a cost; unlike ones are keyed by name.
    for kind, members in kinds.items():
        if len({_rates(d) for d in members}) == 1:
            keyed[kind] = members[0]
        else:
            keyed |= {d.name: d for d in members}
    tasks = tuple(_task(work, keyed, batches) for work in sketch.works)
    edges = tuple(Edge(a, b, size, f"{a}:out") for a, b, size in sketch.edges)
    graph = TaskGraph(tasks, edges, sketch.name)
    graph.verify()
    return graph


def _rates(device: Device) -> tuple[object, ...]:
    return (
        device.peak_ops_per_ms,
        device.bytes_per_ms,
        device.overhead_ms,
        tuple(sorted(device.efficiency.items())),
    )


def _task(work: Work, keyed: Mapping[str, Device], batches: Sequence[int]) -> Task:
    return Task(
        id=work.layer,
        cost={key: roofline_ms(work, d) for key, d in keyed.items()},
        cost_by_batch={
            key: {n: roofline_ms(work, d, n) for n in sorted({1, *batches})}
            for key, d in keyed.items()
        }
        if batches
        # Batch 1 is always there: plans without a batch use it.
        else {},
        weight_bytes=work.weight_bytes,
        activation_bytes=work.written_bytes,
        op=work.op,
        origin={key: describe(work, d) for key, d in keyed.items()},
    )
