"""serve plan, check, simulate, export: a large model's layers on unequal servers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from csp_embed.commands.common import print_json, progress, say, stderr
from csp_embed.commands.planning.options import JsonOption
from csp_embed.errors import CheckError, InputError, TimeLimit
from csp_embed.files import atomic, check_writable

# What a plan says beyond value and bound, by objective.
ANSWERED = ("cost", "cost_bound", "request_s", "request_s_bound")

InstanceArgument = Annotated[str, typer.Argument(help="layer-placement-1 or csp-embed-cluster/1.")]
ForInstance = Annotated[str, typer.Option("--instance", help="The instance of the plan.")]
PlatformOption = Annotated[
    str | None, typer.Option(help="A partitioner's platform file for a cluster's machines.")
]
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
    platform: PlatformOption = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Plan file.")] = None,
    objective: Annotated[
        str, typer.Option(help="tokens (most), latency (shortest requests) or cost (least).")
    ] = "tokens",
    min_tokens: Annotated[
        float | None, typer.Option(help="Latency and cost: tokens/s to be carried.")
    ] = None,
    first_token: Annotated[
        float | None, typer.Option(help="Seconds that a request alone may take to its first token.")
    ] = None,
    per_token: Annotated[
        float | None, typer.Option(help="Seconds that it may take for each further token.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds; without: counted work.")
    ] = None,
    solver_seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    picture: Annotated[str | None, typer.Option(help="Layers by machine: .svg.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Which machine holds which layers, and how far that is from the best.

    Example: [dim]csp-embed serve plan cluster.json -o plan.json --time-limit 60[/dim]
    """
    # Here, not above: NumPy and the solvers are for this command only.
    from csp_embed.serving.files.load import variant_of, variants
    from csp_embed.serving.files.plan_file import write_plan
    from csp_embed.serving.plan import best_of
    from csp_embed.serving.report import draw, report_text

    # Before the search.
    check_writable(output)
    check_writable(picture, (".svg",))
    choices = variants(instance, platform)
    options: dict[str, Any] = {
        "objective": objective,
        "min_tokens": min_tokens,
        "first_token_s": first_token,
        "token_s": per_token,
        "time_limit": time_limit,
        "seed": solver_seed,
    }
    with progress(quiet=as_json) as tell:
        options["progress"] = tell
        found = best_of(choices, **options)
    # Without a value there is nothing to write.
    if found.value is None:
        _no_plan(found, as_json, time_limit is not None)
    # Of several batches, the one that was chosen.
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
    # The best plan so far was written and printed.
    if found.interrupted:
        stderr.print("stopped: this is the best plan so far")
        raise SystemExit(130)


