"""`csp-embed compile` for a machine whose loops run in a CPU: a C file, a library, a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError
from csp_embed.files import check_outputs

if TYPE_CHECKING:
    from csp_embed.compiler.source_kernel import SourceKernel
    from csp_embed.ir.operator import Operator
    from csp_embed.machine.spec import Isa

SUFFIXES = (".c", ".so")
_IDLE = ("memory", "host_weight", "top", "cache", "reuse", "within", "report", "certificate", "dot",
         "stop_after", "print_after", "check", "stages", "show", "explain")  # fmt: skip
# Interpreting takes about 40 microseconds a step; this many take a quarter of a minute.
INTERPRETED_STEPS = 400_000


@dataclass(frozen=True)
class Asked:
    """What the command line says that counts here. output: a .c or .so file, or None."""

    op: Operator
    isa: Isa
    layout: str
    pins: tuple[str, ...]
    seed: int
    data: Path | None
    output: Path | None
    selftest: bool
    engine: str | None


def run(context: typer.Context, asked: Asked, as_json: bool) -> None:
    """Compiles the operator, compares with NumPy, writes the output and reports.

    Raises: CheckError where values differ, before anything is written; InputError for options
    without effect.
    """
    from csp_embed.commands.data_file import read_operands
    from csp_embed.compiler.options import Options
    from csp_embed.compiler.source_kernel import ENGINES, compile_source, judged
    from csp_embed.ops.data import random_tensors
    from csp_embed.targets.source.build import c_compiler

    op, output = asked.op, asked.output
    refuse_ignored(context, _IDLE, f"--isa {asked.isa.name}", why="it writes C, not a stream")
    check_outputs((output, SUFFIXES), reads=(asked.data,))
    if asked.engine not in (None, *ENGINES):
        raise InputError(
            f"no engine '{asked.engine}'",
            where="--engine",
            why=f"kernels of C run {' or '.join(ENGINES)}",
            hint="--engine interpreted",
        )
    if asked.selftest and (output is None or output.suffix != ".c"):
        raise InputError(
            "--selftest needs a C file", why="the main is part of it", hint="-o kernel.c --selftest"
        )
    if output is not None and output.suffix == ".so":
        c_compiler()  # refused before the search where there is none
    with progress(quiet=as_json) as tell:
        given, notes = ({}, []) if asked.data is None else read_operands(op, asked.data)
        kernel = compile_source(
            op, asked.isa, {n: v for n, v in given.items() if op.tensors[n].constant},
            options=Options(layout=asked.layout, pins=asked.pins), name=_name(output), tell=tell,
        )  # fmt: skip
        tell("comparing with NumPy", 0, 1)
        tensors = given or random_tensors(op, asked.seed)
        engine, why = (asked.engine, "") if asked.engine else engine_for(kernel)
        said = judged(kernel, tensors, engine) if engine else f"values were NOT compared: {why}"
        if output is not None:
            tell("writing", 0, 1)
            kernel.save(output, tensors if asked.selftest else None)
    written = [] if output is None else [str(output)]
    if as_json:
        print_json(document(kernel, said, engine) | {"written": written, "notes": notes})
        return
    lines = [kernel.report(), f"verified   {said}", *(f"note: {n}" for n in notes)]
    say("\n".join([*lines, *(f"wrote {w}" for w in written)]))


def engine_for(kernel: SourceKernel) -> tuple[str, str]:
    """(engine that can run the kernel here, or ""; why it is not run natively)."""
    from csp_embed.errors import MissingLibrary
    from csp_embed.targets.source.build import c_compiler, require_native

    try:
        c_compiler()
        if kernel.program is not None:
            require_native(kernel.isa)
    except MissingLibrary as error:
        why = f"{error.what}: {error.why}"
        steps = 0 if kernel.embedding is None else kernel.embedding.cost["steps"]
        return ("interpreted" if 0 < steps <= INTERPRETED_STEPS else ""), why
    return "native", ""


def document(kernel: SourceKernel, said: str, engine: str) -> dict[str, Any]:
    """What `--json` prints."""
    cost = {} if kernel.embedding is None else dict(kernel.embedding.cost)
    return {
        "operator": kernel.operator.name,
        "formula": kernel.operator.text(),
        "isa": kernel.isa.name,
        "kernel": kernel.ways(),
        "embedding": None if kernel.embedding is None else kernel.embedding.formula(),
        "figures": cost,
        "predicted_cycles": None if kernel.program is None else kernel.program.tiling.cycles,
        "engine": engine or None,
        "values_equal": True if engine else None,
        "verified": said,
    }


def _name(output: Path | None) -> str:
    """The kernel's C name: that of its file. Raises: InputError for one that C cannot have."""
    from csp_embed.targets.source.names import identifier

    stem = "kernel" if output is None else output.stem
    fit = stem.isidentifier() and stem.isascii() and ("_" in stem or identifier(stem) == stem)
    if not fit:
        raise InputError(
            f"{stem!r} is no name of a C function",
            where=str(output),
            why="the kernel is called like its file",
            hint="-o kernel.c",
        )
    return stem
