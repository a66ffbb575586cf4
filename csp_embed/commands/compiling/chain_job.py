"""What `csp-embed compile` does alike for machines whose loops run elsewhere: in C, in their host.

Such a job states its options and files; `run` goes through its chain, writes and reports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from csp_embed.commands.common import print_json, progress, say
from csp_embed.commands.compiling.watch import Watch
from csp_embed.commands.compiling.written import write_certificate, write_dot, write_refusal
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import Infeasible
from csp_embed.files import check_outputs

if TYPE_CHECKING:
    from csp_embed.compiler.request.options import Options
    from csp_embed.compiler.stages import Chain
    from csp_embed.embed.explain.reasons import Explanation
    from csp_embed.ir.operator import Operator
    from csp_embed.machine.spec import Isa


@dataclass
class ChainJob(ABC):
    """What the command line says that counts for such machines. output: a file of one of the
    suffixes, or None. idle: options without effect, for the reason why."""

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
    # Kept here: stages add to them while they run.
    notes: list[str] = field(default_factory=list[str])

    # Of a class, not of a job: they depend on the kind of machine alone.
    suffixes: ClassVar[tuple[str, ...]]
    idle: ClassVar[tuple[str, ...]]
    why: ClassVar[str]

    def require(self, context: typer.Context) -> None:
        """Raises: InputError for options without effect, and for outputs that cannot be written."""
        # Options of streams mean nothing here.
        refuse_ignored(context, self.idle, f"--isa {self.isa.name}", why=self.why)
        check_outputs(
            (self.output, self.suffixes), (self.certificate, (".json",)),
            (self.dot, (".dot", ".gv")), reads=(self.data, self.reuse),
        )  # fmt: skip

    @abstractmethod
    def chain(self, given: dict[str, Any], tell: Any) -> Chain:
        """The stages that this job runs. given: operands of --data, or none."""

    @abstractmethod
    def save(self, output: Path, kernel: Any, tensors: dict[str, Any]) -> list[str]:
        """Writes the kernel, with these operands where the file holds some; the paths."""

    @abstractmethod
    def document(self, kernel: Any, verdict: Any) -> dict[str, Any]:
        """What `--json` prints, without notes and files."""

    @abstractmethod
    def text(self, kernel: Any, verdict: Any) -> list[str]:
        """What is printed, without files."""

    def options(self, **more: Any) -> Options:
        """What the search is told; more: what one kind of machine knows."""
        from csp_embed.compiler.request.options import Options

        # Judged before it is used: the file may be anybody's.
        earlier = None
        if self.reuse is not None:
            from csp_embed.commands.compiling.reused import embedding_of

            earlier = embedding_of(self.reuse, self.isa)
        return Options(
            layout=self.layout, pins=self.pins, top=self.top, reuse=earlier, within=self.within,
            **more,
        )  # fmt: skip

    def operands(self) -> dict[str, Any]:
        """Those of --data; empty where random ones are to be made."""
        from csp_embed.commands.compiling.data_file import read_operands

        # Nothing given: random operands are made later, when the stage asks.
        if self.data is None:
            return {}
        given, notes = read_operands(self.op, self.data)
        self.notes += notes
        return given

    def constants(self, given: dict[str, Any]) -> dict[str, Any]:
        """Those of the operands that the kernel may hold."""
        # A kernel may have constants in its text; the others come with each call.
        return {n: v for n, v in given.items() if self.op.tensors[n].constant}

    def random(self) -> dict[str, Any]:
        """Operands where --data gives none."""
        from csp_embed.ops.data import random_tensors

        return random_tensors(self.op, self.seed)

    @property
    def source(self) -> str:
        """Where the operands come from, in words."""
        return f"random tensors of seed {self.seed}" if self.data is None else str(self.data)

    def write(self, kernel: Any, given: dict[str, Any]) -> list[str]:
        """Writes what was asked for; the paths."""
        written: list[str] = []
        if self.output is not None:
            # Constants of the kernel win: random ones would contradict its text.
            tensors = given or {**self.random(), **kernel.constants}
            written += self.save(self.output, kernel, tensors)
        if self.certificate is not None:
            write_certificate(self.certificate, kernel.certificate())
            written.append(str(self.certificate))
        return written

    def refused(self, error: Infeasible) -> None:
        """Writes the certificate of a problem without an embedding."""
        from csp_embed.embed.explain.reasons import none

        # Only contractions have embeddings to explain, and a reused one was not searched.
        if self.certificate is None or self.reuse is not None or self.op.kind != "contract":
            return
        found = none(self.op, self.isa, self.layout, self.pins)
        # An embedding may exist and the machine still refuse: then the certificate would be wrong.
        if self.unembeddable(found):
            write_refusal(self.certificate, self.op, self.isa, self.layout, self.pins, error, found)

    def unembeddable(self, found: Explanation) -> bool:
        """Whether no embedding is what the error is about."""
        return True


def run(context: typer.Context, job: ChainJob, stages: bool, show: bool, as_json: bool) -> None:
    """Compiles the operator, compares with NumPy, writes the output and reports.

    Raises: CheckError where values differ, before anything is written; InputError for options
    without effect; Infeasible for what the machine cannot do exactly, or pins leave nothing of.
    """
    job.require(context)
    watch = job.watch
    written: list[str] = []
    with progress(quiet=as_json) as tell:
        # Before the search, which may fail.
        if job.dot is not None:
            write_dot(job.dot, job.op)
        given = job.operands()
        chain = job.chain(given, tell)
        # The chain as it would run, and nothing else.
        if stages:
            print_json({"stages": str(chain)}) if as_json else print(chain)
            return
        try:
            made = chain.run(
                job.op, stop_after=watch.stop_after, check=watch.check, seen=watch.seen
            )
        except Infeasible as error:
            # The error goes on: the certificate only says why.
            job.refused(error)
            raise
        if watch.check:
            job.notes.append(f"verified after each stage: {', '.join(made.checked)}")
        # Written only after all stages held: a file that exists was judged.
        if watch.stop_after is None:
            tell("writing", 0, 1)
            written = job.write(made["program"], given)
    if watch.stop_after is not None:
        watch.print_stopped(job.op.name, made[watch.stop_after].show(), job.notes, show, as_json)
        return
    kernel, verdict = made["program"], made["values"]
    if as_json:
        found = job.document(kernel, verdict)
        print_json(found | {"written": written, "notes": job.notes} | watch.document())
        return
    say("\n".join([*job.text(kernel, verdict), *(f"wrote {w}" for w in written)]))
