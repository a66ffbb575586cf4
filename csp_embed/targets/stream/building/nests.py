"""Loop nests as templates, shared by content: equal tiles use the same instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from csp_embed.ir.schedule import Template
from csp_embed.schedule.buffers import Form, Range
from csp_embed.schedule.inputs import Problem
from csp_embed.targets.stream.building.cover import CoverLimits, Piece, cover
from csp_embed.targets.stream.building.rows import Rows

Placed = tuple[Form | None, int]
"""An operand: how its element moves, and the element of the nest's first point; no form: one fixed
element."""

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
        # A quarter: several lists stand beside each other, and are replaced one at a time.
        uops=max(1, min(uops, depth // 4, end // 4)),
        iterations=iterations,
        factors=factors,
        repeats=repeats,
    )


class Nests:
    """Templates by what makes them differ, so that equal tiles share them."""

    def __init__(self, problem: Problem, rows: Rows, covers: Covers, uops: int = 512) -> None:
        self.problem, self.rows, self.covers, self.uops = problem, rows, covers, uops
        self._memo: dict[tuple[object, ...], tuple[int, ...]] = {}
        # Most micro-ops of one nest: limits from there up to `uops` cover all nests alike.
        self.listed = 1

    def templates(
        self,
        instruction: str,
        extents: Range,
        operands: Sequence[Placed],
        repeats: int,
        *,
        reset: bool = False,
        op: str = "",
        imm: int | None = None,
    ) -> tuple[int, ...]:
        """Template numbers for all points of the nest where no operand's grid is left.

        operands: per instruction operand. repeats: how often the nest is expected to run.
        """
        # Forms have numbers, so that a key is a few integers.
        forms = tuple([-1 if form is None else form.number for form, _ in operands])
        starts = tuple([at for _, at in operands])
        key = (instruction, extents, forms, starts, reset, op, imm)
        found = self._memo.get(key)
        if found is None:
            # Without start addresses: equal nests elsewhere differ only by what is added to their
            # micro-ops.
            shape = (instruction, extents, forms, repeats, self.uops)
            pieces = self.covers.get(shape)
            if pieces is None:
                pieces = self.covers[shape] = self._cover(instruction, extents, operands, repeats)
            self.listed = max(self.listed, sum(len(p.uops) for p in pieces))
            found = self._memo[key] = self._make(
                pieces, np.array(starts, dtype=np.int64), (instruction, reset, op, imm)
            )
        return found

    def _cover(
        self, instruction: str, extents: Range, operands: Sequence[Placed], repeats: int
    ) -> list[Piece]:
        """Pieces whose operands start at element 0."""
        # An operand that does not move has coefficients all the same: 0.
        still = (0,) * len(extents)
        coef = np.array([still if f is None else f.coefs for f, _ in operands], dtype=np.int64)
        guards = tuple(g for form, _ in operands if form is not None for g in form.guards)
        limits = cover_limits(self.problem, instruction, repeats, self.uops)
        return cover(extents, guards, coef, np.zeros(len(coef), dtype=np.int64), limits)

    def _make(
        self, pieces: list[Piece], start: Any, kind: tuple[str, bool, str, int | None]
    ) -> tuple[int, ...]:
        templates = self.rows.templates
        name, reset, op, imm = kind
        first = len(templates)
        templates.extend(
            Template(name, p.uops + start, p.iter_out, p.iter_in, p.factors, reset, op, imm)
            for p in pieces
        )
        return tuple(range(first, len(templates)))
