"""`csp-embed compile` for a machine that is fed commands: a program file and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from csp_embed.commands.compiling.chain_job import ChainJob

if TYPE_CHECKING:
    from csp_embed.compiler.commands.chain import CommandVerdict
    from csp_embed.compiler.commands.kernel import CommandKernel
    from csp_embed.compiler.stages import Chain
    from csp_embed.embed.explain.reasons import Explanation


@dataclass
class CommandJob(ChainJob):
    """Its output is an .npz file."""

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    # Such machines have no memory interface to choose and nothing to simulate.
    idle: ClassVar[tuple[str, ...]] = (
        "memory", "host_weight", "cache", "report", "verify", "bound", "selftest", "engine",
        "threads",
    )  # fmt: skip
    why: ClassVar[str] = "its commands are written out, and run by the spec's meanings"

    def chain(self, given: dict[str, Any], tell: Any) -> Chain:
        from csp_embed.compiler.commands.chain import (
            CommandValuesStage,
            command_chain,
            command_setting,
        )
        from csp_embed.compiler.stages import Chain

        # Constants may be packed before: their values are known to the search.
        setting = command_setting(
            self.op, self.isa, self.options(), self.constants(given), tell=tell
        )
        # Asked for late: --stop-after may end before any operand is needed.
        values = CommandValuesStage(
            tensors=lambda: given or self.random(), data=self.source, tell=tell
        )
        return Chain((*command_chain(setting).stages, values))

    def save(self, output: Path, kernel: CommandKernel, tensors: dict[str, Any]) -> list[str]:
        from csp_embed.compiler.commands import file as command_file

        command_file.write(output, command_file.content(kernel, tensors))
        return [str(output)]

    def unembeddable(self, found: Explanation) -> bool:
        # Else there are embeddings: the machine refuses the epilogue, and the error says why.
        return found.proved

    def document(self, kernel: CommandKernel, verdict: CommandVerdict) -> dict[str, Any]:
        p = kernel.lowered
        found: dict[str, Any] = {
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
            # A difference would have been an error before.
            "values_equal": True,
            "verified": verdict.words,
        }
        if self.explain:
            found["alternatives"] = [
                {"kind": e.kind, "predicted_cycles": c, "embedding": e.formula()}
                for e, c in kernel.candidates
            ]
        return found

    def text(self, kernel: CommandKernel, verdict: CommandVerdict) -> list[str]:
        text = kernel.explain() if self.explain else kernel.report()
        return [text, f"verified   {verdict.words}", *(f"note: {n}" for n in self.notes)]
