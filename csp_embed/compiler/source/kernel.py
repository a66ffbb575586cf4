"""A compiled operator of a machine whose loops run in a CPU: one C file, and calls of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.request.operands import by_name, operands
from csp_embed.compiler.source.schedule import Choice
from csp_embed.embed.certificate.make import certificate
from csp_embed.errors import CheckError, InputError, MissingLibrary
from csp_embed.files import atomic
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.report.kernel import proved
from csp_embed.targets.source import audit, interpret
from csp_embed.targets.source.lower import SourceProgram
from csp_embed.targets.source.toolchain import emulate
from csp_embed.targets.source.toolchain.build import Native, build, c_compiler, require_native
from csp_embed.targets.source.written.emit import CFile, header
from csp_embed.targets.source.written.selftest import main_text

if TYPE_CHECKING:
    from csp_embed.judge.certify.certificate import Certificate

Array = NDArray[Any]
ENGINES = ("native", "emulated", "interpreted")
# Interpreting takes about 40 microseconds a step; this many take a quarter of a minute.
INTERPRETED_STEPS = 400_000


@dataclass(frozen=True, repr=False)
class SourceKernel:
    """embedding, program: None where the operator is plain loops, for the reason `why`.
    constants: those whose values `compile` was given. seconds: of search and writing. tried: every
    candidate with its price, the least first."""

    operator: Operator
    isa: Isa
    file: CFile
    embedding: Embedding | None
    program: SourceProgram | None
    why: str
    seconds: float
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])
    tried: tuple[Choice, ...] = ()

    def __repr__(self) -> str:
        op = self.operator
        return f"<SourceKernel {op.name} {op.formula()} on {self.isa.name}: {self.ways()}>"

    def ways(self) -> str:
        """In a few words how it is computed."""
        if self.program is None or self.embedding is None:
            return f"plain loops, since {self.why}"
        # None: that side has one row or column of sums.
        tiling = self.program.tiling
        rows = 1 if tiling.rows is None else tiling.rows[1]
        columns = 1 if tiling.columns is None else tiling.columns[1]
        threads = f", {self.file.threads} threads" if self.file.threads > 1 else ""
        return f"{self.embedding.instruction}, {rows} x {columns} sums in registers{threads}"

    @property
    def cycles(self) -> float | None:
        """Predicted, packing included; None for plain loops."""
        return self.tried[0].price.total if self.tried else None

    @property
    def candidates(self) -> tuple[tuple[Embedding, float], ...]:
        """(embedding, predicted cycles) of every candidate, fewest first."""
        return tuple((c.embedding, c.price.total) for c in self.tried)

    def engine(self) -> tuple[str, str]:
        """(engine that can run the kernel here, or ""; why it is not run natively)."""
        try:
            # A compiler first: without one even plain C does not run.
            c_compiler()
            if self.program is not None:
                require_native(self.isa)
        except MissingLibrary as error:
            why = f"{error.what}: {error.why}"
            # An emulator stands in for the CPU, not for the compiler here.
            try:
                emulate.commands(self.isa)
            except MissingLibrary as other:
                why += f"; {other.what}" * bool(self.isa.program and self.isa.program.runner.arch)
            else:
                return "emulated", why
            counters = None if self.embedding is None else self.embedding.counters
            # Each step is a call of a template in Python.
            steps = 0 if counters is None else math.prod(c.extent for c in counters)
            return ("interpreted" if 0 < steps <= INTERPRETED_STEPS else ""), why
        return "native", ""

    def certificate(self) -> dict[str, Any]:
        """What was proved about the embedding; see `embed/certificate/make.py`. Raises: InputError
        for plain loops, about which nothing is proved."""
        if self.embedding is None:
            raise InputError(
                f"{self.operator.name} has no certificate",
                why=f"it is plain loops, since {self.why}: no embedding was chosen",
                hint="leave out the certificate",
            )
        # The bound belongs to the cheapest embedding, whichever tile won.
        first = [e.proof for e, _ in self.candidates if e.proof.get("rank") == 0]
        return certificate(self.embedding, self.isa, best=first[0] if first else None)

    def show(self) -> str:
        """The C file: what `--print-after program` prints."""
        return self.file.text

    def verify(self) -> list[Any]:
        """Rules that the embedding breaks, and templates that may leave their buffers."""
        from csp_embed.judge.embedding import judge as embedding_check

        if self.embedding is None or self.program is None:
            return []
        found = embedding_check.judge(self.embedding, self.isa, limit=1_000_000).breaches
        return [*found, *audit.breaches(self.program, self.isa)]

    @property
    def text(self) -> str:
        """The C file."""
        return self.file.text

    @cached_property
    def native(self) -> Native:
        """The kernel as this computer runs it. Raises: MissingLibrary where it cannot."""
        if self.program is not None:
            require_native(self.isa)
        # The library stays loaded after its file is gone.
        with tempfile.TemporaryDirectory(prefix="csp-embed-") as folder:
            path = Path(folder, "kernel.so")
            build(self.file, self.isa, path, plain=self.program is None)
            return Native.load(self.file, self.operator, self.isa, path)

    def run(self, *given: Any, **named: Any) -> Array:
        """Logical NumPy tensors in and out, computed by this computer's CPU.

        Raises: InputError for missing or unknown tensors, wrong shapes or types; MissingLibrary
        without a C compiler or where the CPU lacks an instruction (then: `interpret`).
        """
        return self.native.run(self._declared(by_name(self.operator, given, named)))

    @cached_property
    def emulated(self) -> emulate.Emulated:
        """The kernel as the machine's emulator runs it."""
        return emulate.Emulated(self.file, self.operator, self.isa)

    def emulate(self, *given: Any, **named: Any) -> Array:
        """As `run`, by the emulator that the spec names. Raises: MissingLibrary where it or the
        cross compiler is not here."""
        return self.emulated.run(self._declared(by_name(self.operator, given, named)))

    def by(self, engine: str, tensors: Mapping[str, Array]) -> Array:
        """The result by one of ENGINES; natively in a process of its own."""
        if engine == "native":
            return self.native.run_apart(self._declared(by_name(self.operator, (), tensors)))
        return self.emulate(**tensors) if engine == "emulated" else self.interpret(**tensors)

    def interpret(self, *given: Any, **named: Any) -> Array:
        """As `run`, by the meanings that the spec states; slow, and needs no CPU in particular."""
        tensors = self._declared(by_name(self.operator, given, named))
        if self.program is None:
            raise InputError(
                f"{self.operator.name} uses no instruction of {self.isa.name}",
                why=f"it is plain loops, since {self.why}: there are no meanings to interpret",
                hint="kernel.run(…), or --engine native, runs it on any CPU",
            )
        return interpret.run(self.program, self.isa, tensors)

    def check(self, *given: Any, **named: Any) -> list[Any]:
        """Problems of the embedding, and of the values on these operands (random ones where none
        are given) against NumPy; empty for a good kernel."""
        asked = by_name(self.operator, given, named)
        # Constants of `compile` are part of the random operands: the kernel may hold them as data.
        tensors = self._declared(asked or {**random_tensors(self.operator, 0), **self.constants})
        engine, why = self.engine()
        if not engine:
            raise MissingLibrary("nothing on this computer runs the kernel", why=why,
                                 hint="csp-embed isa doctor says what is missing")  # fmt: skip
        difference = self.difference(tensors, self.by(engine, tensors))
        return [*self.verify(), *([difference] if difference else [])]

    def certify(self, *, rounds: int | None = None, seed: int | None = None) -> Certificate:
        """Whether the kernel's index maps are right for all inputs: `.ok`, `.show()`; what is
        proved, tested and assumed is in docs/certify.md. What `csp-embed certify` does of a file.

        rounds: random points (8 by default); each multiplies the error's probability. seed: of
        these points.
        Raises: CheckError for an operator without products or with sums that int32 cannot tell
        apart; MissingLibrary where this computer cannot build or run the kernel.
        """
        from csp_embed.compiler.source.certifying import ROUNDS, certified_source

        return certified_source(self, rounds=ROUNDS if rounds is None else rounds, seed=seed)

    def difference(self, tensors: Mapping[str, Array], result: Array) -> str:
        """The first element that differs from NumPy's, in words; "" where all are equal."""
        name = self.operator.out.tensor
        expected = evaluate(self.operator, tensors)[name]
        if np.array_equal(expected, result):
            return ""
        at = tuple(int(n) for n in np.argwhere(expected != result)[0])
        where = ",".join(map(str, at))
        return f"{name}[{where}] is {int(result[at])}, and NumPy computes {int(expected[at])}"

    def save(self, path: str | Path, selftest: Mapping[str, Array] | None = None) -> list[str]:
        """Writes the C file (.c) and its header (.h), or builds the text into a shared library
        (.so); the paths. selftest: operands on which a main in the C file checks the kernel against
        NumPy's values."""
        target = Path(path)
        # The ending decides: a library is built here, a C file anywhere.
        if target.suffix == ".so":
            build(self.file, self.isa, target, plain=self.program is None)
            return [str(target)]
        if target.suffix != ".c":
            raise InputError(
                f"{target} does not end in .c or .so",
                where=str(target),
                why=f"{self.isa.name} runs C",
                hint=str(target.with_suffix(".c")),
            )
        # Text and test in one file; each is whole or not there.
        with atomic(target) as file:
            file.write(self.file.text)
            if selftest is not None:
                file.write(self.selftest(selftest))
        # The header is written beside it, so that callers need not read the kernel.
        beside = target.with_suffix(".h")
        with atomic(beside) as file:
            file.write(header(self.file, self.operator, self.isa))
        return [str(target), str(beside)]

    def selftest(self, tensors: Mapping[str, Array]) -> str:
        """A `main` for the C file: 0 where the kernel computes NumPy's values on these operands."""
        name = self.operator.out.tensor
        declared = self._declared(tensors)
        expected = evaluate(self.operator, declared)[name]
        return main_text(self.file, self.operator, {**declared, name: expected}, self.isa)

    def _declared(self, tensors: Mapping[str, Any]) -> dict[str, Array]:
        return operands(self.operator, self.constants, tensors)

    def report(self) -> str:
        """What a person wants to know, as text."""
        lines = [self.operator.show(), f"machine    {self.isa.name}", f"kernel     {self.ways()}"]
        if self.program is None or self.embedding is None:
            return "\n".join(lines)
        cost = self.embedding.cost
        price = self.tried[0].price
        macs, cycles = cost["macs"], price.total
        # Bytes that the kernel needs beside its arguments, packed operands included.
        work = sum(b.elements * np.dtype(b.dtype).itemsize for b in self.program.buffers)
        lines += [
            f"embedding  {self.embedding.formula()}",
            f"           {self.embedding.kind}, {cost['utilisation']:.1%} of the lanes carry"
            " products of the formula",
            f"steps      {cost['steps']:,.0f}; {price.show()}: {macs / max(cycles, 1):.1f} products"
            " a cycle",
            f"proof      {proved(self.embedding.proof)}; {self.seconds:.2f} s",
            f"buffers    {work:,} bytes",
        ]
        return "\n".join(lines)

    def explain(self) -> str:
        """The report; alternatives are listed by `csp-embed explain`."""
        return self.report()

    def disassemble(self) -> str:
        """The C file: nothing lower is ours."""
        return self.file.text


def judged(kernel: SourceKernel, tensors: Mapping[str, Array], engine: str) -> str:
    """What was compared, in words. Raises: CheckError where values differ from NumPy."""
    result = kernel.by(engine, tensors)
    difference = kernel.difference(tensors, result)
    if difference:
        raise CheckError(
            "the kernel's result differs from NumPy",
            where=kernel.operator.name,
            why=difference,
            hint="this is our mistake: please report the command",
        )
    return f"run {engine}: all {result.size:,} values equal NumPy's"
