"""serve plan, check, simulate, export: a large model's layers on unequal servers."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from csp_embed.commands.common import print_json, progress, say, stderr
from csp_embed.commands.plan_options import JsonOption
from csp_embed.errors import CheckError, InputError, TimeLimit
from csp_embed.files import atomic, check_writable

InstanceArgument = Annotated[str, typer.Argument(help="layer-placement-1 or csp-embed-cluster/1.")]
ForInstance = Annotated[str, typer.Option("--instance", help="The instance of the plan.")]
PlanArgument = Annotated[str, typer.Argument(help="Plan file: csp-embed-serving/1.")]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    group = typer.Typer(
        help="Place a large model on unequal servers, with a proved bound.", no_args_is_help=True
    )
    group.command("plan")(plan_command)
    group.command("check")(check_command)
    group.command("simulate")(simulate_command)
    group.command("export")(export_command)
    app.add_typer(group, name="serve")


def plan_command(
    instance: InstanceArgument,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Plan file.")] = None,
    objective: Annotated[str, typer.Option(help="tokens, or cost.")] = "tokens",
    min_tokens: Annotated[
        float | None, typer.Option(help="Tokens/s that the cheapest plan must carry.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(help="CPU seconds on one core; without: counted work.")
    ] = None,
    solver_seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    picture: Annotated[str | None, typer.Option(help="Layers by machine: .svg.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Which machine holds which layers, for the most tokens/s, and how far that is from the best.

    Example: [dim]csp-embed serve plan cluster.json -o plan.json --time-limit 60[/dim]
    """
    from csp_embed.serving.files.load import variant_of, variants
    from csp_embed.serving.files.plan_file import write_plan
    from csp_embed.serving.plan import best_of, plan
    from csp_embed.serving.report import draw, report_text

    check_writable(output)
    check_writable(picture, (".svg",))
    choices = variants(instance)
    options: dict[str, Any] = {
        "objective": objective,
        "min_tokens": min_tokens,
        "time_limit": time_limit,
        "seed": solver_seed,
    }
    with progress(quiet=as_json) as tell:
        options["progress"] = tell
        if objective == "cost" and len(choices) > 1:
            raise InputError(
                "the least cost over several tensor-parallel degrees is not searched for",
                hint="list one degree in tensor_parallel of every server",
            )
        if len(choices) > 1:
            found = best_of(choices, **options)
        else:
            found = replace(plan(choices[0].instance, **options), degrees=dict(choices[0].degrees))
    if found.value is None:
        _no_plan(found, as_json)
    cluster = variant_of(choices, found.document()).instance
    if output:
        write_plan(found, output)
    if picture:
        draw(cluster, found, picture)
    if as_json:
        print_json(_answer(found))
    else:
        say(report_text(cluster, found))
        if output:
            say(f"plan written to {output}")
    if found.interrupted:
        stderr.print("stopped: this is the best plan so far")
        raise SystemExit(130)


def check_command(
    plan: PlanArgument,
    instance: ForInstance,
    as_json: JsonOption = False,
) -> None:
    """Verify a plan's value and its bound in exact arithmetic, without a solver."""
    from csp_embed.serving.files.load import variants
    from csp_embed.serving.files.plan_file import read_plan
    from csp_embed.serving.judge.check import check, check_choices

    choices, document = variants(instance), read_plan(plan)
    if len(choices) > 1:
        faults = check_choices([(v.degrees, v.instance) for v in choices], document)
    else:
        faults = check(choices[0].instance, document)
    rows = [{"kind": f.kind, "where": f.where, "text": f.text} for f in faults]
    if as_json:
        print_json(
            {
                "accepted": not faults,
                "value": document.get("value"),
                "bound": document.get("bound"),
                "faults": rows,
            }
        )
        if faults:
            raise SystemExit(CheckError.exit_code)
        return
    if faults:
        raise CheckError(
            f"{plan} is refused: {len(faults)} faults",
            where=faults[0].where,
            why="; ".join(f"{f.kind}: {f.text}" for f in faults[:5]),
            hint="`csp-embed serve plan` writes plans that pass",
        )
    bound = document.get("bound")
    stated = "no bound stated" if bound is None else f"bound {bound:.6g} proved"
    say(f"accepted: {document['value']:.6g} tokens/s, {stated}")


