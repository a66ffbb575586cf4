"""The stages of the compiler, one class each, and their order. The only place that knows all.

    operator -> dataflow
             -> embedding -> schedule -> program -> values

`chain(setting)` is what `compile` runs; the command line adds `ValuesStage` (values.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from csp_embed.compiler.kernel import Kernel
from csp_embed.compiler.program.values import ValuesStage
from csp_embed.compiler.request.arguments import operator_of
from csp_embed.compiler.request.setting import Setting
from csp_embed.compiler.search.candidates import (
    Candidates,
    addressable,
    embeddings_of,
    not_addressable,
)
from csp_embed.compiler.search.scheduled import Scheduled, schedule_of
from csp_embed.compiler.stages import Chain
from csp_embed.errors import CspEmbedError, Infeasible, OperatorError
from csp_embed.ir.dfg import Dataflow, dataflow
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.judge.embedding import judge as embedding_judge
from csp_embed.machine.spec import Isa
from csp_embed.ops.document import from_document, to_document

# Instruction points of a candidate that are enumerated one by one; beyond them its rules are judged
# by arithmetic and on single steps. The winner is judged on ten times as many, with its program.
JUDGED_POINTS = 100_000


@dataclass(frozen=True)
class OperatorStage:
    """A formula's text, or an operator as it is."""

    shapes: Mapping[str, Sequence[int]] | None = None
    name: ClassVar[str] = "operator"
    takes: ClassVar[str] = ""
    leaves: ClassVar[str] = "Operator: formula, extents, epilogue"
    judge: ClassVar[str] = "its own text, read again"

    def accepts(self, x: Any) -> CspEmbedError | None:
        try:
            # A refusal is an answer of the stage, no accident of its work.
            operator_of(x, self.shapes)
        except OperatorError as error:
            return error
        return None

    def apply(self, x: Any) -> Operator:
        return operator_of(x, self.shapes)

    def verify(self, x: Any, y: Operator) -> Sequence[object]:
        try:
            # The text is the program file's form of an operator: read back, it must be the same
            # one.
            again = from_document(to_document(y), y.values)
        except OperatorError as error:
            return [f"its own text is refused: {error.what}"]
        # Extents are compared beside the text, which does not state all of them.
        same = (again.text(), dict(again.axes)) == (y.text(), dict(y.axes))
        same = same and again.tensors == y.tensors
        return [] if same else [f"its own text is read as {again.text()}"]


@dataclass(frozen=True)
class DataflowStage:
    """Which scalar operation reads and writes which element; what embeddings are judged by."""

    name: ClassVar[str] = "dataflow"
    takes: ClassVar[str] = "operator"
    leaves: ClassVar[str] = "Dataflow: a box of points, an affine map per access"
    judge: ClassVar[str] = "the operator's accesses"

    def accepts(self, x: Operator) -> CspEmbedError | None:
        return None

    def apply(self, x: Operator) -> Dataflow:
        return dataflow(x)

    def verify(self, x: Operator, y: Dataflow) -> Sequence[object]:
        # Pools and elementwise operators have one operand.
        accesses = [a for a in (x.lhs, x.rhs) if a is not None]
        same = dict(y.axes) == dict(x.axes) and y.out == x.out
        same = same and [r.access for r in y.reads] == accesses
        return [] if same else ["the dataflow has other points or maps than the operator"]


def breaches(
    op: Operator, embeddings: Sequence[Embedding], machine: Callable[[Embedding], Isa]
) -> list[object]:
    """What is wrong with embeddings of an operator, each on the machine that it was found for."""
    out: list[object] = []
    for e in embeddings:
        # Texts are compared, not objects: a reused embedding was made for another object.
        if e.operator.text() != op.text():
            out.append(f"{e.formula()} is of another operator")
        out += embedding_judge.judge(e, machine(e), limit=JUDGED_POINTS).breaches
    return out


