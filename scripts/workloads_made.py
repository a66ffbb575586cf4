"""Made workloads in the dnn-partitioning format, for bench_workloads.

Takes: a name of WORKLOADS, a seed.  Leaves: the parsed JSON of a workload.

They look as the public ones do: layers or operators of known architectures, an accelerator 10 or 23
times as fast as a CPU with some spread, one toll per producing node, for training a backward node
behind every forward one (mirrored edges, activations that cross, one colour for both). Sizes,
costs and tolls are drawn; nothing was taken from the data set.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MB = 2.0**20


@dataclass
class Net:
    """A forward graph under construction. Times in ms on an accelerator, sizes in bytes."""

    rng: random.Random
    ratio: float
    nodes: list[dict[str, Any]] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    tolls: list[float] = field(default_factory=list)

    def add(
        self, after: Sequence[int], ms: float, size: float, toll: float, fits: bool = True
    ) -> int:
        """A node that reads these; its number."""
        about, number = self.rng.uniform(0.8, 1.25), len(self.nodes)
        self.nodes.append(
            {
                "name": f"node{number}", "id": number, "supportedOnFpga": int(fits),
                "cpuLatency": ms * about * self.ratio, "fpgaLatency": ms * about,
                "isBackwardNode": 0, "size": size,
            }
        )  # fmt: skip
        self.tolls.append(toll * self.rng.uniform(0.9, 1.1))
        self.edges += [(u, number) for u in dict.fromkeys(after)]
        return number


def encoder(net: Net, blocks: int) -> None:
    """A transformer by layers: a mask that all blocks read."""
    mask = net.add([], 0.0, 16, 0.003)
    words = net.add([net.add([], 0.0, 16, 0.001)], 0.7, 120 * MB, 0.02)
    x = net.add([words], 0.2, MB, 0.02)
    for _ in range(blocks):
        x = net.add([x, mask], 3.5, 50 * MB, 0.02)
    net.add([net.add([x], 0.1, 4 * MB, 0.001)], 5.0, 120 * MB, 0.03)


def translator(net: Net, depth: int) -> None:
    """Recurrent layers, encoder and decoder with residuals; attention feeds every decoder layer."""
    x = net.add([net.add([], 0.0, 16, 0.01)], 0.3, 125 * MB, 0.2)
    for k in range(depth):
        y = net.add([net.add([x], 9.0, 32 * MB, 0.2)], 0.05, 16, 0.2)
        x = net.add([x, y], 0.05, 16, 0.2) if k > 1 else y
    memory = x
    y = net.add([net.add([], 0.0, 16, 0.01)], 0.3, 125 * MB, 0.2)
    y = net.add([y], 9.0, 32 * MB, 0.2)
    seen = net.add([y, memory], 4.0, 8 * MB, 0.2)
    for k in range(depth - 1):
        both = net.add([y, seen], 0.05, 16, 0.3)
        z = net.add([net.add([both], 9.0, 48 * MB, 0.2)], 0.05, 16, 0.2)
        y = net.add([y, z], 0.05, 16, 0.2) if k else z
    net.add([y], 25.0, 130 * MB, 1.0)


def residual(net: Net, stages: Sequence[int]) -> None:
    """Bottlenecks: three convolutions with their norms and activations, and a way past them."""
    x = net.add([net.add([], 0.0, 16, 0.1)], 3.0, 100 * MB, 0.2)
    for depth, blocks in enumerate(stages):
        toll = 0.2 / 2**depth
        for k in range(blocks):
            past = net.add([net.add([x], 1.0, 50 * MB, toll)], 0.2, 50 * MB, toll) if not k else x
            y = x
            for ms in (0.6, 1.4, 0.6):
                y = net.add([y], ms, 60 * MB, toll / 2)
                y = net.add([net.add([y], 0.3, 40 * MB, toll / 2)], 0.15, 40 * MB, toll / 2)
            x = net.add([net.add([past, y], 0.1, 40 * MB, toll)], 0.1, 40 * MB, toll)
    net.add([net.add([x], 0.1, MB, 0.001)], 0.3, 8 * MB, 0.001)


def branches(net: Net, modules: int) -> None:
    """Four ways side by side, concatenated, many times."""
    x = net.add([net.add([], 0.0, 16, 0.1)], 3.0, 10 * MB, 0.4)
    for k in range(modules):
        toll = 0.4 / (1 + k // 3)
        ends = [net.add([x], 0.8, 4 * MB, toll / 4)]
        for ms in (1.6, 0.6, 0.3):
            inner = net.add([x], 0.4, 3 * MB, toll / 6)
            ends.append(net.add([net.add([inner], 0.05, 16, toll / 6)], ms, 8 * MB, toll / 4))
        x = net.add(ends, 0.1, 16, toll)
    net.add([x], 0.5, 8 * MB, 0.001)


def skips(net: Net, depth: int) -> None:
    """Down and up again; each level's way down is read on its way up."""
    x, held = net.add([], 0.0, 16, 0.5), []
    for k in range(depth):
        for _ in range(3):
            x = net.add([net.add([x], 2.0, 2 * MB * 2**k, 0.8 / 2**k)], 0.2, 16, 0.8 / 2**k)
        held.append(x)
        x = net.add([x], 0.2, 16, 0.4 / 2**k)
    for k in reversed(range(depth)):
        x = net.add([net.add([x], 0.4, MB * 2**k, 0.8 / 2**k), held[k]], 0.1, 16, 1.6 / 2**k)
        for _ in range(3):
            x = net.add([net.add([x], 2.0, 2 * MB * 2**k, 0.8 / 2**k)], 0.2, 16, 0.8 / 2**k)
    net.add([x], 0.2, MB, 0.5)


