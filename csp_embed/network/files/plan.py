"""Plan files (csp-embed-plan/1): reading anybody's, writing ours; and the judge of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from csp_embed.files import atomic
from csp_embed.ir.network import Assignment, BuiltPart, Plan, Platform, Replica, TaskGraph, Transfer
from csp_embed.network.files.schema import Form, in_ms, parse, per_ms, read_document

FORMAT = "csp-embed-plan/1"
FORM = Form(
    "check the path; csp-embed partition … -o FILE writes a plan",
    "plans are JSON or YAML in UTF-8",
    "docs/partition.md shows the form",
)


class _Loose(BaseModel):
    """Somebody else's plan may say more than we read."""

    # Plans of other tools are judged too; what we do not know cannot make them wrong.
    model_config = ConfigDict(
        extra="ignore", allow_inf_nan=False, populate_by_name=True, coerce_numbers_to_str=True
    )


class AssignmentEntry(_Loose):
    """start and finish are absent for throughput."""

    task: str
    device: str
    start: float | None = None
    finish: float | None = None


class TransferEntry(_Loose):
    """One hop."""

    src_task: str
    tensor: str
    from_device: str = Field(alias="from")
    to_device: str = Field(alias="to")
    link: str
    bytes: float = Field(ge=0)
    start: float | None = None
    finish: float | None = None


class ReplicaEntry(_Loose):
    """One copy under data parallelism."""

    share: float
    assignments: list[AssignmentEntry]
    loads: dict[str, float] = Field(default_factory=dict)
    transfers: list[TransferEntry] = Field(default_factory=list)


class ProgramEntry(_Loose):
    """Which tasks are one program, and which."""

    device: str
    tasks: list[str]
    cycles: int = Field(ge=0)
    predicted: int = Field(ge=0)
    instructions: int = Field(default=0, ge=0)
    sha256: str = ""


class DigestEntry(_Loose):
    """sha256 of the files that the plan was made for; "" where there was none."""

    graph: str = ""
    platform: str = ""


class PlanEntry(_Loose):
    """The whole file; only format, goal and assignments (or replicas) are required."""

    format: Literal["csp-embed-plan/1"]
    goal: Literal["latency", "throughput"]
    objective: float | None = None
    lower_bound: float | None = None
    gap: float | None = None
    # A plan that claims nothing is taken as feasible at best.
    status: Literal["OPTIMAL", "FEASIBLE", "INFEASIBLE", "UNKNOWN"] = "FEASIBLE"
    time_unit: Literal["ns", "us", "ms", "s"] = "ms"
    sha256: DigestEntry = Field(default_factory=DigestEntry)
    method: str = "unknown"
    seed: int = 0
    deterministic: bool = False
    assignments: list[AssignmentEntry] = Field(default_factory=list)
    loads: dict[str, float] = Field(default_factory=dict)
    transfers: list[TransferEntry] = Field(default_factory=list)
    replicas: list[ReplicaEntry] = Field(default_factory=list)
    bound: str = ""
    cost_model: Literal["links", "dnn-partitioning"] = "links"
    contiguous: bool = False
    pipeline: bool = False
    max_latency: float | None = None
    min_throughput: float | None = None
    batch: int = 1
    latency: float | None = None
    period: float | None = None
    linear_costs: bool = False
    reasons: list[str] = Field(default_factory=list)
    source: dict[str, Any] = Field(default_factory=dict)
    programs: list[ProgramEntry] = Field(default_factory=list)


def read_plan(path: str | Path) -> Plan:
    """The plan in a JSON or YAML file, times in ms. Raises: InputError naming file and item."""
    # Without the digest of its bytes: a plan is known by what it says.
    return plan_from(read_document(path, FORM)[0], path)


def plan_from(value: Any, path: str | Path) -> Plan:
    """As `read_plan`, from an already read document. A missing objective is that of the times."""
    entry = parse(PlanEntry, value, path, FORMAT)
    unit = entry.time_unit
    rows = _assignments(entry.assignments, unit)
    objective = entry.objective
    # Only a plan that says it is one has a value; the judge recounts it in any case.
    if objective is None and entry.status in ("OPTIMAL", "FEASIBLE"):
        ends = [a.finish for a in entry.assignments if a.finish is not None]
        loads = list(entry.loads.values())
        # As claimed by its own times: the last end, or the busiest device.
        objective = max(ends if entry.goal == "latency" else loads, default=None)
    return Plan(
        goal=entry.goal,
        objective=_scaled(objective, unit),
        lower_bound=in_ms(entry.lower_bound or 0.0, unit),
        gap=entry.gap,
        status=entry.status,
        method=entry.method,
        seed=entry.seed,
        deterministic=entry.deterministic,
        assignments=rows,
        loads={k: in_ms(v, unit) for k, v in entry.loads.items()},
        transfers=_transfers(entry.transfers, unit),
        replicas=tuple(
            Replica(
                # samples per ms for throughput, samples for latency
                per_ms(r.share, unit) if entry.goal == "throughput" else r.share,
                _assignments(r.assignments, unit),
                {k: in_ms(v, unit) for k, v in r.loads.items()},
                _transfers(r.transfers, unit),
            )
            for r in entry.replicas
        ),
        bound=entry.bound,
        cost_model=entry.cost_model,
        contiguous=entry.contiguous,
        pipeline=entry.pipeline,
        max_latency=_scaled(entry.max_latency, unit),
        # A rate divides by the unit where a time is multiplied.
        min_throughput=None if entry.min_throughput is None else per_ms(entry.min_throughput, unit),
        batch=entry.batch,
        latency=_scaled(entry.latency, unit),
        period=_scaled(entry.period, unit),
        linear_costs=entry.linear_costs,
        graph_sha256=entry.sha256.graph,
        platform_sha256=entry.sha256.platform,
        reasons=tuple(entry.reasons),
        source=entry.source,
        programs=tuple(
            BuiltPart(p.device, tuple(p.tasks), p.cycles, p.predicted, p.instructions, p.sha256)
            for p in entry.programs
        ),
    )


