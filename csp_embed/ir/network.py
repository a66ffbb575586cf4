"""Whole networks as task graphs, and the platforms that run them; plans (`ir/plan.py`) come along.

Units everywhere: milliseconds and bytes; rates in bytes per ms. Files in other units are converted
on reading. The types hold what docs/partition-model.md names; readers and writers live in
`csp_embed.network`, solvers and the verifier in `csp_embed.partition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from csp_embed.errors import InputError
from csp_embed.ir.plan import FEASIBLE as FEASIBLE
from csp_embed.ir.plan import INFEASIBLE as INFEASIBLE
from csp_embed.ir.plan import LATENCY as LATENCY
from csp_embed.ir.plan import OPTIMAL as OPTIMAL
from csp_embed.ir.plan import THROUGHPUT as THROUGHPUT
from csp_embed.ir.plan import UNKNOWN as UNKNOWN
from csp_embed.ir.plan import Assignment as Assignment
from csp_embed.ir.plan import BuiltPart as BuiltPart
from csp_embed.ir.plan import Plan as Plan
from csp_embed.ir.plan import Replica as Replica
from csp_embed.ir.plan import Transfer as Transfer


@dataclass(frozen=True)
class Task:
    """One layer (or group of folded operators, or shard of one).

    cost: ms by device name or kind; a name wins; a device in neither cannot run the task.
    cost_by_batch: ms by device name or kind, then by batch size; used by data parallelism.
    weight_bytes add up on the device that runs the task; activation_bytes are live there from the
        task's start to its last consumer's end.
    colocate: tasks with the same label share a device. pin: the device name that must run it.
    transfer_ms, backward: dnn-partitioning cost model only: one transfer of this task's output
        between an accelerator and host memory; whether it belongs to the backward pass.
    op: kind of layer, nodes: names of the model's operators that it covers, origin: where the cost
        of each device or kind comes from; all three are for reports only.
    """

    id: str
    cost: Mapping[str, float]
    cost_by_batch: Mapping[str, Mapping[int, float]] = field(
        default_factory=dict[str, Mapping[int, float]]
    )
    weight_bytes: float = 0
    activation_bytes: float = 0
    colocate: str | None = None
    pin: str | None = None
    transfer_ms: float = 0.0
    backward: bool = False
    op: str = ""
    nodes: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict[str, str])

    def cost_on(self, device: Device) -> float | None:
        """ms on `device`; None where it cannot run the task (no cost)."""
        # A device's own cost wins over that of its kind: measured beats general.
        if device.name in self.cost:
            return self.cost[device.name]
        return self.cost.get(device.kind)

    def batch_cost_on(self, device: Device, batch: int) -> tuple[float | None, bool]:
        """(ms for `batch` samples on `device`, whether that is linear scaling of `cost`)."""
        # A table by name goes before one by kind, as costs do.
        table = self.cost_by_batch.get(device.name, self.cost_by_batch.get(device.kind, {}))
        if batch in table:
            return table[batch], False
        # Without a measurement for this batch size samples are taken one after the other, and the
        # caller is told.
        one = self.cost_on(device)
        return (None if one is None else one * batch), True


@dataclass(frozen=True)
class Edge:
    """`dst` reads a value of `src`. Edges with the same src and tensor carry one value (their bytes
    agree); without tensor each edge is a value of its own."""

    src: str
    dst: str
    bytes: float
    tensor: str | None = None


@dataclass(frozen=True)
class TaskGraph:
    """A directed acyclic graph of tasks, in file order. sha256: of the file's bytes, "" if none."""

    tasks: tuple[Task, ...]
    edges: tuple[Edge, ...]
    name: str = ""
    sha256: str = ""

    def by_id(self) -> dict[str, Task]:
        """Tasks by id, in order."""
        return {task.id: task for task in self.tasks}

    def values(self) -> list[tuple[str, str, float, tuple[str, ...]]]:
        """(src, tensor, bytes, consumers) per value. Unnamed ones are called `src->dst`, a repeated
        unnamed edge `src->dst#2` and so on."""
        grouped: dict[tuple[str, str], tuple[float, list[str]]] = {}
        # Edges of one value are joined: it is sent once however many read it.
        for edge in self.edges:
            name, count = edge.tensor, 1
            while name is None:
                name = f"{edge.src}->{edge.dst}" + (f"#{count}" if count > 1 else "")
                if (edge.src, name) in grouped:
                    name, count = None, count + 1
            _, consumers = grouped.setdefault((edge.src, name), (edge.bytes, []))
            # Two edges between the same tasks are one reader.
            if edge.dst not in consumers:
                consumers.append(edge.dst)
        return [(s, t, b, tuple(c)) for (s, t), (b, c) in grouped.items()]

    def order(self) -> list[str]:
        """Task ids in topological order, ties in file order. Raises: InputError naming a cycle."""
        waiting = {task.id: 0 for task in self.tasks}
        after: dict[str, list[str]] = {task.id: [] for task in self.tasks}
        for edge in self.edges:
            waiting[edge.dst] += 1
            after[edge.src].append(edge.dst)
        # File order among ready tasks: the same file gives the same plan.
        ready = [t for t, n in waiting.items() if not n]
        done: list[str] = []
        for task in ready:  # grows while we walk it
            done.append(task)
            for other in after[task]:
                waiting[other] -= 1
                if not waiting[other]:
                    ready.append(other)
        # Tasks that never became ready lie on cycles, or behind them.
        if len(done) < len(waiting):
            raise InputError(
                "the graph has a cycle",
                where=" -> ".join(_cycle(after, {t for t, n in waiting.items() if n})),
                hint="a layer cannot need its own output; remove one of these edges",
            )
        return done

    def verify(self) -> None:
        """Raises InputError on unknown, repeated or negative things, and on cycles."""
        seen: set[str] = set()
        for task in self.tasks:
            if task.id in seen:
                raise InputError(
                    f"task {task.id!r} is there twice",
                    where=f"task {task.id}",
                    hint="give every task an id of its own",
                )
            # Before edges are looked at: they name tasks.
            seen.add(task.id)
            if not task.cost:
                raise InputError(
                    f"task {task.id!r} has no cost",
                    where=f"task {task.id}",
                    hint="give cost: {device or kind: ms}",
                )
            tables = [task.cost, *task.cost_by_batch.values()]
            numbers = [x for table in tables for x in table.values()]
            for x in (*numbers, task.weight_bytes, task.activation_bytes, task.transfer_ms):
                # nan fails both comparisons as well.
                if not 0 <= x < float("inf"):
                    raise InputError(
                        f"task {task.id!r}: {x} is not a time or size",
                        where=f"task {task.id}",
                        hint="times and sizes are finite and at least 0",
                    )
        # One value has one size, however many read it.
        sizes: dict[tuple[str, str], float] = {}
        for edge in self.edges:
            for end in (edge.src, edge.dst):
                if end not in seen:
                    raise InputError(
                        f"edge {edge.src} -> {edge.dst}: no task {end!r}",
                        where=f"edge to {edge.dst}",
                        hint="every edge joins two tasks of the graph",
                    )
            if not 0 <= edge.bytes < float("inf"):
                raise InputError(
                    f"edge {edge.src} -> {edge.dst}: {edge.bytes} bytes",
                    hint="bytes are at least 0",
                )
            if edge.tensor is not None:
                first = sizes.setdefault((edge.src, edge.tensor), edge.bytes)
                if first != edge.bytes:
                    raise InputError(
                        f"value {edge.tensor!r} of {edge.src} has {first} and {edge.bytes} bytes",
                        where=f"edge {edge.src} -> {edge.dst}",
                        hint="edges with the same src and tensor carry one value",
                    )
        # Raises on a cycle; the order itself is not needed.
        self.order()

    def show(self) -> str:
        """One line per task: id, costs, successors."""
        after: dict[str, list[str]] = {}
        for edge in self.edges:
            after.setdefault(edge.src, []).append(edge.dst)
        return "\n".join(
            f"{t.id}: {', '.join(f'{d} {c:g} ms' for d, c in t.cost.items())}"
            f" -> {' '.join(after.get(t.id, []))}"
            for t in self.tasks
        )


