"""Graph files (csp-embed-graph/1): reading, writing, and the platform inside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from csp_embed.errors import InputError
from csp_embed.ir.network import Edge, Link, Platform, Task, TaskGraph
from csp_embed.narrow import is_list, is_object
from csp_embed.network.files.platform import platform_from, read_platform
from csp_embed.network.files.schema import Strict, in_ms, parse, read_document, sha256

FORMAT = "csp-embed-graph/1"
# What a written platform keeps: no paths, which only the machine that read them knows.
_DEVICE_KEYS = (
    "memory_bytes",
    "server",
    "peak_ops_per_ms",
    "bytes_per_ms",
    "efficiency",
    "overhead_ms",
    "isa",
    "clock_mhz",
    "operators",
    "layout_bytes_per_ms",
)


class TaskEntry(Strict):
    """cost: time by device name or kind. memory_bytes is the older name of weight_bytes."""

    # Unknown keys are refused (Strict): a misspelt cost would count as none.
    id: str
    cost: dict[str, float]
    cost_by_batch: dict[str, dict[PositiveInt, float]] = Field(default_factory=dict)
    weight_bytes: float = Field(default=0.0, ge=0)
    memory_bytes: float | None = Field(default=None, ge=0)
    activation_bytes: float = Field(default=0.0, ge=0)
    colocate: str | None = None
    pin: str | None = None
    op: str = ""
    nodes: list[str] = Field(default_factory=list)
    origin: dict[str, str] = Field(default_factory=dict)


class EdgeEntry(Strict):
    """Edges with the same src and tensor carry one value."""

    src: str
    dst: str
    bytes: float = Field(ge=0)
    tensor: str | None = None


class GraphEntry(Strict):
    """The whole file."""

    format: Literal["csp-embed-graph/1"]
    name: str = ""
    notes: str = ""
    time_unit: Literal["ns", "us", "ms", "s"] = "ms"
    tasks: list[TaskEntry]
    edges: list[EdgeEntry] = Field(default_factory=list)
    platform: dict[str, Any] | str | None = None


def read_graph(path: str | Path) -> tuple[TaskGraph, Platform | None]:
    """The graph in a JSON or YAML file, and its platform (None where the file names none).

    Raises: InputError naming file, line and item.
    """
    value, data = read_document(path)
    # Told apart before parsing: a list of missing keys would not say what the file is.
    if is_dnn_partitioning(value):
        raise InputError(
            "this is a dnn-partitioning workload, not a graph file",
            where=str(path),
            hint="--cost-model dnn-partitioning",
        )
    entry = parse(GraphEntry, value, path, FORMAT)
    # All times are ms inside; the unit ends here.
    unit = entry.time_unit
    graph = TaskGraph(
        tasks=tuple(_task(t, unit, path) for t in entry.tasks),
        edges=tuple(Edge(e.src, e.dst, e.bytes, e.tensor) for e in entry.edges),
        name=entry.name or Path(path).stem,
        sha256=sha256(data),
    )
    if not graph.tasks:
        raise InputError(
            "the graph has no task",
            where=f"{path}: tasks",
            hint="partition generate writes a graph that has some",
        )
    try:
        graph.verify()
    # The graph's own check knows the item, this place the file.
    except InputError as error:
        where = f"{path}: {error.where}" if error.where else str(path)
        raise InputError(error.what, where=where, why=error.why, hint=error.hint) from error
    return graph, _platform(entry.platform, path)


def is_dnn_partitioning(value: Any) -> bool:
    """Whether a read document is of the public dnn-partitioning data set (another reader's job)."""
    return isinstance(value, dict) and "nodes" in value and "maxFPGAs" in value


def _platform(value: dict[str, Any] | str | None, path: str | Path) -> Platform | None:
    if value is None:
        return None
    if isinstance(value, str):
        # A path stands relative to the file that names it.
        return read_platform(Path(path).parent / value)
    # A platform inside the file has no bytes of its own; its content is what plans refer to.
    digest = sha256(json.dumps(value, sort_keys=True).encode())
    return platform_from(value, path, digest)


def _task(entry: TaskEntry, unit: str, path: str | Path) -> Task:
    # 0 may be a default that was never written; both given can only be told by a value.
    if entry.memory_bytes is not None and entry.weight_bytes:
        raise InputError(
            f"task {entry.id!r} has both weight_bytes and memory_bytes",
            where=str(path),
            hint="memory_bytes is the older name of weight_bytes: keep one",
        )
    return Task(
        id=entry.id,
        cost={k: in_ms(v, unit) for k, v in entry.cost.items()},
        cost_by_batch={
            k: {n: in_ms(v, unit) for n, v in table.items()}
            for k, table in entry.cost_by_batch.items()
        },
        weight_bytes=entry.weight_bytes if entry.memory_bytes is None else entry.memory_bytes,
        activation_bytes=entry.activation_bytes,
        colocate=entry.colocate,
        pin=entry.pin,
        op=entry.op,
        nodes=tuple(entry.nodes),
        origin=dict(entry.origin),
    )


def graph_document(graph: TaskGraph, platform: Platform | None = None) -> dict[str, Any]:
    """The graph as a JSON document, its platform inside where given; defaults are left out."""
    # Times are written in ms, whatever unit they were read in.
    document: dict[str, Any] = {"format": FORMAT, "name": graph.name, "time_unit": "ms"}
    document["tasks"] = [_task_document(task) for task in graph.tasks]
    document["edges"] = [
        {"src": e.src, "dst": e.dst, "bytes": e.bytes}
        | ({} if e.tensor is None else {"tensor": e.tensor})
        for e in graph.edges
    ]
    if platform is not None:
        document["platform"] = platform_document(platform)
    return document


def _task_document(task: Task) -> dict[str, Any]:
    document: dict[str, Any] = {"id": task.id, "cost": dict(task.cost)}
    if task.cost_by_batch:
        document["cost_by_batch"] = {k: dict(v) for k, v in task.cost_by_batch.items()}
    for key in ("weight_bytes", "activation_bytes", "colocate", "pin", "op", "nodes", "origin"):
        value = getattr(task, key)
        if value:
            document[key] = list(value) if is_list(value) else value
    return document


def _plain(value: Any) -> Any:
    if is_list(value):
        return list(value)
    return dict(value) if is_object(value) else value


def link_row(link: Link) -> dict[str, Any]:
    """A link as an entry of a platform file; defaults are left out."""
    row: dict[str, Any] = {"between": list(link.between), "bytes_per_ms": link.bytes_per_ms}
    # Falsy values are the defaults: no latency, uncontended, no bus.
    for key in ("latency_ms", "duplex", "shared"):
        if getattr(link, key):
            row[key] = getattr(link, key)
    if link.handling:
        row["handling"] = [
            {k: v for k in ("ms", "bytes_per_ms") if (v := getattr(end, k)) is not None}
            for end in link.handling
        ]
    return row


def platform_document(platform: Platform) -> dict[str, Any]:
    """An expanded platform as a JSON document that `read_platform` understands."""
    devices: list[dict[str, Any]] = []
    for d in platform.devices:
        row = {"name": d.name, "kind": d.kind}
        # Defaults left out: files stay short, and older readers can read them.
        for key in _DEVICE_KEYS:
            value = getattr(d, key)
            if value not in (None, {}) and not (key == "overhead_ms" and value == 0):
                row[key] = _plain(value)
        devices.append(row)
    links = [link_row(k) for k in platform.links]
    document: dict[str, Any] = {"name": platform.name, "devices": devices, "links": links}
    if platform.buses:
        document["buses"] = [
            {"name": b.name} | ({} if b.bytes_per_ms is None else {"bytes_per_ms": b.bytes_per_ms})
            for b in platform.buses
        ]
    host = {
        k: v for k in ("memory_bytes", "device") if (v := getattr(platform.host, k)) is not None
    }
    if host:
        document["host"] = host
    return document


def with_digest(graph: TaskGraph) -> TaskGraph:
    """A generated or imported graph with the sha256 of its document."""
    # Sorted: the digest is of the content, not of the order in which it was made.
    text = json.dumps(graph_document(graph), sort_keys=True)
    return replace(graph, sha256=sha256(text.encode()))