@dataclass(frozen=True)
class EmbeddingStage:
    """CP-SAT: which scalar operation runs in which lane of which instruction."""

    setting: Setting
    name: ClassVar[str] = "embedding"
    takes: ClassVar[str] = "operator"
    leaves: ClassVar[str] = "Candidates: embeddings, the least analytic cost first"
    judge: ClassVar[str] = "judge/embedding/judge.py: every point once, every lane in its home"

    def accepts(self, x: Operator) -> CspEmbedError | None:
        kind = "map" if x.kind in ("max", "min", "map") else x.kind
        # Pools and elementwise operators all run on the machine's map instruction.
        isa = self.setting.isa
        if any(i.kind == kind for i in isa.instructions):
            return None
        return Infeasible(
            f"{isa.name} has no instruction for {x.name}",
            where=x.formula(),
            why=f"it needs one of kind {kind!r}",
            hint="csp-embed isa show lists what a machine has",
        )

    def apply(self, x: Operator) -> Candidates:
        self.setting.tell("embedding", 0, 1)
        s = self.setting
        # A tuple: later stages refer to candidates by their place.
        return Candidates(tuple(embeddings_of(x, s.isa, s.options, s.costs)))

    def verify(self, x: Operator, y: Candidates) -> Sequence[object]:
        return breaches(x, y.embeddings, lambda e: self.setting.isa)


@dataclass(frozen=True)
class ScheduleStage:
    """Tiles, loop order, buffers and tokens of every candidate; measured cycles decide."""

    setting: Setting
    name: ClassVar[str] = "schedule"
    takes: ClassVar[str] = "embedding"
    leaves: ClassVar[str] = "Scheduled: the embedding that won, its schedule, its cycles"
    judge: ClassVar[str] = "the meter, asked again"

    def accepts(self, x: Candidates) -> CspEmbedError | None:
        isa = self.setting.isa
        return None if addressable(x.embeddings, isa) else not_addressable(x.embeddings, isa)

    def apply(self, x: Candidates) -> Scheduled:
        self.setting.tell("scheduling", 0, 1)
        return schedule_of(x, self.setting)

    def verify(self, x: Candidates, y: Scheduled) -> Sequence[object]:
        # By identity: an equal embedding made anew would have lost its proof.
        known = any(e is y.embedding for e in x.embeddings)
        out = [] if known else ["the schedule is of no candidate"]
        # The engine is deterministic, so that any difference is a stale number.
        again = self.setting.meter.measure(y.schedule).cycles
        if again != y.measured.cycles:
            out.append(f"{y.measured.cycles:,.0f} cycles were measured, {again:,.0f} are")
        return out


@dataclass(frozen=True)
class ProgramStage:
    """The winner's instructions, micro-ops and DRAM places, as one kernel."""

    setting: Setting
    name: ClassVar[str] = "program"
    takes: ClassVar[str] = "schedule"
    leaves: ClassVar[str] = "Kernel: instructions, micro-ops, DRAM image"
    judge: ClassVar[str] = "judge/stream/judge.py: ranges, tokens, races, deadlock"

    def accepts(self, x: Scheduled) -> CspEmbedError | None:
        return None

    def apply(self, x: Scheduled) -> Kernel:
        s = self.setting
        return Kernel(
            operator=x.embedding.operator,
            isa=s.isa,
            embedding=x.embedding,
            schedule=x.schedule,
            # Emitted when it was measured: what is run is what was counted.
            lowered=x.measured.lowered,
            # Cycles of a machine without costs are an estimate, and no estimate is told as cycles.
            cycles=int(x.measured.cycles) if x.measured.counted else None,
            seconds=time.perf_counter() - s.begun,
            memory=s.costs.memory,
            constants=s.constants,
            candidates=x.tried,
        )

    def verify(self, x: Scheduled, y: Kernel) -> Sequence[object]:
        # The kernel's own verify has judged embedding and stream.
        same = y.schedule is x.schedule and y.embedding is x.embedding
        return [] if same else ["the kernel is of another schedule"]


# The command line asks for stages by these names.
STAGES: tuple[str, ...] = (
    *(s.name for s in (OperatorStage, DataflowStage, EmbeddingStage, ScheduleStage, ProgramStage)),
    ValuesStage.name,
)
FRONT = STAGES[:2]  # look at no machine


def front(shapes: Mapping[str, Sequence[int]] | None = None) -> Chain:
    """The stages before a machine is looked at."""
    return Chain((OperatorStage(shapes), DataflowStage()))


def chain(setting: Setting) -> Chain:
    """From a formula to a kernel."""
    # One setting for all three: nothing is derived twice.
    back = (EmbeddingStage(setting), ScheduleStage(setting), ProgramStage(setting))
    return Chain((*front().stages, *back))
