"""`csp-embed compile` for a machine whose loops run in a CPU: a C file, a library, a comparison."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.commands.watch import Watch
from csp_embed.errors import Infeasible, InputError
from csp_embed.files import atomic, check_outputs

if TYPE_CHECKING:
    from csp_embed.compiler.options import Options
    from csp_embed.compiler.source_chain import SourceVerdict
    from csp_embed.compiler.source_kernel import SourceKernel
    from csp_embed.compiler.stages import Chain
    from csp_embed.ir.operator import Operator
    from csp_embed.machine.spec import Isa

SUFFIXES = (".c", ".so", ".npz")
_IDLE = ("memory", "host_weight", "cache", "report", "verify")


@dataclass
class SourceJob:
    """What the command line says that counts here. output: a .c, .so or .npz file, or None."""

    op: Operator
    isa: Isa
    layout: str
    pins: tuple[str, ...]
    top: int
    reuse: Path | None
    within: float
    seed: int
    data: Path | None
    output: Path | None
    certificate: Path | None
    dot: Path | None
    selftest: bool
    engine: str | None
    threads: int
    explain: bool
    watch: Watch
    notes: list[str] = field(default_factory=list)

    def require(self, context: typer.Context) -> None:
        """Raises: InputError for options without effect, and for outputs that cannot be written."""
        from csp_embed.compiler.source_kernel import ENGINES
        from csp_embed.targets.source.build import c_compiler

        why = "it writes C, not a stream"
        refuse_ignored(context, _IDLE, f"--isa {self.isa.name}", why=why)
        if self.watch.stop_after is not None:
            idle = ("selftest",) if self.watch.stop_after == "values" else ("selftest", "engine")
            refuse_ignored(
                context, idle, f"--stop-after {self.watch.stop_after}",
                why="it ends before that counts",
            )  # fmt: skip
        check_outputs(
            (self.output, SUFFIXES), (self.certificate, (".json",)), (self.dot, (".dot", ".gv")),
            reads=(self.data, self.reuse),
        )  # fmt: skip
        if self.engine not in (None, *ENGINES):
            raise InputError(
                f"no engine '{self.engine}'",
                where="--engine",
                why=f"kernels of C run {' or '.join(ENGINES)}",
                hint="--engine interpreted",
            )
        if self.selftest and (self.output is None or self.output.suffix != ".c"):
            raise InputError(
                "--selftest needs a C file", why="the main is part of it",
                hint="-o kernel.c --selftest",
            )  # fmt: skip
        if self.output is not None and self.output.suffix == ".so":
            c_compiler()  # refused before the search where there is none

    def chain(self, given: dict[str, Any], tell: Any) -> Chain:
        """The stages that this job runs. given: operands of --data, or none."""
        from csp_embed.compiler.source_chain import (
            SourceValuesStage,
            source_chain,
            source_setting,
        )
        from csp_embed.compiler.stages import Chain
        from csp_embed.ops.data import random_tensors

        constants = {n: v for n, v in given.items() if self.op.tensors[n].constant}
        setting = source_setting(
            self.op, self.isa, self._options(), constants, name=_name(self.output), tell=tell
        )
        source = f"random tensors of seed {self.seed}" if self.data is None else str(self.data)
        values = SourceValuesStage(
            tensors=lambda: given or random_tensors(self.op, self.seed),
            engine=self.engine, data=source, tell=tell,
        )  # fmt: skip
        return Chain((*source_chain(setting).stages, values))

    def _options(self) -> Options:
        from csp_embed.compiler.options import Options

        earlier = None
        if self.reuse is not None:
            from csp_embed.commands.reused import embedding_of

            earlier = embedding_of(self.reuse, self.isa)
        return Options(
            layout=self.layout, pins=self.pins, top=self.top, reuse=earlier, within=self.within,
            threads=self.threads,
        )  # fmt: skip

    def operands(self) -> dict[str, Any]:
        """Those of --data; empty where random ones are to be made."""
        from csp_embed.commands.data_file import read_operands

        if self.data is None:
            return {}
        given, notes = read_operands(self.op, self.data)
        self.notes += notes
        return given

    def refused(self, error: Infeasible) -> None:
        """Writes the certificate of a problem without an embedding."""
        from csp_embed.embed.certificate.make import refusal
        from csp_embed.embed.explain.reasons import none

        if self.certificate is None or self.reuse is not None:
            return
        found = none(self.op, self.isa, self.layout, self.pins)
        document = refusal(
            self.op, self.isa, self.layout, status="infeasible", why=error.why or error.what,
            search={"pins": list(self.pins)}, conflict=found.conflict,
            relaxations=found.relaxations,
        )  # fmt: skip
        with atomic(self.certificate) as file:
            json.dump(document, file, indent=1)

    def write(self, kernel: SourceKernel, given: dict[str, Any]) -> list[str]:
        """Writes what was asked for; the paths."""
        from csp_embed.compiler import source_file
        from csp_embed.ops.data import random_tensors

        written = []
        tensors = given or {**random_tensors(self.op, self.seed), **kernel.constants}
        if self.output is not None:
            if self.output.suffix == ".npz":
                source_file.save(self.output, kernel, tensors)
                written.append(str(self.output))
            else:
                written += kernel.save(self.output, tensors if self.selftest else None)
        if self.certificate is not None:
            with atomic(self.certificate) as file:
                json.dump(kernel.certificate(), file, indent=1)
            written.append(str(self.certificate))
        return written


def run(context: typer.Context, job: SourceJob, stages: bool, show: bool, as_json: bool) -> None:
    """Compiles the operator, compares with NumPy, writes the output and reports.

    Raises: CheckError where values differ, before anything is written; InputError for options
    without effect.
    """
    job.require(context)
    watch = job.watch
    written: list[str] = []
    with progress(quiet=as_json) as tell:
        if job.dot is not None:
            from csp_embed.ir.dfg import dataflow

            with atomic(job.dot) as file:
                file.write(dataflow(job.op).dot())
        given = job.operands()
        chain = job.chain(given, tell)
        if stages:
            print_json({"stages": str(chain)}) if as_json else print(chain)
            return
        try:
            made = chain.run(
                job.op, stop_after=watch.stop_after, check=watch.check, seen=watch.seen
            )
        except Infeasible as error:
            job.refused(error)
            raise
        if watch.check:
            job.notes.append(f"verified after each stage: {', '.join(made.checked)}")
        if watch.stop_after is None:
            tell("writing", 0, 1)
            written = job.write(made["program"], given)
    if watch.stop_after is not None:
        watch.print_stopped(job.op.name, made[watch.stop_after].show(), job.notes, show, as_json)
        return
    kernel, verdict = made["program"], made["values"]
    if as_json:
        found = document(kernel, verdict)
        if job.explain:
            found["alternatives"] = _alternatives(kernel)
        print_json(found | {"written": written, "notes": job.notes} | watch.document())
        return
    lines = [kernel.report(), f"verified   {verdict.words}", *(f"note: {n}" for n in job.notes)]
    if job.explain and kernel.tried:
        lines += ["alternatives that were priced:"]
        lines += [f"  {a['predicted_cycles']:>14,.0f}  {a['kind']:<18} {a['embedding']}"
                  for a in _alternatives(kernel)]  # fmt: skip
    say("\n".join([*lines, *(f"wrote {w}" for w in written)]))


def _alternatives(kernel: SourceKernel) -> list[dict[str, Any]]:
    """The embeddings that were priced, cheapest first."""
    return [
        {"kind": e.kind + (" commuted" if e.commuted else ""), "predicted_cycles": cycles,
         "embedding": e.formula()}
        for e, cycles in kernel.candidates
    ]  # fmt: skip


def document(kernel: SourceKernel, verdict: SourceVerdict) -> dict[str, Any]:
    """What `--json` prints."""
    cost = {} if kernel.embedding is None else dict(kernel.embedding.cost)
    return {
        "operator": kernel.operator.name,
        "formula": kernel.operator.text(),
        "isa": kernel.isa.name,
        "kernel": kernel.ways(),
        "embedding": None if kernel.embedding is None else kernel.embedding.formula(),
        "status": None if kernel.embedding is None else kernel.embedding.proof.get("status"),
        "figures": cost,
        "predicted_cycles": kernel.cycles,
        "engine": verdict.engine or None,
        "values_equal": True if verdict.engine else None,
        "verified": verdict.words,
    }


def _name(output: Path | None) -> str:
    """The kernel's C name: that of its file. Raises: InputError for one that C cannot have."""
    from csp_embed.targets.source.names import identifier

    stem = "kernel" if output is None or output.suffix == ".npz" else output.stem
    fit = stem.isidentifier() and stem.isascii() and ("_" in stem or identifier(stem) == stem)
    if not fit:
        raise InputError(
            f"{stem!r} is no name of a C function",
            where=str(output),
            why="the kernel is called like its file",
            hint="-o kernel.c",
        )
    return stem
