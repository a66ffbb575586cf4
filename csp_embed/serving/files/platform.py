"""The partitioner's platform files (csp-embed-platform/1) as clusters that serve a model.

Every device whose memory, peak and memory rate the file states is a machine. Two devices without a
link of their own reach each other by the fastest way over links: its rate is the least on the way,
its latency the sum. Links that share a bus, and half-duplex ones, count as if they were free in
both directions at a time. The coordinator is the host's device (else the first of kind cpu).
"""

from __future__ import annotations

import math
from typing import Any

import networkx as nx

from csp_embed.errors import InputError
from csp_embed.ir.network import Device, Platform
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.serving.files.gpus import Gpu

LOCAL = 1e12  # bytes/s between the coordinator and the device that it stands on


def machines_of(platform: Platform) -> list[tuple[Device, Gpu]]:
    """Devices that can hold layers, with bytes, flop/s and bytes/s. Raises: InputError."""
    found = []
    for d in platform.devices:
        # All three or none: a roofline needs each of them.
        if d.memory_bytes and d.peak_ops_per_ms and d.bytes_per_ms:
            figures = Gpu(d.memory_bytes, d.peak_ops_per_ms * 1e3, d.bytes_per_ms * 1e3)
            found.append((d, figures))
    if not found:
        raise InputError(
            "no device of the platform states memory_bytes, peak_ops_per_ms and bytes_per_ms",
            where=platform.name,
            hint="--platform cpu_2gpu has all three; a cluster file may list servers instead",
        )
    return found


def links_of(platform: Platform, names: list[str], size: float) -> dict[str, Any]:
    """links and coordinator of a layer-placement-1 document. size: bytes of an activation."""
    # Undirected: the platform's links are two-way.
    graph = nx.Graph()
    graph.add_nodes_from(d.name for d in platform.devices)
    for link in platform.links:
        a, b = link.between
        rate, late = platform.rate(link) * 1e3, link.latency_ms / 1e3
        seconds = late + size / rate
        # Of several links between two devices the one that is faster for an activation.
        if not graph.has_edge(a, b) or graph[a][b]["seconds"] > seconds:
            graph.add_edge(a, b, seconds=seconds, rate=rate, late=late)
    # By the time of one activation: rate and latency both count.
    ways = {a: nx.single_source_dijkstra_path(graph, a, weight="seconds") for a in names}

    def over(path: list[str]) -> dict[str, float]:
        edges = [graph[x][y] for x, y in nx.utils.pairwise(path)]
        return {
            # A path of one device has no edges: it is the coordinator's own.
            "bytes_per_s": min((e["rate"] for e in edges), default=LOCAL),
            "latency_s": math.fsum(e["late"] for e in edges),
        }

    # Devices without any way between them get no link.
    links = [
        {"from": a, "to": b, **over(ways[a][b])}
        for a in names for b in names if a != b and b in ways[a]
    ]  # fmt: skip
    # The host is where requests come in.
    host = platform.host.device or next(
        (d.name for d in platform.devices if d.kind == "cpu"), names[0]
    )
    ends = {n: over(ways[n][host]) for n in names if host in ways[n]}
    return {
        "links": links,
        "coordinator": {
            "to_nodes": [{"to": n, **row} for n, row in ends.items()],
            "from_nodes": [{"from": n, **row} for n, row in ends.items()],
        },
    }


def named_platform(name: str) -> Platform:
    """A platform file, or one that ships. Raises: InputError."""
    return read_platform(find_platform(name))
