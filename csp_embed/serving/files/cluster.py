"""A cluster of one's own as YAML, turned into a layer-placement-1 document.

Takes: csp-embed-cluster/1 (servers with GPUs by name, a network, model sizes, a workload).
Leaves: machines (a tensor-parallel group each), tables of tokens/s, links.

Tables that are given are taken; the others come from a roofline (rates.py) and are marked so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from csp_embed.errors import InputError
from csp_embed.ir.network import Platform
from csp_embed.network.files.schema import Strict, parse
from csp_embed.serving.files.gpus import Gpu, gpu_named
from csp_embed.serving.files.platform import links_of, machines_of
from csp_embed.serving.files.rates import Model, Workload, roofline
from csp_embed.serving.files.units import Bytes, BytesPerS

FORMAT = "csp-embed-cluster/1"
# Token numbers go to and from the coordinator, as 32-bit integers.
TOKEN = 4  # bytes of a token's number


class ServerEntry(Strict):
    """`count` equal servers with `gpus` devices each.

    gpu: a name of gpus.py, or memory_bytes, flops and bytes_per_s. tensor_parallel: degrees of
    which each server may mix groups. links_bytes_per_s: between its GPUs, each way.
    tokens_per_s_by_layers: measured tables by degree, in place of the roofline; or prefill_… and
    decode_… (by batch where it matters). price_per_hour: of the whole server; a group pays for its
    share of the GPUs."""

    name: str
    count: PositiveInt = 1
    gpu: str | None = None
    memory_bytes: Bytes | None = None
    flops: PositiveFloat | None = None
    bytes_per_s: BytesPerS | None = None
    gpus: PositiveInt = 1
    tensor_parallel: list[PositiveInt] = Field(default_factory=lambda: [1], min_length=1)
    links_bytes_per_s: BytesPerS = 16e9
    region: str = ""
    network_bytes_per_s: BytesPerS | None = None
    price_per_hour: float | None = Field(default=None, ge=0)
    tokens_per_s_by_layers: dict[int, list[PositiveFloat]] = Field(default_factory=dict)
    prefill_tokens_per_s_by_layers: dict[int, list[PositiveFloat]] = Field(default_factory=dict)
    decode_tokens_per_s_by_layers: dict[
        int, list[PositiveFloat] | dict[int, list[PositiveFloat]]
    ] = Field(default_factory=dict)


class NetworkEntry(Strict):
    """Between servers: bytes/s each way (or with a unit, as 10 Gbit/s) and seconds of latency."""

    bytes_per_s: BytesPerS
    latency_s: float = Field(default=0.0, ge=0)
    regions_bytes_per_s: BytesPerS | None = None
    regions_latency_s: float = Field(default=0.0, ge=0)


class LimitsEntry(Strict):
    """Seconds that a request alone may take to its first token, and for each further one."""

    first_token_s: PositiveFloat | None = None
    token_s: PositiveFloat | None = None


class ClusterEntry(Strict):
    """The whole file. platform: a file of the partitioner (or the name of one that ships) in place
    of servers and network."""

    format: Literal["csp-embed-cluster/1"]
    name: str = ""
    notes: str = ""
    model: Model
    workload: Workload = Field(default_factory=Workload)
    network: NetworkEntry | None = None
    platform: str | None = None
    limits: LimitsEntry = Field(default_factory=LimitsEntry)
    partial_inference: bool = False
    servers: list[ServerEntry] = Field(default_factory=list)


def read_cluster(value: Any, path: str | Path) -> ClusterEntry:
    """The file's content, checked. Raises: InputError naming file, line and item."""
    entry = parse(ClusterEntry, value, path, FORMAT)
    # Exactly one of the two says what machines there are.
    stated = bool(entry.servers) + (entry.platform is not None)
    if stated != 1 or (entry.servers and entry.network is None):
        raise InputError(
            "a cluster needs servers with a network, or a platform"
            if stated != 2 else "servers and a platform are both there",
            where=str(path),
            hint="platform: four_servers, or servers: [{name: a, gpu: T4}] with network",
        )  # fmt: skip
    model = entry.model
    # Grouped queries: each cached head serves the same number of heads.
    if model.kv_heads is not None and model.heads % model.kv_heads:
        raise InputError(
            f"{model.kv_heads} kv_heads do not divide {model.heads} heads",
            where=f"{path}  model.kv_heads",
            hint="kv_heads: 8 with heads: 64; leave it out where every head has its own",
        )
    # An empty list is not "no batch": somebody meant to offer choices.
    if entry.workload.batch == []:
        raise InputError("no batch to choose from", where=f"{path}  workload.batch",
                         hint="batch: 16, or batch: [8, 16]")  # fmt: skip
    seen: set[str] = set()
    for server in entry.servers:
        where = f"{path}  servers.{server.name}"
        if server.name in seen:
            raise InputError(
                f"server {server.name} is there twice",
                where=where,
                hint="give every server a name of its own",
            )
        seen.add(server.name)
        _degrees(server, model.heads, where)
        _gpu(server, where)
    return entry


