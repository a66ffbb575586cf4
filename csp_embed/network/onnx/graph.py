"""From an ONNX model and a platform to a task graph with costs, each with its origin.

Layers become tasks, tensors become named edges. Graph inputs and outputs are zero-cost tasks pinned
to the host device unless `io_free`. Weights are memory, not transfers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.ir.network import Device, Edge, Platform, Task, TaskGraph
from csp_embed.network.files.graph import with_digest
from csp_embed.network.files.schema import read_bytes, sha256
from csp_embed.network.onnx.layers import Layer, layers
from csp_embed.network.onnx.net import Net
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.network.onnx.runtime import refusal_note
from csp_embed.network.profiles.file import Profile, layer_time, read_profile
from csp_embed.network.profiles.roofline import describe, is_roofline, roofline_ms
from csp_embed.network.profiles.work import Work, work_of

# (net, layer, device) -> (ms, origin), or the reason why the machine cannot run the layer.
KernelCost = Callable[[Net, Layer, Device], "tuple[float, str] | str"]


@dataclass(frozen=True)
class Imported:
    """A model as a task graph; layers and works by task id (input and output tasks have none).

    profiles: what was read, by the name of each device that has one. refused: why a machine cannot
    run a layer, by task and device. notes: what a reader of the costs should know, one sentence
    each.
    """

    net: Net
    graph: TaskGraph
    layers: Mapping[str, Layer]
    works: Mapping[str, Work]
    profiles: Mapping[str, Profile] = field(default_factory=dict[str, Profile])
    notes: tuple[str, ...] = ()
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


def import_onnx_graph(
    path: str | Path,
    platform: Platform,
    *,
    granularity: str = "fused",
    dims: Mapping[str, int] | None = None,
    io_free: bool = False,
    profiles: Mapping[str, str] | None = None,
    kernel_cost: KernelCost | None = None,
    batches: Iterable[int] = (),
    feeds: Mapping[str, Any] | None = None,
) -> Imported:
    """Reads a model and gives every layer its cost on every device.

    profiles: files by device name or kind; they win over those that the platform names.
    kernel_cost: what compiles a layer for devices that name an `isa`. batches: sizes beside 1 for
    which roofline and profiled devices give costs. feeds: see `read_model`. Raises: InputError.
    """
    # Shapes first: everything behind counts bytes.
    net = read_model(path, dims, feeds)
    parts = layers(net, granularity)
    # The digest tells whether a profile was made for this very file.
    tables = _Profiles(platform, profiles or {}, granularity, sha256(read_bytes(path)))
    tasks: list[Task] = []
    works: dict[str, Work] = {}
    refused: dict[str, dict[str, str]] = {}
    for layer in parts:
        work = work_of(net, layer)
        works[layer.name] = work
        why = refused.setdefault(layer.name, {})
        tasks.append(_task(net, layer, work, platform, tables, kernel_cost, batches, why))
    # io first and last: readers expect inputs in front.
    io_tasks, edges = _edges(net, parts, platform, io_free)
    graph = TaskGraph((*io_tasks[0], *tasks, *io_tasks[1]), tuple(edges), Path(path).stem)
    graph.verify()
    by_name = {p.name: p for p in parts}
    refusal = refusal_note(net.model, str(path))
    notes = (*net.notes, *_guesses(works, platform, tables), *([refusal] if refusal else []))
    return Imported(net, with_digest(graph), by_name, works, tables.by_device(), notes, refused)


def _guesses(works: Mapping[str, Work], platform: Platform, profiles: _Profiles) -> list[str]:
    """Layers whose modelled cost is a guess: said aloud, or a plan would seem to rest on it."""
    if not any(is_roofline(d) and profiles.of(d) is None for d in platform.devices):
        return []
    return [
        f"the roofline cost of layer {name!r} is a guess: {'; '.join(work.guesses)} "
        "(--profile gives it a measured one)"
        for name, work in works.items()
        if work.guesses
    ]


class _Profiles:
    """Profile files by device, read once."""

    def __init__(
        self, platform: Platform, given: Mapping[str, str], granularity: str, digest: str
    ) -> None:
        known = {d.name for d in platform.devices} | {d.kind for d in platform.devices}
        # A misspelt device would silently keep its modelled cost.
        for name in given:
            if name not in known:
                raise InputError(
                    f"--profile {name}=…: no such device or kind",
                    hint="devices and kinds: " + ", ".join(sorted(known)),
                )
        # The command line goes before the platform file, a device's name before its kind.
        self.path = {
            d.name: given.get(d.name, given.get(d.kind, d.profile)) for d in platform.devices
        }
        self.read: dict[str, Profile] = {}
        # One file may serve several devices.
        for path in dict.fromkeys(p for p in self.path.values() if p is not None):
            profile = read_profile(path)
            if profile.granularity != granularity:
                raise InputError(
                    f"the profile is for granularity {profile.granularity}, not {granularity}",
                    where=path,
                    hint=f"--granularity {profile.granularity}, or profile again",
                )
            # A profile without a digest is older or handwritten; it is believed.
            if profile.model.sha256 not in ("", digest):
                raise InputError(
                    "the profile is of another model",
                    where=path,
                    why=f"it was made for {profile.model.name}, whose sha256 differs",
                    hint="csp-embed profile MODEL -o FILE",
                )
            self.read[path] = profile

    def of(self, device: Device) -> tuple[Profile, str] | None:
        path = self.path[device.name]
        return None if path is None else (self.read[path], path)

    def by_device(self) -> dict[str, Profile]:
        return {name: self.read[path] for name, path in self.path.items() if path is not None}


def _task(
    net: Net,
    layer: Layer,
    work: Work,
    platform: Platform,
    profiles: _Profiles,
    kernel_cost: KernelCost | None,
    batches: Iterable[int],
    why: dict[str, str],
) -> Task:
    found: dict[str, tuple[float, str, dict[int, float]]] = {}
    for device in platform.devices:
        cost = _cost(net, layer, work, device, profiles, kernel_cost, batches)
        # A device without a cost cannot take the layer, which is no error as long as one can.
        if isinstance(cost, str):
            why[device.name] = cost
        elif cost is not None:
            found[device.name] = cost
    if not found:
        raise InputError(
            f"layer {layer.name!r} ({', '.join(work.node_ops)}) has a cost on no device",
            where=net.path,
            why="; ".join(f"{name}: {text}" for name, text in why.items())
            or "no device has a profile, a peak_ops_per_ms or a kernel for it",
            hint="profile the CPU: csp-embed profile MODEL --device cpu -o prof.json, "
            "then --profile cpu=prof.json",
        )
    keyed = _by_kind(platform, found)
    return Task(
        id=layer.name,
        cost={key: row[0] for key, row in keyed.items()},
        cost_by_batch={key: row[2] for key, row in keyed.items() if row[2]},
        weight_bytes=work.weight_bytes,
        activation_bytes=work.written_bytes,
        op=work.op,
        nodes=work.nodes,
        origin={key: row[1] for key, row in keyed.items()},
    )


def _cost(
    net: Net,
    layer: Layer,
    work: Work,
    device: Device,
    profiles: _Profiles,
    kernel_cost: KernelCost | None,
    batches: Iterable[int],
) -> tuple[float, str, dict[int, float]] | str | None:
    # Where a device lists operators, one that is missing rules out the whole layer.
    if device.operators is not None and not set(work.node_ops) <= set(device.operators):
        return None
    # Measured goes before compiled, and compiled before modelled.
    profile = profiles.of(device)
    if profile is not None:
        time = layer_time(profile[0], layer.name, profile[1])
        if time.ms is None:
            return None
        note = profile[0].device
        origin = f"{note.how} ({Path(profile[1]).name})"
        return time.ms, origin, dict(time.by_batch)
    if device.isa is not None:
        cost = kernel_cost(net, layer, device) if kernel_cost is not None else "nobody compiles it"
        return cost if isinstance(cost, str) else (*cost, {})
    if is_roofline(device):
        # Batch 1 belongs to the table: a plan may use it, too.
        by_batch = {1: roofline_ms(work, device)} if batches else {}
        by_batch |= {n: roofline_ms(work, device, n) for n in batches}
        return roofline_ms(work, device), describe(work, device), by_batch
    return None


def _by_kind(
    platform: Platform, found: Mapping[str, tuple[float, str, dict[int, float]]]
) -> dict[str, tuple[float, str, dict[int, float]]]:
    """One entry for a kind whose devices all agree, else one for each device."""
    kinds: dict[str, list[str]] = {}
    for device in platform.devices:
        kinds.setdefault(device.kind, []).append(device.name)
    out: dict[str, tuple[float, str, dict[int, float]]] = {}
    names = {d.name for d in platform.devices}
    for kind, members in kinds.items():
        rows = [found.get(name) for name in members]
        # A kind called like another device's name would be read as that device.
        clash = kind in names and members != [kind]
        if rows[0] is not None and all(row == rows[0] for row in rows) and not clash:
            out[kind] = rows[0]
        else:
            out.update({n: r for n, r in zip(members, rows, strict=True) if r is not None})
    return out


def _edges(
    net: Net, parts: list[Layer], platform: Platform, io_free: bool
) -> tuple[tuple[list[Task], list[Task]], list[Edge]]:
    # Every tensor has one maker; edges of one tensor carry one value.
    maker = {tensor: part.name for part in parts for tensor in part.makes}
    inputs: list[Task] = []
    outputs: list[Task] = []
    edges: list[Edge] = []
    read = {tensor for part in parts for tensor in part.reads}
    if not io_free:
        host = platform.host.device
        if host is None:
            raise InputError(
                "the platform says no host device for the model's inputs and outputs",
                where=platform.name or "platform",
                hint="host: {device: NAME} in the platform file, or --io-free",
            )
        for name in net.inputs:
            # An input that nobody reads needs no task; one that is also an output does.
            if name in read or name in net.outputs:
                size = net.tensors[name].bytes
                task = f"input:{name}"
                inputs.append(_io_task(task, host, size))
                maker[name] = task
    for part in parts:
        for tensor in part.reads:
            # What no layer makes is the host's (io_free) and costs nothing.
            if tensor in maker:
                edges.append(Edge(maker[tensor], part.name, net.tensors[tensor].bytes, tensor))
    if not io_free:
        for name in dict.fromkeys(net.outputs):
            if name in maker:
                task = f"output:{name}"
                outputs.append(_io_task(task, platform.host.device or "", 0))
                # The output's task itself makes nothing.
                edges.append(Edge(maker[name], task, net.tensors[name].bytes, name))
    return (inputs, outputs), edges


def _io_task(name: str, host: str, size: int) -> Task:
    return Task(
        id=name,
        cost={host: 0.0},
        activation_bytes=size,
        pin=host,
        op="Input" if name.startswith("input:") else "Output",
        origin={host: "host"},
    )
