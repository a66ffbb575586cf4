"""Platform files: devices, links, buses, servers, host; all counts expanded on reading.

A device with count 3 called gpu becomes gpu0, gpu1, gpu2; a server with count 2 called node becomes
node0 and node1, and its devices node0.gpu0 and so on (a server of count 1 keeps its name). An end
of a link may name one device, or a counted one (`gpu`: a link to each), or `node.gpu`; two ends
with the same counted name join every pair.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from csp_embed.errors import InputError
from csp_embed.ir.network import Bus, Device, Handling, Host, Link, Platform
from csp_embed.nearest import did_you_mean
from csp_embed.network.files.schema import Strict, parse, read_document, sha256


class DeviceEntry(Strict):
    """One device, or `count` equal ones.

    profile: a csp-embed-profile/1 file, relative to the platform file. peak_ops_per_ms and
    bytes_per_ms (of its memory) make it an analytical roofline device; efficiency: the share of the
    peak that a kind of layer reaches (`default` for others); overhead_ms: per layer.
    isa, vta_config, clock_mhz: a device whose costs are cycles of our own kernels.
    operators: ONNX operator types that it can run; all where absent. provider: the execution
    provider of onnxruntime by which run-plan runs it (CUDAExecutionProvider, …).
    layout_bytes_per_ms: how fast the host turns tensors into the device's layouts, and back.
    """

    name: str
    kind: str
    count: PositiveInt = 1
    memory_bytes: float | None = Field(default=None, ge=0)
    profile: str | None = None
    peak_ops_per_ms: PositiveFloat | None = None
    bytes_per_ms: PositiveFloat | None = None
    server: str | None = None
    efficiency: dict[str, PositiveFloat] = Field(default_factory=dict)
    overhead_ms: float = Field(default=0.0, ge=0)
    isa: str | None = None
    vta_config: str | None = None
    clock_mhz: PositiveFloat | None = None
    operators: list[str] | None = None
    provider: str | None = None
    layout_bytes_per_ms: PositiveFloat | None = None


class HandlingEntry(Strict):
    """What a value takes of the device at one end of a link."""

    ms: float = Field(default=0.0, ge=0)
    bytes_per_ms: PositiveFloat | None = None


class LinkEntry(Strict):
    """See docs/partition-model.md; bytes_per_ms is the rate of one direction. handling: by the ends
    of `between`."""

    between: tuple[str, str]
    bytes_per_ms: PositiveFloat
    latency_ms: float = Field(default=0.0, ge=0)
    duplex: Literal["full", "half"] | None = None
    shared: str | None = None
    handling: tuple[HandlingEntry, HandlingEntry] | None = None


class BusEntry(Strict):
    """A medium that several links share."""

    name: str
    bytes_per_ms: PositiveFloat | None = None


class ServerEntry(Strict):
    """`count` equal machines with devices, links and buses of their own."""

    name: str
    count: PositiveInt = 1
    devices: list[DeviceEntry]
    links: list[LinkEntry] = Field(default_factory=list)
    buses: list[BusEntry] = Field(default_factory=list)


class HostEntry(Strict):
    """Where inputs come from. device: whose memory that is (default: the first of kind cpu)."""

    memory_bytes: float | None = Field(default=None, ge=0)
    device: str | None = None


class PlatformEntry(Strict):
    """The whole file. `format` is optional; notes is free text for people."""

    format: Literal["csp-embed-platform/1"] | None = None
    name: str = ""
    notes: str = ""
    devices: list[DeviceEntry] = Field(default_factory=list)
    links: list[LinkEntry] = Field(default_factory=list)
    buses: list[BusEntry] = Field(default_factory=list)
    servers: list[ServerEntry] = Field(default_factory=list)
    host: HostEntry = Field(default_factory=HostEntry)


def read_platform(path: str | Path) -> Platform:
    """The platform in a JSON or YAML file.

    Raises: InputError naming file, line and item.
    """
    value, data = read_document(path)
    return platform_from(value, path, sha256(data))


def platform_from(value: Any, path: str | Path, digest: str = "") -> Platform:
    """The platform in an already read mapping (`platform:` in a graph file)."""
    entry = parse(PlatformEntry, value, path)
    try:
        platform = _expand(entry, Path(path).parent, digest, Path(path).stem)
        platform.verify()
    except InputError as error:
        raise InputError(
            error.what,
            where=f"{path} {error.where}".strip(),
            why=error.why,
            hint=error.hint,
        ) from error
    return platform


def _expand(entry: PlatformEntry, folder: Path, digest: str, stem: str) -> Platform:
    devices: list[Device] = []
    # One name may stand for several devices: counted ones, and a server's in all its instances.
    groups: dict[str, list[str]] = {}  # a name that people may write -> devices that it means
    pairs: list[tuple[LinkEntry, str, str, str]] = []  # link, end, end, prefix of its server
    buses = [Bus(b.name, b.bytes_per_ms) for b in entry.buses]
    # Instances of all servers, in the order of the file.
    servers: list[str] = []
    # Devices outside of servers first: their names have no prefix and cannot clash with a node's.
    for device in entry.devices:
        _add(device, "", device.server, devices, groups, folder)
        if device.server is not None and device.server not in servers:
            servers.append(device.server)
    for server in entry.servers:
        for instance in _instances(server.name, server.count):
            servers.append(instance)
            for device in server.devices:
                _add(device, f"{instance}.", instance, devices, groups, folder)
            buses += [Bus(f"{instance}.{b.name}", b.bytes_per_ms) for b in server.buses]
            pairs += [(k, *k.between, f"{instance}.") for k in server.links]
        # Names with the count and without: both may stand in a link.
        for device in server.devices:  # `node.gpu` means that device in every node
            for name in dict.fromkeys([device.name, *_instances(device.name, device.count)]):
                if server.count > 1:
                    groups[f"{server.name}.{name}"] = [
                        d
                        for instance in _instances(server.name, server.count)
                        for d in groups[f"{instance}.{name}"]
                    ]
    # Links of the platform come last, when every name is known.
    pairs += [(k, *k.between, "") for k in entry.links]
    links = [
        Link(
            ends,
            k.bytes_per_ms,
            k.latency_ms,
            k.duplex,
            _bus(k.shared, prefix, buses),
            _handling(k),
        )
        for k, a, b, prefix in pairs
        for ends in _ends(prefix + a, prefix + b, groups)
    ]
    # Inputs come from the host's memory, which is a CPU's unless the file says otherwise.
    host = Host(entry.host.memory_bytes, entry.host.device or _first_cpu(devices))
    return Platform(
        devices=tuple(devices),
        links=tuple(links),
        buses=tuple(buses),
        servers=tuple(servers),
        host=host,
        name=entry.name or stem,
        sha256=digest,
    )


def _add(
    entry: DeviceEntry,
    prefix: str,
    server: str | None,
    devices: list[Device],
    groups: dict[str, list[str]],
    folder: Path,
) -> None:
    names = [prefix + name for name in _instances(entry.name, entry.count)]
    # Two entries of one name (two kinds of GPU called alike) are one group.
    groups[prefix + entry.name] = groups.get(prefix + entry.name, []) + names
    for name in names:
        if name != prefix + entry.name:
            groups[name] = [name]
        devices.append(
            Device(
                name=name,
                kind=entry.kind,
                memory_bytes=entry.memory_bytes,
                server=server,
                # Relative to the platform file, so that a folder of both can be moved.
                profile=None if entry.profile is None else str(folder / entry.profile),
                peak_ops_per_ms=entry.peak_ops_per_ms,
                bytes_per_ms=entry.bytes_per_ms,
                efficiency=dict(entry.efficiency),
                overhead_ms=entry.overhead_ms,
                isa=entry.isa,
                vta_config=None if entry.vta_config is None else str(folder / entry.vta_config),
                clock_mhz=entry.clock_mhz,
                # None: any operator; an empty list would be none.
                operators=None if entry.operators is None else tuple(entry.operators),
                provider=entry.provider,
                layout_bytes_per_ms=entry.layout_bytes_per_ms,
            )
        )


def _instances(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}{i}" for i in range(count)]


def _ends(a: str, b: str, groups: dict[str, list[str]]) -> Iterable[tuple[str, str]]:
    for end in (a, b):
        if end not in groups:
            raise InputError(
                f"link {a}-{b}: no device {end!r}",
                where="links",
                hint="devices are " + ", ".join(list(groups)[:8]),
            )
    # A device is not linked to itself, and a pair once: links go both ways.
    if a == b and len(groups[a]) > 1:
        return list(combinations(groups[a], 2))
    # All of one group with all of the other.
    return [(x, y) for x in groups[a] for y in groups[b]]


def _bus(name: str | None, prefix: str, buses: list[Bus]) -> str | None:
    """A bus of the link's own server goes before one of the platform."""
    if name is not None and any(bus.name == prefix + name for bus in buses):
        return prefix + name
    return name


def _handling(link: LinkEntry) -> tuple[Handling, Handling] | None:
    if link.handling is None:
        return None
    a, b = (Handling(end.ms, end.bytes_per_ms) for end in link.handling)
    return a, b


def _first_cpu(devices: list[Device]) -> str | None:
    return next((d.name for d in devices if d.kind == "cpu"), None)


def find_platform(name: str) -> Path:
    """A path as it stands, or the name of a file that ships in `platforms/`.

    Raises: InputError listing the names.
    """
    if Path(name).exists():
        return Path(name)
    shipped = shipped_platforms()
    if name in shipped:
        return shipped[name]
    raise InputError(
        f"no platform file {name!r}",
        why="shipped: " + ", ".join(sorted(shipped)),
        hint=did_you_mean(name, shipped, "give one of these names, or a path"),
    )


def shipped_platforms() -> dict[str, Path]:
    """Files of `platforms/` by name: inside an installed package, or beside it in a checkout."""
    package = Path(str(files("csp_embed")))
    # A wheel carries the folder inside, a checkout has it beside the package.
    for folder in (package / "platforms", package.parent / "platforms"):
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    return {}