def operators(net: Net, blocks: int) -> None:
    """A transformer by operators: matrix products, reshapes, biases, softmax, two norms."""
    mask = net.add([net.add([], 0.0, 16, 0.05)], 0.02, 16, 0.05, fits=False)
    x = net.add([net.add([], 0.0, 16, 0.01)], 0.1, 90 * MB, 0.8)

    def linear(y: int, ms: float, size: float, toll: float) -> int:
        return net.add([net.add([y], ms, size, toll)], 0.02, 0.01 * MB, toll)

    def norm(y: int) -> int:
        mean = net.add([y], 0.03, 16, 0.01)
        off = net.add([y, mean], 0.03, 16, 0.8)
        var = net.add([off], 0.03, 16, 0.01)
        return net.add([net.add([off, var], 0.03, 16, 0.8)], 0.02, 0.02 * MB, 0.8)

    for _ in range(blocks):
        q, k, v = (net.add([linear(x, 0.6, 4 * MB, 0.8)], 0.05, 16, 0.8) for _ in range(3))
        score = net.add([q, k], 0.3, 16, 1.6)
        score = net.add([net.add([score], 0.05, 16, 1.6), mask], 0.05, 16, 1.6)
        top = net.add([score], 0.05, 16, 0.1)
        power = net.add([score, top], 0.06, 16, 1.6)
        share = net.add([power, net.add([power], 0.04, 16, 0.1)], 0.05, 16, 1.6)
        y = linear(net.add([net.add([share, v], 0.3, 16, 0.8)], 0.05, 16, 0.8), 0.6, 4 * MB, 0.8)
        x = norm(net.add([x, y], 0.03, 16, 0.8))
        y = net.add([linear(x, 2.0, 16 * MB, 3.2)], 0.1, 16, 3.2)
        x = norm(net.add([x, linear(y, 2.0, 16 * MB, 0.8)], 0.03, 16, 0.8))
    net.add([x], 3.0, 90 * MB, 3.0)


def experts(net: Net, blocks: int, ways: int) -> None:
    """Blocks whose middle is a choice of experts; the choice runs on CPUs alone."""
    x = net.add([net.add([], 0.0, 16, 0.01)], 0.1, 64 * MB, 0.5)
    for _ in range(blocks):
        y = net.add([net.add([x], 1.5, 12 * MB, 0.5)], 0.05, 16, 0.5)
        gate = net.add([net.add([y], 0.05, MB, 0.02)], 0.005, 16, 0.02, fits=False)
        outs = []
        for _ in range(ways):
            inner = net.add([net.add([y, gate], 0.02, 16, 0.3)], 1.2, 32 * MB, 0.6)
            outs.append(net.add([net.add([inner], 0.02, 16, 0.6)], 1.2, 32 * MB, 0.3))
        x = net.add([x, net.add([*outs, gate], 0.1, 16, 0.5)], 0.03, 16, 0.5)
    net.add([x], 1.0, 64 * MB, 1.0)


