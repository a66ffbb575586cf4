"""What the partitioning commands read: a graph with costs, its platform; and the judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from csp_embed.commands.common import stderr
from csp_embed.commands.planning.chains import DeviceCosts
from csp_embed.commands.planning.options import DNN, LINKS
from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import LATENCY, BuiltPart, Plan, Platform, TaskGraph
from csp_embed.network.files.graph import is_dnn_partitioning, read_graph
from csp_embed.network.files.plan import read_plan
from csp_embed.network.files.platform import find_platform, read_platform, shipped_platforms
from csp_embed.network.files.schema import read_document
from csp_embed.network.onnx.graph import Imported, import_onnx_graph
from csp_embed.network.onnx.reading.load import is_model_file
from csp_embed.network.profiles.measure import read_inputs

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """How to read the target of a command; what a plan file keeps as `source`."""

    target: str
    platform: str | None = None
    granularity: str = "fused"
    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    io_free: bool = False
    profiles: Mapping[str, str] = field(default_factory=dict[str, str])
    assume_int8: bool = False
    cost_model: str | None = None
    batches: Sequence[int] = ()
    inputs: str | None = None

    def source(self) -> dict[str, Any]:
        """For `run-plan` and `check`: only what differs from the defaults."""
        out: dict[str, Any] = {"target": self.target}
        # Only what was said: a plan's source stays short and readable.
        for key in ("platform", "dims", "io_free", "profiles", "assume_int8", "inputs"):
            if getattr(self, key):
                out[key] = getattr(self, key)
        # Granularity means nothing to a graph.
        if is_onnx(self.target):
            out["granularity"] = self.granularity
        return out


@dataclass(frozen=True)
class Inputs:
    """graph and platform ready to be solved; model where it came from ONNX, and then costs: of
    devices that name an `isa`. programs: of the plan that it was read for."""

    graph: TaskGraph
    platform: Platform
    model: Imported | None
    cost_model: str
    costs: DeviceCosts | None = None
    programs: tuple[BuiltPart, ...] = ()

    def why_not(self, task: str) -> Mapping[str, str]:
        """Why devices cannot run a layer, by device, where that is known."""
        return self.model.refused.get(task, {}) if self.model is not None else {}


def is_onnx(target: str) -> bool:
    """Whether a path is to be read as an ONNX model."""
    # One place decides, for all commands.
    return is_model_file(target)


def load_inputs(
    request: Request,
    *,
    objective: str = LATENCY,
    lost: Sequence[str] = (),
    lenient: bool = False,
    progress: Progress | None = None,
    plan: Plan | None = None,
) -> Inputs:
    """Reads graph and platform. lost: devices that are gone. lenient: costs may name devices that
    the platform lacks. plan: one that is judged or run: costs are those of its own programs, built
    anew. Raises: InputError, MissingLibrary.
    """
    # None: the graph may bring its own platform.
    given = None
    if request.platform is not None:
        given = read_platform(find_platform(request.platform))
    if is_onnx(request.target):
        if given is None:
            raise InputError(
                "an ONNX model needs a platform",
                why="a file, or one that ships",
                hint="--platform cpu_2gpu",
            )
        platform = without(given, lost)
        # Of several placements the costs are those of the whole network's program.
        placed = plan.device_of() if plan is not None and not plan.replicas else None
        costs = DeviceCosts(request.assume_int8, progress, placed)
        # Costs are made for this platform, so it comes first.
        model = import_onnx_graph(
            request.target,
            platform,
            granularity=request.granularity,
            dims=request.dims,
            io_free=request.io_free,
            profiles=request.profiles,
            kernel_cost=costs,
            batches=request.batches,
            feeds=None if request.inputs is None else read_inputs(request.inputs),
        )
        # What the reader had to assume is told at once.
        for note in (*model.notes, *_idle(model, platform, costs)):
            stderr.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
        inputs = Inputs(model.graph, platform, model, request.cost_model or LINKS, costs)
        if plan is not None and placed is not None and costs.chained:
            from csp_embed.commands.planning.built import with_programs

            return with_programs(inputs, plan)
        return inputs
    # Options of models: a graph has what they would say.
    given_options = {
        "--dim": request.dims,
        "--profile": request.profiles,
        "--inputs": request.inputs,
    }
    for option, given_for in given_options.items():
        if given_for:
            raise InputError(
                f"{option} is for ONNX models",
                where=request.target,
                hint=f"leave {option} out, or give a model",
            )
    # By content: both formats are JSON.
    if is_dnn_partitioning(read_document(request.target)[0]):
        if request.cost_model not in (None, DNN):
            raise InputError(
                "a dnn-partitioning workload has no links",
                where=request.target,
                hint="--cost-model dnn-partitioning",
            )
        from csp_embed.partition.models.dnn_file import read_dnn

        graph, own = read_dnn(request.target, objective)
        # A workload brings its devices; a platform given beside it wins.
        return Inputs(graph, without(given or own, lost), None, DNN)
    graph, inside = read_graph(request.target)
    if given is None and inside is None:
        raise InputError(
            "no platform",
            where=request.target,
            why="the graph file has no `platform`",
            hint="--platform FILE.yaml",
        )
    platform = given or inside
    assert platform is not None
    # A misspelt device would else be a cost that nobody uses.
    if not lenient:
        check_known_devices(graph, platform, request.target)
    return Inputs(graph, without(platform, lost), None, request.cost_model or LINKS)


def _idle(model: Imported, platform: Platform, costs: DeviceCosts) -> list[str]:
    """Machines that cannot run any layer: said aloud, or their absence in a plan would puzzle."""
    notes: list[str] = []
    for device in platform.devices:
        why = [w[device.name] for w in model.refused.values() if device.name in w]
        if device.isa is None or costs.placed is not None or len(why) < len(model.refused):
            continue
        # A model that is no quantised network at all says so once, not by layer.
        error = costs.unread
        text = f"{error.what} ({error.why}); {error.hint}" if error is not None else why[0]
        notes.append(f"{device.name} can run no layer: {text}")
    return notes


def cost_model_of(target: str, asked: str | None) -> str:
    """The cost model that a target will be solved with; what cannot be read is told later."""
    # A file that cannot be read is told by whoever reads it.
    if asked is not None or is_onnx(target) or not Path(target).is_file():
        return asked or LINKS
    return DNN if is_dnn_partitioning(read_document(target)[0]) else LINKS


def check_known_devices(graph: TaskGraph, platform: Platform, where: str) -> None:
    """Raises: InputError where a cost names a device or kind that the platform does not have."""
    # Costs go by name or by kind.
    known = {d.name for d in platform.devices} | {d.kind for d in platform.devices}
    for task in graph.tasks:
        for key in (*task.cost, *task.cost_by_batch):
            if key not in known:
                raise InputError(
                    f"task {task.id!r} has a cost for {key!r}, an unknown device",
                    where=where,
                    why="devices and kinds of the platform: " + ", ".join(sorted(known)),
                    hint="mend the name, or --allow-unknown-devices where it is meant",
                )


def refuse_shared_host(inputs: Inputs, replicas: int) -> None:
    """Raises: Infeasible for replicas of a model whose inputs and outputs are on one host."""
    # Inputs and outputs are pinned to the host, which only one replica can have.
    if replicas > 1 and inputs.model is not None and any(t.pin for t in inputs.graph.tasks):
        raise Infeasible(
            "the model's inputs and outputs belong to one host device",
            why="replicas share no device, so only one of them could reach it",
            hint="--io-free gives every replica its own inputs and outputs",
        )


def without(platform: Platform, lost: Sequence[str]) -> Platform:
    """The platform after devices were lost, with the links that remain."""
    names = platform.by_name()
    for name in lost:
        if name not in names:
            raise InputError(f"--lost {name}: no such device", hint=", ".join(names))
    if not lost:
        return platform
    host = platform.host
    # The host itself may be lost: then any CPU takes its place.
    if host.device in lost:
        cpu = next(
            (d.name for d in platform.devices if d.kind == "cpu" and d.name not in lost), None
        )
        host = replace(host, device=cpu)
    return replace(
        platform,
        devices=tuple(d for d in platform.devices if d.name not in lost),
        # Links with a lost end are gone with it.
        links=tuple(k for k in platform.links if not set(k.between) & set(lost)),
        host=host,
        # Another platform than the file's: the old digest would claim otherwise.
        sha256="",
    )


def request_of(plan: Plan, target: str, platform: str | None) -> Request:
    """How the graph of a plan was read, by the plan's own `source`; the arguments win."""
    source = plan.source
    return Request(
        target=target,
        # What is given now wins over what the plan remembers.
        platform=platform or source.get("platform"),
        granularity=str(source.get("granularity", "fused")),
        dims={str(k): int(v) for k, v in dict(source.get("dims", {})).items()},
        io_free=bool(source.get("io_free", False)),
        profiles={str(k): str(v) for k, v in dict(source.get("profiles", {})).items()},
        assume_int8=bool(source.get("assume_int8", False)),
        inputs=None if source.get("inputs") is None else str(source["inputs"]),
        cost_model=plan.cost_model if plan.cost_model == DNN else None,
    )


def check_plan_file(
    plan: str | Path, graph: str | Path, platform: str | Path | None = None
) -> list[Any]:
    """Judges anybody's plan file: the verifier's problems (kind, where, text); [] = accepted.

    graph: a graph file, a dnn-partitioning workload or an ONNX model. Raises: InputError.
    """
    from csp_embed.judge.plan.judge import check_plan

    read = read_plan(plan)
    request = request_of(read, str(graph), None if platform is None else str(platform))
    named = request.platform or ""
    # The plan may name a file of another computer.
    known = named in shipped_platforms() or Path(named).exists()
    if platform is None and not known and not is_onnx(str(graph)):
        # The plan may come from another machine; the graph file's own platform then serves.
        request = replace(request, platform=None)
    inputs = load_inputs(request, objective=read.goal, lenient=True, plan=read)
    # The plan may come from a tool that does not say its cost model.
    if inputs.cost_model == DNN:
        read = replace(read, cost_model=DNN)
    from csp_embed.commands.planning.built import program_faults

    return [*check_plan(inputs.graph, inputs.platform, read), *program_faults(inputs, read)]
