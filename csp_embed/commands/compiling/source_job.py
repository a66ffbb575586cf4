"""`csp-embed compile` for a machine whose loops run in a CPU: a C file, a library, a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from csp_embed.commands.compiling.chain_job import ChainJob
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError

if TYPE_CHECKING:
    from csp_embed.compiler.source.chain import SourceVerdict
    from csp_embed.compiler.source.kernel import SourceKernel
    from csp_embed.compiler.stages import Chain


@dataclass(kw_only=True)
class SourceJob(ChainJob):
    """Its output is a .c, .so or .npz file."""

    # Without defaults behind inherited fields that have them: hence kw_only.
    selftest: bool
    engine: str | None
    threads: int

    suffixes: ClassVar[tuple[str, ...]] = (".c", ".so", ".npz")
    idle: ClassVar[tuple[str, ...]] = ("memory", "host_weight", "cache", "report", "verify")
    why: ClassVar[str] = "it writes C, not a stream"

    def require(self, context: typer.Context) -> None:
        from csp_embed.compiler.source.kernel import ENGINES
        from csp_embed.targets.source.toolchain.build import c_compiler

        super().require(context)
        if self.watch.stop_after is not None:
            # Before the values no engine runs; before the text there is no self-test.
            idle = ("selftest",) if self.watch.stop_after == "values" else ("selftest", "engine")
            refuse_ignored(
                context, idle, f"--stop-after {self.watch.stop_after}",
                why="it ends before that counts",
            )  # fmt: skip
        if self.engine not in (None, *ENGINES):
            raise InputError(
                f"no engine '{self.engine}'",
                where="--engine",
                why=f"kernels of C run {' or '.join(ENGINES)}",
                hint="--engine interpreted",
            )
        # A library or an archive has no main.
        if self.selftest and (self.output is None or self.output.suffix != ".c"):
            raise InputError(
                "--selftest needs a C file", why="the main is part of it",
                hint="-o kernel.c --selftest",
            )  # fmt: skip
        if self.output is not None and self.output.suffix == ".so":
            c_compiler()  # refused before the search where there is none

    def chain(self, given: dict[str, Any], tell: Any) -> Chain:
        from csp_embed.compiler.source.chain import (
            SourceValuesStage,
            source_chain,
            source_setting,
        )
        from csp_embed.compiler.stages import Chain

        setting = source_setting(
            self.op, self.isa, self.options(threads=self.threads), self.constants(given),
            name=_name(self.output), tell=tell,
        )  # fmt: skip
        # Asked for late, see `CommandJob`.
        values = SourceValuesStage(
            tensors=lambda: given or self.random(), engine=self.engine, data=self.source, tell=tell
        )
        return Chain((*source_chain(setting).stages, values))

    def save(self, output: Path, kernel: SourceKernel, tensors: dict[str, Any]) -> list[str]:
        from csp_embed.compiler.source import file as source_file

        # An .npz carries operands and expected values; C and libraries do not.
        if output.suffix == ".npz":
            source_file.save(output, kernel, tensors)
            return [str(output)]
        return kernel.save(output, tensors if self.selftest else None)

    def document(self, kernel: SourceKernel, verdict: SourceVerdict) -> dict[str, Any]:
        # Plain loops have no embedding and no cost of one.
        cost = {} if kernel.embedding is None else dict(kernel.embedding.cost)
        found: dict[str, Any] = {
            "operator": kernel.operator.name,
            "formula": kernel.operator.text(),
            "isa": kernel.isa.name,
            "kernel": kernel.ways(),
            "embedding": None if kernel.embedding is None else kernel.embedding.formula(),
            "status": None if kernel.embedding is None else kernel.embedding.proof.get("status"),
            "figures": cost,
            "predicted_cycles": kernel.cycles,
            "engine": verdict.engine or None,
            # None: nothing ran, so nothing is known.
            "values_equal": True if verdict.engine else None,
            "verified": verdict.words,
        }
        if self.explain:
            found["alternatives"] = _alternatives(kernel)
        return found

    def text(self, kernel: SourceKernel, verdict: SourceVerdict) -> list[str]:
        notes = (f"note: {n}" for n in self.notes)
        lines = [kernel.report(), f"verified   {verdict.words}", *notes]
        # Embeddings that were priced; plain loops have none.
        if self.explain and kernel.tried:
            lines += ["alternatives that were priced:"]
            lines += [f"  {a['predicted_cycles']:>14,.0f}  {a['kind']:<18} {a['embedding']}"
                      for a in _alternatives(kernel)]  # fmt: skip
        return lines


def _alternatives(kernel: SourceKernel) -> list[dict[str, Any]]:
    """The embeddings that were priced, cheapest first."""
    return [
        {"kind": e.kind + (" commuted" if e.commuted else ""), "predicted_cycles": cycles,
         "embedding": e.formula()}
        for e, cycles in kernel.candidates
    ]  # fmt: skip


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
