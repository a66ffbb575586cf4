"""From a plan to parts: which tasks of a device run together as one model, and in which order.

A part is a set of tasks on one device with the same depth, where depth grows by one whenever a
tensor changes device. Edges between parts then always lead to a greater depth, so parts are convex
and can run in the order of depth on every device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from csp_embed.errors import InputError
from csp_embed.ir.network import Assignment, Plan, Platform, TaskGraph
from csp_embed.network.onnx.graph import Imported
from csp_embed.network.onnx.submodels import borders


@dataclass(frozen=True)
class Part:
    """tasks: ids in running order. nodes: indices into net.nodes. reads, makes: boundary tensors.

    predicted_ms: sum of the tasks' costs on the device; with a measured profile, see `predicted`.
    replica: which copy of the network, under data parallelism.
    """

    index: int
    device: str
    tasks: tuple[str, ...]
    nodes: tuple[int, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    predicted_ms: float
    replica: int = 0

    @property
    def name(self) -> str:
        """A file name without its ending."""
        return f"part{self.index:02d}_{self.device}"


def parts_of(plan: Plan, model: Imported, platform: Platform) -> list[Part]:
    """The parts of a plan in an order in which they can run, one replica after the other.

    Raises: InputError where the plan's tasks are not the model's layers.
    """
    # Without replicas the plan itself is the one copy.
    copies = [r.assignments for r in plan.replicas] or [plan.assignments]
    parts: list[Part] = []
    for replica, rows in enumerate(copies):
        parts += _parts_of_copy(rows, replica, len(parts), model, platform)
    return parts


def _parts_of_copy(
    rows: Sequence[Assignment], replica: int, first: int, model: Imported, platform: Platform
) -> list[Part]:
    graph = model.graph
    # A plan that lacks layers would leave tensors unmade.
    device_of = {row.task: row.device for row in rows}
    _same_tasks(device_of, graph, platform)
    depth = _depths(graph, device_of)
    # Throughput plans have no starts; order then falls to depth alone.
    starts = {row.task: row.start or 0.0 for row in rows}
    place = {task: at for at, task in enumerate(graph.order())}
    groups: dict[tuple[int, str], list[str]] = {}
    # Tasks without a layer are inputs and outputs: nothing runs for them.
    for task in graph.order():
        if task in model.layers:
            groups.setdefault((depth[task], device_of[task]), []).append(task)
    devices = platform.by_name()
    by_id = graph.by_id()
    parts: list[Part] = []
    # By depth, so that every part's tensors are made by parts before it.
    for (_, device), tasks in sorted(
        groups.items(),
        key=lambda item: (item[0][0], min(starts.get(t, 0.0) for t in item[1]), item[0][1]),
    ):
        # Within a part in the graph's order, which its nodes can run in.
        tasks.sort(key=lambda t: place[t])
        nodes = tuple(sorted(i for t in tasks for i in model.layers[t].nodes))
        reads, makes = borders(model.net, nodes)
        # A plan that was changed by hand may name a device without a cost.
        cost = [by_id[t].cost_on(devices[device]) for t in tasks]
        if None in cost:
            task = tasks[cost.index(None)]
            raise InputError(
                f"the plan puts {task!r} on {device}, which has no cost for it",
                hint="run csp-embed check on the plan",
            )
        known = [c for c in cost if c is not None]
        parts.append(
            Part(
                index=first + len(parts),
                device=device,
                tasks=tuple(tasks),
                nodes=nodes,
                reads=tuple(reads),
                makes=tuple(makes),
                predicted_ms=predicted(model, device, tasks, known, reads, makes),
                replica=replica,
            )
        )
    return parts


def predicted(
    model: Imported,
    device: str,
    tasks: Sequence[str],
    cost: Sequence[float],
    reads: Sequence[str],
    makes: Sequence[str],
) -> float:
    """ms of some layers in one piece that reads and makes these tensors.

    A profile has a layer's time inside the whole model and as a model of its own, where all its
    tensors enter or leave the runtime's own layout and nothing is fused across its border. In a
    part the truth lies between: the second counts by the bytes of the layer's tensors that cross
    the part's border (those that cross the whole model's border too are in both times).
    """
    profile = model.profiles.get(device)
    if profile is None:
        return sum(cost)
    # Tensors of the whole model's border are in both of a profile's times.
    outer = {*model.net.inputs, *model.net.outputs}

    def size(names: Iterable[str], among: Sequence[str] | None = None) -> int:
        kept = [n for n in names if n not in outer and (among is None or n in among)]
        return sum(model.net.tensors[n].bytes for n in kept)

    # run_ms is what a run costs whatever is in it: once for each part.
    total = profile.run_ms + sum(cost)
    for task, ms in zip(tasks, cost, strict=True):
        layer, alone = model.layers[task], profile.layers[task].alone_ms
        every = size(layer.reads) + size(layer.makes)
        if alone is not None and every:
            crossing = size(layer.reads, reads) + size(layer.makes, makes)
            total += crossing / every * (alone - profile.run_ms - ms)
    # Differences of measured times may fall below nothing.
    return max(0.0, total)


def _depths(graph: TaskGraph, device_of: Mapping[str, str]) -> dict[str, int]:
    """How often tensors changed device on the way to each task, at most."""
    before: dict[str, list[str]] = {}
    for edge in graph.edges:
        before.setdefault(edge.dst, []).append(edge.src)
    depth: dict[str, int] = {}
    for task in graph.order():
        # One more where the tensor changes device: parts of one depth never feed each other.
        depth[task] = max(
            (depth[p] + (device_of[p] != device_of[task]) for p in before.get(task, ())),
            default=0,
        )
    return depth


def _same_tasks(device_of: Mapping[str, str], graph: TaskGraph, platform: Platform) -> None:
    names = [task.id for task in graph.tasks]
    missing = [t for t in names if t not in device_of]
    extra = sorted(set(device_of) - set(names))
    if missing or extra:
        which = f"the plan lacks {missing[0]!r}" if missing else f"the model lacks {extra[0]!r}"
        raise InputError(
            "the plan's tasks are not the model's layers",
            why=f"{which} ({len(missing)} missing, {len(extra)} unknown)",
            hint="use the model, --granularity, --dim and --io-free that the plan was made with",
        )
    known = platform.by_name()
    for task, device in device_of.items():
        if device not in known:
            raise InputError(
                f"the plan puts {task!r} on {device!r}, which the platform does not have",
                hint="devices: " + ", ".join(known),
            )
