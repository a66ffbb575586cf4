"""`csp-embed compile` for a machine that is fed commands: a program file and a report."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.commands.watch import Watch
from csp_embed.errors import Infeasible
from csp_embed.files import atomic, check_outputs

if TYPE_CHECKING:
    from csp_embed.compiler.command_chain import CommandVerdict
    from csp_embed.compiler.command_kernel import CommandKernel
    from csp_embed.compiler.options import Options
    from csp_embed.compiler.stages import Chain
    from csp_embed.ir.operator import Operator
    from csp_embed.machine.spec import Isa

_IDLE = (
    "memory",
    "host_weight",
    "cache",
    "report",
    "verify",
    "bound",
    "selftest",
    "engine",
    "threads",
)


@dataclass
class CommandJob:
    """What the command line says that counts here. output: an .npz file, or None."""

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
    explain: bool
    watch: Watch
    notes: list[str] = field(default_factory=list[str])

    def require(self, context: typer.Context) -> None:
        """Raises: InputError for options without effect, and for outputs that cannot be written."""
        why = "its commands are written out, and run by the spec's meanings"
        refuse_ignored(context, _IDLE, f"--isa {self.isa.name}", why=why)
        check_outputs(
            (self.output, (".npz",)), (self.certificate, (".json",)), (self.dot, (".dot", ".gv")),
            reads=(self.data, self.reuse),
        )  # fmt: skip

    def chain(self, given: dict[str, Any], tell: Any) -> Chain:
        """The stages that this job runs. given: operands of --data, or none."""
        from csp_embed.compiler.command_chain import (
            CommandValuesStage,
            command_chain,
            command_setting,
        )
        from csp_embed.compiler.stages import Chain
        from csp_embed.ops.data import random_tensors

        constants = {n: v for n, v in given.items() if self.op.tensors[n].constant}
        setting = command_setting(self.op, self.isa, self._options(), constants, tell=tell)
        source = f"random tensors of seed {self.seed}" if self.data is None else str(self.data)
        values = CommandValuesStage(
            tensors=lambda: given or random_tensors(self.op, self.seed), data=source, tell=tell
        )
        return Chain((*command_chain(setting).stages, values))

    def _options(self) -> Options:
        from csp_embed.compiler.options import Options

        earlier = None
        if self.reuse is not None:
            from csp_embed.commands.reused import embedding_of

            earlier = embedding_of(self.reuse, self.isa)
        return Options(
            layout=self.layout, pins=self.pins, top=self.top, reuse=earlier, within=self.within
        )

    def operands(self) -> dict[str, Any]:
        """Those of --data; empty where random ones are to be made."""
        from csp_embed.commands.data_file import read_operands

        if self.data is None:
            return {}
        given, notes = read_operands(self.op, self.data)
        self.notes += notes
        return given

    def write(self, kernel: CommandKernel, given: dict[str, Any]) -> list[str]:
        """Writes what was asked for; the paths."""
        from csp_embed.compiler import command_file
        from csp_embed.ops.data import random_tensors

        written: list[str] = []
        if self.output is not None:
            tensors = given or {**random_tensors(self.op, self.seed), **kernel.constants}
            command_file.write(self.output, command_file.content(kernel, tensors))
            written.append(str(self.output))
        if self.certificate is not None:
            with atomic(self.certificate) as file:
                json.dump(kernel.certificate(), file, indent=1)
            written.append(str(self.certificate))
        return written

    def refused(self, error: Infeasible) -> None:
        """Writes the certificate of a problem without an embedding."""
        from csp_embed.embed.certificate.make import refusal
        from csp_embed.embed.explain.reasons import none

        if self.certificate is None or self.reuse is not None or self.op.kind != "contract":
            return
        found = none(self.op, self.isa, self.layout, self.pins)
        if not found.proved:
            return  # there are embeddings: the machine refuses the epilogue, and the error says why
        document = refusal(
            self.op, self.isa, self.layout, status="infeasible", why=error.why or error.what,
            search={"pins": list(self.pins)}, conflict=found.conflict,
            relaxations=found.relaxations,
        )  # fmt: skip
        with atomic(self.certificate) as file:
            json.dump(document, file, indent=1)


def run(context: typer.Context, job: CommandJob, stages: bool, show: bool, as_json: bool) -> None:
    """Compiles the operator, compares with NumPy, writes the output and reports.

    Raises: CheckError where values differ, before anything is written; InputError for options
    without effect; Infeasible for what the machine cannot do exactly.
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
            found["alternatives"] = [
                {"kind": e.kind, "predicted_cycles": c, "embedding": e.formula()}
                for e, c in kernel.candidates
            ]
        print_json(found | {"written": written, "notes": job.notes} | watch.document())
        return
    text = kernel.explain() if job.explain else kernel.report()
    lines = [text, f"verified   {verdict.words}", *(f"note: {n}" for n in job.notes)]
    say("\n".join([*lines, *(f"wrote {w}" for w in written)]))


def document(kernel: CommandKernel, verdict: CommandVerdict) -> dict[str, Any]:
    """What `--json` prints."""
    p = kernel.lowered
    return {
        "operator": kernel.operator.name,
        "formula": kernel.operator.text(),
        "isa": kernel.isa.name,
        "embedding": kernel.embedding.formula(),
        "status": kernel.embedding.proof.get("status"),
        "figures": dict(kernel.embedding.cost),
        "commands": len(p.words),
        "counts": dict(p.counts),
        "loaded_bytes": p.loaded,
        "stored_bytes": p.stored,
        "order": p.walk.show(),
        "predicted_cycles": kernel.cycles,
        "values_equal": True,
        "verified": verdict.words,
    }
