"""`csp-embed build MODEL`: a quantised network, layer by layer, on the simulated machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csp_embed.commands.common import print_json, progress, say, say_table
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError
from csp_embed.files import check_folder

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
    cache: Annotated[
        Path | None, typer.Option(help="folder that keeps finished searches by content")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="print the network as it was read, and stop")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
) -> None:
    """Compiles the layers of a quantised network that the machine can compute exactly, runs them,
    and compares every tensor bit for bit with the reference interpreter.

    A first form: each such layer is a program of its own, tensors pass through the host in between,
    and the other layers are the host's, each with its reason. Exit code 5 where an element differs.

    Examples:

      csp-embed build resnet8_shift.tflite

      csp-embed build model.onnx --dim batch=1 --show

      csp-embed build kws.tflite --vta-config vta_config.json --inputs words.npz --json
    """
    from csp_embed.network.quantised.read import read_quantised

    if samples < 1:
        raise InputError(f"--samples {samples}", why="nothing would run", hint="--samples 1")
    if seed < 0:
        raise InputError(f"--seed {seed}", why="seeds are not negative", hint="--seed 0")
    if inputs is not None:
        refuse_ignored(context, ("samples", "seed"), "--inputs", why="they are for random inputs")
    if show:
        ignored = ("isa", "vta_config", "memory", "inputs", "samples", "seed", "cache", "as_json")
        refuse_ignored(context, ignored, "--show", why="it stops before that is looked at")
    check_folder(cache)
    graph = read_quantised(model, _dims(dim or []))
    if show:
        say(graph.show())
        return
    from csp_embed.compiler.driver import Options
    from csp_embed.compiler.network import build
    from csp_embed.machine.load import load_isa

    machine = load_isa(isa, vta_config)
    feeds = _random(graph, samples, seed) if inputs is None else _given(graph, inputs)
    with progress(quiet=as_json) as tell:
        built = build(
            graph, machine, feeds, options=Options(memory=memory, cache=cache), progress=tell
        )
    if as_json:
        print_json(built.document())
    else:
        _say(built)
    if built.differences:
        raise typer.Exit(5)


def _dims(given: list[str]) -> dict[str, int]:
    found = {}
    for text in given:
        name, _, extent = text.partition("=")
        if not name or not extent.isdecimal() or int(extent) < 1:
            raise InputError(f"--dim {text}", why="wanted NAME=N", hint="--dim batch=1")
        found[name] = int(extent)
    return found


def _random(graph: Graph, samples: int, seed: int) -> list[dict[str, Any]]:
    """Stored values over the whole range of the type; the same for the same seed."""
    import numpy as np

    rng = np.random.default_rng(seed)
    made = []
    for _ in range(samples):
        feeds = {}
        for name in graph.inputs:
            t = graph.tensors[name]
            low, high = t.range
            feeds[name] = rng.integers(low, high + 1, t.shape).astype(t.dtype)
        made.append(feeds)
    return made


def _given(graph: Graph, path: Path) -> list[dict[str, Any]]:
    """Raises: InputError where the file cannot be read, an input is missing or of another form."""
    import zipfile

    import numpy as np

    wanted = {n: graph.tensors[n] for n in graph.inputs}
    example = ", ".join(f"{n!r}: {t.dtype} {list(t.shape)}" for n, t in wanted.items())
    hint = f"numpy.savez(FILE, **arrays) with {example}, or more along axis 0"
    try:
        if not zipfile.is_zipfile(path):  # numpy.load takes anything else for a pickle
            with path.open("rb"):
                raise InputError(f"{path} is no whole .npz file", where=str(path), hint=hint)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {path}", where=str(path), why=why, hint=hint) from error
    counts = set()
    for name, t in wanted.items():
        array = arrays.get(name)
        if array is None or array.dtype != np.dtype(t.dtype) or array.shape[1:] != t.shape[1:]:
            has = ", ".join(f"{n!r}: {a.dtype} {list(a.shape)}" for n, a in arrays.items())
            raise InputError(
                f"the file does not hold input {name!r} as the model stores it",
                where=str(path), why=f"it holds {has or 'nothing'}", hint=hint,
            )  # fmt: skip
        counts.add(array.shape[0] / t.shape[0])
    count = counts.pop() if len(counts) == 1 else 0
    if count != int(count) or count < 1:
        raise InputError("the inputs are not whole batches", where=str(path), hint=hint)
    return [
        {n: arrays[n][i * t.shape[0] : (i + 1) * t.shape[0]] for n, t in wanted.items()}
        for i in range(int(count))
    ]


def _say(built: Built) -> None:
    d = built.document()
    rows = []
    for layer in built.layers:
        cycles = "" if layer.cycles is None else f"{layer.cycles:,}"
        bound = "" if layer.bound_cycles is None else f"{layer.bound_cycles:,}"
        different = f"{layer.differences:,} of {layer.elements:,}"
        rows.append([layer.name, layer.where, f"{layer.macs:,}", cycles, bound, different])
    head = ["layer", "where", "MACs", "cycles", "bound", "differing"]
    say_table(head, rows, f"{d['model']} on {d['machine']}, profile {d['profile']}")
    share = d["macs_on_accelerator"] / d["macs"] if d["macs"] else 0.0
    say(
        f"{d['cycles']:,} cycles (bound {d['bound_cycles']:,}) in {d['segments']} programs, one "
        f"after the other: not yet one program; {share:.2%} of {d['macs']:,} MACs on the machine"
    )
    if d["status"] == "host":
        say("no layer runs on the machine, so nothing was compared")
    else:
        say(
            f"{d['differences']:,} of {d['elements']:,} elements differ from the reference, "
            f"{d['inputs']} inputs"
        )
    for why in dict.fromkeys(layer.why for layer in built.layers if layer.where == "host"):
        names = [layer.name for layer in built.layers if layer.why == why]
        say(f"host: {', '.join(names)}: {why}")
    for note in d["notes"]:
        say(f"note: {note}")
