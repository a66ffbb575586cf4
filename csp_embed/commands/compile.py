"""`csp-embed compile`: an operator to a program file and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError
from csp_embed.files import check_folder, check_outputs

EXAMPLES = """Compiles one operator for a machine, checks the stream, simulates it and compares with
NumPy.

Examples:

  csp-embed compile conv2d --n 1 --c 3 --h 56 --w 56 --k 64 --r 7 --s 7 -o c.npz

  csp-embed compile matmul --m 35 --n 700 --k 2048 -o g.npz

  csp-embed compile 'y\\[i,j] += x\\[i,k] * w\\[j,k]' --shape x=4,8 --shape w=3,8

  csp-embed compile elementwise --shape x=64,16 --step 'add z' --step 'shr 3'

  csp-embed compile deepbench:conv000 --explain
"""

Extent = Annotated[
    int | None, typer.Option(help="extent", show_default=False, rich_help_panel="Extents")
]
Listed = Annotated[
    str | None,
    typer.Option(
        help="one number or one per dimension", show_default=False, rich_help_panel="Extents"
    ),
]
PADS = (
    "one number; one per dimension; begins then ends as in ONNX (top,left,bottom,right); or same:"
    " outputs as many as inputs over the stride"
)


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command(name="compile", help=EXAMPLES)(compile_command)


def compile_command(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(help="operator, formula or deepbench:ID", metavar="OPERATOR")
    ],
    n: Extent = None,
    c: Extent = None,
    d: Extent = None,
    h: Extent = None,
    w: Extent = None,
    k: Extent = None,
    t: Extent = None,
    r: Extent = None,
    s: Extent = None,
    m: Extent = None,
    batch: Extent = None,
    multiplier: Extent = None,
    groups: Extent = None,
    stride: Listed = None,
    pad: Annotated[
        str | None, typer.Option(help=PADS, show_default=False, rich_help_panel="Extents")
    ] = None,
    dilation: Listed = None,
    output_pad: Listed = None,
    tensor_layout: Annotated[
        str | None,
        typer.Option(
            help="NCHW or NHWC and the like: how the user's tensors lie", rich_help_panel="Extents"
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="x=1,3,100: shape of a formula's tensor", rich_help_panel="Extents"),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            help="a step of elementwise: 'add 17', 'add z', 'shr 3', relu",
            rich_help_panel="Extents",
        ),
    ] = None,
    shift: Annotated[
        int | None, typer.Option(help="shift right before the bias", rich_help_panel="Epilogue")
    ] = None,
    bias: Annotated[
        bool,
        typer.Option(
            "--bias",
            help="add b (int32, per output channel) after the shift",
            rich_help_panel="Epilogue",
        ),
    ] = False,
    bias_before_shift: Annotated[
        bool,
        typer.Option(
            "--bias-before-shift", help="add b before the shift", rich_help_panel="Epilogue"
        ),
    ] = False,
    bias_range: Annotated[
        int | None, typer.Option(help="promise: |b| is at most this", rich_help_panel="Epilogue")
    ] = None,
    clip: Annotated[
        tuple[int, int] | None,
        typer.Option(help="clip to LO HI before the int8 store", rich_help_panel="Epilogue"),
    ] = None,
    isa: Annotated[
        str, typer.Option(help="vta, a toy machine, or a spec FILE.yaml", rich_help_panel="Machine")
    ] = "vta",
    vta_config: Annotated[
        Path | None, typer.Option(help="the machine's vta_config.json", rich_help_panel="Machine")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="memory interface whose cycles are minimised (vta: de10, pynq)",
            rich_help_panel="Machine",
        ),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            help="relaxed (default): activations may be duplicated by the host; strict: not;"
            " x=NHWC, x=NCHW16c: how a tensor must lie",
            rich_help_panel="Search",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            help="pin a decision: 'i=c,r' 'o=k:16' 'q=o' commuted straight",
            rich_help_panel="Search",
        ),
    ] = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option(
            help="skew, diagonal, fuse, commuted, outer, 'i=c' (not on i) or 'q' (on no lane)",
            rich_help_panel="Search",
        ),
    ] = None,
    host_weight: Annotated[
        float,
        typer.Option(
            help="cycles that one byte of host packing counts as", rich_help_panel="Search"
        ),
    ] = 0.0,
    top: Annotated[
        int,
        typer.Option(
            help="embeddings whose schedules are improved; 0: those that come close to the best",
            rich_help_panel="Search",
        ),
    ] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="folder that keeps finished searches by content", rich_help_panel="Search"
        ),
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option(
            help="program of the same operator in another shape, whose embedding is applied"
            " where a proof says that it is still good",
            rich_help_panel="Search",
        ),
    ] = None,
    within: Annotated[
        float,
        typer.Option(
            help="share by which a reused embedding may cost more than the least",
            rich_help_panel="Search",
        ),
    ] = 0.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="program file to write (.npz)", rich_help_panel="Result"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="seed of the random tensors (0)", show_default=False, rich_help_panel="Result"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help=".npz with the operands instead of random ones; w and b become constants",
            rich_help_panel="Result",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="simulate and compare with NumPy whatever the size",
            rich_help_panel="Result",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="list the alternatives that were scheduled", rich_help_panel="Result"
        ),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="write an HTML report", rich_help_panel="Result")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="write the certificate (JSON)", rich_help_panel="Result")
    ] = None,
    stop_after: Annotated[
        str | None,
        typer.Option(
            help="operator, dataflow, embedding, schedule or program", rich_help_panel="Result"
        ),
    ] = None,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help="print the artefact at which --stop-after stops (--json holds it anyway)",
            rich_help_panel="Result",
        ),
    ] = False,
    dot: Annotated[
        Path | None,
        typer.Option(
            help="write the dataflow as Graphviz: every point of a small operator, a summary of a"
            " large one",
            rich_help_panel="Result",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="one JSON document on standard output", rich_help_panel="Result"
        ),
    ] = False,
) -> None:
    from csp_embed.commands import request
    from csp_embed.commands.job import STAGES, Job

    op = request.from_options(
        what, shape or [], step or [],
        {"n": n, "c": c, "d": d, "h": h, "w": w, "k": k, "t": t, "r": r, "s": s, "m": m,
         "batch": batch, "multiplier": multiplier, "groups": groups, "shift": shift,
         "bias_range": bias_range, "clip": clip, "tensor_layout": tensor_layout,
         "bias": bias, "bias_before_shift": bias_before_shift,
         "stride": stride, "pad": pad, "dilation": dilation, "output_pad": output_pad},
    )  # fmt: skip
    mode, pins = request.pins(layout or [], fix or [], forbid or [])
    if top < 0:
        raise InputError(
            f"--top {top} is negative", why="0 leaves the choice to the compiler", hint="--top 0"
        )
    if seed is not None and seed < 0:
        raise InputError(f"a seed is negative: --seed {seed}", hint="--seed 0")
    if not 0 <= host_weight < float("inf"):
        raise InputError(f"--host-weight {host_weight} is no weight", hint="--host-weight 0")
    if not 0 <= within < float("inf"):
        raise InputError(
            f"--within {within} is no share", why="0.02 allows 2 % more", hint="--within 0.02"
        )
    if reuse is not None and (layout or pins):
        raise InputError(
            "--reuse takes its layout and pins from the program",
            hint="drop --layout, --fix and --forbid, or --reuse",
        )
    if show and stop_after is None:
        raise InputError("--show needs --stop-after", hint="--stop-after embedding")
    if stop_after is not None and stop_after not in STAGES:
        raise InputError(
            f"--stop-after {stop_after} is unknown",
            why=f"the stages are {', '.join(STAGES)}",
            hint="--stop-after embedding",
        )
    _refuse_combinations(context, stop_after, reuse, data, top)
    check_outputs(
        (output, (".npz",)), (report, (".html", ".htm")), (certificate, (".json",)),
        (dot, (".dot", ".gv")), reads=(reuse, data, vta_config),
    )  # fmt: skip
    check_folder(cache)
    with progress(quiet=as_json) as tell:
        job = Job(
            op=op, isa=isa, config=vta_config, memory=memory, layout=mode, pins=pins,
            host_weight=host_weight, top=top,
            cache=cache, seed=seed, data=data, verify=verify, tell=tell,
            reuse=reuse, within=within,
        )  # fmt: skip
        if stop_after is not None or dot is not None:
            text = job.stop_after(stop_after or "dataflow", dot)
            if stop_after is not None and as_json:
                print_json({"artefact": stop_after, "text": text})
            elif stop_after is not None:
                count = len(text.splitlines())
                print(text if show else f"{op.name}: {stop_after} made, {count} lines (--show)")
            if stop_after is not None:
                return
        result = job.run(output, report, certificate)
    if as_json:
        print_json(result.document(explain))
    else:
        say(result.text(explain))


# What a stage before the machine is looked at, and one before values are, leaves unread.
_MACHINE = ("isa", "vta_config", "memory", "layout", "fix", "forbid", "host_weight", "top", "cache",
            "reuse", "within", "data")  # fmt: skip
_RESULT = ("seed", "verify", "explain", "output", "report", "certificate")


def _refuse_combinations(
    context: typer.Context,
    stop_after: str | None,
    reuse: Path | None,
    data: Path | None,
    top: int,
) -> None:
    """Raises: InputError for an option that has no effect beside another one."""
    if stop_after is not None:
        early = stop_after in ("operator", "dataflow")
        refuse_ignored(
            context,
            (*_RESULT, *_MACHINE) if early else _RESULT,
            f"--stop-after {stop_after}",
            why="it stops before that is looked at; --stop-after makes no program",
        )
