"""Loop nests as templates, shared by content: equal tiles use the same instructions."""

from __future__ import annotations

from operator import mul

import numpy as np

from csp_embed.ir.schedule import Template
from csp_embed.schedule.buffers import Frame
from csp_embed.schedule.inputs import Map, Problem
from csp_embed.schedule.tiling import Range
from csp_embed.targets.stream.cover import CoverLimits, Piece, cover
from csp_embed.targets.stream.rows import Rows

Placed = tuple[Map | None, Frame | None, int]
"""An operand: its map, the frame it lies in and the frame's address; no map: one fixed element."""

Covers = dict[tuple[object, ...], list[Piece]]
"""Pieces at base address 0 by shape; one dictionary serves all schedules of an embedding."""


def cover_limits(problem: Problem, instruction_name: str, repeats: int, uops: int) -> CoverLimits:
    """Limits of that instruction's fields; micro-op lists take at most a quarter of their
    memory.
    """
    instruction = problem.isa.instruction(instruction_name)
    depth = problem.depth[problem.isa.uop_memory]
    end = instruction.field(instruction.roles["uop_end"]).max
    iterations = min(
        instruction.field(instruction.roles["iter_out"]).max,
        instruction.field(instruction.roles["iter_in"]).max,
    )
    factors = tuple(
        min(instruction.field(o.factor_out).max, instruction.field(o.factor_in).max)
        for o in instruction.operands
    )
    return CoverLimits(
        uops=max(1, min(uops, depth // 4, end // 4)),
        iterations=iterations,
        factors=factors,
        repeats=repeats,
    )


class NestCache:
    """Templates by what makes them differ, so that equal tiles share them."""

    def __init__(self, problem: Problem, rows: Rows, covers: Covers, uops: int = 512) -> None:
        self.problem, self.rows, self.covers, self.uops = problem, rows, covers, uops
        self._memo: dict[tuple[object, ...], tuple[int, ...]] = {}
        self._forms: dict[tuple[object, ...], tuple[tuple[int, ...], int]] = {}

    def templates(
        self,
        instruction: str,
        lo: Range,
        hi: Range,
        operands: list[Placed],
        guards: list[Map],
        *,
        repeats: int,
        reset: bool = False,
        op: str = "",
        imm: int | None = None,
    ) -> tuple[int, ...]:
        """Template numbers for all points of [lo, hi) where no guard's grid is left.

        operands: per instruction operand (map, frame, base address); map None: one fixed element.
        """
        extents = tuple(b - a for a, b in zip(lo, hi, strict=True))
        coef_rows, base = [], []
        for m, frame, at in operands:
            if m is None or frame is None:
                coef_rows.append((0,) * len(lo))
                base.append(at)
                continue
            coefs, const = self._form(m, frame)
            coef_rows.append(coefs)
            base.append(at + const + sum(map(mul, coefs, lo)))
        constraints = []
        for m in guards:
            wanted = m.box(lo, hi)
            for d, (a, b) in enumerate(wanted):
                if a < 0 or b > m.grid[d]:
                    k = tuple(int(s) for s in m.step[:, d])
                    const = m.origin[d] + sum(s * v for s, v in zip(k, lo, strict=True))
                    constraints.append((k, const, m.grid[d]))
        key = (
            instruction,
            extents,
            tuple(coef_rows),
            tuple(base),
            tuple(constraints),
            reset,
            op,
            imm,
        )
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._make(key, repeats)
        return found

    def _form(self, m: Map, frame: Frame) -> tuple[tuple[int, ...], int]:
        """The element of an operand, from its frame's first, as (coefficient per counter,
        constant)."""
        key = (m.operand, frame.lo, frame.pitch)
        found = self._forms.get(key)
        if found is None:
            coefs, const = [0] * m.step.shape[0], 0
            for d, pitch in enumerate(frame.pitch):
                const += (m.origin[d] - frame.lo[d]) * pitch
                for c, s in m.movers[d]:
                    coefs[c] += s * pitch
            found = self._forms[key] = (tuple(coefs), const)
        return found

    def _make(self, key: tuple[object, ...], repeats: int) -> tuple[int, ...]:
        instruction, extents, coef_rows, base, constraints, reset, op, imm = key
        assert isinstance(instruction, str)
        assert isinstance(constraints, tuple)
        shape = (instruction, extents, coef_rows, constraints, repeats, self.uops)
        pieces = self.covers.get(shape)
        if pieces is None:
            coef = np.array(coef_rows, dtype=np.int64)
            pieces = self.covers[shape] = cover(
                extents,  # type: ignore[arg-type]
                constraints,
                coef,
                np.zeros(len(coef), dtype=np.int64),
                cover_limits(self.problem, instruction, repeats, self.uops),
            )
        start = np.array(base, dtype=np.int64)
        numbers = []
        for p in pieces:
            self.rows.templates.append(
                Template(
                    instruction,
                    p.uops + start,
                    p.iter_out,
                    p.iter_in,
                    p.factors,
                    bool(reset),
                    str(op),
                    imm,  # type: ignore[arg-type]
                )
            )
            numbers.append(len(self.rows.templates) - 1)
        return tuple(numbers)
