"""profile, run-plan: measuring layers, and running a plan for real."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, cast

import typer

from csp_embed.commands.common import print_json, progress, say, stderr
from csp_embed.commands.given import refuse_ignored
from csp_embed.commands.hosts import TokenOption, WorkersOption, read_token
from csp_embed.commands.planning.options import (
    PLANS,
    ClockOption,
    DimOption,
    JsonOption,
    PlatformOption,
    numbers,
    write_json,
)
from csp_embed.errors import CheckError, InputError
from csp_embed.files import check_folder, check_outputs
from csp_embed.ir.network import Plan

if TYPE_CHECKING:
    from csp_embed.commands.planning.inputs import Inputs
    from csp_embed.network.profiles.file import Clock, Granularity


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("profile")(profile)
    app.command("run-plan")(run_plan_command)


def profile(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="model.onnx")],
    output: Annotated[str, typer.Option("-o", "--output", help="Profile file.")],
    device: Annotated[
        str, typer.Option(help="cpu, or a roofline or kernel device of PLATFORM.")
    ] = "cpu",
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
    assume_int8: Annotated[
        bool, typer.Option(help="Kernel devices: price float layers as int8.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure every layer of a model on this machine's CPU with onnxruntime."""
    from csp_embed.network.profiles.file import profile_document
    from csp_embed.network.profiles.measure import profile_model, read_inputs

    # Before measuring, which takes minutes.
    check_outputs((output, (".json",)), reads=(model, inputs))
    if platform is not None:
        # A modelled device is not run: options of measuring say nothing.
        refuse_ignored(
            context, ("threads", "runs", "warm_ups", "weights", "seed", "clock", "inputs"),
            "--platform", why="a device of a platform file is modelled, nothing is measured",
        )  # fmt: skip
        _modelled(
            context,
            model,
            output,
            device,
            platform,
            granularity,
            numbers(dim, "--dim"),
            assume_int8,
            as_json,
        )
        return
    # onnxruntime runs float layers as they are.
    refuse_ignored(
        context, ("assume_int8",), "a measurement", why="onnxruntime runs the model as it is",
        hint="leave it out, or name a kernel device with --platform FILE --device NAME",
    )  # fmt: skip
    _refuse_seed(context, weights, inputs)
    # Other providers are not measured here: their times would not be theirs.
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
            granularity=cast("Granularity", granularity),  # the library refuses others
            threads=threads,
            runs=runs,
            warm_ups=warm_ups,
            dims=numbers(dim, "--dim"),
            weights=weights,
            seed=seed,
            clock=cast("Clock", clock),
            inputs=None if inputs is None else read_inputs(inputs),
            progress=tell,
        )
    write_json(output, profile_document(found))
    # Layers one by one take longer than the whole: both are told.
    total = sum(t.alone_ms or 0.0 for t in found.layers.values())
    if as_json:
        print_json({"layers": len(found.layers), "sum_ms": total, "whole_ms": found.whole_ms})
    else:
        say(
            f"{len(found.layers)} layers, {total:.4g} ms one by one, {found.whole_ms:.4g} ms as a "
            f"whole, {threads} thread(s), median of {runs} runs after {warm_ups} by {clock} clock: "
            f"{output}"
        )


def _refuse_seed(context: typer.Context, weights: str, inputs: str | None) -> None:
    """Raises: InputError for a seed where neither weights nor inputs are random."""
    # Weights of the model and given inputs: a seed would be without effect.
    if weights == "keep" and inputs is not None:
        refuse_ignored(context, ("seed",), "--weights keep and --inputs", why="nothing is random")


def _modelled(
    context: typer.Context,
    model: str,
    output: str,
    device: str,
    platform: str,
    granularity: str,
    dims: dict[str, int],
    assume_int8: bool,
    as_json: bool,
) -> None:
    """A profile file of an analytical device or of compiled kernels, marked as such."""
    from csp_embed.commands.planning.chains import DeviceCosts
    from csp_embed.network.files.platform import find_platform, read_platform
    from csp_embed.network.profiles.file import profile_document
    from csp_embed.network.profiles.measure import modelled_profile

    devices = read_platform(find_platform(platform)).by_name()
    if device not in devices:
        raise InputError(f"no device {device!r}", where=platform, hint=", ".join(devices))
    if devices[device].isa is None:
        # Only kernels are priced as int8.
        refuse_ignored(context, ("assume_int8",), f"{device}, which runs no kernels")
    with progress(quiet=as_json) as tell:
        found = modelled_profile(
            model,
            devices[device],
            granularity=cast("Granularity", granularity),  # the library refuses others
            dims=dims,
            # Several batches, for plans with replicas.
            batches=(1, 2, 4, 8, 16, 32),
            kernel_cost=DeviceCosts(assume_int8, tell),
        )
    write_json(output, profile_document(found))
    total = sum(t.ms or 0.0 for t in found.layers.values())
    if as_json:
        print_json({"layers": len(found.layers), "sum_ms": total, "whole_ms": None})
    else:
        timed = sum(t.ms is not None for t in found.layers.values())
        how = "the roofline model" if found.device.how == "roofline" else "compiled kernels"
        text = f"{timed} of {len(found.layers)} layers, {total:.4g} ms by {how}: {output}"
        say(text)