def _cycle(after: Mapping[str, list[str]], inside: set[str]) -> list[str]:
    """One cycle among tasks that never became ready."""
    before: dict[str, str] = {}
    # Sorted: the same cycle is shown every time.
    for a in sorted(inside):
        for b in after[a]:
            if b in inside:
                before.setdefault(b, a)
    # Backwards along edges inside: a finite set, so some task comes twice.
    walk = [min(inside)]
    while walk[-1] not in walk[:-1]:
        walk.append(before[walk[-1]])
    return walk[walk.index(walk[-1]) :][::-1]


@dataclass(frozen=True)
class Device:
    """One concrete device (counts are already expanded: gpu0, gpu1, …).

    memory_bytes: None = unlimited. server: the instance of a server that it belongs to ("node0").
    profile, peak_ops_per_ms, bytes_per_ms: where costs come from; solvers read `Task.cost` only.
    efficiency: share of the peak by kind of layer (`default` for the rest); overhead_ms per layer;
    isa, vta_config, clock_mhz: a device whose costs are cycles of our own kernels.
    operators: ONNX operator types that it can run; None: all. provider: the execution provider of
    onnxruntime that runs its layers here; None: the CPU's, for devices of kind cpu.
    layout_bytes_per_ms: how fast the host turns tensors into the device's layouts, and back; None:
    the device takes them as they are.
    """

    name: str
    kind: str
    memory_bytes: float | None = None
    server: str | None = None
    profile: str | None = None
    peak_ops_per_ms: float | None = None
    bytes_per_ms: float | None = None
    efficiency: Mapping[str, float] = field(default_factory=dict[str, float], hash=False)
    overhead_ms: float = 0.0
    isa: str | None = None
    vta_config: str | None = None
    clock_mhz: float | None = None
    operators: tuple[str, ...] | None = None
    provider: str | None = None
    layout_bytes_per_ms: float | None = None


