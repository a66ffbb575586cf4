"""A cluster of one's own as YAML, turned into a layer-placement-1 document.

Takes: csp-embed-cluster/1 (servers with GPUs by name, a network, model sizes, a workload).
Leaves: machines (a tensor-parallel group each), tables of tokens/s, links.

Tables that are given are taken; the others come from a roofline (rates.py) and are marked so.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from csp_embed.errors import InputError
from csp_embed.network.files.schema import Strict, parse
from csp_embed.serving.files.gpus import Gpu, gpu_named
from csp_embed.serving.files.rates import Model, Workload, table

FORMAT = "csp-embed-cluster/1"
CHOICES = 64  # ways to choose degrees that are tried


class ServerEntry(Strict):
    """`count` equal servers with `gpus` devices each. gpu: a name of gpus.py, or memory_bytes,
    flops and bytes_per_s. tensor_parallel: degrees that may be chosen (one for all groups of this
    entry). links_bytes_per_s: between its GPUs, each way. tokens_per_s_by_layers: measured tables
    by degree, in place of the roofline. price_per_hour: of the whole server; a group pays for its
    share of the GPUs."""

    name: str
    count: PositiveInt = 1
    gpu: str | None = None
    memory_bytes: PositiveFloat | None = None
    flops: PositiveFloat | None = None
    bytes_per_s: PositiveFloat | None = None
    gpus: PositiveInt = 1
    tensor_parallel: list[PositiveInt] = Field(default_factory=lambda: [1], min_length=1)
    links_bytes_per_s: PositiveFloat = 16e9
    region: str = ""
    network_bytes_per_s: PositiveFloat | None = None
    price_per_hour: float | None = Field(default=None, ge=0)
    tokens_per_s_by_layers: dict[int, list[PositiveFloat]] = Field(default_factory=dict)


class NetworkEntry(Strict):
    """Between servers: bytes/s each way (bytes, not bits) and seconds of latency."""

    bytes_per_s: PositiveFloat
    latency_s: float = Field(default=0.0, ge=0)
    regions_bytes_per_s: PositiveFloat | None = None
    regions_latency_s: float = Field(default=0.0, ge=0)


class ClusterEntry(Strict):
    """The whole file."""

    format: Literal["csp-embed-cluster/1"]
    name: str = ""
    notes: str = ""
    model: Model
    workload: Workload = Field(default_factory=Workload)
    network: NetworkEntry
    servers: list[ServerEntry] = Field(min_length=1)


def read_cluster(value: Any, path: str | Path) -> ClusterEntry:
    """The file's content, checked. Raises: InputError naming file, line and item."""
    entry = parse(ClusterEntry, value, path, FORMAT)
    seen: set[str] = set()
    for server in entry.servers:
        where = f"{path}  servers.{server.name}"
        if server.name in seen:
            raise InputError(f"server {server.name} is there twice", where=where)
        seen.add(server.name)
        for degree in server.tensor_parallel:
            if server.gpus % degree:
                raise InputError(
                    f"tensor_parallel {degree} does not divide {server.gpus} GPUs", where=where
                )
            if entry.model.heads % degree:
                raise InputError(
                    f"tensor_parallel {degree} does not divide {entry.model.heads} heads",
                    where=where,
                )
        _gpu(server, where)
    return entry


def degree_choices(entry: ClusterEntry) -> list[dict[str, int]]:
    """Every way to give each server entry one degree. Raises: InputError for too many."""
    ways = [sorted(set(s.tensor_parallel)) for s in entry.servers]
    total = 1
    for way in ways:
        total *= len(way)
    if total > CHOICES:
        raise InputError(
            f"{total} ways to choose tensor-parallel degrees, at most {CHOICES} are tried",
            hint="list fewer degrees for some of the servers",
        )
    names = [s.name for s in entry.servers]
    return [dict(zip(names, way, strict=True)) for way in product(*ways)]


