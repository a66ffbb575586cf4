"""Reads the public dnn-partitioning JSON format: nodes with CPU and accelerator times.

Takes: {maxSizePerFPGA, maxFPGAs, maxCPUs, nodes, edges}; unknown keys are ignored in this format
only.  Leaves: a TaskGraph whose costs are by kind (`cpu`, `fpga`), whose colour classes are
`colocate` labels and whose edge costs are the producer's `transfer_ms`; and the platform.
Use it with the cost model "dnn-partitioning": there are no links.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from csp_embed.errors import InputError
from csp_embed.ir.network import Device, Edge, Host, Platform, Task, TaskGraph
from csp_embed.network.schema import parse, read_document, sha256

ACCELERATOR, CPU = "fpga", "cpu"


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, coerce_numbers_to_str=True)


class Node(_Loose):
    """Times in ms, size in bytes; colorClass: nodes with the same one share a device."""

    id: int | str
    supportedOnFpga: bool = True
    cpuLatency: float = Field(ge=0)
    fpgaLatency: float | None = Field(default=None, ge=0)
    isBackwardNode: bool = False
    colorClass: int | str | None = None
    size: float = Field(default=0.0, ge=0)


class Arrow(_Loose):
    """cost: ms of one transfer of the producer's output between accelerator and host memory."""

    sourceId: int | str
    destId: int | str
    cost: float = Field(default=0.0, ge=0)


class Workload(_Loose):
    """The whole file."""

    maxSizePerFPGA: float | None = Field(default=None, ge=0)
    maxFPGAs: int = Field(ge=0)
    maxCPUs: int = Field(default=1, ge=0)
    nodes: list[Node]
    edges: list[Arrow]


def is_dnn_partitioning(value: Any) -> bool:
    """Whether a read document looks like this format."""
    return isinstance(value, dict) and "nodes" in value and "maxFPGAs" in value


def read_dnn_partitioning(path: str | Path) -> tuple[TaskGraph, Platform]:
    """The graph and the platform (fpga0…, cpu0…) of a workload file.

    Raises: InputError where the file is malformed, or edges out of one node disagree in cost.
    """
    value, data = read_document(path)
    return dnn_partitioning_from(value, path, sha256(data))


def dnn_partitioning_from(value: Any, path: str | Path, digest: str) -> tuple[TaskGraph, Platform]:
    """As `read_dnn_partitioning`, from an already read document."""
    load = parse(Workload, value, path)
    transfer = _transfers(load, path)
    tasks = [
        Task(
            id=str(node.id),
            cost=_costs(node, path),
            weight_bytes=node.size,
            colocate=None if node.colorClass is None else str(node.colorClass),
            transfer_ms=transfer.get(str(node.id), 0.0),
            backward=node.isBackwardNode,
        )
        for node in load.nodes
    ]
    edges = {
        (str(a.sourceId), str(a.destId)): Edge(str(a.sourceId), str(a.destId), 0.0, "out")
        for a in load.edges
    }
    graph = TaskGraph(tuple(tasks), tuple(edges.values()), Path(path).stem, digest)
    try:
        graph.verify()
    except InputError as error:
        raise InputError(
            error.what, where=f"{path}: {error.where}", why=error.why, hint=error.hint
        ) from error
    devices = [
        Device(f"{ACCELERATOR}{i}", ACCELERATOR, memory_bytes=load.maxSizePerFPGA)
        for i in range(load.maxFPGAs)
    ]
    devices += [Device(f"{CPU}{i}", CPU) for i in range(load.maxCPUs)]
    platform = Platform(tuple(devices), host=Host(), name=Path(path).stem, sha256=digest)
    platform.verify()
    return graph, platform


def _costs(node: Node, path: str | Path) -> dict[str, float]:
    costs = {CPU: node.cpuLatency}
    if node.supportedOnFpga:
        if node.fpgaLatency is None:
            raise InputError(
                f"node {node.id} has no fpgaLatency",
                where=str(path),
                hint="give it, or supportedOnFpga: false",
            )
        costs[ACCELERATOR] = node.fpgaLatency
    return costs


def _transfers(load: Workload, path: str | Path) -> dict[str, float]:
    """Edge costs belong to the producer and must agree."""
    transfer: dict[str, float] = {}
    for arrow in load.edges:
        first = transfer.setdefault(str(arrow.sourceId), arrow.cost)
        if first != arrow.cost:
            raise InputError(
                f"edges out of node {arrow.sourceId} cost {first} and {arrow.cost} ms",
                where=f"{path}: edge {arrow.sourceId} -> {arrow.destId}",
                hint="the cost belongs to the producing node: make its edges agree",
            )
    return transfer