@dataclass(frozen=True)
class Handling:
    """What one value that crosses a link takes of the device at one of its ends, beside what the
    link itself takes: ms + bytes / bytes_per_ms (None: nothing by size)."""

    ms: float = 0.0
    bytes_per_ms: float | None = None


@dataclass(frozen=True)
class Link:
    """A two-way connection; a transfer takes latency_ms + bytes / rate.

    duplex: None with shared None = uncontended; "half": one transfer at a time over both
    directions; "full": one per direction. shared: a bus: one transfer at a time over all links that
    name it, at the smaller of the two rates.
    handling: time of the devices at both ends, in the order of `between`; it counts for loads, not
    for the times of a single input.
    """

    between: tuple[str, str]
    bytes_per_ms: float
    latency_ms: float = 0.0
    duplex: str | None = None
    shared: str | None = None
    handling: tuple[Handling, Handling] | None = None

    def handled_by(self, device: str) -> Handling:
        """What a value over this link takes of that end."""
        return self.handling[self.between.index(device)] if self.handling else Handling()

    @property
    def name(self) -> str:
        """`a-b`, as plans and loads call it (a full-duplex link's directions: `a-b:a>b`)."""
        return f"{self.between[0]}-{self.between[1]}"


@dataclass(frozen=True)
class Bus:
    """Shared by the links that name it. bytes_per_ms None: only the links' own rates count."""

    name: str
    bytes_per_ms: float | None = None


@dataclass(frozen=True)
class Host:
    """Where graph inputs come from and outputs go to. device: the device whose memory that is
    (importers add zero-cost tasks pinned there); None: there is none."""

    memory_bytes: float | None = None
    device: str | None = None