def document_of(entry: ClusterEntry, degrees: Mapping[str, int]) -> dict[str, Any]:
    """The layer-placement-1 document with these degrees. Raises: InputError where nothing fits."""
    model, types, nodes = entry.model, {}, []
    places: list[tuple[str, ServerEntry]] = []  # (server instance, entry) of each machine
    for server in entry.servers:
        degree = degrees.get(server.name)
        if degree not in server.tensor_parallel:
            raise InputError(
                f"server {server.name} offers no tensor_parallel {degree}",
                hint=f"one of {sorted(server.tensor_parallel)}",
            )
        rates = server.tokens_per_s_by_layers.get(degree)
        origin = "table" if rates else "roofline"
        if rates is None:
            rates = table(
                model, entry.workload, _gpu(server, server.name), degree, server.links_bytes_per_s
            )
        if not rates:
            continue  # not one layer fits with its caches: these machines cannot serve
        name = f"{server.name}x{degree}"
        types[name] = {
            "max_layers": min(len(rates), model.layers),
            "tokens_per_s_by_layers": list(rates),
            "origin": origin,
        }
        for at in range(server.count):
            box = server.name if server.count == 1 else f"{server.name}{at}"
            for group in range(server.gpus // degree):
                first = group * degree
                label = box if server.gpus == degree else f"{box}.{first}"
                if server.gpus != degree and degree > 1:
                    label += f"-{first + degree - 1}"
                node: dict[str, Any] = {"id": label, "type": name, "tensor_parallel": degree}
                if server.price_per_hour is not None:
                    node["price_per_hour"] = server.price_per_hour * degree / server.gpus
                nodes.append(node)
                places.append((box, server))
    if not nodes:
        raise InputError(
            "no server can hold a single layer with its caches",
            where=entry.name,
            hint="a smaller batch or context, or a higher tensor_parallel degree",
        )
    return {
        "format": "layer-placement-1",
        "name": entry.name,
        "model": {
            "layers": model.layers,
            "activation_bytes_per_token": model.activation_bytes,
            "token_bytes": 4,
        },
        "node_types": types,
        "nodes": nodes,
        **_links(entry, nodes, places),
    }


def _links(
    entry: ClusterEntry, nodes: list[dict[str, Any]], places: list[tuple[str, ServerEntry]]
) -> dict[str, Any]:
    """Links inside a server, between servers and between regions; the coordinator reaches all."""
    net = entry.network
    links = []
    for a, (box_a, server_a) in zip(nodes, places, strict=True):
        for b, (box_b, server_b) in zip(nodes, places, strict=True):
            if a is b:
                continue
            latency = 0.0
            if box_a == box_b:
                rate = server_a.links_bytes_per_s
            else:
                rate, latency = net.bytes_per_s, net.latency_s
                for server in (server_a, server_b):
                    rate = min(rate, server.network_bytes_per_s or rate)
                if server_a.region != server_b.region and net.regions_bytes_per_s:
                    rate = min(rate, net.regions_bytes_per_s)
                    latency = max(latency, net.regions_latency_s)
            links.append(
                {"from": a["id"], "to": b["id"], "bytes_per_s": rate, "latency_s": latency}
            )
    to, back = [], []
    for node in nodes:
        ends = {"bytes_per_s": net.bytes_per_s, "latency_s": net.latency_s}
        to.append({"to": node["id"], **ends})
        back.append({"from": node["id"], **ends})
    return {"links": links, "coordinator": {"to_nodes": to, "from_nodes": back}}


def _gpu(server: ServerEntry, where: str) -> Gpu:
    """The device by name, with figures that the entry states itself."""
    stated = (server.memory_bytes, server.flops, server.bytes_per_s)
    if server.gpu is None:
        if None in stated and not server.tokens_per_s_by_layers:
            raise InputError(
                f"server {server.name} has neither a table nor a roofline",
                where=where,
                why="no gpu, and not all of memory_bytes, flops, bytes_per_s",
                hint="gpu: A100-80GB, or the three figures, or tokens_per_s_by_layers",
            )
        return Gpu(*(value or 1.0 for value in stated))
    known = gpu_named(server.gpu, where)
    return Gpu(
        server.memory_bytes or known.memory_bytes,
        server.flops or known.flops,
        server.bytes_per_s or known.bytes_per_s,
    )
