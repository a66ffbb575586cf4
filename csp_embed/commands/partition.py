"""partition [generate, sweep], plan diff, profile, run-plan: networks on several devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from csp_embed import process_clock
from csp_embed.commands.common import print_json, say
from csp_embed.commands.given import refuse_each, refuse_ignored
from csp_embed.commands.planning import runs as plan_runs
from csp_embed.commands.planning.generate import generate
from csp_embed.commands.planning.options import (
    DNN,
    LINKS,
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
)
from csp_embed.commands.planning.shown import Outputs
from csp_embed.commands.planning.sweep import sweep
from csp_embed.errors import InputError
from csp_embed.ir.network import LATENCY

# Parameters that mean one plan; --pareto makes several, of both objectives.
OF_ONE_PLAN = (
    "objective", "max_latency", "min_throughput", "replicas", "batch", "share", "start", "explain",
    "table", "gantt", "picture", "report", "trace",
)  # fmt: skip
OF_MODELS = ("granularity", "io_free", "assume_int8")  # parameters for ONNX models


class PartitionGroup(TyperGroup):
    """Any first word but a command's is a network to partition: `network` may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Its own commands, and `network` itself; everything else is a network.
        if args[:1] not in (["generate"], ["sweep"], ["network"]):
            args = ["network", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    # One command without its name, the others with theirs.
    group = typer.Typer(cls=PartitionGroup, help="Place and schedule a network on devices.")
    group.command("network")(partition)
    group.command("generate")(generate)
    group.command("sweep")(sweep)
    app.add_typer(group, name="partition")
    plans = typer.Typer(help="Work with plan files.", no_args_is_help=True)
    plans.command("diff")(diff)
    # A callback keeps it a group although it has one command.
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
        bool,
        typer.Option(help="Samples (latency: of a --batch) take several placements, as it helps."),
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
    gap: Annotated[float, typer.Option(help="Good enough: 0.01 is 1 % over the bound.")] = 0.0,
    effort: Annotated[float, typer.Option(help="Times the usual work, without a limit.")] = 1.0,
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
    # Here, not above: the solver takes its time to load.
    from csp_embed.commands.planning.inputs import Request
    from csp_embed.commands.planning.job import Job
    from csp_embed.network.files.plan import read_plan

    known_objective(objective)
    # Before anything is read.
    if pareto is not None:
        refuse_ignored(
            context, OF_ONE_PLAN, "--pareto", why="the front bounds latency and period itself",
            hint="csp-embed partition NETWORK --pareto 4 -o front.json",
        )  # fmt: skip
    # All parameters at once: what has no effect depends on several of them.
    refuse_each(context, _ignored(network, locals()))
    outputs = Outputs(output, gantt, picture, report, trace, save_graph)
    # Before the search, which may be long.
    outputs.check(network, platform)
    if cost_model not in (None, LINKS, DNN):
        raise InputError(f"unknown cost model {cost_model!r}", hint=f"--cost-model {LINKS}")
    Job(
        Request(
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
        ),
        options={
            "method": method,
            "contiguous": contiguous,
            "pipeline": pipeline,
            "time_limit": time_limit,
            "workers": workers,
            "seed": solver_seed,
            "gap": gap,
            "effort": effort,
            "fix": pairs(fix, "--fix") or None,
        },
        of_one={
            "objective": objective,
            "max_latency": max_latency,
            "min_throughput": min_throughput,
            "replicas": replicas,
            "batch": batch,
            "share": share,
        },
        outputs=outputs,
        # Since the process began: loading counts for the limit.
        begin=process_clock.begun(),
        as_json=as_json,
        start=read_plan(start) if start else None,
        lost=tuple(lost or ()),
        lenient=allow_unknown_devices,
        table=table,
        explain=explain,
        points=pareto,
    ).run()


def _ignored(network: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters that would have no effect, and why. values: of all parameters."""
    from csp_embed.commands.planning.inputs import cost_model_of, is_onnx
    from csp_embed.partition.effects import without_effect

    found: dict[str, str] = {}
    # Costs of a model are made for the platform: none of them is unknown.
    if is_onnx(network):
        found["allow_unknown_devices"] = "an ONNX model, whose costs are made for the platform"
    else:
        # A graph has its layers and costs: how models are read means nothing there.
        found |= dict.fromkeys(OF_MODELS, "a graph file, which has its layers and costs")
        again = "--from" if values["start"] else "--lost" if values["lost"] else ""
        if again:  # devices may be missing then, and their costs are passed over
            found["allow_unknown_devices"] = again
    known = without_effect({**values, "cost_model": cost_model_of(network, values["cost_model"])})
    # Names of `solve` are not always those of the command.
    names = {"seed": "solver_seed"}
    found |= {names.get(name, name): mode for name, mode in known.items()}
    # JSON has everything: a table would be printed beside it.
    if values["as_json"]:
        found |= dict.fromkeys(("table", "explain"), "--json")
    return found


def diff(
    a: Annotated[str, typer.Argument(help="Plan file.")],
    b: Annotated[str, typer.Argument(help="Plan file.")],
    as_json: JsonOption = False,
) -> None:
    """What differs between two plans: objective, loads, transfers, layers that moved."""
    from csp_embed.network.files.plan import read_plan
    from csp_embed.report.plans.diff import plan_diff, plan_diff_text

    difference = plan_diff(read_plan(a), read_plan(b))
    if as_json:
        print_json(difference)
    else:
        say(plan_diff_text(difference))
