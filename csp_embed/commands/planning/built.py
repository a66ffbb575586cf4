"""Placements whose chains are built: each chain's program, and the objective that follows.

Takes: inputs with predicted costs, and which task is where.  Leaves: `Built`: the programs, the
objective with each program as one task; and inputs with the costs of these programs, by which plans
are judged and run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from csp_embed.commands.planning.inputs import Inputs
from csp_embed.commands.planning.merged import Merged, merged, own_costs, priced
from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import FEASIBLE, Assignment, BuiltPart, Device, Plan, TaskGraph
from csp_embed.judge.plan.judge import Problem
from csp_embed.network.files.graph import with_digest
from csp_embed.run.device_parts import Part, parts_of
from csp_embed.run.devices import clock_of

if TYPE_CHECKING:
    from csp_embed.compiler.chains.programs import Chain


@dataclass
class Built:
    """One placement, its chains built. ms: the objective. refused: tasks that a machine does not
    compute in their chain, with the device and the reason; then there is no plan."""

    device_of: Mapping[str, str]
    ms: float = float("inf")
    groups: tuple[Merged, ...] = ()
    programs: tuple[BuiltPart, ...] = ()
    refused: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def off(self) -> float:
        """How far built cycles are from predicted ones, at most."""
        return max((abs(p.cycles / max(1, p.predicted) - 1) for p in self.programs), default=0.0)


def with_programs(inputs: Inputs, plan: Plan) -> Inputs:
    """Inputs with the costs of a plan's own programs, built anew: what it is judged by.

    Raises: InputError where a part cannot be built as one program."""
    by_id, devices = inputs.graph.by_id(), inputs.platform.by_name()
    for task, name in plan.device_of().items():
        # What is unknown or impossible is for the judge to tell.
        if task not in by_id or name not in devices or by_id[task].cost_on(devices[name]) is None:
            return inputs
    if {*by_id} != {*plan.device_of()}:
        return inputs
    builder = Builder(inputs, plan.goal)
    found = builder.chains(plan.device_of())
    if found.refused:
        (task, device), why = next(iter(found.refused.items()))
        raise InputError(
            f"{device} cannot run {task!r} as the plan has it", where=task, why=why,
            hint="plan again: csp-embed partition MODEL --platform FILE -o plan.json",
        )  # fmt: skip
    return builder.inputs_of(found)


def program_faults(inputs: Inputs, plan: Plan) -> list[Problem]:
    """Where a plan's programs are not those that its parts are built to."""
    faults: list[Problem] = []
    stated = {(p.device, frozenset(p.tasks)): p for p in plan.programs}
    for p in inputs.programs if plan.programs else ():
        said = stated.pop((p.device, frozenset(p.tasks)), None)
        where = f"{p.tasks[0]} on {p.device}"
        if said is None:
            faults.append(Problem("program", where, "the plan names no program for this part"))
        elif (said.cycles, said.sha256) != (p.cycles, p.sha256):
            text = f"the plan's takes {said.cycles:,} cycles, built anew it takes {p.cycles:,}"
            if said.cycles == p.cycles:
                text = "built anew it is another program (sha256 differs)"
            faults.append(Problem("program", where, text))
    for p in stated.values():
        faults.append(Problem("program", f"{p.tasks[0]} on {p.device}", "no part of the plan"))
    return faults