@dataclass(frozen=True)
class Platform:
    """Devices and what joins them, all counts expanded. servers: instance names in order."""

    devices: tuple[Device, ...]
    links: tuple[Link, ...] = ()
    buses: tuple[Bus, ...] = ()
    servers: tuple[str, ...] = ()
    host: Host = field(default_factory=Host)
    name: str = ""
    sha256: str = ""

    def by_name(self) -> dict[str, Device]:
        """Devices by name, in order."""
        return {device.name: device for device in self.devices}

    def rate(self, link: Link) -> float:
        """bytes per ms of a transfer over `link`, its bus and turned layouts at its ends
        included."""
        # A bus without a rate of its own does not slow its links down.
        caps = [b.bytes_per_ms for b in self.buses if b.name == link.shared and b.bytes_per_ms]
        rate = min([link.bytes_per_ms, *caps])
        turned = [
            d.layout_bytes_per_ms for d in self.devices
            if d.name in link.between and d.layout_bytes_per_ms is not None
        ]  # fmt: skip
        # One after the other: a tensor is turned, then sent, so that times of a byte add up.
        return 1 / sum(1 / r for r in (rate, *turned)) if turned else rate

    def verify(self) -> None:
        """Raises InputError on repeated or unknown names and on rates that are not positive."""
        if not self.devices:
            # Names first: links refer to them.
            raise InputError("the platform has no device", hint="give devices: [{name, kind}]")
        names: set[str] = set()
        for device in self.devices:
            if device.name in names:
                raise InputError(
                    f"device {device.name!r} is there twice",
                    hint="give every device a name of its own",
                )
            names.add(device.name)
            # `not >=` and not `<`: nan has to be refused too.
            turned = device.layout_bytes_per_ms
            if turned is not None and not turned > 0:
                raise InputError(
                    f"device {device.name!r}: layout_bytes_per_ms {turned}",
                    hint="a positive number of bytes per ms; leave it out where nothing is turned",
                )
            if device.memory_bytes is not None and not device.memory_bytes >= 0:
                raise InputError(
                    f"device {device.name!r}: memory_bytes {device.memory_bytes}",
                    hint="a number of bytes, at least 0; leave it out for no limit",
                )
        buses = {bus.name for bus in self.buses}
        for bus in self.buses:
            if bus.bytes_per_ms is not None and not bus.bytes_per_ms > 0:
                raise InputError(
                    f"bus {bus.name}: bytes_per_ms must be positive",
                    hint="a number of bytes per ms; leave it out for no limit",
                )
        for link in self.links:
            for end in link.between:
                if end not in names:
                    raise InputError(
                        f"link {link.name}: no device {end!r}",
                        where="links",
                        hint=f"one of {', '.join(sorted(names))}",
                    )
            if link.between[0] == link.between[1]:
                raise InputError(
                    f"link {link.name} joins a device with itself",
                    where="links",
                    hint="name two devices in `between`",
                )
            if not link.bytes_per_ms > 0 or not link.latency_ms >= 0:
                raise InputError(
                    f"link {link.name}: bytes_per_ms must be positive, latency_ms at least 0",
                    hint="for example bytes_per_ms: 1e7, latency_ms: 0.01",
                )
            # Files are checked where they are read; this is for platforms made in Python.
            for end in link.handling or ():
                rate = end.bytes_per_ms
                if not end.ms >= 0 or (rate is not None and not rate > 0):
                    raise InputError(
                        f"link {link.name}: handling {end.ms} ms, {rate} bytes per ms",
                        hint="ms at least 0 and bytes_per_ms positive, or left out",
                    )
            if link.duplex not in (None, "full", "half"):
                raise InputError(
                    f"link {link.name}: duplex is full or half, not {link.duplex!r}",
                    hint="duplex: full",
                )
            if link.shared is not None and link.shared not in buses:
                raise InputError(
                    f"link {link.name}: no bus {link.shared!r}",
                    hint="declare the bus under `buses`, or leave `shared` out",
                )
        # Importers pin inputs and outputs there.
        if self.host.device is not None and self.host.device not in names:
            raise InputError(
                f"host: no device {self.host.device!r}", hint=f"one of {', '.join(sorted(names))}"
            )

    def show(self) -> str:
        """One line per device and link."""
        lines = [f"{d.name} ({d.kind})" for d in self.devices]
        lines += [
            f"{k.name} {k.bytes_per_ms:g} B/ms {k.duplex or k.shared or ''}" for k in self.links
        ]
        return "\n".join(lines)
