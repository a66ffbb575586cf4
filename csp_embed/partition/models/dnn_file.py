"""Reads dnn-partitioning workloads (`--cost-model dnn-partitioning`).

Takes: the JSON of the public dnn-partitioning data set; its cost model is stated in `dnn_model`.
Leaves: a TaskGraph whose tasks cost `cpuLatency` on kind "cpu" and `fpgaLatency` on kind "fpga"
("FPGA" stands for any accelerator), and a Platform of accelerators fpga0 … and CPUs cpu0 …
Assumes: nothing; unknown keys are ignored in this format only.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.ir.network import LATENCY, Device, Edge, Platform, Task, TaskGraph


def read_dnn(path: str | Path, objective: str = LATENCY) -> tuple[TaskGraph, Platform]:
    """A workload. For latency one CPU device stands for all of them (unlimited parallelism).

    Raises: InputError where the file is unreadable, a key is missing, ids repeat, edges out of one
    node disagree in cost, or a number is negative."""
    place = str(path)
    try:
        # Bytes, so that the hash is of the file as it is.
        data = Path(path).read_bytes()
        content = json.loads(data)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {place}",
            where=place,
            why=str(error),
            hint="a workload is a JSON file of the dnn-partitioning format: docs/partition.md",
        ) from error
    return parse_dnn(content, objective, place, hashlib.sha256(data).hexdigest())


def parse_dnn(
    content: Any, objective: str = LATENCY, place: str = "", sha256: str = ""
) -> tuple[TaskGraph, Platform]:
    """The same from parsed JSON."""
    try:
        nodes, edges = list(content["nodes"]), list(content["edges"])
        accelerators, memory = int(content["maxFPGAs"]), float(content["maxSizePerFPGA"])
        # One is enough: under this model tasks on it never wait for each other.
        cpus = 1 if objective == LATENCY else int(content.get("maxCPUs", 0))
        out: dict[int, float] = {}
        for edge in edges:
            cost = float(edge.get("cost", 0.0))
            # Files give the cost on every edge; it is the cost of moving the node's output.
            if out.setdefault(edge["sourceId"], cost) != cost:
                raise InputError(
                    f"edges out of node {edge['sourceId']} differ in cost",
                    where=place,
                    why=f"{out[edge['sourceId']]} and {cost} ms",
                    hint="cost is that of moving the node's output once; it belongs to the node",
                )
        tasks = tuple(_task(node, out.get(node["id"], 0.0)) for node in nodes)
        # The tensor has one name, "out": a node has one output in this format.
        links = tuple(Edge(str(e["sourceId"]), str(e["destId"]), 0, "out") for e in edges)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "not a dnn-partitioning workload",
            where=place,
            why=f"{type(error).__name__}: {error}",
            hint="it has nodes, edges, maxFPGAs, maxCPUs and maxSizePerFPGA",
        ) from error
    devices = [Device(f"fpga{k}", "fpga", memory) for k in range(accelerators)]
    devices += [Device(f"cpu{k}", "cpu") for k in range(cpus)]
    graph = TaskGraph(tasks, links, Path(place).stem, sha256)
    platform = Platform(tuple(devices), name="dnn-partitioning", sha256=sha256)
    graph.verify()
    platform.verify()
    return graph, platform


def _task(node: dict[str, Any], transfer: float) -> Task:
    """A node as a task; colorClass and size may be missing, supportedOnFpga is a bool or 0/1."""
    cost = {"cpu": float(node["cpuLatency"])}
    if node["supportedOnFpga"]:
        cost["fpga"] = float(node["fpgaLatency"])
    # Colour 0 is a colour: only a missing one is none.
    color = node.get("colorClass")
    return Task(
        str(node["id"]),
        cost,
        weight_bytes=float(node.get("size") or 0.0),
        colocate=None if color is None else f"color {color}",
        transfer_ms=transfer,
        backward=bool(node.get("isBackwardNode", False)),
        op=str(node.get("name", "")),
    )