def simulate_command(
    plan: PlanArgument,
    instance: ForInstance,
    trace: Annotated[
        str | None, typer.Option(help="CSV: arrival_s,prompt_tokens,output_tokens.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Of a generated trace.")] = 1000,
    rate: Annotated[
        float | None, typer.Option(help="Requests/s, Poisson; without: all at once.")
    ] = None,
    prompt: Annotated[int, typer.Option(min=1, help="Mean prompt tokens.")] = 750,
    output_tokens: Annotated[int, typer.Option(min=1, help="Mean generated tokens.")] = 240,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Requests that a pipeline holds at a time.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of a generated trace.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a plan under a trace of requests: tokens/s, waiting, percentiles, what binds."""
    from csp_embed.serving.files.trace_file import read_trace
    from csp_embed.serving.report import simulation_document, simulation_text
    from csp_embed.serving.simulate import generated_trace, simulate

    if rate is not None and not 0 < rate < float("inf"):
        raise InputError(f"--rate {rate}", hint="a finite number above 0")
    cluster, _, placement = _accepted(plan, instance)
    if trace is not None:
        wanted = read_trace(trace)
    else:
        wanted = generated_trace(requests, rate, seed, prompt, output_tokens)
    found = simulate(cluster, placement, wanted, in_flight)
    if as_json:
        print_json(simulation_document(found))
    else:
        say(simulation_text(found))


def export_command(
    plan: PlanArgument,
    instance: ForInstance,
    to: Annotated[str, typer.Option(help="vllm, llama.cpp or json.")],
    model: Annotated[
        str, typer.Option(help="Model name or file, as the target wants it.")
    ] = "MODEL",
    output: Annotated[str | None, typer.Option("-o", "--output", help="File to write.")] = None,
) -> None:
    """Write a plan as launch lines of a serving program, or say what that cannot express."""
    import json

    from csp_embed.serving.export import llamacpp, routes, vllm
    from csp_embed.serving.export.engines import engines

    check_writable(output)
    cluster, document, _ = _accepted(plan, instance)
    if to == "vllm":
        text = vllm.lines(engines(cluster, document, "vLLM"), model)
    elif to == "llama.cpp":
        text = llamacpp.lines(engines(cluster, document, "llama.cpp"), model)
    elif to == "json":
        text = json.dumps(routes.document(cluster, document), indent=1) + "\n"
    else:
        raise InputError(f"unknown target {to!r}", hint="--to vllm, llama.cpp or json")
    if output is None:
        print(text, end="")
        return
    with atomic(output) as file:
        file.write(text)
    say(f"written to {output}")


def _accepted(plan: str, instance: str) -> tuple[Any, dict[str, Any], dict[int, tuple[int, int]]]:
    """Instance, plan document and placement [first, end); only of a plan that fits the instance."""
    from csp_embed.serving.files.load import variant_of, variants
    from csp_embed.serving.files.plan_file import read_plan
    from csp_embed.serving.judge.check import check

    document = read_plan(plan)
    cluster = variant_of(variants(instance), document).instance
    # The bound does not matter here, and takes the longest to verify.
    faults = check(cluster, {**document, "bound": None})
    if faults:
        raise CheckError(
            f"{plan} is no plan for {instance}", where=faults[0].where, why=faults[0].text
        )
    position = {name: i for i, name in enumerate(cluster.machines)}
    placement = {position[m]: (a, b + 1) for m, (a, b) in document["placement"].items()}
    return cluster, document, placement


def _answer(plan: Any) -> dict[str, Any]:
    return {
        "value": plan.value,
        "bound": plan.bound,
        "status": plan.status,
        "seconds": plan.seconds,
        "gap": plan.gap,
        "method": plan.method,
        "interrupted": plan.interrupted,
        **{key: plan.more[key] for key in ("cost", "cost_bound") if key in plan.more},
    }


def _no_plan(plan: Any, as_json: bool) -> None:
    code = 130 if plan.interrupted else TimeLimit.exit_code
    if as_json:
        print_json(_answer(plan))
    elif not plan.interrupted:
        raise TimeLimit(
            "the search ended before any plan was found",
            why="" if plan.bound is None else f"none carries more than {plan.bound:.6g} tokens/s",
            hint="a longer --time-limit, or none",
        )
    raise SystemExit(code)
