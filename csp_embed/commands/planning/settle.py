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
from dataclasses import replace
from typing import Any

from csp_embed.commands.planning.built import Builder, Built
from csp_embed.commands.planning.inputs import Inputs
from csp_embed.commands.planning.merged import priced, told, with_cost
from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import FEASIBLE, LATENCY, Plan, TaskGraph

OFF = 0.02  # built over predicted, less 1, beyond which the search is repeated
BUILDS = 48  # programs built in search of better borders
WORSE = 1.05  # a move that by predicted costs makes the plan longer than this is not built


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


class _Search:
    """graph: the graph with predicted costs. found: what was built so far."""

    def __init__(self, inputs: Inputs, options: dict[str, Any], deadline: float | None) -> None:
        self.options, self.deadline = options, deadline
        self.fixed: dict[str, str] = dict(options.get("fix") or {})
        self.objective = str(options.get("objective", LATENCY))
        self.builder = Builder(inputs, self.objective, self.fixed)
        self.inputs, self.graph, self.platform = inputs, inputs.graph, inputs.platform
        self.chained = self.builder.costs.chained
        self.found: list[Built] = []

    def _solved(self, graph: TaskGraph, **more: Any) -> Plan | None:
        from csp_embed.partition.solve import solve

        options = {**self.options, **more}
        if self.deadline is not None:
            options["time_limit"] = max(0.05, self.deadline - time.perf_counter())
        try:
            plan = solve(graph, self.platform, **options)
        except (Infeasible, InputError):
            return None
        return None if plan.objective is None else plan

    def settle(self, plan: Plan) -> tuple[Plan, Inputs]:
        stopped: tuple[str, ...] = ()
        try:
            self._candidates(plan)
        except KeyboardInterrupt:
            # What was built is a plan; without any there is none to give.
            if not self.found:
                raise
            stopped = ("interrupted",)
        # The best that keeps every constraint that was asked for.
        for candidate in sorted(self.found, key=lambda b: b.ms):
            final = self._final(candidate, plan)
            if final is not None:
                final = replace(final, reasons=(*stopped, *final.reasons))
                return final, self.builder.inputs_of(candidate)
        (task, device), why = next(
            ((k, w) for b in self.found for k, w in b.refused.items()),
            (("", ""), "no plan is left"),
        )
        raise Infeasible(
            "no plan keeps all constraints once its chains are built",
            where=f"{task} on {device}" if task else "constraints", why=why,
            hint="relax --fix or a limit, or give the layers a cost on a CPU (--profile)",
        )  # fmt: skip

    def _candidates(self, plan: Plan) -> None:
        """Placements worth building, into `found`; the first one whatever the limit, since a plan
        whose programs were never built is none."""
        first = self._add(plan.device_of())
        # Nothing on the machine is a plan without programs, and a way out where none can be built.
        self._add_plan(with_cost(self.graph, self.platform, self.chained, None))
        # Once: built costs of these chains, predicted ones of all else.
        if not self._late() and (first.off > OFF or first.refused):
            self._add_plan(self._corrected(first), start=plan)
        # Convex pieces are longer chains than a search finds that takes each layer alone.
        if not (self._late() or self.options.get("contiguous") or self.options.get("pipeline")):
            self._add_plan(self.graph, contiguous=True)
        for place in self._all_on():
            if self._late():
                return
            self._add(place)
        self._move(min(self.found, key=lambda b: b.ms))

    def _late(self) -> bool:
        return self.deadline is not None and time.perf_counter() > self.deadline

    def _add(self, device_of: Mapping[str, str]) -> Built:
        made = self.builder.built(device_of)
        self.found.append(made)
        return made

    def _add_plan(self, graph: TaskGraph, **more: Any) -> None:
        plan = self._solved(graph, **more)
        if plan is not None:
            self._add(plan.device_of())

    def _corrected(self, built: Built) -> TaskGraph:
        graph = priced(self.graph, built.groups, {g.name: "program" for g in built.groups})
        # A task that its chain cannot have stays away from that device.
        return replace(
            graph,
            tasks=tuple(
                replace(t, cost={k: c for k, c in t.cost.items() if (t.id, k) not in built.refused})
                for t in with_cost(graph, self.platform, (), None).tasks
            ),
        )

    def _all_on(self) -> list[dict[str, str]]:
        """Everything that a machine can run on it, the rest where it is quickest."""
        out: list[dict[str, str]] = []
        for name in sorted(self.chained):
            place: dict[str, str] = {}
            for task in self.inputs.graph.tasks:
                costs = {
                    n: c
                    for n, d in self.builder.devices.items()
                    if (c := task.cost_on(d)) is not None
                }
                best = min(costs, key=lambda n: costs[n])
                free = name if name in costs else best
                place[task.id] = task.pin or self.fixed.get(task.id, free)
            out.append(place)
        return out

    def _move(self, best: Built) -> None:
        """Tasks, and whole parts, over a border, while the plan as built gets shorter."""
        moved = True
        while moved:
            moved = False
            for place in self._moves(best):
                if self._late() or self.builder.builds > BUILDS:
                    return
                # By predictions first: they cost no build.
                if self.builder.value(self.graph, place) > best.ms * WORSE:
                    continue
                other = self._add(place)
                if other.ms < best.ms * (1 - 1e-9):
                    best, moved = other, True
                    break

    def _moves(self, built: Built) -> list[dict[str, str]]:
        device_of, by_id = built.device_of, self.inputs.graph.by_id()
        pieces: dict[tuple[frozenset[str], str], None] = {}
        part_of = {t: frozenset(p.tasks) for p in built.programs for t in p.tasks}
        for e in self.inputs.graph.edges:
            a, b = device_of[e.src], device_of[e.dst]
            if a == b or not {a, b} & self.chained:
                continue
            for task, to in ((e.src, b), (e.dst, a)):
                pieces[frozenset({task}), to] = None
                pieces[part_of.get(task, self._beside(task, device_of)), to] = None
        out: list[dict[str, str]] = []
        for tasks, to in pieces:
            able = all(by_id[t].cost_on(self.builder.devices[to]) is not None for t in tasks)
            if able and not tasks & self.builder.held:
                out.append({**device_of, **dict.fromkeys(tasks, to)})
        return out

    def _beside(self, task: str, device_of: Mapping[str, str]) -> frozenset[str]:
        """The tasks that hang together with one on its device, those that stay left out."""
        mine, todo = {task}, [task]
        while todo:
            at = todo.pop()
            for e in self.inputs.graph.edges:
                for a, b in ((e.src, e.dst), (e.dst, e.src)):
                    if (
                        a == at
                        and device_of[b] == device_of[task]
                        and b not in mine | self.builder.held
                    ):
                        mine.add(b)
                        todo.append(b)
        return frozenset(mine)

    def _final(self, built: Built, first: Plan) -> Plan | None:
        """The plan of a placement by `solve`, which keeps all limits, told task by task."""
        if built.ms == float("inf"):
            return None
        place = self.builder.placement(built)
        plan = self._solved(self.builder.graph_of(built), fix=place)
        if plan is None or plan.objective is None:
            return None
        low = min(self._floor(), plan.objective)
        inputs = self.builder.inputs_of(built)
        return replace(
            told(plan, self.inputs.graph, built.groups),
            status=FEASIBLE,
            lower_bound=low,
            gap=(plan.objective - low) / plan.objective if plan.objective else 0.0,
            bound="programs counted as the least work of their layers",
            method=f"{first.method}, chains built",
            programs=built.programs,
            graph_sha256=inputs.graph.sha256,
            platform_sha256=self.platform.sha256,
            reasons=(*first.reasons, *self._said(built, first, plan.objective)),
        )

    def _floor(self) -> float:
        """What no plan can be below, however its programs are made of the layers as lowered: a
        program has its layers' work one after the other, reads all before it and stores behind it,
        so that each plan as built is one of this graph, too, with costs that are not less."""
        graph = with_cost(self.inputs.graph, self.platform, self.chained, self.builder.floor)
        plan = self._solved(graph, gap=0.999)
        return 0.0 if plan is None else plan.lower_bound

    def _said(self, built: Built, first: Plan, value: float) -> list[str]:
        lines = [
            f"with layers priced inside the whole network's program the search ended at"
            f" {first.objective:.6g} ms ({first.status}); as built {value:.6g} ms;"
            f" programs built: {self.builder.builds}"
        ]
        for p in built.programs:
            off = 100 * (p.cycles / p.predicted - 1) if p.predicted else 0.0
            lines.append(
                f"program on {p.device}: {p.tasks[0]} to {p.tasks[-1]} ({len(p.tasks)} layers),"
                f" {p.predicted:,} cycles predicted, {p.cycles:,} built ({off:+.1f} %)"
            )
        return lines
