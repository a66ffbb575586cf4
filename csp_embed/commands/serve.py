"""serve plan, serve check: a large model's layers on unequal servers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from csp_embed.commands.common import console, print_json, progress, stderr
from csp_embed.commands.plan_options import JsonOption, writable
from csp_embed.errors import CheckError, TimeLimit

InstanceArgument = Annotated[str, typer.Argument(help="Instance: layer-placement-1.")]
PlanArgument = Annotated[str, typer.Argument(help="Plan file: csp-embed-serving/1.")]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    group = typer.Typer(
        help="Place a large model on unequal servers, with a proved bound.", no_args_is_help=True
    )
    group.command("plan")(plan_command)
    group.command("check")(check_command)
    app.add_typer(group, name="serve")


def plan_command(
    instance: InstanceArgument,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Plan file.")] = None,
    objective: Annotated[str, typer.Option(help="tokens.")] = "tokens",
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
    from csp_embed.serving.plan import plan
    from csp_embed.serving.plan_file import write_plan
    from csp_embed.serving.read import read_instance
    from csp_embed.serving.report import draw, report_text

    for path in (output, picture):
        writable(path)
    cluster = read_instance(instance)
    with progress(quiet=as_json) as tell, _terminated():
        found = plan(
            cluster,
            objective=objective,
            time_limit=time_limit,
            seed=solver_seed,
            progress=tell,
        )
    if found.value is None:
        _no_plan(found, as_json)
    if output:
        write_plan(found, output)
    if picture:
        draw(cluster, found, picture)
    if as_json:
        print_json(_answer(found))
    else:
        _show(report_text(cluster, found))
        if output:
            _show(f"plan written to {output}")
    if found.interrupted:
        stderr.print("stopped: this is the best plan so far")
        raise SystemExit(130)


def check_command(
    plan: PlanArgument,
    instance: Annotated[str, typer.Option(help="The instance that the plan is for.")],
    as_json: JsonOption = False,
) -> None:
    """Verify a plan's value and its bound in exact arithmetic, without a solver."""
    from csp_embed.serving.check import check
    from csp_embed.serving.plan_file import read_plan
    from csp_embed.serving.read import read_instance

    cluster = read_instance(instance)
    document = read_plan(plan)
    faults = check(cluster, document)
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
    _show(f"accepted: {document['value']:.6g} tokens/s, {stated}")


def _answer(plan: Any) -> dict[str, Any]:
    return {
        "value": plan.value,
        "bound": plan.bound,
        "status": plan.status,
        "seconds": plan.seconds,
        "gap": plan.gap,
        "method": plan.method,
        "interrupted": plan.interrupted,
    }


def _no_plan(plan: Any, as_json: bool) -> None:
    code = 130 if plan.interrupted else TimeLimit.exit_code
    if as_json:
        print_json(_answer(plan))
    elif not plan.interrupted:
        raise TimeLimit(
            "the search ended before any plan was found",
            why=f"no plan carries more than {plan.bound:.6g} tokens/s",
            hint="a longer --time-limit, or none",
        )
    raise SystemExit(code)


def _show(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a search as Ctrl-C does: with the best plan so far."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
