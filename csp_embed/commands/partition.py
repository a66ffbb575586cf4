"""partition [generate, sweep], plan diff, profile, run-plan: networks on several devices."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from csp_embed import process_clock
from csp_embed.commands import plan_runs
from csp_embed.commands.common import print_json, progress, say, stderr, width
from csp_embed.commands.generate_network import generate
from csp_embed.commands.given import refuse_each, refuse_ignored
from csp_embed.commands.partition_sweep import sweep
from csp_embed.commands.plan_options import (
    DNN,
    LINKS,
    PLANS,
    BatchOption,
    ContiguousOption,
    DimOption,
    GranularityOption,
    InputsOption,
    IoFreeOption,
    JsonOption,
    MethodOption,
    NetworkArgument,
    ObjectiveOption,
    PipelineOption,
    PlatformOption,
    ProfileOption,
    ReplicasOption,
    batch_sizes,
    known_objective,
    numbers,
    pairs,
    write_json,
)
from csp_embed.errors import Infeasible, InputError, TimeLimit
from csp_embed.files import PICTURES, atomic, check_outputs
from csp_embed.ir.network import LATENCY, Plan

if TYPE_CHECKING:
    from csp_embed.commands.plan_inputs import Inputs


# Parameters that mean one plan; --pareto makes several, of both objectives.
OF_ONE_PLAN = (
    "objective", "max_latency", "min_throughput", "replicas", "batch", "share", "start", "explain",
    "table", "gantt", "picture", "report", "trace",
)  # fmt: skip
OF_MODELS = ("granularity", "io_free", "assume_int8")  # parameters for ONNX models


class PartitionGroup(TyperGroup):
    """Any first word but a command's is a network to partition: `network` may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] not in (["generate"], ["sweep"], ["network"]):
            args = ["network", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    group = typer.Typer(cls=PartitionGroup, help="Place and schedule a network on devices.")
    group.command("network")(partition)
    group.command("generate")(generate)
    group.command("sweep")(sweep)
    app.add_typer(group, name="partition")
    plans = typer.Typer(help="Work with plan files.", no_args_is_help=True)
    plans.command("diff")(diff)
    plans.callback()(_plans)
    app.add_typer(plans, name="plan")
    plan_runs.register(app)


def _plans() -> None:
    """Work with plan files."""


def partition(
    context: typer.Context,
    network: NetworkArgument,
    platform: PlatformOption = None,
    objective: ObjectiveOption = LATENCY,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Plan file.")] = None,
    method: MethodOption = "auto",
    contiguous: ContiguousOption = False,
    pipeline: PipelineOption = False,
    max_latency: Annotated[float | None, typer.Option(help="Bound in ms.")] = None,
    min_throughput: Annotated[float | None, typer.Option(help="Samples per ms.")] = None,
    pareto: Annotated[int | None, typer.Option(help="So many plans of the front.")] = None,
    replicas: ReplicasOption = 1,
    batch: BatchOption = 1,
    share: Annotated[
        bool, typer.Option(help="Throughput: samples take several placements, in chosen shares.")
    ] = False,
    cost_model: Annotated[str | None, typer.Option(help=f"{LINKS} or {DNN}.")] = None,
    granularity: GranularityOption = "fused",
    dim: DimOption = None,
    inputs_file: InputsOption = None,
    io_free: IoFreeOption = False,
    profile_file: ProfileOption = None,
    assume_int8: Annotated[bool, typer.Option(help="Price float layers as int8 kernels.")] = False,
    fix: Annotated[list[str] | None, typer.Option(help="TASK=DEVICE; repeatable.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="A plan to improve.")] = None,
    lost: Annotated[list[str] | None, typer.Option(help="A device that is gone.")] = None,
    allow_unknown_devices: Annotated[bool, typer.Option(help="Ignore costs of others.")] = False,
    time_limit: Annotated[float | None, typer.Option(help="Seconds, wall clock.")] = None,
    workers: Annotated[int, typer.Option(help="Above 1: not reproducible.")] = 1,
    solver_seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    explain: Annotated[str | None, typer.Option(help="A layer to explain.")] = None,
    table: Annotated[bool, typer.Option(help="Print every layer.")] = False,
    gantt: Annotated[str | None, typer.Option(help="Gantt chart or loads: .svg, .png.")] = None,
    picture: Annotated[str | None, typer.Option(help="Graph by device: .svg, .png.")] = None,
    report: Annotated[
        str | None, typer.Option(help="Page: Gantt chart, graph and layers, with search: .html.")
    ] = None,
    trace: Annotated[str | None, typer.Option(help="Perfetto trace: .json.")] = None,
    save_graph: Annotated[str | None, typer.Option(help="Write the graph with costs.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Place and schedule the layers of a network on several devices, with a bound on the best.

    [dim]csp-embed partition generate --help[/dim] makes networks to try;
    [dim]csp-embed partition sweep --help[/dim] compares platforms.
    """
    from csp_embed.commands.plan_inputs import Request, load_inputs, refuse_shared_host
    from csp_embed.network.files.graph import graph_document
    from csp_embed.network.files.plan import read_plan, write_plan

    begin = process_clock.begun()
    known_objective(objective)
    if pareto is not None:
        refuse_ignored(
            context, OF_ONE_PLAN, "--pareto", why="the front bounds latency and period itself",
            hint="csp-embed partition NETWORK --pareto 4 -o front.json",
        )  # fmt: skip
    refuse_each(context, _ignored(network, locals()))
    check_outputs(
        (output, PLANS), (gantt, PICTURES), (picture, PICTURES), (report, (".html", ".htm")),
        (trace, (".json",)), (save_graph, (".json",)), reads=(network, platform),
    )  # fmt: skip
    request = Request(
        target=network,
        platform=platform,
        granularity=granularity,
        dims=numbers(dim, "--dim"),
        io_free=io_free,
        profiles=pairs(profile_file, "--profile"),
        assume_int8=assume_int8,
        cost_model=cost_model,
        batches=batch_sizes(batch, replicas),
        inputs=inputs_file,
    )
    if cost_model not in (None, LINKS, DNN):
        raise InputError(f"unknown cost model {cost_model!r}", hint=f"--cost-model {LINKS}")
    before = read_plan(start) if start else None
    with progress(quiet=as_json) as tell:
        inputs = load_inputs(
            request,
            objective=objective,
            lost=lost or (),
            lenient=allow_unknown_devices or before is not None or bool(lost),
            progress=tell,
        )
        fixed = pairs(fix, "--fix")
        for option, name in [("--explain", explain), *(("--fix", task) for task in fixed)]:
            if name is not None and name not in inputs.graph.by_id():
                raise InputError(f"{option}: no layer {name!r}", hint=_similar(name, inputs))
        refuse_shared_host(inputs, replicas)
        if save_graph:
            write_json(save_graph, graph_document(inputs.graph, inputs.platform))
        options: dict[str, Any] = {
            "method": method,
            "cost_model": inputs.cost_model,
            "contiguous": contiguous,
            "pipeline": pipeline,
            "time_limit": time_limit,
            "workers": workers,
            "seed": solver_seed,
            "fix": fixed or None,
        }
        if time_limit is not None:
            # What reading and loading libraries took counts too.
            import_module("csp_embed.partition.pareto")
            spent = time.perf_counter() - begin
            options["time_limit"] = max(0.01, time_limit - spent) if time_limit > 0 else time_limit
        if pareto is not None:
            return _pareto(inputs, pareto, options, output, as_json, begin, tell)
        options |= {
            "objective": objective,
            "max_latency": max_latency,
            "min_throughput": min_throughput,
            "replicas": replicas,
            "batch": batch,
            "share": share,
            "start": before,
            "progress": tell,
        }
        plan = _solve(inputs, options, as_json, begin)
    plan = replace(plan, source=request.source(), seconds=time.perf_counter() - begin)
    if plan.objective is None:
        _no_plan(plan, as_json)
    if output:
        write_plan(plan, output)
    _pictures(plan, inputs, gantt, picture, report, trace)
    interrupted = "interrupted" in plan.reasons
    if as_json:
        print_json(_answer(plan))
    else:
        _print_plan(plan, inputs, table, explain)
        if output:
            say(f"plan written to {output}")
    if interrupted:
        stderr.print("stopped by Ctrl-C: this is the best plan so far")
        raise SystemExit(130)


def _ignored(network: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters that would have no effect, and why. values: of all parameters."""
    from csp_embed.commands.plan_inputs import cost_model_of, is_onnx
    from csp_embed.partition.effects import without_effect

    found: dict[str, str] = {}
    if is_onnx(network):
        found["allow_unknown_devices"] = "an ONNX model, whose costs are made for the platform"
    else:
        found |= dict.fromkeys(OF_MODELS, "a graph file, which has its layers and costs")
        again = "--from" if values["start"] else "--lost" if values["lost"] else ""
        if again:  # devices may be missing then, and their costs are passed over
            found["allow_unknown_devices"] = again
    known = without_effect({**values, "cost_model": cost_model_of(network, values["cost_model"])})
    names = {"seed": "solver_seed"}
    found |= {names.get(name, name): mode for name, mode in known.items()}
    if values["as_json"]:
        found |= dict.fromkeys(("table", "explain"), "--json")
    return found


def _solve(inputs: Inputs, options: dict[str, Any], as_json: bool, begin: float) -> Plan:
    from csp_embed.partition.solve import solve

    try:
        return solve(inputs.graph, inputs.platform, **options)
    except Infeasible as error:
        if not as_json:
            raise
        stderr.print(error.render(), markup=False, highlight=False)
        print_json(
            {
                "objective": None,
                "lower_bound": None,
                "status": "INFEASIBLE",
                "seconds": time.perf_counter() - begin,
                "what": error.what,
                "where": error.where,
                "why": error.why,
            }
        )
        raise SystemExit(error.exit_code) from error


def _no_plan(plan: Plan, as_json: bool) -> None:
    """UNKNOWN: the limit or Ctrl-C came before any plan."""
    code = 130 if "interrupted" in plan.reasons else TimeLimit.exit_code
    if not as_json and code == TimeLimit.exit_code:
        raise TimeLimit(
            "the limit ended the search before any plan",
            why="; ".join(plan.reasons) or f"lower bound so far {plan.lower_bound:.6g} ms",
            hint="give more time, or another --method",
        )
    if as_json:
        print_json(_answer(plan))
    raise SystemExit(code)


def _answer(plan: Plan) -> dict[str, Any]:
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


def _pareto(
    inputs: Inputs,
    points: int,
    options: dict[str, Any],
    output: str | None,
    as_json: bool,
    begin: float,
    tell: Any,
) -> None:
    """The front of latency and period, as a table and as one file of plans."""
    from csp_embed.network.files.plan import plan_document
    from csp_embed.partition.pareto import pareto

    if points < 2:
        raise InputError("--pareto needs at least 2 points")
    plans = pareto(inputs.graph, inputs.platform, points=points, progress=tell, **options)
    if output:
        document = {"format": "csp-embed-pareto/1", "plans": [plan_document(p) for p in plans]}
        write_json(output, document)
    rows = [{"latency": p.latency, "period": p.period, "status": p.status} for p in plans]
    if as_json:
        print_json({"points": rows, "seconds": time.perf_counter() - begin})
    else:
        say("latency ms   period ms   status")
        for row in rows:
            text = f"{row['latency'] or 0:10.6g}  {row['period'] or 0:10.6g}   {row['status']}"
            say(text)
    if any("interrupted" in p.reasons for p in plans):
        stderr.print("stopped by Ctrl-C: these are the points so far")
        raise SystemExit(130)
    if not plans:
        raise TimeLimit(
            "the limit ended the search before any plan", hint="give more time (--time-limit)"
        )


def _pictures(
    plan: Plan,
    inputs: Inputs,
    gantt: str | None,
    picture: str | None,
    report: str | None,
    trace: str | None,
) -> None:
    if gantt:
        from csp_embed.report.gantt import draw_plan

        draw_plan(plan, inputs.platform, gantt, inputs.graph)
    if picture:
        from csp_embed.report.graph_picture import draw_graph

        draw_graph(inputs.graph, plan, inputs.platform, picture)
    if report:
        from csp_embed.report.plan_page import plan_page

        text = plan_page(plan, inputs.graph, inputs.platform)
        with atomic(report) as file:
            file.write(text)
    if trace:
        from csp_embed.report.plan_trace import write_trace

        write_trace(plan, inputs.platform, trace, inputs.graph)


def _print_plan(plan: Plan, inputs: Inputs, table: bool, explain: str | None) -> None:
    from csp_embed.report.plan_table import explain_text, plan_rows, summary_text, table_text

    say(summary_text(plan, inputs.platform))
    if explain is not None:
        say(explain_text(explain, plan, inputs.graph, inputs.platform, _mover(plan, inputs)))
    if explain is None or table:
        rows = plan_rows(plan, inputs.graph, inputs.platform)
        print(table_text(rows, None if table else 24, width()))
    for remark in plan.reasons:
        say(f"note: {remark}")


def _similar(name: str, inputs: Inputs) -> str:
    inside = next((t.id for t in inputs.graph.tasks if name in t.nodes), None)
    if inside is not None:
        return f"{name} is a node of layer {inside}"
    near = get_close_matches(name, list(inputs.graph.by_id()), n=5, cutoff=0.3)
    return "perhaps " + ", ".join(near) if near else "--table prints all names"


def _mover(plan: Plan, inputs: Inputs) -> Any:
    """(task, device) -> objective with that one task moved; None where it is no plan."""
    if inputs.cost_model == DNN or plan.replicas:
        return None
    from csp_embed.partition.evaluate import evaluate

    def moved(task: str, device: str) -> float | None:
        device_of = plan.device_of() | {task: device}
        try:
            return evaluate(inputs.graph, inputs.platform, device_of, plan.goal).objective
        except (Infeasible, InputError):
            return None

    return moved


def diff(
    a: Annotated[str, typer.Argument(help="Plan file.")],
    b: Annotated[str, typer.Argument(help="Plan file.")],
    as_json: JsonOption = False,
) -> None:
    """What differs between two plans: objective, loads, transfers, layers that moved."""
    from csp_embed.network.files.plan import read_plan
    from csp_embed.report.plan_diff import plan_diff, plan_diff_text

    difference = plan_diff(read_plan(a), read_plan(b))
    if as_json:
        print_json(difference)
    else:
        say(plan_diff_text(difference))
