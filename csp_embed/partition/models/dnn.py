"""The cost model of the dnn-partitioning workloads, as arrays.

An accelerator pays `toll` ms (the producing node's transfer) once per node whose output leaves it,
and once per node elsewhere whose output it reads; CPUs pay nothing. The load of an accelerator is
compute plus tolls, of a CPU compute. Weights on an accelerator stay within its memory; tasks of one
colour share a device. Contiguous: convex sets per device, forward and backward parts each.
Latency: CPUs run any number of tasks at once; each accelerator runs one contiguous subgraph, which
starts when all its inputs have arrived and releases all outputs at its end.

Source: docs/partition-model.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from csp_embed.ir.network import Edge, Platform, TaskGraph
from csp_embed.partition.arrays.view import (
    Floats,
    Ints,
    Problem,
    in_unit,
    magnitude,
    make_problem,
    number,
)
from csp_embed.partition.times.exact import common


@dataclass(frozen=True)
class Dnn:
    """p: tasks, groups, costs, memory (its links are meaningless here; one value per producer).
    accelerator [m] 0/1; toll [v] ms; backward [n] 0/1."""

    p: Problem
    accelerator: Ints
    toll: Floats
    backward: Ints
    costs: tuple[dict[str, Fraction], ...] = ()
    tolls: tuple[Fraction, ...] = ()

    def exact_cost(self, task: int, device: int) -> Fraction:
        """ms of a task on a device, exactly."""
        return self.costs[task][self.p.platform.devices[device].kind]

    def exact_toll(self, value: int) -> Fraction:
        """ms of one transfer of a value, exactly."""
        return self.tolls[value]

    @cached_property
    def tick(self) -> Fraction:
        """ms of which every duration is a multiple."""
        return common([*(c for row in self.costs for c in row.values()), *self.tolls])

    def loads(self, dev: Ints) -> Floats:
        """ms per sample on each device."""
        p = self.p
        own = p.cost[np.arange(p.n), dev]
        found = np.bincount(dev, own, minlength=p.m).astype(np.float64)
        # A value per producer: the toll is paid once, however many read it on that device.
        for v, u in enumerate(p.value_src):
            away = set(dev[p.consumers(v)].tolist()) - {int(dev[u])}
            if away and self.accelerator[dev[u]]:
                found[dev[u]] += self.toll[v]
            # CPUs pay nothing, neither for reading nor for sending.
            for d in away:
                if self.accelerator[d]:
                    found[d] += self.toll[v]
        return found


def make_dnn(graph: TaskGraph, platform: Platform, fix: dict[str, str] | None = None) -> Dnn:
    """Arrays of a workload; devices of kind "cpu" are CPUs, all others accelerators."""
    # Several edges between two nodes are one: the file's cost belongs to the node.
    merged = replace(
        graph,
        edges=tuple({(e.src, e.dst): Edge(e.src, e.dst, 0, "out") for e in graph.edges}.values()),
    )
    # Transfers are tolls here, not links: none is asked for (talk=False).
    p = make_problem(merged, replace(platform, links=()), fix, talk=False)
    by_id = graph.by_id()
    costs = tuple(
        {d.kind: number(by_id[t].cost_on(d) or 0.0) for d in platform.devices} for t in p.ids
    )
    tolls = tuple(number(by_id[p.ids[u]].transfer_ms) for u in p.value_src)
    # Times of the order of 1, as `view.in_unit` makes them; tolls count too.
    times = [x for x in (*tolls, *(c for row in costs for c in row.values())) if x]
    # All times may be 0.
    p = in_unit(p, Fraction(10) ** magnitude(float(max(times))) if times else Fraction(1))
    return Dnn(
        p,
        # Whatever is no CPU counts as an accelerator.
        np.array([d.kind != "cpu" for d in platform.devices], np.int64),
        np.array([float(x / p.unit) for x in tolls], float),
        np.array([by_id[t].backward for t in p.ids], np.int64),
        costs,
        tolls,
    )
