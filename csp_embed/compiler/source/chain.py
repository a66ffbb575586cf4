"""The stages for machines whose loops run in a CPU: those of `chain.py`, with C at the end.

    operator -> dataflow
             -> embedding -> schedule -> program -> values

An operator that has no products, or no embedding, is plain loops: then the embedding stage leaves
the reason, and the later ones carry it on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.chain import breaches, front
from csp_embed.compiler.program.values import stores_nothing
from csp_embed.compiler.request.arguments import fitted
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.setting import Tell, refuse_idle, silent
from csp_embed.compiler.search.candidates import Candidates, embeddings_of
from csp_embed.compiler.source.kernel import SourceKernel, judged
from csp_embed.compiler.source.schedule import SourceScheduled, priced, schedule_source
from csp_embed.compiler.stages import Chain
from csp_embed.errors import CspEmbedError, Infeasible, InputError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.compilable import require
from csp_embed.machine.contracts import contracted, views
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.spec import Isa
from csp_embed.ops.bound import natural
from csp_embed.targets.source.constants import constant_data
from csp_embed.targets.source.lower import SourceProgram, lower
from csp_embed.targets.source.written.emit import write, write_plain

Array = NDArray[Any]
# Options that choose between streams.
_IDLE = ("memory", "schedules", "refine", "host_weight", "cache")


@dataclass(frozen=True)
class SourceSetting:
    """What is fixed while an operator is compiled. name: of the C function. constants: operands
    whose values become data of the file. begun: seconds of the clock."""

    isa: Isa
    options: Options
    costs: Costs
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])
    name: str = "kernel"
    tell: Tell = silent
    begun: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class NoEmbedding:
    """An operator that becomes plain loops, and why."""

    operator: Operator
    why: str

    def show(self) -> str:
        """The reason."""
        return f"plain loops, since {self.why}"

    def verify(self) -> list[str]:
        """Nothing is stated that could be broken."""
        return []


@dataclass(frozen=True)
class SourceEmbeddingStage:
    """CP-SAT, as for every other machine."""

    setting: SourceSetting
    name: ClassVar[str] = "embedding"
    takes: ClassVar[str] = "operator"
    leaves: ClassVar[str] = "Candidates: embeddings, the least analytic cost first; or the reason"
    judge: ClassVar[str] = "judge/embedding/judge.py: every point once, every lane in its home"

    def accepts(self, x: Operator) -> CspEmbedError | None:
        options = self.setting.options
        # Only contractions are embedded; pins on another operator would be dropped without a word.
        if x.kind == "contract" or not options.pins:
            return None
        return InputError(
            f"pins have no effect on {x.name}", why="it has no products to embed",
            hint="leave out --fix, --forbid and tensor layouts",
        )  # fmt: skip

    def apply(self, x: Operator) -> Candidates | NoEmbedding:
        """Raises: Infeasible where pins leave nothing: they are never dropped."""
        s = self.setting
        s.tell("embedding", 0, 1)
        if x.kind != "contract":
            return NoEmbedding(x, f"a {x.kind} has no products")
        try:
            found = self._found(x)
        except Infeasible as error:
            # What a user has fixed is never replaced by plain loops.
            if s.options.pins or s.options.reuse is not None:
                raise
            return NoEmbedding(x, error.why or error.what)
        return Candidates(tuple(found))

    def _found(self, x: Operator) -> list[Embedding]:
        """Of every contraction of the machine, the least analytic cost first. Raises: Infeasible
        where none serves, as the last one says."""
        s = self.setting
        # One view a contraction; most machines have one.
        machines = views(s.isa)
        if len(machines) == 1:
            return embeddings_of(x, s.isa, s.options, s.costs)
        found: list[Embedding] = []
        last: Infeasible | None = None
        for machine in machines:
            try:
                found += embeddings_of(x, machine, s.options, costs_of(machine))
            # One contraction may serve where another does not.
            except Infeasible as error:
                last = error
        if last is not None and not found:
            raise last
        # Costs of different contractions are in cycles alike.
        return sorted(found, key=lambda e: e.cost["objective"])

    def verify(self, x: Operator, y: Candidates | NoEmbedding) -> Sequence[object]:
        found = y.embeddings if isinstance(y, Candidates) else ()
        # Each embedding is judged on the view of the machine that it was found for.
        return breaches(x, found, lambda e: contracted(self.setting.isa, e.instruction))


@dataclass(frozen=True)
class SourceScheduleStage:
    """Register tile and loop order of every candidate; the price decides, packing included."""

    setting: SourceSetting
    name: ClassVar[str] = "schedule"
    takes: ClassVar[str] = "embedding"
    leaves: ClassVar[str] = "SourceScheduled: the embedding that won, its tile, its price"
    judge: ClassVar[str] = "the price, asked again"

    def accepts(self, x: Candidates | NoEmbedding) -> CspEmbedError | None:
        return None

    def apply(self, x: Candidates | NoEmbedding) -> SourceScheduled:
        s = self.setting
        s.tell("choosing a tile", 0, 1)
        # The reason is carried on, and the kernel's file states it.
        if isinstance(x, NoEmbedding):
            return SourceScheduled(x.operator, (), x.why)
        return schedule_source(x.embeddings, s.isa, s.options.top)

    def verify(self, x: Candidates | NoEmbedding, y: SourceScheduled) -> Sequence[object]:
        if isinstance(x, NoEmbedding):
            return [] if not y.tried else ["a tile of no embedding"]
        best = y.tried[0]
        known = any(e is best.embedding for e in x.embeddings)
        out = [] if known else ["the tile is of no candidate"]
        # Prices are functions of embedding, machine and tile: asked again they are the same.
        machine = contracted(self.setting.isa, best.embedding.instruction)
        again = priced(best.embedding, machine, best.tiling).total
        return out if again == best.price.total else [*out, f"the price is {again:,.0f} cycles"]


@dataclass(frozen=True)
class SourceProgramStage:
    """The winner's loops as one C file."""

    setting: SourceSetting
    name: ClassVar[str] = "program"
    takes: ClassVar[str] = "schedule"
    leaves: ClassVar[str] = "SourceKernel: one C file"
    judge: ClassVar[str] = "judge/embedding/judge.py; every address of a template inside its buffer"

    def accepts(self, x: SourceScheduled) -> CspEmbedError | None:
        return None

    def apply(self, x: SourceScheduled) -> SourceKernel:
        s, op = self.setting, x.operator
        s.tell("writing", 0, 1)
        if not x.tried:
            file = write_plain(op, s.isa, s.name, x.why, s.options.threads)
            return SourceKernel(op, s.isa, file, None, None, x.why, self._spent(), s.constants)
        best = x.tried[0]
        isa = contracted(s.isa, best.embedding.instruction)
        program = lower(best.embedding, isa, best.tiling)
        # Constants that are known become data of the file; then nothing is packed at run time.
        data = known_data(op, isa, program, {**op.values, **s.constants})
        file = write(program, isa, s.name, data, s.options.threads)
        return SourceKernel(
            op, isa, file, best.embedding, program, "", self._spent(), s.constants, x.tried
        )

    def _spent(self) -> float:
        return time.perf_counter() - self.setting.begun

    def verify(self, x: SourceScheduled, y: SourceKernel) -> Sequence[object]:
        # The kernel's own verify has judged embedding and addresses.
        chosen = x.tried[0].embedding if x.tried else None
        return [] if y.embedding is chosen else ["the kernel is of another embedding"]