def _degrees(server: ServerEntry, heads: int, where: str) -> None:
    """Raises: InputError for degrees that cannot be, and for tables of others."""
    # A group of GPUs divides both the server and the heads.
    for degree in server.tensor_parallel:
        for count, what in ((server.gpus, "GPUs"), (heads, "heads")):
            if count % degree:
                raise InputError(
                    f"tensor_parallel {degree} does not divide {count} {what}",
                    where=where,
                    hint=f"a degree that divides {count}",
                )
    tables = (
        server.tokens_per_s_by_layers,
        server.prefill_tokens_per_s_by_layers,
        server.decode_tokens_per_s_by_layers,
    )
    # Also of degrees that are not asked for: a typing error would else go unseen.
    for degree in (d for table in tables for d in table):
        if degree < 1 or server.gpus % degree:
            raise InputError(
                f"a table for tensor_parallel {degree}, which {server.gpus} GPUs cannot form",
                where=where,
                hint="tables go by degree: tokens_per_s_by_layers: {1: [900.0, 400.0]}",
            )


def document_of(entry: ClusterEntry, platform: Platform | None = None) -> dict[str, Any]:
    """The layer-placement-1 document: a machine for each group of GPUs that any degree forms, or
    for each device of a platform.

    Raises: InputError where nothing fits."""
    types, nodes, joined = _of_servers(entry) if platform is None else _of_platform(entry, platform)
    model, work = entry.model, entry.workload
    return {
        "format": "layer-placement-1",
        "name": entry.name or (platform.name if platform else ""),
        "partial_inference": entry.partial_inference,
        "model": {
            "layers": model.layers,
            # Activations between machines, numbers of tokens to the coordinator.
            "activation_bytes_per_token": model.activation_bytes,
            "token_bytes": TOKEN,
            "layer_weight_bytes": model.parameters * model.weight_bytes,
            "kv_bytes_per_token": model.cache_bytes,
        },
        "workload": {
            "prompt_tokens": work.prompt_tokens,
            "output_tokens": work.output_tokens,
            # The format needs a number; a roofline's tables hold as many as memory allows.
            "batch": 1 if work.batch is None else work.batch,
            "split_phases": work.split_phases,
        },
        "limits": entry.limits.model_dump(exclude_none=True),
        "node_types": types,
        "nodes": nodes,
        **joined,
    }


Parts = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]  # types, nodes, links


def _of_servers(entry: ClusterEntry) -> Parts:
    types: dict[str, Any] = {}
    nodes: list[dict[str, Any]] = []
    places: list[tuple[str, ServerEntry]] = []  # (server instance, entry) of each machine
    for server in entry.servers:
        # A server may mix degrees: each group that could be formed is a machine of its own.
        for degree in sorted(set(server.tensor_parallel)):
            rates = _rates(entry, server, degree)
            if rates is None:
                continue  # not one layer fits with its caches: these groups cannot serve
            name = f"{server.name}x{degree}"
            types[name] = rates
            for box in _boxes(server):
                for first in range(0, server.gpus, degree):
                    nodes.append(_group(server, box, name, first, degree))
                    places.append((box, server))
    # Not one type fits: the searches could only say "no plan".
    _some(nodes, entry.name)
    return types, nodes, _links(entry, nodes, places)


def _of_platform(entry: ClusterEntry, platform: Platform) -> Parts:
    types: dict[str, Any] = {}
    nodes: list[dict[str, Any]] = []
    known: dict[tuple[str, Gpu], str] = {}
    for device, gpu in machines_of(platform):
        # By kind and size: devices of equal figures share a table.
        key = device.kind, gpu
        if key not in known:
            rates = _roofline(entry, gpu, 1, 1.0)
            if rates is None:
                continue  # not one layer fits
            # Kinds whose devices differ in size are told apart by the first of each size.
            known[key] = device.kind if device.kind not in types else f"{device.kind} {device.name}"
            types[known[key]] = rates
        name = known[key]
        nodes.append({"id": device.name, "type": name})
    _some(nodes, platform.name)
    # Devices that hold nothing still forward: routes over them count (see platform.py).
    names = [n["id"] for n in nodes]
    return types, nodes, links_of(platform, names, entry.model.activation_bytes)


def _some(nodes: list[dict[str, Any]], where: str) -> None:
    if not nodes:
        raise InputError(
            "no server can hold a single layer with its caches",
            where=where,
            hint="a smaller batch or context, or a higher tensor_parallel degree",
        )


def _boxes(server: ServerEntry) -> list[str]:
    """The names of its servers."""
    return [
        server.name if server.count == 1 else f"{server.name}{at}" for at in range(server.count)
    ]


