"""`csp-embed compile` for a machine whose loops run in a CPU: a C file, a library, a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError
from csp_embed.files import check_outputs

if TYPE_CHECKING:
    from csp_embed.compiler.source_kernel import SourceKernel
    from csp_embed.machine.spec import Isa

SUFFIXES = (".c", ".so")
_IDLE = ("memory", "host_weight", "top", "cache", "reuse", "within", "report", "certificate", "dot",
         "stop_after", "show", "explain")  # fmt: skip
# Interpreting takes about 40 microseconds a step; this many take a quarter of a minute.
INTERPRETED_STEPS = 400_000


def run(context: typer.Context, job: Any, isa: Isa, output: Path | None,
        selftest: bool, as_json: bool) -> None:  # fmt: skip
    """Compiles the job's operator, compares with NumPy, writes `output` (.c or .so) and reports.

    job: a `Job`, of which operator, layout, pins, seed and data are used. Raises: CheckError where
    values differ, before anything is written; InputError for options without effect.
    """
    from csp_embed.compiler.source_kernel import compile_source, judged
    from csp_embed.ops.data import random_tensors
    from csp_embed.targets.source.build import c_compiler

    refuse_ignored(context, _IDLE, f"--isa {job.isa}", why="it writes C, not a stream")
    check_outputs((output, SUFFIXES), reads=(job.data,))
    if selftest and (output is None or output.suffix != ".c"):
        raise InputError(
            "--selftest needs a C file", why="the main is part of it", hint="-o kernel.c --selftest"
        )
    if output is not None and output.suffix == ".so":
        c_compiler()  # refused before the search where there is none
    with progress(quiet=as_json) as tell:
        given = job.tensors()
        kernel = compile_source(
            job.op, isa, job.constants(given or {}), layout=job.layout, pins=job.pins,
            name=_name(output), tell=tell,
        )  # fmt: skip
        tell("comparing with NumPy", 0, 1)
        tensors = given or random_tensors(job.op, job.seed or 0)
        engine, note = engine_for(kernel)
        said = judged(kernel, tensors, engine) if engine else f"values were NOT compared: {note}"
        if output is not None:
            tell("writing", 0, 1)
            kernel.save(output, tensors if selftest else None)
    written = [] if output is None else [str(output)]
    if as_json:
        print_json(document(kernel, said, engine) | {"written": written})
        return
    say("\n".join([kernel.report(), f"verified   {said}", *(f"wrote {w}" for w in written)]))


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
