"""partition [generate], plan diff, profile, run-plan: networks on several devices."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from csp_embed.commands.common import console, print_json, progress, stderr
from csp_embed.commands.generate_network import generate
from csp_embed.commands.plan_inputs import (
    DNN,
    LINKS,
    Inputs,
    Request,
    compile_layer,
    is_onnx,
    load_inputs,
    request_of,
)
from csp_embed.errors import CheckError, Infeasible, InputError, TimeLimit
from csp_embed.files import atomic
from csp_embed.ir.network import LATENCY, THROUGHPUT, Plan, Platform, TaskGraph
from csp_embed.network.graph_file import graph_document
from csp_embed.network.plan_file import plan_document, read_plan, same_graph, write_plan
from csp_embed.report.plan_diff import plan_diff, plan_diff_text
from csp_embed.report.plan_table import explain_text, plan_rows, summary_text, table_text


class PartitionGroup(TyperGroup):
    """`partition generate …` is a command; any other first word is a network to partition."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] != ["generate"]:
            args = ["network", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    group = typer.Typer(cls=PartitionGroup, help="Place and schedule a network on devices.")
    group.command("network")(partition)
    group.command("generate")(generate)
    app.add_typer(group, name="partition")
    plans = typer.Typer(help="Work with plan files.", no_args_is_help=True)
    plans.command("diff")(diff)
    plans.callback()(_plans)
    app.add_typer(plans, name="plan")
    app.command("profile")(profile)
    app.command("run-plan")(run_plan_command)


def _plans() -> None:
    """Work with plan files."""


PlatformOption = Annotated[
    str | None, typer.Option(help="Platform file, or the name of one that ships (cpu_2gpu).")
]
DimOption = Annotated[
    list[str] | None, typer.Option("--dim", help="NAME=EXTENT of a dynamic dimension of the model.")
]
ClockOption = Annotated[
    str, typer.Option(help="wall, or cpu: the thread's own time, for a busy machine.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def partition(
    network: Annotated[str, typer.Argument(help="model.onnx, graph.json or .yaml.")],
    platform: PlatformOption = None,
    objective: Annotated[str, typer.Option(help="latency or throughput.")] = LATENCY,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Plan file.")] = None,
    method: Annotated[str, typer.Option(help="auto, exact, milp, split, lns, heft, …")] = "auto",
    contiguous: Annotated[bool, typer.Option(help="Each device's set is convex.")] = False,
    pipeline: Annotated[bool, typer.Option(help="Also no cycle among devices.")] = False,
    max_latency: Annotated[float | None, typer.Option(help="Bound in ms.")] = None,
    min_throughput: Annotated[float | None, typer.Option(help="Samples per ms.")] = None,
    pareto: Annotated[int | None, typer.Option(help="So many plans of the front.")] = None,
    replicas: Annotated[int, typer.Option(help="Data parallelism: at most so many copies.")] = 1,
    batch: Annotated[int, typer.Option(help="Samples of one input (latency).")] = 1,
    cost_model: Annotated[str | None, typer.Option(help=f"{LINKS} or {DNN}.")] = None,
    granularity: Annotated[str, typer.Option(help="ONNX: node, fused or block.")] = "fused",
    dim: DimOption = None,
    io_free: Annotated[bool, typer.Option(help="ONNX: inputs and outputs cost nothing.")] = False,
    profile_file: Annotated[
        list[str] | None, typer.Option("--profile", help="DEVICE=FILE, by name or kind.")
    ] = None,
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
    trace: Annotated[str | None, typer.Option(help="Perfetto trace: .json.")] = None,
    save_graph: Annotated[str | None, typer.Option(help="Write the graph with costs.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Place and schedule the layers of a network on several devices, with a bound on the best.

    [dim]csp-embed partition generate --help[/dim] makes networks to try.
    """
    begin = time.perf_counter()
    if objective not in (LATENCY, THROUGHPUT):
        raise InputError(f"unknown objective {objective!r}", hint="latency or throughput")
    for path in (output, gantt, picture, trace, save_graph):
        _writable(path)
    request = Request(
        target=network,
        platform=platform,
        granularity=granularity,
        dims=_numbers(dim, "--dim"),
        io_free=io_free,
        profiles=_pairs(profile_file, "--profile"),
        assume_int8=assume_int8,
        cost_model=cost_model,
        batches=sorted({1, batch, *range(2, 1 + batch // max(1, replicas))}) if batch > 1 else (),
    )
    if cost_model not in (None, LINKS, DNN):
        raise InputError(f"unknown cost model {cost_model!r}", hint=f"{LINKS} or {DNN}")
    before = read_plan(start) if start else None
    with progress(quiet=as_json) as tell:
        inputs = load_inputs(
            request,
            objective=objective,
            lost=lost or (),
            lenient=allow_unknown_devices or before is not None or bool(lost),
            progress=tell,
        )
        if explain is not None and explain not in inputs.graph.by_id():
            raise InputError(f"--explain: no layer {explain!r}", hint=_similar(explain, inputs))
        if save_graph:
            _write_json(save_graph, graph_document(inputs.graph, inputs.platform))
        options: dict[str, Any] = {
            "method": method,
            "cost_model": inputs.cost_model,
            "contiguous": contiguous,
            "pipeline": pipeline,
            "time_limit": time_limit,
            "workers": workers,
            "seed": solver_seed,
            "fix": _pairs(fix, "--fix") or None,
        }
        if pareto is not None:
            return _pareto(inputs, pareto, options, output, as_json, begin, tell)
        options |= {
            "objective": objective,
            "max_latency": max_latency,
            "min_throughput": min_throughput,
            "replicas": replicas,
            "batch": batch,
            "start": before,
            "progress": tell,
        }
        plan = _solve(inputs, options, as_json, begin)
    plan = replace(plan, source=request.source(), seconds=time.perf_counter() - begin)
    if plan.objective is None:
        _no_plan(plan, as_json)
    if output:
        write_plan(plan, output)
    _pictures(plan, inputs, gantt, picture, trace)
    interrupted = "interrupted" in plan.reasons
    if as_json:
        print_json(_answer(plan))
    else:
        _print_plan(plan, inputs, table, explain)
        if output:
            console.print(f"plan written to {output}", markup=False, highlight=False)
    if interrupted:
        stderr.print("stopped by Ctrl-C: this is the best plan so far")
        raise SystemExit(130)


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
    from csp_embed.partition.pareto import pareto

    if points < 2:
        raise InputError("--pareto needs at least 2 points")
    plans = pareto(inputs.graph, inputs.platform, points=points, progress=tell, **options)
    if output:
        document = {"format": "csp-embed-pareto/1", "plans": [plan_document(p) for p in plans]}
        _write_json(output, document)
    rows = [{"latency": p.latency, "period": p.period, "status": p.status} for p in plans]
    if as_json:
        print_json({"points": rows, "seconds": time.perf_counter() - begin})
        return
    console.print("latency ms   period ms   status", markup=False)
    for row in rows:
        text = f"{row['latency'] or 0:10.4f}  {row['period'] or 0:10.4f}   {row['status']}"
        console.print(text, markup=False, highlight=False)


def _pictures(
    plan: Plan, inputs: Inputs, gantt: str | None, picture: str | None, trace: str | None
) -> None:
    if gantt:
        from csp_embed.report.gantt import draw_plan

        draw_plan(plan, inputs.platform, gantt)
    if picture:
        from csp_embed.report.graph_picture import draw_graph

        draw_graph(inputs.graph, plan, inputs.platform, picture)
    if trace:
        from csp_embed.report.gantt import write_trace

        write_trace(plan, inputs.platform, trace)


def _print_plan(plan: Plan, inputs: Inputs, table: bool, explain: str | None) -> None:
    def show(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    show(summary_text(plan, inputs.platform))
    if explain is not None:
        show(explain_text(explain, plan, inputs.graph, inputs.platform, _mover(plan, inputs)))
    else:
        rows = plan_rows(plan, inputs.graph, inputs.platform)
        show(table_text(rows, None if table else 24))
    for remark in plan.reasons:
        show(f"note: {remark}")


def _similar(name: str, inputs: Inputs) -> str:
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
    difference = plan_diff(read_plan(a), read_plan(b))
    if as_json:
        print_json(difference)
    else:
        console.print(plan_diff_text(difference), markup=False, highlight=False, soft_wrap=True)


def profile(
    model: Annotated[str, typer.Argument(help="model.onnx")],
    output: Annotated[str, typer.Option("-o", "--output", help="Profile file.")],
    device: Annotated[str, typer.Option(help="cpu, or a roofline device of PLATFORM.")] = "cpu",
    platform: PlatformOption = None,
    granularity: Annotated[str, typer.Option(help="node, fused or block.")] = "fused",
    threads: Annotated[int, typer.Option(min=1, help="Threads of onnxruntime.")] = 1,
    runs: Annotated[int, typer.Option(help="Timed runs per layer, at least 10.")] = 10,
    warm_ups: Annotated[int, typer.Option(help="Runs before them, at least 3.")] = 3,
    dim: DimOption = None,
    weights: Annotated[str, typer.Option(help="auto, keep or random.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of random weights and inputs.")] = 0,
    clock: ClockOption = "wall",
    inputs: Annotated[str | None, typer.Option(help="FILE.npz of inputs.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every layer of a model on this machine's CPU with onnxruntime."""
    from csp_embed.network.profile import profile_model, read_inputs
    from csp_embed.network.profile_file import profile_document

    _writable(output)
    if platform is not None:
        _roofline(model, output, device, platform, granularity, _numbers(dim, "--dim"), as_json)
        return
    if device != "cpu":
        raise InputError(
            f"cannot measure on {device!r} here",
            why="onnxruntime's CPU provider is what `profile` runs",
            hint="write a profile file for it (profiles/README.md), or --platform FILE with a "
            "roofline device of that name",
        )
    with progress(quiet=as_json) as tell:
        found = profile_model(
            model,
            granularity=granularity,
            threads=threads,
            runs=runs,
            warm_ups=warm_ups,
            dims=_numbers(dim, "--dim"),
            weights=weights,
            seed=seed,
            clock=clock,
            inputs=None if inputs is None else read_inputs(inputs),
            progress=tell,
        )
    _write_json(output, profile_document(found))
    total = sum(t.ms or 0.0 for t in found.layers.values())
    if as_json:
        print_json({"layers": len(found.layers), "sum_ms": total, "whole_ms": found.whole_ms})
    else:
        console.print(
            f"{len(found.layers)} layers, {total:.4g} ms one by one, {found.whole_ms:.4g} ms as a "
            f"whole, {threads} thread(s), median of {runs} runs after {warm_ups} by {clock} clock: "
            f"{output}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _roofline(
    model: str,
    output: str,
    device: str,
    platform: str,
    granularity: str,
    dims: dict[str, int],
    as_json: bool,
) -> None:
    """A profile file of an analytical device, marked as such."""
    from csp_embed.network.platform import find_platform, read_platform
    from csp_embed.network.profile import roofline_profile
    from csp_embed.network.profile_file import profile_document

    devices = read_platform(find_platform(platform)).by_name()
    if device not in devices:
        raise InputError(f"no device {device!r}", where=platform, hint=", ".join(devices))
    found = roofline_profile(
        model, devices[device], granularity=granularity, dims=dims, batches=(1, 2, 4, 8, 16, 32)
    )
    _write_json(output, profile_document(found))
    total = sum(t.ms or 0.0 for t in found.layers.values())
    if as_json:
        print_json({"layers": len(found.layers), "sum_ms": total, "whole_ms": None})
    else:
        text = f"{len(found.layers)} layers, {total:.4g} ms by the roofline model: {output}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def run_plan_command(
    model: Annotated[str, typer.Argument(help="model.onnx")],
    plan_file: Annotated[str, typer.Argument(metavar="PLAN", help="Plan file.")],
    platform: PlatformOption = None,
    export: Annotated[str | None, typer.Option(help="Folder for ONNX files, manifest.")] = None,
    parts: Annotated[str | None, typer.Option(help="Run the files of an export.")] = None,
    weights: Annotated[str, typer.Option(help="auto, keep or random.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of random weights and inputs.")] = 0,
    runs: Annotated[int, typer.Option(help="Timed runs of the plan.")] = 10,
    warm_ups: Annotated[int, typer.Option(help="Runs before them.")] = 3,
    inputs_file: Annotated[str | None, typer.Option("--inputs", help="FILE.npz of inputs.")] = None,
    swap: Annotated[
        tuple[int, int] | None, typer.Option(help="Exchange two parts: the comparison must fail.")
    ] = None,
    clock: ClockOption = "wall",
    as_json: JsonOption = False,
) -> None:
    """Cut the model at the plan's borders, run every part on its device, compare every tensor."""
    from csp_embed.network.profile import read_inputs
    from csp_embed.run.report import report_document, report_text
    from csp_embed.run.run_plan import refuse_unequal, run_plan

    plan = read_plan(plan_file)
    request = request_of(plan, model, platform)
    if not is_onnx(model):
        raise InputError("run-plan runs ONNX models", where=model, hint="give the model's file")
    with progress(quiet=as_json) as tell:
        inputs = load_inputs(request, objective=plan.goal, lenient=True, progress=tell)
        assert inputs.model is not None
        _refuse_wrong(plan, inputs.graph, inputs.platform)
        report = run_plan(
            inputs.model,
            plan,
            inputs.platform,
            compile_layer=compile_layer,
            weights=weights,
            seed=seed,
            runs=runs,
            warm_ups=warm_ups,
            inputs=None if inputs_file is None else read_inputs(inputs_file),
            export_to=export,
            run_from=parts,
            swap=swap,
            assume_int8=request.assume_int8,
            clock=clock,
            progress=tell,
        )
    for remark in same_graph(plan, inputs.graph, inputs.platform):
        stderr.print(f"note: {remark}", markup=False, highlight=False)
    if as_json:
        print_json(report_document(report, plan))
    else:
        console.print(report_text(report, plan), markup=False, highlight=False, soft_wrap=True)
    if as_json and not report.equal:
        raise SystemExit(CheckError.exit_code)
    refuse_unequal(report)


def _refuse_wrong(plan: Plan, graph: TaskGraph, platform: Platform) -> None:
    """A plan that breaks a rule is not run. Raises: CheckError with the first faults."""
    from csp_embed.partition.check import check_plan

    faults = check_plan(graph, platform, plan)
    if faults:
        raise CheckError(
            f"the plan is refused: {faults[0].text}",
            where=faults[0].where,
            why=f"{len(faults)} faults in all: "
            + ", ".join(sorted({str(fault.kind) for fault in faults})),
            hint="csp-embed check PLAN --graph MODEL lists them",
        )


def _pairs(values: list[str] | None, option: str) -> dict[str, str]:
    """KEY=VALUE options; a key may hold '='. Raises: InputError."""
    out: dict[str, str] = {}
    for text in values or ():
        key, sep, value = text.rpartition("=")
        if not sep or not key or not value:
            raise InputError(f"{option} {text}: expected NAME=VALUE")
        out[key] = value
    return out


def _numbers(values: list[str] | None, option: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for key, value in _pairs(values, option).items():
        if not value.isdigit() or int(value) < 1:
            raise InputError(f"{option} {key}={value}: expected a positive integer")
        out[key] = int(value)
    return out


def _writable(path: str | None) -> None:
    """Better to say now than after a long search. Raises: InputError."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise InputError(f"cannot write {path}", where=path, why="there is no such folder")


def _write_json(path: str, document: Any) -> None:
    with atomic(path) as file:
        json.dump(document, file, indent=1)
        file.write("\n")