def _scaled(value: float | None, unit: str) -> float | None:
    # Missing times stay missing: a throughput plan has none.
    return None if value is None else in_ms(value, unit)


def _assignments(rows: list[AssignmentEntry], unit: str) -> tuple[Assignment, ...]:
    return tuple(
        Assignment(r.task, r.device, _scaled(r.start, unit), _scaled(r.finish, unit)) for r in rows
    )


def _transfers(rows: list[TransferEntry], unit: str) -> tuple[Transfer, ...]:
    return tuple(
        Transfer(
            src_task=r.src_task,
            tensor=r.tensor,
            from_device=r.from_device,
            to_device=r.to_device,
            link=r.link,
            bytes=r.bytes,
            start=_scaled(r.start, unit),
            finish=_scaled(r.finish, unit),
        )
        for r in rows
    )


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON document; what does not apply to its goal is left out."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "goal": plan.goal,
        "objective": plan.objective,
        "lower_bound": plan.lower_bound,
        "gap": plan.gap,
        "status": plan.status,
        "time_unit": "ms",
        "sha256": {"graph": plan.graph_sha256, "platform": plan.platform_sha256},
        "method": plan.method,
        "seed": plan.seed,
        "deterministic": plan.deterministic,
    }
    # Written only where they say something: most plans have none of these.
    for key, default in (
        ("bound", ""),
        ("cost_model", "links"),
        ("contiguous", False),
        ("pipeline", False),
        ("max_latency", None),
        ("min_throughput", None),
        ("batch", 1),
        ("latency", None),
        ("period", None),
        ("linear_costs", False),
    ):
        value = getattr(plan, key)
        if value != default:
            document[key] = value
    document["assignments"] = [_assignment_row(a) for a in plan.assignments]
    # Latency plans have no loads.
    if plan.loads:
        document["loads"] = dict(plan.loads)
    document["transfers"] = [_transfer_row(t) for t in plan.transfers]
    if plan.replicas:
        document["replicas"] = [
            {
                "share": r.share,
                "assignments": [_assignment_row(a) for a in r.assignments],
                "loads": dict(r.loads),
                "transfers": [_transfer_row(t) for t in r.transfers],
            }
            for r in plan.replicas
        ]
    if plan.reasons:
        document["reasons"] = list(plan.reasons)
    # How its graph was read: `run-plan` and `check` read it again in the same way.
    if plan.source:
        document["source"] = dict(plan.source)
    if plan.programs:
        document["programs"] = [{**vars(p), "tasks": list(p.tasks)} for p in plan.programs]
    return document


def _assignment_row(a: Assignment) -> dict[str, Any]:
    row: dict[str, Any] = {"task": a.task, "device": a.device}
    # A plan for throughput has no times; keys with null would read as missing values.
    return row if a.start is None else row | {"start": a.start, "finish": a.finish}


def _transfer_row(t: Transfer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "src_task": t.src_task,
        "tensor": t.tensor,
        "from": t.from_device,
        "to": t.to_device,
        "link": t.link,
        "bytes": t.bytes,
    }
    return row if t.start is None else row | {"start": t.start, "finish": t.finish}


def write_plan(plan: Plan, path: str | Path) -> None:
    """Writes the file whole or not at all."""
    with atomic(path) as file:
        json.dump(plan_document(plan), file, indent=1)
        file.write("\n")


def same_graph(plan: Plan, graph: TaskGraph, platform: Platform) -> list[str]:
    """Remarks where the plan says that it was made for other files."""
    # Remarks, not errors: a plan may be judged against a changed graph on purpose.
    remarks: list[str] = []
    if plan.graph_sha256 and graph.sha256 and plan.graph_sha256 != graph.sha256:
        remarks.append("the plan was made for another graph file (sha256 differs)")
    if plan.platform_sha256 and platform.sha256 and plan.platform_sha256 != platform.sha256:
        remarks.append("the plan was made for another platform (sha256 differs)")
    return remarks
