"""The options of `csp-embed compile`, one type each, by the panels that `--help` shows.

Typer reads a command's options from its signature; here stands what each says, so that the command
itself reads as a list of names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

# One text for the help of several options.
PADS = (
    "one number; one per dimension; begins then ends as in ONNX (top,left,bottom,right); or same:"
    " outputs as many as inputs over the stride"
)


# Panels group options in `--help`; one function for each keeps them equal.
def _extents(help: str, **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel="Extents", **more)


def _epilogue(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Epilogue")


def _machine(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel="Machine")


def _search(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel="Search")


def _result(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Result", **more)


# Types, not variables: typer wants them in the signature.
What = Annotated[str, typer.Argument(help="operator, formula or deepbench:ID", metavar="OPERATOR")]
Extent = Annotated[int | None, _extents("extent", show_default=False)]
Listed = Annotated[str | None, _extents("one number or one per dimension", show_default=False)]
Pad = Annotated[str | None, _extents(PADS, show_default=False)]
TensorLayout = Annotated[
    str | None, _extents("NCHW or NHWC and the like: how the user's tensors lie")
]
Shape = Annotated[list[str] | None, _extents("x=1,3,100: shape of a formula's tensor")]
Step = Annotated[
    list[str] | None, _extents("a step of elementwise: 'add 17', 'add z', 'shr 3', relu")
]
Shift = Annotated[int | None, _epilogue(help="shift right before the bias")]
Bias = Annotated[
    bool, _epilogue("--bias", help="add b (int32, per output channel) after the shift")
]
BiasBeforeShift = Annotated[bool, _epilogue("--bias-before-shift", help="add b before the shift")]
BiasRange = Annotated[int | None, _epilogue(help="promise: |b| is at most this")]
Clip = Annotated[tuple[int, int] | None, _epilogue(help="clip to LO HI before the int8 store")]
Isa = Annotated[str, _machine("a name of `csp-embed isa list`, or a spec FILE.yaml")]
VtaConfig = Annotated[Path | None, _machine("the machine's vta_config.json")]
Memory = Annotated[
    str | None, _machine("memory interface whose cycles are minimised (vta: de10, pynq)")
]
Layout = Annotated[
    list[str] | None,
    _search(
        "relaxed (default): activations may be duplicated by the host; strict: not;"
        " x=NHWC, x=NCHW16c: how a tensor must lie"
    ),
]
Fix = Annotated[
    list[str] | None, _search("pin a decision: 'i=c,r' 'o=k:16' 'q=o' commuted straight")
]
Forbid = Annotated[
    list[str] | None,
    _search("skew, diagonal, fuse, commuted, outer, 'i=c' (not on i) or 'q' (on no lane)"),
]
HostWeight = Annotated[float, _search("cycles that one byte of host packing counts as")]
Top = Annotated[
    int, _search("embeddings whose schedules are improved; 0: those that come close to the best")
]
Cache = Annotated[Path | None, _search("folder that keeps finished searches by content")]
Reuse = Annotated[
    Path | None,
    _search(
        "program of the same operator in another shape, whose embedding is applied"
        " where a proof says that it is still good"
    ),
]
Within = Annotated[float, _search("share by which a reused embedding may cost more than the least")]
Output = Annotated[
    Path | None,
    _result(
        "-o",
        "--output",
        help="program file to write (.npz); for a CPU its C text (.c) or library (.so)",
    ),
]
Engine = Annotated[
    str | None,
    _result(
        help="what runs a CPU's kernel: native, interpreted (by the meanings of the spec); the"
        " first that can, by default",
        metavar="native|interpreted",
        show_default=False,
    ),
]
Threads = Annotated[int, _result(help="threads that a call of a CPU's kernel uses (OpenMP)", min=1)]
SelfTest = Annotated[
    bool,
    _result("--selftest", help="the C file gets a main that checks it on the operands of this run"),
]
Seed = Annotated[int | None, _result(help="seed of the random tensors (0)", show_default=False)]
Data = Annotated[
    Path | None,
    _result(help=".npz with the operands instead of random ones; w and b become constants"),
]
Verify = Annotated[
    bool, _result("--verify", help="simulate and compare with NumPy whatever the size")
]
Explain = Annotated[bool, _result("--explain", help="list the alternatives that were scheduled")]
Bound = Annotated[
    bool, _result("--bound", help="cycles below which no covering of the operator can run, proved")
]
Report = Annotated[Path | None, _result(help="write an HTML report")]
Certificate = Annotated[Path | None, _result(help="write the certificate (JSON)")]
StopAfter = Annotated[
    str | None, _result(help="operator, dataflow, embedding, schedule, program or values")
]
PrintAfter = Annotated[
    list[str] | None, _result(help="print what that stage left, as it is made; may be repeated")
]
Check = Annotated[bool, _result("--check", help="judge what every stage leaves before the next")]
Stages = Annotated[
    bool, _result("--stages", help="print the chain: what each stage takes, leaves, is judged by")
]
Show = Annotated[
    bool,
    _result(
        "--show", help="print the artefact at which --stop-after stops (--json holds it anyway)"
    ),
]
Dot = Annotated[
    Path | None,
    _result(
        help="write the dataflow as Graphviz: every point of a small operator, a summary of a"
        " large one"
    ),
]
AsJson = Annotated[bool, _result("--json", help="one JSON document on standard output")]