@dataclass(frozen=True)
class SourceVerdict:
    """engine: what ran the kernel; "": nothing could. words: what was compared with what."""

    engine: str
    words: str
    difference: str = ""

    def show(self) -> str:
        """What was compared."""
        return self.words

    def verify(self) -> list[str]:
        """The first value that differs."""
        return [self.difference] if self.difference else []


@dataclass(frozen=True)
class SourceValuesStage:
    """The kernel on real tensors. tensors: the operands. engine: "native", "interpreted" or None:
    the first that this computer can run."""

    tensors: Callable[[], Mapping[str, Array]]
    engine: str | None = None
    data: str = "these tensors"
    tell: Tell = silent
    name: ClassVar[str] = "values"
    takes: ClassVar[str] = "program"
    leaves: ClassVar[str] = "SourceVerdict: what was run and compared"
    judge: ClassVar[str] = "NumPy, from the formula"

    def accepts(self, x: SourceKernel) -> CspEmbedError | None:
        return stores_nothing(x.operator)

    def apply(self, x: SourceKernel) -> SourceVerdict:
        """Raises: CheckError where values differ from NumPy; MissingLibrary where the engine that
        was asked for cannot run here."""
        self.tell("comparing with NumPy", 0, 1)
        # An engine that was asked for is not replaced by another.
        engine, why = (self.engine, "") if self.engine else x.engine()
        if not engine:
            return SourceVerdict("", f"values were NOT compared: {why}")
        return SourceVerdict(engine, f"{judged(x, self.tensors(), engine)}, on {self.data}")

    def verify(self, x: SourceKernel, y: SourceVerdict) -> Sequence[object]:
        return []


def source_setting(
    op: Operator,
    isa: Isa,
    options: Options | None = None,
    constants: Mapping[str, Array] | None = None,
    *,
    name: str = "kernel",
    tell: Tell | None = None,
) -> SourceSetting:
    """Raises: SpecError for a machine that cannot be compiled for, InputError for options without
    effect on it."""
    begun = time.perf_counter()
    options = Options() if options is None else options
    require(isa)
    refuse_idle(options, _IDLE, "that runs C", "it chooses between streams, and there is none")
    return SourceSetting(isa, options, costs_of(isa), constants or {}, name, tell or silent, begun)


def source_chain(setting: SourceSetting) -> Chain:
    """From a formula to a kernel of C."""
    back = (
        SourceEmbeddingStage(setting), SourceScheduleStage(setting), SourceProgramStage(setting),
    )  # fmt: skip
    return Chain((*front().stages, *back))


def compile_source(
    op: Operator,
    isa: Isa,
    constants: Mapping[str, Array],
    *,
    options: Options | None = None,
    name: str = "kernel",
    tell: Callable[[str, int, int], None] | None = None,
) -> SourceKernel:
    """The kernel of an operator for a machine with `control: source`.

    A contraction is embedded; what no embedding serves is plain loops, and says why. Pins are
    never dropped that way.
    Raises: SpecError, InputError; Infeasible where pins leave nothing.
    """
    op = fitted(op, isa)
    setting = source_setting(op, isa, options, constants, name=name, tell=tell)
    kernel: SourceKernel = source_chain(setting).run(op)["program"]
    return kernel


def known_data(
    op: Operator, isa: Isa, program: SourceProgram, known: Mapping[str, Array]
) -> dict[str, Array]:
    """The packed constants, where all of them are known and the kernel reads one; else nothing."""
    # All constants or none: a kernel packs them together.
    wanted = {t for t in op.tensors if op.tensors[t].constant and t != op.out.tensor}
    used = {p.layout.tensor for p in program.places.values()}
    if not wanted & used or not wanted <= set(known):
        return {}
    return constant_data(program, isa, known)


def work_of(op: Operator) -> int:
    """Scalar operations: products, or for an operator without them its points."""
    # Pools have no products; their points are their work.
    return natural(op)["macs"] or int(np.prod(list(op.axes.values())))