def _group(server: ServerEntry, box: str, name: str, first: int, degree: int) -> dict[str, Any]:
    """The machine that GPUs first … first + degree - 1 of a box form."""
    # Names stay short where a server is one machine.
    label = box if server.gpus == degree else f"{box}.{first}"
    if server.gpus != degree and degree > 1:
        label += f"-{first + degree - 1}"
    node: dict[str, Any] = {"id": label, "type": name, "tensor_parallel": degree}
    # Only where degrees mix do machines share GPUs.
    if len(set(server.tensor_parallel)) > 1:
        node["devices"] = [f"{box}.gpu{at}" for at in range(first, first + degree)]
    # Which GPUs of which server: launch lines need it, the planner does not.
    if server.gpus > 1:
        node |= {"server": box, "first_gpu": first}
    if server.price_per_hour is not None:
        node["price_per_hour"] = server.price_per_hour * degree / server.gpus
    return node


def _rates(entry: ClusterEntry, server: ServerEntry, degree: int) -> dict[str, Any] | None:
    """The type of groups of this degree: measured tables, or a roofline; None where none fits."""
    both = server.tokens_per_s_by_layers.get(degree)
    # Measured tables come before any model of them.
    if both is not None:
        return {"max_layers": min(len(both), entry.model.layers), "origin": "table",
                "tokens_per_s_by_layers": list(both)}  # fmt: skip
    prefill = server.prefill_tokens_per_s_by_layers.get(degree)
    decode = server.decode_tokens_per_s_by_layers.get(degree)
    if prefill is not None or decode is not None:
        found: dict[str, Any] = {"origin": "table"}
        if prefill is not None:
            found["prefill_tokens_per_s_by_layers"] = list(prefill)
        if decode is not None:
            found["decode_tokens_per_s_by_layers"] = decode
        # Measured by batch: then memory must be checked for that batch.
        if entry.workload.batch is not None and _sized(server):
            gpu = _gpu(server, server.name)
            found["memory_bytes"] = gpu.memory_bytes * degree * (1 - entry.workload.reserve)
        return found
    return _roofline(entry, _gpu(server, server.name), degree, server.links_bytes_per_s)


def _roofline(entry: ClusterEntry, gpu: Gpu, degree: int, links: float) -> dict[str, Any] | None:
    work = entry.workload
    made = {b: roofline(entry.model, work, gpu, degree, links, b) for b in work.batches}
    first = next(iter(made.values()))
    # Not even one layer with the cache of one request fits.
    if not first.prefill:
        return None
    several = len(made) > 1
    return {
        "max_layers": len(first.prefill),
        "prefill_tokens_per_s_by_layers": first.prefill,
        # One table, or one by batch: the document's two forms.
        "decode_tokens_per_s_by_layers": {b: r.decode for b, r in made.items()}
        if several
        else first.decode,
        "decode_step_s_by_layers": {b: r.step for b, r in made.items()} if several else first.step,
        "origin": "roofline",
    }


def _sized(server: ServerEntry) -> bool:
    return server.gpu is not None or server.memory_bytes is not None


def _links(
    entry: ClusterEntry, nodes: list[dict[str, Any]], places: list[tuple[str, ServerEntry]]
) -> dict[str, Any]:
    """Links inside a server, between servers and between regions; the coordinator reaches all."""
    net = entry.network
    assert net is not None  # read_cluster saw to that
    links = []
    # Every ordered pair: capacities may differ by direction in the document.
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
                    # The slowest of both network cards and the network itself.
                    rate = min(rate, server.network_bytes_per_s or rate)
                if server_a.region != server_b.region and net.regions_bytes_per_s:
                    rate = min(rate, net.regions_bytes_per_s)
                    # A way between regions is at least as late as one within.
                    latency = max(latency, net.regions_latency_s)
            links.append(
                {"from": a["id"], "to": b["id"], "bytes_per_s": rate, "latency_s": latency}
            )
    to, back = [], []
    # The coordinator stands in the network, near no region.
    for node in nodes:
        ends = {"bytes_per_s": net.bytes_per_s, "latency_s": net.latency_s}
        to.append({"to": node["id"], **ends})
        back.append({"from": node["id"], **ends})
    return {"links": links, "coordinator": {"to_nodes": to, "from_nodes": back}}


def _gpu(server: ServerEntry, where: str) -> Gpu:
    """The device by name, with figures that the entry states itself."""
    # Figures that are stated win over those of the name.
    stated = (server.memory_bytes, server.flops, server.bytes_per_s)
    if server.gpu is None:
        measured = server.tokens_per_s_by_layers or server.prefill_tokens_per_s_by_layers
        if None in stated and not measured:
            raise InputError(
                f"server {server.name} has neither a table nor a roofline",
                where=where,
                why="no gpu, and not all of memory_bytes, flops, bytes_per_s",
                hint="gpu: A100-80GB, or the three figures, or tokens_per_s_by_layers",
            )
        # With measured tables the figures are not used; 1.0 only fills them.
        return Gpu(*(value or 1.0 for value in stated))
    known = gpu_named(server.gpu, where)
    return Gpu(
        server.memory_bytes or known.memory_bytes,
        server.flops or known.flops,
        server.bytes_per_s or known.bytes_per_s,
    )
