"""`csp-embed deepbench` and `csp-embed report`: sweeps over layer lists and the page about them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from csp_embed.commands.common import print_json, progress, say, say_table, stderr
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError, TimeLimit
from csp_embed.files import atomic, check_writable


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command(name="deepbench")(deepbench_command)
    app.command(name="report")(report_command)


def deepbench_command(
    context: typer.Context,
    selection: Annotated[
        str,
        typer.Argument(
            help="conv, gemm, all (DeepBench), networks, layer ids: conv000,gemm008, or a list of"
            " your own: my.json (format: deepbench/README.md)"
        ),
    ] = "all",
    jobs: Annotated[int, typer.Option(help="processes")] = 1,
    out: Annotated[Path | None, typer.Option(help="results, one JSON record per line")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="skip the layers that --out already has under the same setting; add the others",
        ),
    ] = False,
    isa: Annotated[str, typer.Option(help="machine")] = "vta",
    vta_config: Annotated[Path | None, typer.Option(help="the machine's vta_config.json")] = None,
    memory: Annotated[
        str | None, typer.Option(help="memory interface (vta: de10, pynq; the first by default)")
    ] = None,
    layout: Annotated[str, typer.Option(help="relaxed or strict")] = "relaxed",
    strict: Annotated[
        bool, typer.Option(help="also compile every layer with the strict layout")
    ] = True,
    simulate_macs: Annotated[
        int, typer.Option(help="largest layer that is simulated and compared with NumPy")
    ] = 300_000_000,
    certify: Annotated[
        bool, typer.Option("--certify", help="prove every stream right for all inputs")
    ] = False,
    dask: Annotated[str | None, typer.Option(help="address of a Dask scheduler")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(help="seconds for the whole sweep; what is finished then stays in --out"),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="folder that keeps finished searches by content")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="all records as one JSON document")
    ] = False,
) -> None:
    """Compiles and judges whole layer lists against the bound and TVM's reference schedules.

    Examples:

      csp-embed deepbench conv --jobs 2 --out conv.jsonl

      csp-embed deepbench all --out all.jsonl --resume

      csp-embed deepbench networks --vta-config 1x32x32 --out nets.jsonl

      csp-embed deepbench all --certify --no-strict --simulate-macs 0 --jobs 2

      csp-embed deepbench my.json --jobs 2 --time-limit 600 --out mine.jsonl

      csp-embed deepbench conv000,gemm008 --isa x86_avx512_vnni --out cpu.jsonl

      csp-embed deepbench gemm --isa gemmini --no-strict --simulate-macs 30000000
    """
    # Before the imports: they count for the time limit.
    begin = time.monotonic()
    from csp_embed.compiler.layers import Setting, sweep
    from csp_embed.machine.costs import costs_of
    from csp_embed.machine.load import load_isa
    from csp_embed.ops.layer_list import selected
    from csp_embed.report import sweep as by_cycles
    from csp_embed.report import sweep_source as by_time
    from csp_embed.targets import target_of

    # A mistyped layer ends here, not after hours.
    records = selected(selection)
    _refuse_numbers(jobs, simulate_macs, time_limit)
    _refuse_combinations(context, layout, resume, out, dask)
    # What no layer could do is refused before the sweep, not once per layer.
    machine = load_isa(isa, vta_config)
    native = target_of(machine) == "source"
    _refuse_machine(context, isa, target_of(machine))
    # On a CPU there is no second layout to compile.
    strict = strict and not native
    # Raises where the machine has no such memory.
    costs = costs_of(machine, memory or "")
    memory = costs.memory if memory is None else memory
    setting = Setting(
        isa, None if vta_config is None else str(vta_config), memory, layout, strict, simulate_macs,
        None if cache is None else str(cache), certify,
    )  # fmt: skip
    if time_limit is not None:
        # Loading counts: who says 10 seconds looks at the clock on the wall.
        time_limit = max(0.001, time_limit - (time.monotonic() - begin))
    results: list[dict[str, Any]] = []
    # What is finished by the limit is shown before the error.
    late = False
    with progress(quiet=as_json) as tell:
        rows = sweep(
            records, setting, out, jobs=jobs, resume=resume, dask=dask, time_limit=time_limit,
            tell=tell, warn=_warn,
        )  # fmt: skip
        try:
            # As they come: a sweep takes hours.
            for result in rows:
                results.append(result)
                if not as_json:
                    # Each record says by itself how it was measured.
                    say((by_time if by_time.is_measured(result) else by_cycles).layer_row(result))
        except TimeLimit:
            late = True  # What is finished is shown all the same.
        finally:
            rows.close()  # Ends the workers now, whatever stops the loop.
    _print(results, native, out, as_json)
    if late:
        _end_late(len(results), len(records), out)
    _end_failed(results)


def _refuse_combinations(
    context: typer.Context, layout: str, resume: bool, out: Path | None, dask: str | None
) -> None:
    """Raises: InputError for options that mean nothing together."""
    if layout not in ("relaxed", "strict"):
        raise InputError(f"--layout {layout} is unknown", hint="--layout relaxed")
    # The strict layout is compiled beside the relaxed one only.
    if layout == "strict":
        refuse_ignored(context, ("strict",), "--layout strict", why="every layer has it already")
    if resume and out is None:
        raise InputError(
            "--resume has no effect without --out", why="results are kept there", hint="--out FILE"
        )
    if dask is not None:
        refuse_ignored(context, ("jobs",), "--dask", why="the cluster has its own workers")


def _refuse_machine(context: typer.Context, isa: str, target: str) -> None:
    """Raises: InputError for a machine that is not measured, or options without effect on it."""
    if target == "commands":
        why = "it has one memory interface, and its searches are not kept"
        refuse_ignored(context, ("memory", "cache"), f"--isa {isa}", why=why)
    if target == "source":
        why = "kernels of C are run, compared with NumPy and timed"
        refuse_ignored(
            context,
            ("memory", "strict", "simulate_macs", "certify", "cache"),
            f"--isa {isa}",
            why=why,
        )


def _print(results: list[dict[str, Any]], native: bool, out: Path | None, as_json: bool) -> None:
    """The table by class, or one document; rows of layers were said as they came."""
    from csp_embed.report import sweep as by_cycles
    from csp_embed.report import sweep_source as by_time

    if as_json:
        print_json(results)
    else:
        if results:
            shown = by_time if native else by_cycles
            rows_ = shown.class_rows(results)
            # The columns differ: cycles against a bound, or times against a limit.
            say_table(shown.CLASS_HEAD, rows_, "by class (geometric means)", keys=2)
        if out is not None and out.exists():
            say(f"wrote {out}; `csp-embed report {out} -o report.html` makes a page of it")


def _refuse_numbers(jobs: int, simulate_macs: int, time_limit: float | None) -> None:
    """Raises: InputError for numbers that mean nothing."""
    if jobs < 1:
        raise InputError(f"--jobs {jobs} runs nothing", hint="--jobs 1")
    if simulate_macs < 0:
        raise InputError(
            f"--simulate-macs {simulate_macs} is negative",
            why="0 simulates none",
            hint="--simulate-macs 0",
        )
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"--time-limit {time_limit} leaves no time", hint="--time-limit 600")


def _end_late(done: int, wanted: int, out: Path | None) -> NoReturn:
    # With its own exit code: what is finished stands in --out.
    late = TimeLimit(
        f"{done} of {wanted} layers are done at the limit",
        why="the others were ended",
        hint=f"--out {out} --resume" if out is not None else "--out sweep.jsonl keeps them",
    )
    stderr.print(late.render(), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(late.exit_code)


def _end_failed(results: list[dict[str, Any]]) -> None:
    """Raises: typer.Exit where a layer failed, or was compiled wrongly."""
    # Wrong and failed layers both end with an error.
    bad = [r["id"] for r in results if r.get("verified") == "unequal" or r.get("problems")]
    bad += [r["id"] for r in results if r.get("status") == "failed"]
    if bad:
        # One document stands on standard output already, so the reason goes to standard error.
        stderr.print(f"{len(bad)} of {len(results)} layers failed: {', '.join(bad[:10])}")
        raise typer.Exit(5)


def _warn(text: str) -> None:
    stderr.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


def report_command(
    results: Annotated[
        list[Path], typer.Argument(help="results files; several machines are compared")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML page, self-contained")],
) -> None:
    """Makes one HTML page of sweeps: summary by class, sortable table, roofline, speed-up, where
    cycles went.

    Example: csp-embed report results.jsonl -o report.html
    """
    from csp_embed.compiler.layers import read_results
    from csp_embed.report.html import sweep_page

    check_writable(output, (".html", ".htm"))
    # Several files: machines are compared on one page.
    records = [r for path in results for r in read_results(path)]
    # Records of other sweeps look alike but have no class.
    others = [r["id"] for r in records if "class" not in r]
    if others:
        raise InputError(
            f"the record {others[0]!r} is not one of a layer sweep",
            where=", ".join(map(str, results)),
            why="it has no class of layer",
            hint="give results that deepbench --out wrote",
        )
    if not records:
        raise InputError(
            "the results files are empty",
            where=", ".join(map(str, results)),
            hint="csp-embed deepbench all --out results.jsonl makes them",
        )
    with atomic(output) as file:
        file.write(sweep_page(records))
    say(f"wrote {output}")
