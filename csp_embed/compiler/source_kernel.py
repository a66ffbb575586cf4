"""A compiled operator of a machine whose loops run in a CPU: one C file, and calls of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.candidates import problem_of
from csp_embed.compiler.operands import by_name, operands
from csp_embed.compiler.options import Options
from csp_embed.embed.explain.reasons import none as explain_none
from csp_embed.embed.search import embeddings
from csp_embed.errors import CheckError, Infeasible, InputError
from csp_embed.files import atomic
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.compilable import require
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source import interpret
from csp_embed.targets.source.build import Native, build, require_native
from csp_embed.targets.source.emit import CFile, constant_data, write, write_plain
from csp_embed.targets.source.lower import SourceProgram, lower
from csp_embed.targets.source.selftest import main_text

Array = NDArray[Any]
ENGINES = ("native", "interpreted")


@dataclass(frozen=True, repr=False)
class SourceKernel:
    """embedding, program: None where the operator is plain loops, for the reason `why`.
    constants: those whose values `compile` was given. seconds: of search and writing."""

    operator: Operator
    isa: Isa
    file: CFile
    embedding: Embedding | None
    program: SourceProgram | None
    why: str
    seconds: float
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])

    def __repr__(self) -> str:
        op = self.operator
        return f"<SourceKernel {op.name} {op.formula()} on {self.isa.name}: {self.ways()}>"

    def ways(self) -> str:
        """In a few words how it is computed."""
        if self.program is None or self.embedding is None:
            return f"plain loops, since {self.why}"
        tiling = self.program.tiling
        rows = 1 if tiling.rows is None else tiling.rows[1]
        columns = 1 if tiling.columns is None else tiling.columns[1]
        return f"{self.embedding.instruction}, {rows} x {columns} sums in registers"

    @property
    def text(self) -> str:
        """The C file."""
        return self.file.text

    @cached_property
    def native(self) -> Native:
        """The kernel as this computer runs it. Raises: MissingLibrary where it cannot."""
        if self.program is not None:
            require_native(self.isa)
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
        from csp_embed.judge import embedding as embedding_check

        asked = by_name(self.operator, given, named)
        tensors = self._declared(asked or {**random_tensors(self.operator, 0), **self.constants})
        found: list[Any] = []
        if self.embedding is not None:
            found += embedding_check.judge(self.embedding, self.isa, limit=1_000_000).breaches
        difference = self.difference(tensors, self.native.run(tensors))
        return [*found, *([difference] if difference else [])]

    def difference(self, tensors: Mapping[str, Array], result: Array) -> str:
        """The first element that differs from NumPy's, in words; "" where all are equal."""
        name = self.operator.out.tensor
        expected = evaluate(self.operator, tensors)[name]
        if np.array_equal(expected, result):
            return ""
        at = tuple(int(n) for n in np.argwhere(expected != result)[0])
        where = ",".join(map(str, at))
        return f"{name}[{where}] is {int(result[at])}, and NumPy computes {int(expected[at])}"

    def save(self, path: str | Path, selftest: Mapping[str, Array] | None = None) -> None:
        """Writes the C file (.c), or builds it into a shared library (.so). selftest: operands on
        which a main in the C file checks the kernel against NumPy's values."""
        target = Path(path)
        if target.suffix == ".so":
            build(self.file, self.isa, target, plain=self.program is None)
            return
        if target.suffix != ".c":
            raise InputError(
                f"{target} does not end in .c or .so",
                where=str(target),
                why=f"{self.isa.name} runs C",
                hint=str(target.with_suffix(".c")),
            )
        with atomic(target) as file:
            file.write(self.file.text)
            if selftest is not None:
                file.write(self.selftest(selftest))

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
        macs = cost["macs"]
        cycles = self.program.tiling.cycles
        work = sum(b.elements * np.dtype(b.dtype).itemsize for b in self.program.buffers)
        lines += [
            f"embedding  {self.embedding.formula()}",
            f"           {self.embedding.kind}, {cost['utilisation']:.1%} of the lanes carry"
            " products of the formula",
            f"steps      {cost['steps']:,.0f}, about {cycles:,.0f} cycles by the spec's rates:"
            f" {macs / max(cycles, 1):.1f} products a cycle",
            f"buffers    {work:,} bytes",
        ]
        return "\n".join(lines)

    def explain(self) -> str:
        """The report; alternatives are listed by `csp-embed explain`."""
        return self.report()

    def disassemble(self) -> str:
        """The C file: nothing lower is ours."""
        return self.file.text


