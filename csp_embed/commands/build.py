"""`csp-embed build MODEL`: a quantised network as one program, run on the simulated machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csp_embed.commands.common import print_json, progress, say, say_table
from csp_embed.commands.given import refuse_ignored
from csp_embed.commands.network_inputs import dims, given_inputs, random_inputs
from csp_embed.errors import InputError
from csp_embed.files import atomic, check_outputs

if TYPE_CHECKING:
    from csp_embed.compiler.network import Built
    from csp_embed.network.quantised.graph import Graph


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("build")(build_command)


def build_command(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A quantised network: .tflite or .onnx.")
    ],
    dim: Annotated[
        list[str] | None,
        typer.Option("--dim", metavar="NAME=N", help="Extent of a named dimension (ONNX)."),
    ] = None,
    isa: Annotated[str, typer.Option(help="vta, a toy machine, or a spec FILE.yaml")] = "vta",
    vta_config: Annotated[Path | None, typer.Option(help="the machine's vta_config.json")] = None,
    memory: Annotated[
        str | None, typer.Option(help="memory interface whose cycles are minimised")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help=".npz with stored values of the inputs, by name; several along axis 0"),
    ] = None,
    samples: Annotated[int, typer.Option(help="how many random inputs are run")] = 1,
    seed: Annotated[int, typer.Option(help="seed of the random inputs")] = 0,
    rounding: Annotated[
        str,
        typer.Option(
            metavar="exact|shift",
            help="shift: weights requantised so that multipliers are shifts",
        ),
    ] = "exact",
    requantised: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="the model that --rounding shift makes"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE.npz", help="the program, with its first input"
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="one page: layers, timeline, memory over time"),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="why this layer runs where it does, what was tried, what would move it",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="print the network as it was read, and stop")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
) -> None:
    """Compiles a quantised network to one program, with every tensor's layout chosen over the whole
    network, runs it, and compares every tensor bit for bit with the reference interpreter.

    Layers that the machine cannot compute exactly are the host's, each with its reason; where one
    stands between two of the machine's, there are several programs. Exit code 5 where an element
    differs; nothing is written then.

    Examples:

      csp-embed build resnet8_shift.tflite -o resnet8.npz --report resnet8.html

      csp-embed build model.onnx --dim batch=1 --show

      csp-embed build model.onnx --rounding shift --requantised shift.onnx -o model.npz

      csp-embed build kws.tflite --vta-config vta_config.json --inputs words.npz --json
    """
    from csp_embed.network.quantised.read import read_quantised

    if samples < 1:
        raise InputError(f"--samples {samples}", why="nothing would run", hint="--samples 1")
    if seed < 0:
        raise InputError(f"--seed {seed}", why="seeds are not negative", hint="--seed 0")
    # Given inputs leave nothing random: options for random ones would be without effect.
    if inputs is not None:
        refuse_ignored(context, ("samples", "seed"), "--inputs", why="they are for random inputs")
    # Options of a run: the ways that stop before it refuse them.
    running = ("inputs", "samples", "seed", "output", "report", "memory")
    if show:
        ignored = ("isa", "vta_config", "explain", "as_json", *running)
        refuse_ignored(context, ignored, "--show", why="it stops before that is looked at")
    if explain is not None:
        ignored = tuple(name for name in ("as_json", *running) if name != "memory")
        refuse_ignored(context, ignored, "--explain", why="the network is built, and not run")
    if rounding not in ("exact", "shift") or (rounding == "shift") != (requantised is not None):
        raise InputError(
            f"--rounding {rounding} {'with' if requantised else 'without'} --requantised",
            why="exact builds the model as it is; shift changes weights, and writes that model out",
            hint=f"--rounding shift --requantised FILE{model.suffix or '.onnx'}",
        )
    # Before anything is read: a long run must not end at a name that cannot be written.
    check_outputs(
        (output, (".npz",)),
        (report, (".html",)),
        (requantised, (".onnx", ".tflite")),
        reads=(model,),
    )
    if requantised is None:
        graph = read_quantised(model, dims(dim or []))
    else:
        graph = _with_shifts(model, requantised, dims(dim or []))
    # Reading is enough to show: neither the machine nor the compiler is loaded.
    if show:
        say(graph.show())
        return
    # Here, not above: `--help` and `--show` need no compiler.
    from dataclasses import replace

    from csp_embed.compiler.network import OPTIONS, build
    from csp_embed.machine.load import load_isa

    machine = load_isa(isa, vta_config)
    if explain is not None:
        from csp_embed.compiler.whole.explained import explained

        with progress() as tell:
            text = explained(graph, explain, machine, replace(OPTIONS, memory=memory), tell)
        say(text)
        return
    feeds = random_inputs(graph, samples, seed) if inputs is None else given_inputs(graph, inputs)
    with progress(quiet=as_json) as tell:
        built = build(graph, machine, feeds, options=replace(OPTIONS, memory=memory), progress=tell)
    # Programs are not written where values differ (see `_write`).
    written = [*([str(requantised)] if requantised else []), *_write(built, output, report)]
    if as_json:
        print_json(built.document() | {"files": written})
    else:
        _say(built)
        for path in written:
            say(f"wrote {path}")
    # The last thing: the report has been printed by then.
    if built.differences:
        raise typer.Exit(5)


def _with_shifts(model: Path, output: Path, dims: dict[str, int]) -> Graph:
    """The requantised network, written in the format that it came in."""
    from csp_embed.network.quantised.onnx.shifts import with_shifts
    from csp_embed.network.quantised.read import is_tflite, without_dims
    from csp_embed.network.quantised.tflite.shifts import with_tflite_shifts

    tflite = is_tflite(model)
    wanted = ".tflite" if tflite else ".onnx"
    if output.suffix != wanted:
        raise InputError(
            f"--requantised {output}", where=str(model),
            why=f"the model is written in the format that it came in, which is {wanted[1:]}",
            hint=f"--requantised {output.with_suffix(wanted)}",
        )  # fmt: skip
    if not tflite:
        return with_shifts(model, output, dims)
    without_dims(model, dims)
    return with_tflite_shifts(model, output)


def _write(built: Built, output: Path | None, report: Path | None) -> list[str]:
    """The files that were asked for; segments beyond the first get a number in their name."""
    # A program that computes something else must not lie about under a name.
    if built.differences:
        return []
    written: list[str] = []
    if report is not None:
        from csp_embed.report.network_page import network_page

        with atomic(report) as file:
            file.write(network_page(built))
        written.append(str(report))
    if output is not None:
        from csp_embed.machine.program_file import write_program

        programs = built.programs()
        # Several programs where a host's layer stands between two of the machine's.
        if not programs:
            raise InputError(
                "there is no program to write", where=str(output),
                why="the host computes every layer", hint=f"csp-embed build {built.graph.source}",
            )  # fmt: skip
        for n, program in enumerate(programs):
            path = output if n == 0 else output.with_suffix(f".{n}.npz")
            write_program(path, program)
            written.append(str(path))
    return written


def _say(built: Built) -> None:
    d = built.document()
    rows: list[list[str]] = []
    for layer in built.layers:
        # Layers of the host have no cycles.
        cycles = "" if layer.cycles is None else f"{layer.cycles:,}"
        bound = "" if layer.bound_cycles is None else f"{layer.bound_cycles:,}"
        different = f"{layer.differences:,} of {layer.elements:,}"
        rows.append([layer.name, layer.where, f"{layer.macs:,}", cycles, bound, different])
    head = ["layer", "where", "MACs", "cycles", "bound", "differing"]
    say_table(head, rows, f"{d['model']} on {d['machine']}, profile {d['profile']}")
    # A network without products has no MACs to share.
    share = d["macs_on_accelerator"] / d["macs"] if d["macs"] else 0.0
    say(
        f"{d['cycles']:,} cycles in {_programs(d['segments'])} of {d['instructions']:,} "
        f"instructions; {share:.2%} of {d['macs']:,} MACs on the machine"
    )
    if d["status"] == "host":
        say("no layer runs on the machine, so nothing was compared")
    else:
        say(
            f"layouts {' '.join(d['layout_status'])} at {d['layout_cycles']:,} estimated cycles"
            f" (bound {d['layout_bound_cycles']:,}); activations take"
            f" {d['activation_bytes']:,} bytes (bound {d['activation_bound_bytes']:,}), all"
            f" {d['dram_bytes']:,}"
        )
        say(
            f"{d['differences']:,} of {d['elements']:,} elements differ from the reference, "
            f"{d['inputs']} inputs"
        )
    # By reason, not by layer: the same reason often holds for many.
    for why in dict.fromkeys(layer.why for layer in built.layers if layer.where == "host"):
        names = [layer.name for layer in built.layers if layer.why == why]
        say(f"host: {', '.join(names)}: {why}")
    for note in d["notes"]:
        say(f"note: {note}")


def _programs(count: int) -> str:
    return "one program" if count == 1 else f"{count} programs"
