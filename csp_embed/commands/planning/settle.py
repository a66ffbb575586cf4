"""Plans whose chains are built: their times are those of the very programs that `run-plan` runs.

Takes: a plan found with layers priced inside the whole network's program.  Leaves: the best plan
that was built. A chain cut out of the network takes other cycles than its layers did inside: its
first layer waits for its own loads, and layouts at its ends may differ. So each chain of a
candidate is built, and its program's cycles take the place of the sum. Where they are more than
OFF apart, the search is repeated once with the built costs. Then tasks and parts at the borders
are moved to the other side as long as that shortens the plan as built.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from csp_embed.commands.planning.inputs import Inputs
from csp_embed.commands.planning.merged import Merged, merged, own_costs, priced, told, with_cost
from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import FEASIBLE, LATENCY, Assignment, BuiltPart, Plan, TaskGraph
from csp_embed.judge.plan.judge import Problem
from csp_embed.network.files.graph import with_digest
from csp_embed.run.device_parts import Part, parts_of
from csp_embed.run.devices import clock_of

OFF = 0.02  # built over predicted, less 1, beyond which the search is repeated
BUILDS = 48  # programs built in search of better borders
WORSE = 1.05  # a move that by predicted costs makes the plan longer than this is not built


@dataclass
class _Built:
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


def chained(inputs: Inputs) -> bool:
    """Whether some device has programs, so that plans can be settled."""
    costs = inputs.costs
    return costs is not None and costs.network is not None and bool(costs.chained)


def settled(
    inputs: Inputs, plan: Plan, options: Mapping[str, Any], deadline: float | None = None
) -> tuple[Plan, Inputs]:
    """(the best plan as built, inputs with the costs of its programs). options: of `solve`.
    deadline: by `time.perf_counter`, after which nothing more is tried.

    A plan of several replicas is returned as it is, with a remark: its costs are predictions.
    """
    if not chained(inputs) or plan.objective is None or inputs.model is None:
        return plan, inputs
    if plan.replicas:
        remark = (
            "costs of programs are those inside the whole network's: with several placements "
            "nothing else is built"
        )
        return replace(plan, reasons=(*plan.reasons, remark)), inputs
    return _Search(inputs, dict(options), deadline).settle(plan)


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
    search = _Search(inputs, {"objective": plan.goal}, None)
    found = search.chains(plan.device_of())
    if found.refused:
        (task, device), why = next(iter(found.refused.items()))
        raise InputError(
            f"{device} cannot run {task!r} as the plan has it", where=task, why=why,
            hint="plan again: csp-embed partition MODEL --platform FILE -o plan.json",
        )  # fmt: skip
    return search.inputs_of(found)


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


class _Search:
    def __init__(self, inputs: Inputs, options: dict[str, Any], deadline: float | None) -> None:
        assert inputs.model is not None
        assert inputs.costs is not None
        assert inputs.costs.network is not None
        self.inputs, self.model, self.costs = inputs, inputs.model, inputs.costs
        self.network = inputs.costs.network
        self.options, self.deadline = options, deadline
        self.objective = str(options.get("objective", LATENCY))
        self.devices = inputs.platform.by_name()
        self.graph = inputs.graph  # with what is known of costs so far
        self.known: dict[tuple[str, ...], _Built] = {}
        self.order = [t.id for t in inputs.graph.tasks]
        self.builds = 0
        self.fixed: dict[str, str] = dict(options.get("fix") or {})
        self.held = {t.id for t in inputs.graph.tasks if t.pin is not None} | {*self.fixed}

    # --- one placement -----------------------------------------------------------------------

    def built(self, device_of: Mapping[str, str]) -> _Built:
        """The placement with its chains built and its objective; each is built once."""
        key = tuple(device_of[t] for t in self.order)
        if key not in self.known:
            found = self.chains(device_of)
            if not found.refused:
                found.ms = self._value(self.inputs_graph(found), self._placement(found))
            self.known[key] = found
        return self.known[key]

    def chains(self, device_of: Mapping[str, str]) -> _Built:
        """The placement's programs, without its objective."""
        rows = tuple(Assignment(t, device_of[t]) for t in self.order)
        plan = Plan(self.objective, 0.0, 0.0, None, FEASIBLE, "", assignments=rows)
        found = _Built(device_of)
        groups: list[Merged] = []
        programs: list[BuiltPart] = []
        for part in parts_of(plan, self.model, self.inputs.platform):
            if part.device in self.costs.chained:
                self._program(part, found, groups, programs)
        found.groups, found.programs = tuple(groups), tuple(programs)
        return found

    def _program(
        self, part: Part, found: _Built, groups: list[Merged], programs: list[BuiltPart]
    ) -> None:
        device, layers = self.devices[part.device], self.model.layers
        chains = self.network.chains(device)
        before = chains.built
        chain = chains.chain(self.network.operators(part.nodes))
        self.builds += chains.built - before
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

    def inputs_graph(self, found: _Built) -> TaskGraph:
        """The graph with each program as one task."""
        return merged(self.inputs.graph, found.groups)

    def _placement(self, found: _Built) -> dict[str, str]:
        inside = {t for g in found.groups for t in g.ms}
        out = {t: d for t, d in found.device_of.items() if t not in inside}
        return out | {g.name: g.device for g in found.groups}

    def inputs_of(self, found: _Built) -> Inputs:
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

    def _value(self, graph: TaskGraph, device_of: Mapping[str, str]) -> float:
        from csp_embed.partition.evaluate import evaluate

        # No plan: links that are missing, memory that is short.
        try:
            plan = evaluate(graph, self.inputs.platform, device_of, self.objective)
        except (Infeasible, InputError):
            return float("inf")
        return float("inf") if plan.objective is None else plan.objective

    def _solved(self, graph: TaskGraph, **more: Any) -> Plan | None:
        from csp_embed.partition.solve import solve

        options = {**self.options, **more}
        if self.deadline is not None:
            options["time_limit"] = max(0.05, self.deadline - time.perf_counter())
        try:
            plan = solve(graph, self.inputs.platform, **options)
        except (Infeasible, InputError):
            return None
        return None if plan.objective is None else plan

    # --- the search --------------------------------------------------------------------------

    def settle(self, plan: Plan) -> tuple[Plan, Inputs]:
        first = plan
        found = [self.built(plan.device_of())]
        again = found[0]
        # Once: built costs of these chains, predicted ones of all else.
        if again.off > OFF or again.refused:
            graph = self._corrected(again)
            second = self._solved(graph, start=plan)
            if second is not None:
                found.append(self.built(second.device_of()))
        # Nothing on the machine is a plan without programs, and a way out where none can be built.
        bare = self._solved(with_cost(self.graph, self.inputs.platform, self.costs.chained, None))
        if bare is not None:
            found.append(self.built(bare.device_of()))
        # Convex pieces are longer chains than a search finds that takes each layer alone.
        if not (self.options.get("contiguous") or self.options.get("pipeline")):
            pieces = self._solved(self.graph, contiguous=True)
            if pieces is not None:
                found.append(self.built(pieces.device_of()))
        found += [self.built(d) for d in self._all_on()]
        for start in sorted(found, key=lambda b: b.ms)[:1]:
            found.append(self._moved(start))
        # The best that keeps every constraint that was asked for.
        for candidate in sorted(found, key=lambda b: b.ms):
            final = self._final(candidate, first)
            if final is not None:
                return final, self.inputs_of(candidate)
        (task, device), why = next(
            ((k, w) for b in found for k, w in b.refused.items()), (("", ""), "no plan keeps them")
        )
        raise Infeasible(
            "no plan keeps all constraints once its chains are built",
            where=f"{task} on {device}" if task else "constraints", why=why,
            hint="relax --fix or a limit, or give the layers a cost on a CPU (--profile)",
        )  # fmt: skip

    def _corrected(self, built: _Built) -> TaskGraph:
        graph = priced(self.graph, built.groups, {g.name: "program" for g in built.groups})
        # A task that its chain cannot have stays away from that device.
        return replace(
            graph,
            tasks=tuple(
                replace(t, cost={k: c for k, c in t.cost.items() if (t.id, k) not in built.refused})
                for t in with_cost(graph, self.inputs.platform, (), None).tasks
            ),
        )

    def _all_on(self) -> list[dict[str, str]]:
        """Everything that a machine can run on it, the rest where it is quickest."""
        out: list[dict[str, str]] = []
        for name in sorted(self.costs.chained):
            place: dict[str, str] = {}
            for task in self.inputs.graph.tasks:
                costs = {
                    n: c for n, d in self.devices.items() if (c := task.cost_on(d)) is not None
                }
                best = min(costs, key=lambda n: costs[n])
                free = name if name in costs else best
                place[task.id] = task.pin or self.fixed.get(task.id, free)
            out.append(place)
        return out

    def _moved(self, best: _Built) -> _Built:
        """Tasks, and whole parts, moved over a border while the plan as built gets shorter."""
        while True:
            for place in self._moves(best):
                late = self.deadline is not None and time.perf_counter() > self.deadline
                if late or self.builds > BUILDS:
                    return best
                # By predictions first: they cost no build.
                if self._value(self.graph, place) > best.ms * WORSE:
                    continue
                other = self.built(place)
                if other.ms < best.ms * (1 - 1e-9):
                    best = other
                    break
            else:
                return best

    def _moves(self, built: _Built) -> list[dict[str, str]]:
        device_of, by_id = built.device_of, self.inputs.graph.by_id()
        pieces: dict[tuple[frozenset[str], str], None] = {}
        part_of = {t: frozenset(p.tasks) for p in built.programs for t in p.tasks}
        for e in self.inputs.graph.edges:
            a, b = device_of[e.src], device_of[e.dst]
            if a == b or not {a, b} & self.costs.chained:
                continue
            for task, to in ((e.src, b), (e.dst, a)):
                pieces[frozenset({task}), to] = None
                pieces[part_of.get(task, self._beside(task, device_of)), to] = None
        out: list[dict[str, str]] = []
        for tasks, to in pieces:
            able = all(by_id[t].cost_on(self.devices[to]) is not None for t in tasks)
            if able and not tasks & self.held:
                out.append({**device_of, **dict.fromkeys(tasks, to)})
        return out

    def _beside(self, task: str, device_of: Mapping[str, str]) -> frozenset[str]:
        """The tasks that hang together with one on its device, those that stay left out."""
        mine, todo = {task}, [task]
        while todo:
            at = todo.pop()
            for e in self.inputs.graph.edges:
                for a, b in ((e.src, e.dst), (e.dst, e.src)):
                    if a == at and device_of[b] == device_of[task] and b not in mine | self.held:
                        mine.add(b)
                        todo.append(b)
        return frozenset(mine)

    def _final(self, built: _Built, first: Plan) -> Plan | None:
        """The plan of a placement by `solve`, which keeps all limits, told task by task."""
        if built.ms == float("inf"):
            return None
        place = self._placement(built)
        plan = self._solved(self.inputs_graph(built), fix=place)
        if plan is None or plan.objective is None:
            return None
        low = min(self._floor(), plan.objective)
        inputs = self.inputs_of(built)
        return replace(
            told(plan, self.inputs.graph, built.groups),
            status=FEASIBLE,
            lower_bound=low,
            gap=(plan.objective - low) / plan.objective if plan.objective else 0.0,
            bound="programs counted as 0 ms",
            method=f"{first.method}, chains built",
            programs=built.programs,
            graph_sha256=inputs.graph.sha256,
            platform_sha256=self.inputs.platform.sha256,
            reasons=(*first.reasons, *self._said(built, first, plan.objective)),
        )

    def _floor(self) -> float:
        """What no plan can be below, whatever its programs take."""
        graph = with_cost(self.inputs.graph, self.inputs.platform, self.costs.chained, 0.0)
        plan = self._solved(graph, gap=0.999)
        return 0.0 if plan is None else plan.lower_bound

    def _said(self, built: _Built, first: Plan, value: float) -> list[str]:
        lines = [
            f"with layers priced inside the whole network's program the search ended at"
            f" {first.objective:.6g} ms ({first.status}); as built {value:.6g} ms;"
            f" programs built: {self.builds}"
        ]
        for p in built.programs:
            off = 100 * (p.cycles / p.predicted - 1) if p.predicted else 0.0
            lines.append(
                f"program on {p.device}: {p.tasks[0]} to {p.tasks[-1]} ({len(p.tasks)} layers),"
                f" {p.predicted:,} cycles predicted, {p.cycles:,} built ({off:+.1f} %)"
            )
        return lines
