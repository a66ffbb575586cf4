"""Plans: which device runs which task of a network when. Milliseconds and bytes throughout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

# As text, since they stand in files.
LATENCY, THROUGHPUT = "latency", "throughput"
OPTIMAL, FEASIBLE, INFEASIBLE, UNKNOWN = "OPTIMAL", "FEASIBLE", "INFEASIBLE", "UNKNOWN"


@dataclass(frozen=True)
class Assignment:
    """Where a task runs; start and finish in ms for latency, None for throughput. A list of
    assignments stands in an order in which the tasks can run."""

    task: str
    device: str
    start: float | None = None
    finish: float | None = None


@dataclass(frozen=True)
class Transfer:
    """One hop of one value over one link. from_device, to_device are `from` and `to` in files.
    link: the name of the `Link`; start and finish None for throughput."""

    src_task: str
    tensor: str
    from_device: str
    to_device: str
    link: str
    bytes: float
    start: float | None = None
    finish: float | None = None


@dataclass(frozen=True)
class Replica:
    """One copy under data parallelism. share: throughput: samples per ms that it contributes;
    latency: how many samples of the batch it takes."""

    share: float
    assignments: tuple[Assignment, ...]
    loads: Mapping[str, float] = field(default_factory=dict[str, float])
    transfers: tuple[Transfer, ...] = ()


@dataclass(frozen=True)
class BuiltPart:
    """Tasks of a device that are one program there. cycles: of the program as built; predicted:
    what its tasks' costs add up to before it was. sha256: of its instructions, micro-ops and
    constants."""

    device: str
    tasks: tuple[str, ...]
    cycles: int
    predicted: int
    instructions: int
    sha256: str


@dataclass(frozen=True, repr=False)
class Plan:
    """Which device runs which task when.

    goal: "latency" (objective = makespan in ms) or "throughput" (objective = period in ms per
        sample). objective None: no plan (UNKNOWN, INFEASIBLE).
    lower_bound: ms, proved, by the formula that `bound` names; gap = (objective - lower_bound) /
        objective, 0 where objective is 0.
    loads: throughput: ms per sample on each device, contended link (`a-b`, `a-b:a>b`) and bus.
    cost_model: "links" or "dnn-partitioning" (docs/partition-model.md).
    contiguous, pipeline, max_latency, min_throughput, batch: the constraints it was asked to keep.
    latency, period: where both were constrained, the other objective's value.
    linear_costs: data parallelism had to scale costs linearly. reasons: what stands in the way
        (INFEASIBLE), or remarks. seconds is for reports, never in the file.
    source: how the graph was made, for `run-plan`: {model, granularity, dims, io_free, …}.
    programs: which tasks are which program, where costs are those of programs built for the plan.
    """

    goal: str
    objective: float | None
    lower_bound: float
    gap: float | None
    status: str
    method: str
    seed: int = 0
    deterministic: bool = True
    assignments: tuple[Assignment, ...] = ()
    loads: Mapping[str, float] = field(default_factory=dict[str, float])
    transfers: tuple[Transfer, ...] = ()
    replicas: tuple[Replica, ...] = ()
    bound: str = ""
    cost_model: str = "links"
    contiguous: bool = False
    pipeline: bool = False
    max_latency: float | None = None
    min_throughput: float | None = None
    batch: int = 1
    latency: float | None = None
    period: float | None = None
    linear_costs: bool = False
    graph_sha256: str = ""
    platform_sha256: str = ""
    reasons: tuple[str, ...] = ()
    seconds: float | None = None
    source: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    programs: tuple[BuiltPart, ...] = ()

    def __repr__(self) -> str:
        value = "no plan" if self.objective is None else f"{self.objective:g} ms"
        # Of one replica: the others repeat its tasks.
        tasks = len(self.device_of())
        used = len(set(self.device_of().values()))
        return (
            f"<Plan {self.status} {self.goal}: {value}, bound {self.lower_bound:g} ms, "
            f"{tasks} tasks on {used} devices, by {self.method}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the first rows."""
        # With replicas each has assignments of its own; one after the other.
        rows = self.assignments or tuple(a for r in self.replicas for a in r.assignments)
        cells = "".join(
            f"<tr><td>{escape(a.task)}</td><td>{escape(a.device)}</td></tr>" for a in rows[:50]
        )
        more = f"<p>{len(rows) - 50} more rows</p>" if len(rows) > 50 else ""
        head = "<tr><th>task</th><th>device</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{cells}</table>{more}"

    def device_of(self) -> dict[str, str]:
        """Device name by task id (of the first replica where there are replicas)."""
        # Each replica holds all tasks; the first stands for the others.
        rows = self.assignments or (self.replicas[0].assignments if self.replicas else ())
        return {row.task: row.device for row in rows}

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed. Whether it suits its
        graph and platform is for `judge.plan.judge` to say."""
        wrong: list[str] = []
        if self.goal not in (LATENCY, THROUGHPUT):
            wrong.append(f"goal {self.goal} is not known")
        if self.status not in (OPTIMAL, FEASIBLE, INFEASIBLE, UNKNOWN):
            wrong.append(f"status {self.status} is not known")
        # Exactly a plan has an objective.
        if (self.objective is None) != (self.status in (INFEASIBLE, UNKNOWN)):
            wrong.append(f"status {self.status} with objective {self.objective}")
        # A plan is one or the other; both would not say which runs.
        if self.assignments and self.replicas:
            wrong.append("assignments stand beside replicas")
        for rows in (self.assignments, *(r.assignments for r in self.replicas)):
            tasks = [a.task for a in rows]
            twice = (
                sorted({t for t in tasks if tasks.count(t) > 1})
                # Counting costs squares of time, so only where there is something to find.
                if len(set(tasks)) < len(tasks)
                else []
            )
            wrong += [f"task {t} is assigned twice" for t in twice]
            wrong += [f"task {a.task} ends before it starts" for a in rows if _backwards(a)]
        transfers = (*self.transfers, *(t for r in self.replicas for t in r.transfers))
        wrong += [
            f"transfer of {t.tensor} ends before it starts" for t in transfers if _backwards(t)
        ]
        return wrong

    def show(self) -> str:
        """Status, objective, bound, then one line per task."""
        head = f"{self.status} {self.goal} {self.objective} ms, bound {self.lower_bound} ms"
        # None where throughput is the goal: then nothing has a time.
        rows = self.assignments or tuple(a for r in self.replicas for a in r.assignments)
        return "\n".join([head, *(f"{a.task}: {a.device} {a.start} {a.finish}" for a in rows)])


def _backwards(row: Assignment | Transfer) -> bool:
    return row.start is not None and row.finish is not None and row.finish < row.start
