"""`csp-embed deepbench` and `csp-embed report`: sweeps over layer lists and the page about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csp_embed.commands.common import print_json, progress, say, say_table, stderr
from csp_embed.errors import InputError
from csp_embed.files import atomic


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command(name="deepbench")(deepbench_command)
    app.command(name="report")(report_command)


def deepbench_command(
    selection: Annotated[
        str,
        typer.Argument(help="conv, gemm, all (DeepBench), networks, or layer ids: conv000,gemm008"),
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
    dask: Annotated[str | None, typer.Option(help="address of a Dask scheduler")] = None,
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

      csp-embed deepbench networks --vta-config isa_specs/configs/1x32x32.json --out nets.jsonl
    """
    from csp_embed.bench import Setting, sweep
    from csp_embed.isa.costs import costs_of
    from csp_embed.isa.interface import default_memory
    from csp_embed.isa.load import load_isa
    from csp_embed.ops import deepbench
    from csp_embed.report.sweep import CLASS_HEAD, class_rows, layer_row

    if selection in ("conv", "gemm", "all", "networks"):
        records = deepbench.layers(selection)
    else:
        ids = [i.strip() for i in selection.split(",") if i.strip()]
        records = [deepbench.record(i) for i in dict.fromkeys(ids)]
    if not records:
        raise InputError(
            "no layer is selected", hint="conv, gemm, all, networks, or conv000,gemm008"
        )
    if jobs < 1:
        raise InputError(f"--jobs {jobs} runs nothing", hint="--jobs 1 or more")
    if layout not in ("relaxed", "strict"):
        raise InputError(f"--layout {layout} is unknown", hint="relaxed or strict")
    # What no layer could do is refused before the sweep, not once per layer.
    machine = load_isa(isa, vta_config)
    memory = default_memory(machine) if memory is None else memory
    costs_of(machine, memory)
    setting = Setting(
        isa, None if vta_config is None else str(vta_config), memory, layout, strict, simulate_macs,
        None if cache is None else str(cache),
    )  # fmt: skip
    results = []
    with progress(quiet=as_json) as tell:
        for result in sweep(records, setting, out, jobs=jobs, resume=resume, dask=dask, tell=tell):
            results.append(result)
            if not as_json:
                say(layer_row(result))
    if as_json:
        print_json(results)
    else:
        say_table(CLASS_HEAD, class_rows(results), "by class (geometric means)", keys=2)
        if out is not None:
            say(f"wrote {out}; `csp-embed report {out} -o report.html` makes a page of it")
    bad = [r["id"] for r in results if r.get("verified") == "unequal" or r.get("problems")]
    bad += [r["id"] for r in results if r.get("status") == "failed"]
    if bad:
        # One document stands on standard output already, so the reason goes to standard error.
        stderr.print(f"{len(bad)} of {len(results)} layers failed: {', '.join(bad[:10])}")
        raise typer.Exit(5)


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
    from csp_embed.bench import read_results
    from csp_embed.report.html import sweep_page

    parent = output.parent
    if output.is_dir() or not parent.is_dir():
        raise InputError(f"cannot write {output}", why="it is a folder, or lies in none")
    records = [r for path in results for r in read_results(path)]
    others = [r["id"] for r in records if "class" not in r]
    if others:
        raise InputError(
            f"the record {others[0]!r} is not one of a layer sweep",
            where=", ".join(map(str, results)),
            why="it has no class of layer",
            hint="give results that deepbench --out wrote",
        )
    if not records:
        raise InputError("the results files are empty", where=", ".join(map(str, results)))
    with atomic(output) as file:
        file.write(sweep_page(records))
    say(f"wrote {output}")