def towers(net: Net, tables: int, depth: int) -> None:
    """Many embedding tables, as heavy as they are quick, two stacks of layers, one product."""
    ends = []
    for _ in range(2):
        rows = []
        for _ in range(tables):
            ids = net.add([], 0.0, 16, 0.01)
            rows.append(net.add([ids], 0.05, net.rng.choice([40, 160, 320]) * MB, 0.05))
        x = net.add(rows, 0.05, 16, 0.4)
        for k in range(depth):
            x = net.add([net.add([x], 2.0 / (1 + k % 4), 20 * MB, 0.3)], 0.05, 16, 0.3)
        ends.append(x)
    net.add([net.add(ends, 0.2, 16, 0.1)], 0.1, MB, 0.001)


def trained(net: Net, times: float) -> None:
    """Adds the backward half: it reads what the forward node read, and gradients of its readers.

    Weights and their gradients share a device where there are any: one colour for both."""
    count = len(net.nodes)
    forward = list(net.edges)
    for u in range(count):
        node = net.nodes[u]
        heavy = node["size"] > MB
        if heavy:
            node["colorClass"] = u
        net.nodes.append(
            {
                **node, "name": f"node{u}grad", "id": count + u, "isBackwardNode": 1,
                "cpuLatency": times * node["cpuLatency"],
                "fpgaLatency": times * node["fpgaLatency"],
            }
        )  # fmt: skip
        net.tolls.append(net.tolls[u])
    for u, t in forward:
        net.edges += [(count + t, count + u), (u, count + t)]
    # The loss joins the halves: the last nodes' gradients follow them.
    for u in range(count):
        if all(a != u for a, _ in forward):
            net.edges.append((u, count + u))


# name: (builder, CPU over accelerator, training, accelerators, CPUs, memory of all accelerators
# over all sizes)
WORKLOADS: dict[str, tuple[Callable[[Net], None], float, bool, int, int, float]] = {
    "encoder": (lambda n: encoder(n, 18), 10, False, 5, 1, 1.15),
    "encoder_training": (lambda n: encoder(n, 24), 10, True, 8, 1, 40.0),
    "translator": (lambda n: translator(n, 8), 10, False, 6, 1, 1.4),
    "residual_training": (lambda n: residual(n, (3, 4, 6, 3)), 10, True, 6, 1, 1.2),
    "branches": (lambda n: branches(n, 9), 10, False, 4, 1, 8.0),
    "skips": (lambda n: skips(n, 5), 10, False, 3, 4, 8.0),
    "operators": (lambda n: operators(n, 5), 23, False, 4, 1, 1.3),
    "operators_training": (lambda n: operators(n, 8), 23, True, 6, 1, 4.0),
    "experts": (lambda n: experts(n, 4, 8), 23, False, 6, 2, 1.1),
    "towers": (lambda n: towers(n, 12, 10), 10, False, 3, 1, 0.9),
}


def made(name: str, seed: int = 1) -> dict[str, Any]:
    """The JSON of a workload."""
    build, ratio, training, accelerators, cpus, room = WORKLOADS[name]
    net = Net(random.Random(f"{name} {seed}"), ratio)
    build(net)
    if training:
        trained(net, 1.4)
    else:
        for node in net.nodes:
            node["colorClass"] = node["id"]
    sizes = sum(node["size"] for node in net.nodes)
    return {
        "maxSizePerFPGA": round(sizes * room / accelerators), "maxFPGAs": accelerators,
        "maxCPUs": cpus, "nodes": net.nodes,
        "edges": [{"sourceId": u, "destId": t, "cost": net.tolls[u]} for u, t in net.edges],
    }  # fmt: skip