def run_plan_command(
    context: typer.Context,
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
    worker: WorkersOption = None,
    dask: Annotated[
        str | None, typer.Option(help="A Dask scheduler whose workers announce devices.")
    ] = None,
    token_file: TokenOption = None,
    in_flight: Annotated[
        str,
        typer.Option(help="Measure throughput with so many inputs under way; auto: enough."),
    ] = "0",
    samples: Annotated[int, typer.Option(min=2, help="Inputs to measure throughput over.")] = 40,
    replan: Annotated[
        str | None,
        typer.Option(help="Where a worker is lost: plan the rest, write it here, go on."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Cut the model at the plan's borders, run every part on its device, compare every tensor.

    Devices run here, or where a worker announces their name: csp-embed worker --help.
    """
    from csp_embed.commands.planning.hosts import hosts_of, run_with_losses
    from csp_embed.commands.planning.inputs import (
        is_onnx,
        load_inputs,
        request_of,
    )
    from csp_embed.commands.planning.kernels import compile_layer
    from csp_embed.network.files.plan import read_plan, same_graph
    from csp_embed.network.profiles.measure import read_inputs
    from csp_embed.run.execute import RunReport
    from csp_embed.run.report import report_document, report_text
    from csp_embed.run.run_plan import refuse_unequal, run_plan

    # Everything that can be refused is, before workers are reached.
    check_folder(export)
    # Not over the model or the plan itself.
    check_outputs((replan, PLANS), reads=(model, plan_file))
    under_way = _in_flight(in_flight)
    if under_way == 0:
        refuse_ignored(context, ("samples",), "no --in-flight", hint="--in-flight auto")
    if not worker:
        refuse_ignored(context, ("token_file",), "no --worker", hint="--worker HOST:PORT")
    plan = read_plan(plan_file)
    _refuse_seed(context, weights, inputs_file)
    # As the plan was made; the command line wins.
    request = request_of(plan, model, platform)
    # Sizes that depend on values were settled by the plan's own inputs: run on them, or on others.
    inputs_file = inputs_file or request.inputs
    if request.inputs is not None:
        request = replace(request, inputs=inputs_file)
    if not is_onnx(model):
        raise InputError("run-plan runs ONNX models", where=model, hint="give the model's file")
    with progress(quiet=as_json) as tell:
        # lenient: the plan may have been made for fewer devices.
        inputs = load_inputs(request, objective=plan.goal, lenient=True, progress=tell, plan=plan)
        assert inputs.model is not None
        # A plan of somebody else is judged before it is run.
        _refuse_wrong(plan, inputs, f"csp-embed check {plan_file} --graph {model}")
        given = None if inputs_file is None else read_inputs(inputs_file)
        # Connections close whatever happens.
        with hosts_of(worker or (), read_token(token_file), dask, inputs.platform) as hosts:

            def run(plan: Plan, inputs: Inputs) -> RunReport:
                assert inputs.model is not None
                network = inputs.costs.network if inputs.costs is not None else None
                chained = network is not None and bool(inputs.costs and inputs.costs.chained)
                return run_plan(
                    inputs.model, plan, inputs.platform, compile_layer=compile_layer,
                    build_part=network.build_part if network is not None and chained else None,
                    weights=weights, seed=seed, runs=runs, warm_ups=warm_ups, inputs=given,
                    export_to=export, run_from=parts, swap=swap,
                    assume_int8=request.assume_int8, clock=clock, hosts=hosts,
                    in_flight=under_way, samples=samples, progress=tell,
                )  # fmt: skip

            done = run_with_losses(run, plan, inputs, request, hosts, replan)
        # The plan that ran in the end may be another one.
        plan, inputs, report = done.plan, done.inputs, done.report
    for remark in same_graph(plan, inputs.graph, inputs.platform):
        stderr.print(f"note: {remark}", markup=False, highlight=False)
    if as_json:
        print_json(report_document(report, plan))
    else:
        say(report_text(report, plan))
    # The document is printed all the same.
    if as_json and not report.equal:
        raise SystemExit(CheckError.exit_code)
    refuse_unequal(report)


def _in_flight(text: str) -> int | None:
    """None: as many as fill the pipeline. Raises: InputError."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdecimal():
        raise InputError(
            f"--in-flight {text!r}", why="a number of inputs, or auto", hint="--in-flight auto"
        )
    return int(text)


def _refuse_wrong(plan: Plan, inputs: Inputs, hint: str) -> None:
    """A plan that breaks a rule is not run. Raises: CheckError with the first faults."""
    from csp_embed.commands.planning.built import program_faults
    from csp_embed.judge.plan.judge import check_plan

    # The judge, not the solver, decides.
    faults = [*check_plan(inputs.graph, inputs.platform, plan), *program_faults(inputs, plan)]
    if faults:
        raise CheckError(
            f"the plan is refused: {faults[0].text}",
            where=faults[0].where,
            why=f"{len(faults)} faults in all: "
            + ", ".join(sorted({str(fault.kind) for fault in faults})),
            hint=hint,
        )


def judge_plan(file: str, graph: str | None, platform: str | None, as_json: bool) -> None:
    """What `csp-embed check PLAN --graph GRAPH` does: the verifier's faults, exit code 5 if any.

    graph: None takes the plan's own `source`. Raises: InputError.
    """
    from csp_embed.commands.planning.inputs import check_plan_file
    from csp_embed.network.files.plan import read_plan

    # A plan names its network, unless another tool wrote it.
    target = graph or str(read_plan(file).source.get("target", ""))
    if not target:
        raise InputError("which network is this plan for?", where=file, hint="--graph GRAPH")
    faults = check_plan_file(file, target, platform)
    rows = [{"insn": None, "kind": f.kind, "where": f.where, "text": f.text} for f in faults]
    if as_json:
        print_json({"ok": not faults, "problems": rows})
    else:
        for row in rows:
            text = f"{row['kind']}: {row['where']}: {row['text']}"
            say(text)
        verdict = f"{len(faults)} problems" if faults else "ok"
        say(f"{file}: {verdict}")
    # Scripts look at the exit code.
    if faults:
        raise SystemExit(CheckError.exit_code)