class Builder:
    """Builds placements of one graph; each chain, and each placement, once. held: tasks that stay
    where they are."""

    def __init__(
        self, inputs: Inputs, objective: str, fixed: Mapping[str, str] | None = None
    ) -> None:
        assert inputs.model is not None
        assert inputs.costs is not None
        assert inputs.costs.network is not None
        self.inputs, self.model, self.costs = inputs, inputs.model, inputs.costs
        self.network, self.objective = inputs.costs.network, objective
        self.devices = inputs.platform.by_name()
        self.known: dict[tuple[str, ...], Built] = {}
        self.order = [t.id for t in inputs.graph.tasks]
        self.builds = 0
        self.held = {t.id for t in inputs.graph.tasks if t.pin is not None} | {*(fixed or {})}

    def built(self, device_of: Mapping[str, str]) -> Built:
        """The placement with its chains built and its objective; each is built once."""
        device_of = self._tidy(device_of)
        key = tuple(device_of[t] for t in self.order)
        if key not in self.known:
            found = self.chains(device_of)
            if not found.refused:
                found.ms = self.value(self.graph_of(found), self.placement(found))
            self.known[key] = found
        return self.known[key]

    def _tidy(self, device_of: Mapping[str, str]) -> Mapping[str, str]:
        """Views that stand alone on a machine go to where their tensor is made: beside a layer they
        are free, and by themselves no program."""
        out, by_id = dict(device_of), self.inputs.graph.by_id()
        made = {e.dst: e.src for e in reversed(self.inputs.graph.edges)}
        for part in self._parts(device_of):
            if not self._chain(part).plan.segments:
                for task in part.tasks:
                    to = out[made[task]] if task in made else out[task]
                    # One after the other: a view of a view follows it.
                    if task not in self.held and by_id[task].cost_on(self.devices[to]) is not None:
                        out[task] = to
        return out

    def _parts(self, device_of: Mapping[str, str]) -> list[Part]:
        """Those of machines."""
        rows = tuple(Assignment(t, device_of[t]) for t in self.order)
        plan = Plan(self.objective, 0.0, 0.0, None, FEASIBLE, "", assignments=rows)
        parts = parts_of(plan, self.model, self.inputs.platform)
        return [p for p in parts if p.device in self.costs.chained]

    def _chain(self, part: Part) -> Chain:
        chains = self.network.chains(self.devices[part.device])
        before = chains.built
        chain = chains.chain(self.network.operators(part.nodes))
        self.builds += chains.built - before
        return chain

    def floor(self, task: str, device: Device) -> float:
        """ms that a task takes on a machine in any program; 0 where that is not known."""
        try:
            floors = self.network.chains(device).whole().floors
        except InputError:
            # Too large for the machine in one piece.
            return 0.0
        names = self.network.operators(self.model.layers[task].nodes)
        return sum(floors.get(n, 0.0) for n in names) / (clock_of(device) * 1e3)

    def chains(self, device_of: Mapping[str, str]) -> Built:
        """The placement's programs, without its objective."""
        found = Built(device_of)
        groups: list[Merged] = []
        programs: list[BuiltPart] = []
        for part in self._parts(device_of):
            self._program(part, found, groups, programs)
        found.groups, found.programs = tuple(groups), tuple(programs)
        return found

    def _program(
        self, part: Part, found: Built, groups: list[Merged], programs: list[BuiltPart]
    ) -> None:
        device, layers = self.devices[part.device], self.model.layers
        chain = self._chain(part)
        of = {t: self.network.operators(layers[t].nodes) for t in part.tasks}
        for task, names in of.items():
            why = [chain.host[n] for n in names if n in chain.host]
            if why:
                found.refused[task, part.device] = why[0]
        if not chain.whole and not found.refused:
            found.refused[part.tasks[0], part.device] = "the part takes several programs"
        rate = clock_of(device) * 1e3
        cycles = {t: sum(chain.layers.get(n, 0) for n in names) for t, names in of.items()}
        name = f"{part.tasks[0]} to {part.tasks[-1]} on {part.device}, program {len(groups)}"
        groups.append(Merged(name, part.device, {t: c / rate for t, c in cycles.items()}))
        by_id = self.inputs.graph.by_id()
        expected = sum(by_id[t].cost_on(device) or 0.0 for t in part.tasks) * rate
        programs.append(
            BuiltPart(
                part.device, part.tasks, chain.cycles, round(expected), chain.instructions,
                chain.digest,
            )
        )  # fmt: skip

    def graph_of(self, found: Built) -> TaskGraph:
        """The graph with each program as one task."""
        return merged(self.inputs.graph, found.groups)

    def placement(self, found: Built) -> dict[str, str]:
        inside = {t for g in found.groups for t in g.ms}
        out = {t: d for t, d in found.device_of.items() if t not in inside}
        return out | {g.name: g.device for g in found.groups}

    def inputs_of(self, found: Built) -> Inputs:
        """Inputs with the costs of these programs, task by task."""
        origin = {
            g.name: f"program of {len(p.tasks)} layers, {p.cycles} cycles as built"
            for g, p in zip(found.groups, found.programs, strict=True)
        }
        graph = priced(self.inputs.graph, found.groups, origin)
        # Of what the plan itself uses, so that whoever judges it comes to the same.
        own = own_costs(graph, self.inputs.platform, self.costs.chained, found.device_of)
        graph = replace(graph, sha256=with_digest(own).sha256)
        model = replace(self.model, graph=graph)
        return replace(self.inputs, graph=graph, model=model, programs=found.programs)

    def value(self, graph: TaskGraph, device_of: Mapping[str, str]) -> float:
        from csp_embed.partition.evaluate import evaluate

        # No plan: links that are missing, memory that is short.
        try:
            plan = evaluate(graph, self.inputs.platform, device_of, self.objective)
        except (Infeasible, InputError):
            return float("inf")
        return float("inf") if plan.objective is None else plan.objective
