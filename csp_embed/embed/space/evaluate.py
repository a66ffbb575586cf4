"""What one block's option costs, and whether it keeps the rules.

Takes: Rules, carries of one block, layout mode.  Leaves: `Measure`, this block's factor of steps
and of every operand's packed elements; Reject where a rule is broken. The rows, grids and range
checks are those of algebra/layouts.py, restricted to the block's indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from csp_embed.embed.algebra.grid import STRICT, grid_axes, grid_mode
from csp_embed.embed.algebra.layouts import permutation_only, range_checks, seen_by
from csp_embed.embed.algebra.rows import Reject, coordinate_row, tensor_rows
from csp_embed.embed.space.digits import Carry, Decisions, expand
from csp_embed.embed.space.rules import Rules
from csp_embed.ir.affine import Limit, count_inside
from csp_embed.ir.embedding import Coordinate
from csp_embed.ir.operator import FACTORS, Access


@dataclass(frozen=True)
class Measure:
    """steps: trimmed micro-op steps; elements: operand -> packed elements; of one block."""

    steps: int
    elements: dict[str, int]


def operands(rules: Rules) -> dict[str, Access]:
    """Operand -> access: of the instruction, then "add0", … of the epilogue's tensor steps."""
    return {**rules.roles, **rules.op.steps_read()}


def measure(
    rules: Rules, block: Sequence[str], carries: Sequence[Carry], given: frozenset[str], mode: str
) -> Measure:
    """Raises: Reject, naming the family that the option breaks."""
    op, unit = rules.op, rules.unit
    lanes = expand(op, Decisions(rules.commuted, tuple(carries)))
    extents = {d.name: d.extent for d in lanes.digits}
    checks = range_checks(op, unit, lanes, rules.roles)
    # Axes given to the fused coordinate take each of their values once.
    # An empty second name marks a coordinate that is not plain, so its axis counts as virtual.
    away = [Coordinate((a, ""), 0, 0, {}, {}) for a in given]
    own = set(block)
    elements: dict[str, int] = {}
    limits: list[Limit] = []
    for role, access in operands(rules).items():
        dims = unit.dims_of(role)
        # Indices without an axis count with the first block.
        # An index that no axis moves (a constant one) belongs to no block; one of them must count
        # it once.
        first = block[0] == next(iter(op.axes))
        indices = [
            n
            for n, ix in enumerate(access.index)
            if own & {a for a, _ in ix.terms} or (first and not ix.terms)
        ]
        part = Access(access.tensor, tuple(access.index[n] for n in indices))
        tensor = op.tensors[access.tensor]
        shape = [tensor.shape[n] for n in indices]
        seen, equal, _ = seen_by(lanes, dims)
        rows = tensor_rows(part, shape, [*seen, *away], op.axes)
        checked = checks.get(role, ())
        # A watched coordinate is a row of the operand as well: its range decides which elements
        # exist.
        own_rows = [coordinate_row(c) for c in seen if c.axes[0] in checked]
        cut = grid_mode(role, tensor.constant, mode)
        if cut == STRICT:
            permutation_only(lanes, dims, rows, equal, own_rows)
        grid = grid_axes([*rows, *own_rows], lanes.counters, extents, cut)
        elements[role] = math.prod(a.size for a in grid)
        # Steps are trimmed where a factor's element is missing; results are never missing.
        if role in FACTORS:
            limits += [(a.step, a.origin, a.size) for a in grid]
    return Measure(count_inside(limits, {c.name: c.extent for c in lanes.counters}), elements)


def measure_fused(rules: Rules, carry: Carry, mode: str) -> Measure:
    """The fused coordinate: a loop over what its digit leaves, in every operand that reads it.

    Raises: Reject, where its lanes repeat a strict operand (one that reads it is refused with the
        blocks of the given axes).
    """
    # Values that the digit does not hold are a loop of their own, the ragged last round included.
    trips = -(-math.prod(rules.op.axes[a] for a in carry.axes) // carry.inner_lanes)
    moved = set[str]().union(*(rules.moved[a] for a in carry.axes))
    for role, access in rules.roles.items():
        cut = grid_mode(role, rules.op.tensors[access.tensor].constant, mode)
        if cut == STRICT and any(d in rules.unit.dims[role] for d, _ in carry.inner):
            raise Reject("layout", "fused axes store the elements of a window several times")
    return Measure(trips, {role: trips if role in moved else 1 for role in operands(rules)})
