"""The epilogue of a tile: its steps on pieces of the accumulators, each piece stored at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from csp_embed.ir.operator import Step
from csp_embed.schedule.buffers import Frame, Range
from csp_embed.schedule.inputs import identity
from csp_embed.targets.stream.building.nests import Nests, Placed
from csp_embed.targets.stream.building.plan import Plan
from csp_embed.targets.stream.building.rows import Rows


class Epilogue:
    """What the epilogue of every tile needs; `rows` get its steps."""

    def __init__(self, plan: Plan, nests: Nests, rows: Rows) -> None:
        self._plan, self._nests, self._rows = plan, nests, rows
        self._problem = plan.problem
        # A store reads what a step that is no reset wrote last.
        self._fills = not (self._problem.epilogue or plan.filled)

    def run(
        self,
        lo: Range,
        hi: Range,
        frame: Frame,
        acc: int,
        use: tuple[int, int],
        brought: dict[int, tuple[int, ...]],
        todo: Sequence[tuple[int, Step]],
    ) -> None:
        """The steps `todo` of one piece [lo, hi) in a round of a tile (use), whose accumulators
        start at `acc`; brought: the rows that brought each step's tensor."""
        extents = tuple(b - a for a, b in zip(lo, hi, strict=True))
        form = frame.shape.form
        here: Placed = (form, acc + form.first(lo))
        if self._fills:
            name = self._problem.isa.of_kind("map").name
            op, imm = identity(self._problem.isa)
            for t in self._nests.templates(name, extents, [here, here], 1, op=op, imm=imm):
                self._rows.compute(t)
        repeats = 64 if math.prod(extents) > 8 else 1
        contract = self._problem.instruction.name
        for i, step in todo:
            name, operands = self._operands(i, step, lo, here, use)
            op = "" if name == contract else step.op
            need = brought.get(i, ())
            row = -1
            for t in self._nests.templates(name, extents, operands, repeats, op=op, imm=step.imm):
                row = self._rows.compute(t, need)
                need = ()
            if step.access is not None:
                self._plan.ring_adds[i].touch(self._plan.uses[i][use], row)

    def copy(self, lo: Range, hi: Range, frame: Frame, acc: int) -> None:
        """The sums of [lo, hi) once more, at the plan's place for it."""
        extents = tuple(b - a for a, b in zip(lo, hi, strict=True))
        form = frame.shape.form
        there: Placed = (form, self._plan.copy + form.first(lo))
        nothing: Placed = (None, 0)
        operands = [there, nothing, nothing]
        contract = self._problem.instruction.name
        for t in self._nests.templates(contract, extents, operands, 64, reset=True):
            self._rows.compute(t)
        self.add(lo, hi, frame, self._plan.copy, acc)

    def add(self, lo: Range, hi: Range, frame: Frame, to: int, what: int) -> None:
        """Adds the sums that start at `what` to those at `to`."""
        extents = tuple(b - a for a, b in zip(lo, hi, strict=True))
        form = frame.shape.form
        operands: list[Placed] = [(form, at + form.first(lo)) for at in (to, what)]
        name = self._problem.isa.of_kind("map").name
        for t in self._nests.templates(name, extents, operands, 64, op="add"):
            self._rows.compute(t)

    def _operands(
        self, i: int, step: Step, lo: Range, here: Placed, use: tuple[int, int]
    ) -> tuple[str, list[Placed]]:
        """Instruction and operands of a step that reads the tensor of step i."""
        plan, name = self._plan, self._problem.isa.of_kind("map").name
        if step.access is None:
            return name, [here, here]
        number = plan.uses[i][use]
        form = plan.add_frames[i][number].shape.form
        source: Placed = (form, plan.ring_adds[i].address(number) + form.first(lo))
        if plan.trick is None or plan.trick.step != i:
            return name, [here, source]
        constant: Placed = (None, plan.constant)
        pair = [constant, source] if plan.trick.factor_side == "rhs" else [source, constant]
        return self._problem.instruction.name, [here, *pair]