def compile_source(
    op: Operator,
    isa: Isa,
    constants: Mapping[str, Array],
    *,
    options: Options | None = None,
    name: str = "kernel",
    tell: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> SourceKernel:
    """The kernel of an operator for a machine with `control: source`.

    options: layout and pins count; others are refused. A contraction is embedded; what no embedding
    serves is plain loops, and says why. Pins are never dropped that way.
    Raises: SpecError, InputError; Infeasible where pins leave nothing.
    """
    start = time.perf_counter()
    options = Options() if options is None else options
    require(isa)
    _refuse_idle(options)
    tell("embedding", 0, 1)
    embedding, why = _embedding(op, isa, options)
    if embedding is None:
        file = write_plain(op, isa, name, why)
        return SourceKernel(op, isa, file, None, None, why, _since(start), constants)
    tell("writing", 0, 1)
    program = lower(embedding, isa)
    file = write(program, isa, name, _data(op, isa, program, {**op.values, **constants}))
    return SourceKernel(op, isa, file, embedding, program, "", _since(start), constants)


def _since(start: float) -> float:
    return time.perf_counter() - start


def _data(
    op: Operator, isa: Isa, program: SourceProgram, known: Mapping[str, Array]
) -> dict[str, Array]:
    """The packed constants, where all of them are known and the kernel reads one; else nothing."""
    wanted = {t for t in op.tensors if op.tensors[t].constant and t != op.out.tensor}
    used = {p.layout.tensor for p in program.places.values()}
    if not wanted & used or not wanted <= set(known):
        return {}
    return constant_data(program, isa, known)


def _refuse_idle(options: Options) -> None:
    """Raises: InputError for an option that has no effect where C is written."""
    idle = ("memory", "top", "schedules", "refine", "host_weight", "cache", "reuse")
    for name in idle:
        if getattr(options, name) != getattr(Options(), name):
            raise InputError(
                f"{name} has no effect on a machine that runs C",
                where=f"Options.{name}",
                why="its kernels are one embedding and one tile, by the spec's costs",
                hint=f"leave out {name}",
            )


def _embedding(op: Operator, isa: Isa, options: Options) -> tuple[Embedding | None, str]:
    """(the embedding or None, why there is none)."""
    if op.kind != "contract":
        if options.pins:
            raise InputError(
                f"pins have no effect on {op.name}", why="it has no products to embed",
                hint="leave out --fix, --forbid and tensor layouts",
            )  # fmt: skip
        return None, f"a {op.kind} has no products"
    try:
        problem = problem_of(op, isa, options)
        found = embeddings(problem)[0]
    except Infeasible as error:
        if options.pins:
            raise explain_none(op, isa, options.layout, options.pins).error(op, isa) from error
        return None, error.why or error.what
    return problem.pins.arrange(found), ""


def judged(kernel: SourceKernel, tensors: Mapping[str, Array], engine: str) -> str:
    """What was compared, in words. Raises: CheckError where values differ from NumPy."""
    result = kernel.native.run(tensors) if engine == "native" else kernel.interpret(**tensors)
    difference = kernel.difference(tensors, result)
    if difference:
        raise CheckError(
            "the kernel's result differs from NumPy",
            where=kernel.operator.name,
            why=difference,
            hint="this is our mistake: please report the command",
        )
    return f"run {engine}: all {result.size:,} values equal NumPy's"