def check_command(
    plan: PlanArgument,
    instance: ForInstance,
    platform: PlatformOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a plan's value and its bound in exact arithmetic, without a solver."""
    from csp_embed.serving.files.load import variants
    from csp_embed.serving.files.plan_file import read_plan
    from csp_embed.serving.judge.check import check, check_choices

    choices, document = variants(instance, platform), read_plan(plan)
    # With a choice of batches the bound is of all of them.
    if len(choices) > 1:
        faults = check_choices([(v.batch or 0, v.instance) for v in choices], document)
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
        # A document for scripts, with its exit code; an error for people.
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
    say("accepted: " + _proved(document))


def _proved(document: dict[str, Any]) -> str:
    """What an accepted plan carries, and the bound that was verified."""
    carried = f"{document['value']:.6g} tokens/s"
    # By the plan's own objective.
    for key, unit in (("cost", "per hour"), ("request_s", "s a request")):
        if document.get(key) is not None:
            bound = document.get(f"{key}_bound")
            proved = "no bound stated" if bound is None else f"lower bound {bound:.6g} proved"
            return f"{document[key]:.6g} {unit}, {proved}; {carried}"
    bound = document.get("bound")
    return carried + (", no bound stated" if bound is None else f", bound {bound:.6g} proved")


def simulate_command(
    plan: PlanArgument,
    instance: ForInstance,
    platform: PlatformOption = None,
    trace: Annotated[
        str | None, typer.Option(help="CSV: arrival_s,prompt_tokens,output_tokens.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Of a generated trace.")] = 1000,
    rate: Annotated[
        float | None, typer.Option(help="Requests/s, Poisson; without: all at once.")
    ] = None,
    prompt: Annotated[
        int | None, typer.Option(min=1, help="Mean prompt tokens; without: the instance's.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Mean generated tokens; without: the instance's.")
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Requests that a pipeline holds at a time.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of a generated trace.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a plan under a trace of requests: tokens/s, waiting, percentiles, what binds."""
    from csp_embed.serving.files.trace_file import read_trace
    from csp_embed.serving.report import simulation_document, simulation_text
    from csp_embed.serving.simulate import generated_trace, simulate, ways

    if rate is not None and not 0 < rate < float("inf"):
        raise InputError(f"--rate {rate}", hint="a finite number above 0")
    cluster, document, placement = _accepted(plan, instance, platform)
    if trace is not None:
        # A trace has its own arrivals and lengths.
        if rate is not None or prompt is not None or output_tokens is not None:
            raise InputError(
                "a trace states arrivals and lengths itself",
                hint="leave out --rate, --prompt and --output-tokens, or --trace",
            )
        wanted = read_trace(trace)
    else:
        phases = cluster.phases
        wanted = generated_trace(
            # Means of the instance: what the plan was made for.
            requests,
            rate,
            seed,
            prompt or round(phases.prompt),
            output_tokens or round(phases.output),
        )
    # The plan's own routes where it has them.
    found = simulate(cluster, placement, wanted, in_flight, ways(cluster, document))
    if as_json:
        print_json(simulation_document(found))
    else:
        say(simulation_text(found))


def export_command(
    plan: PlanArgument,
    instance: ForInstance,
    to: Annotated[str, typer.Option(help="vllm, llama.cpp or json.")],
    platform: PlatformOption = None,
    model: Annotated[
        str, typer.Option(help="Model name or file, as the target wants it.")
    ] = "MODEL",
    output: Annotated[str | None, typer.Option("-o", "--output", help="File to write.")] = None,
) -> None:
    """Write a plan as launch lines of a serving program, or say what that cannot express."""
    import json

    from csp_embed.serving.export import llamacpp, routes, vllm
    from csp_embed.serving.export.engines import engines

    # Before the plan is judged.
    check_writable(output)
    cluster, document, _ = _accepted(plan, instance, platform)
    # Names as the targets' own errors use them.
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


def _accepted(
    plan: str, instance: str, platform: str | None
) -> tuple[Any, dict[str, Any], dict[int, tuple[int, int]]]:
    """Instance, plan document and placement [first, end); only of a plan that fits the instance."""
    from csp_embed.serving.files.load import variant_of, variants
    from csp_embed.serving.files.plan_file import read_plan
    from csp_embed.serving.judge.check import check

    # A plan of another instance would be exported for machines that do not exist.
    document = read_plan(plan)
    cluster = variant_of(variants(instance, platform), document).instance
    # The bound does not matter here, and takes the longest to verify.
    faults = check(cluster, {**document, "bound": None, "request_s_bound": None})
    if faults:
        raise CheckError(
            f"{plan} is no plan for {instance}",
            where=faults[0].where,
            why=faults[0].text,
            hint="csp-embed serve plan makes one for this instance",
        )
    position = {name: i for i, name in enumerate(cluster.machines)}
    # Half open inside, both ends in the file.
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
        **{key: plan.more[key] for key in ANSWERED if key in plan.more},
    }


def _no_plan(plan: Any, as_json: bool, limited: bool) -> None:
    # Interrupted and late have different exit codes.
    code = 130 if plan.interrupted else TimeLimit.exit_code
    if as_json:
        print_json(_answer(plan))
    elif not plan.interrupted:
        raise TimeLimit(
            "the search ended before any plan was found",
            why="" if plan.bound is None else f"none carries more than {plan.bound:.6g} tokens/s",
            hint="a longer --time-limit, or none"
            if limited
            else "--solver-seed 1 searches elsewhere; with more links plans are easier to find",
        )
    raise SystemExit(code)
