"""What `partition` shows of a plan: figures, tables, explanations, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csp_embed.commands.common import say, width
from csp_embed.commands.planning.options import DNN, PLANS, write_json
from csp_embed.errors import Infeasible, InputError
from csp_embed.files import PICTURES, atomic, check_outputs
from csp_embed.ir.network import Plan
from csp_embed.nearest import nearest

if TYPE_CHECKING:
    from csp_embed.commands.planning.inputs import Inputs


@dataclass(frozen=True)
class Outputs:
    """Files to write, None where none is wanted: the plan, a Gantt chart, the graph by device, a
    page, a trace, the graph with its costs."""

    plan: str | None = None
    gantt: str | None = None
    picture: str | None = None
    report: str | None = None
    trace: str | None = None
    graph: str | None = None

    def check(self, *reads: str | None) -> None:
        """Better now than after the search. Raises: InputError."""
        check_outputs(
            (self.plan, PLANS), (self.gantt, PICTURES), (self.picture, PICTURES),
            (self.report, (".html", ".htm")), (self.trace, (".json",)), (self.graph, (".json",)),
            reads=reads,
        )  # fmt: skip

    def write_graph(self, inputs: Inputs) -> None:
        """The graph with its costs, before the search."""
        from csp_embed.network.files.graph import graph_document

        # Before the search: it does not depend on it.
        if self.graph:
            write_json(self.graph, graph_document(inputs.graph, inputs.platform))

    def write(self, plan: Plan, inputs: Inputs) -> None:
        """The plan, then its pictures."""
        from csp_embed.network.files.plan import write_plan

        # The plan before its pictures: they may need a library that is missing.
        if self.plan:
            write_plan(plan, self.plan)
        _pictures(plan, inputs, self.gantt, self.picture, self.report, self.trace)


def _pictures(
    plan: Plan,
    inputs: Inputs,
    gantt: str | None,
    picture: str | None,
    report: str | None,
    trace: str | None,
) -> None:
    # Each loaded only where it is asked for.
    if gantt:
        from csp_embed.report.plans.gantt import draw_plan

        draw_plan(plan, inputs.platform, gantt, inputs.graph)
    if picture:
        from csp_embed.report.plans.graph_picture import draw_graph

        draw_graph(inputs.graph, plan, inputs.platform, picture)
    if report:
        from csp_embed.report.plans.page import plan_page

        text = plan_page(plan, inputs.graph, inputs.platform)
        with atomic(report) as file:
            file.write(text)
    if trace:
        from csp_embed.report.plans.trace import write_trace

        write_trace(plan, inputs.platform, trace, inputs.graph)


def answer(plan: Plan) -> dict[str, Any]:
    """The `--json` document of the contract, and what else is known."""
    return {
        "objective": plan.objective,
        "lower_bound": plan.lower_bound,
        "status": plan.status,
        "seconds": plan.seconds,
        "gap": plan.gap,
        "method": plan.method,
        "reasons": list(plan.reasons),
    }


def print_plan(plan: Plan, inputs: Inputs, table: bool, explain: str | None) -> None:
    from csp_embed.report.plans.table import explain_text, plan_rows, summary_text, table_text

    say(summary_text(plan, inputs.platform))
    if explain is not None:
        mover, why = _mover(plan, inputs), inputs.why_not(explain)
        say(explain_text(explain, plan, inputs.graph, inputs.platform, mover, why))
    # An explanation alone is what was asked for.
    if explain is None or table:
        rows = plan_rows(plan, inputs.graph, inputs.platform)
        # The middle of a long table is left out, the ends show its form.
        print(table_text(rows, None if table else 24, width()))
    for remark in plan.reasons:
        say(f"note: {remark}")


def similar(name: str, inputs: Inputs) -> str:
    # A node's name is a usual mistake: layers hold several.
    inside = next((t.id for t in inputs.graph.tasks if name in t.nodes), None)
    if inside is not None:
        return f"{name} is a node of layer {inside}"
    near = nearest(name, inputs.graph.by_id(), 5, cutoff=0.3)
    return "perhaps " + ", ".join(near) if near else "--table prints all names"


def _mover(plan: Plan, inputs: Inputs) -> Any:
    """(task, device) -> objective with that one task moved; None where it is no plan."""
    # Under that cost model, and of replicas, one moved layer is no plan to compare with.
    if inputs.cost_model == DNN or plan.replicas:
        return None
    from csp_embed.partition.evaluate import evaluate

    def moved(task: str, device: str) -> float | None:
        device_of = plan.device_of() | {task: device}
        try:
            return evaluate(inputs.graph, inputs.platform, device_of, plan.goal).objective
        except (Infeasible, InputError):
            # Where it is no plan, that is the answer.
            return None

    return moved
