"""A compiled operator of a machine that is fed commands: the stream, its image, and runs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.request.operands import by_name, operands
from csp_embed.embed.certificate.make import certificate
from csp_embed.errors import CheckError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.judge.certify.certificate import Certificate
from csp_embed.machine.commands.interpreter import HostMemory, execute
from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.machine.commands.words import decode, line
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.report.kernel import proved
from csp_embed.targets.commands.program import CommandProgram

Array = NDArray[Any]
# Point by point a step takes some milliseconds: beyond so many, all its points are done at once.
POINT_STEPS = 4


@dataclass(frozen=True)
class Choice:
    """An embedding with its stream."""

    embedding: Embedding
    program: CommandProgram


@dataclass(frozen=True, repr=False)
class CommandKernel:
    """tried: every candidate with its stream, the fewest predicted cycles first: that one is the
    kernel. constants: those whose values `compile` was given. seconds: of search and writing."""

    operator: Operator
    isa: Isa
    tried: tuple[Choice, ...]
    seconds: float
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])

    def __repr__(self) -> str:
        op = self.operator
        return (
            f"<CommandKernel {op.name} {op.formula()} on {self.isa.name}:"
            f" {len(self.lowered.words):,} commands, {self.cycles:,.0f} cycles predicted>"
        )

    @property
    def machine(self) -> CommandMachine:
        assert self.isa.commands is not None
        return self.isa.commands

    @property
    def lowered(self) -> CommandProgram:
        return self.tried[0].program

    @property
    def embedding(self) -> Embedding:
        return self.tried[0].embedding

    @property
    def cycles(self) -> float:
        """Predicted: the slowest of steps, bytes and commands, and a share of the others."""
        return self.lowered.cycles

    @property
    def candidates(self) -> tuple[tuple[Embedding, float], ...]:
        """(embedding, predicted cycles) of every candidate, fewest first."""
        return tuple((c.embedding, c.program.cycles) for c in self.tried)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """HOST address of the byte that holds each element of the result."""
        out = self.operator.tensors[self.operator.out.tensor]
        # `byte`: which byte of a stored value is the result, where sums are stored wide.
        return self.lowered.regions["dst"].addresses(out.shape) + self.lowered.epilogue.byte

    def before(self, tensors: Mapping[str, Array]) -> list[tuple[int, NDArray[np.uint8]]]:
        """HOST before the run: operands, and zeros where the result will be."""
        dst = self.lowered.regions["dst"]
        found = self.lowered.image(self._declared(tensors))
        # Results need bytes in HOST before the first store.
        return [*found, (dst.address, np.zeros(dst.size, np.uint8))]

    def run(self, *given: Any, **named: Any) -> Array:
        """Logical NumPy tensors in and out, by the spec's meanings.

        Raises: InputError for missing or unknown tensors, wrong shapes or types; SimError.
        """
        return self.interpret(by_name(self.operator, given, named))

    def interpret(self, tensors: Mapping[str, Array], *, whole: bool | None = None) -> Array:
        """As `run`. whole: all points of a command at once; None: where there are many steps."""
        host = HostMemory(self.before(tensors))
        # Both ways give the same (`isa check` compares them); all at once is faster.
        at_once = self.lowered.steps > POINT_STEPS if whole is None else whole
        execute(self.machine, self.isa.dims, self.lowered.words, host, whole=at_once)
        return host.bytes[self.places - host.low].view(self.operator.out_dtype)

    def check(self, *given: Any, **named: Any) -> list[Any]:
        """Problems of the embedding and the stream, and of the values on these operands (random
        ones where none are given) against NumPy; empty for a good kernel."""
        # Imported late: file.py knows this class.
        from csp_embed.compiler.commands.file import content

        asked = by_name(self.operator, given, named)
        # Given tensors must be complete; random ones stand beside the known constants.
        tensors = asked or {**random_tensors(self.operator, 0), **self.constants}
        return [*self.verify(), *content(self, tensors).problems()]

    def certify(self, *, rounds: int = 1, seed: int | None = None) -> Certificate:
        """Whether the stream is right for all inputs: `.ok`, `.show()`; docs/certify.md says what
        is proved and what is assumed. What `csp-embed certify` does of a file.

        Raises: CheckError for what the judge cannot decide.
        """
        from csp_embed.compiler.commands.file import content

        tensors = {**random_tensors(self.operator, 0), **self.constants}
        return content(self, tensors).certify(rounds=rounds, seed=seed)

    def verify(self) -> list[Any]:
        """Rules that the embedding breaks, and commands that cannot be read back."""
        from csp_embed.judge.embedding import judge as embedding_check

        found: list[Any] = list(
            embedding_check.judge(self.embedding, self.isa, limit=1_000_000).breaches
        )
        # Raises where a word is no command; what it decodes to is not needed.
        decode(self.machine, self.lowered.words)
        return found

    def difference(self, tensors: Mapping[str, Array], result: Array) -> str:
        """The first element that differs from NumPy's, in words; "" where all are equal."""
        name = self.operator.out.tensor
        expected = evaluate(self.operator, self._declared(tensors))[name]
        if np.array_equal(expected, result):
            return ""
        # One element is enough to find the mistake.
        at = tuple(int(n) for n in np.argwhere(expected != result)[0])
        where = ",".join(map(str, at))
        return f"{name}[{where}] is {int(result[at])}, and NumPy computes {int(expected[at])}"

    def save(self, path: str | Path, *given: Any, **named: Any) -> None:
        """Writes a program file with these operands, random ones where none are given.

        Raises: CheckError where a check refuses it, and then nothing is written; InputError.
        """
        from csp_embed.compiler.commands.file import content, write

        asked = by_name(self.operator, given, named)
        tensors = asked or {**random_tensors(self.operator, 0), **self.constants}
        file = content(self, tensors)
        # Judged before it is written: a file that exists has passed.
        problems = [*self.verify(), *file.problems()]
        if problems:
            raise CheckError(
                "the checks refuse the program",
                where=self.operator.name,
                why=str(problems[0]),
                hint="this is our mistake: please report it",
            )
        write(path, file)

    def certificate(self) -> dict[str, Any]:
        """What was proved about the embedding; see `embed/certificate/make.py`."""
        # Another candidate may have won by its stream; the bound belongs to the cheapest embedding.
        first = [e.proof for e, _ in self.candidates if e.proof.get("rank") == 0]
        return certificate(self.embedding, self.isa, best=first[0] if first else None)

    def show(self) -> str:
        """Its commands: what `--print-after program` prints."""
        return self.disassemble()

    def disassemble(self) -> str:
        """One command a line."""
        decoded = decode(self.machine, self.lowered.words)
        return "\n".join(line(self.machine, decoded, n) for n in range(len(decoded.code)))

    def report(self) -> str:
        """What a person wants to know, as text."""
        p, cost = self.lowered, self.embedding.cost
        counts = ", ".join(f"{n} {c:,}" for n, c in p.counts.items())
        lines = [
            self.operator.show(), f"machine    {self.isa.name}",
            f"embedding  {self.embedding.formula()}",
            f"           {self.embedding.kind}, {cost['utilisation']:.1%} of the lanes carry"
            " products of the formula",
            f"commands   {len(p.words):,}: {counts}",
            f"order      {p.walk.show()}",
            f"bytes      {p.loaded:,} loaded, {p.stored:,} stored",
            f"epilogue   by {p.epilogue.store.command.name}{_settings(p)}",
            # Products of the formula, without those on padding.
            f"cycles     {p.cycles:,.0f} predicted, {cost['macs'] / max(p.cycles, 1):.1f} products"
            " a cycle",
            f"proof      {proved(self.embedding.proof)}; {self.seconds:.2f} s",
        ]  # fmt: skip
        return "\n".join(lines)

    def explain(self) -> str:
        """The report with the alternatives whose streams were written."""
        rows = [f"  {c:>14,.0f}  {e.kind:<10} {e.formula()}" for e, c in self.candidates]
        return "\n".join([self.report(), "alternatives:", *rows])

    def _declared(self, tensors: Mapping[str, Any]) -> dict[str, Array]:
        return operands(self.operator, self.constants, tensors)


def _settings(p: CommandProgram) -> str:
    """How the store's parameters are set, and what is added to sums for it."""
    e = p.epilogue
    said = [f"{q.name} = {v:#x}" for q, v in e.settings.items()]
    said += [f"sums begin at {e.offset}"] if e.offset else []
    said += [f"byte {e.byte} of each value is the result"] if e.store.item > 1 else []
    return f" with {', '.join(said)}" if said else ""
