"""Symmetry breaking: removes copies only, never a solution.

Irregular coverings: steps are exchangeable, and so are the lanes of a dimension. Both are put into
the order of the least point that they hold (empty ones last); every point has one step and one lane
a dimension, so exactly one covering of an orbit remains. Regular ones: equal digits of a dimension
(or of the steps) may be exchanged unless they are in a diagonal; their columns are put into
lexicographic order. A digit may be counted from either end: of all corners of the box that lie in
the domain, the origin is the lexicographically least. Where the order of steps is part of the
solution (`Ground.ordered`), steps and counters stay as they are.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from csp_embed.embed.ground.numerations import STEP, Frame, bound
from csp_embed.embed.ground.points import Key
from csp_embed.embed.ground.variables import Vars
from csp_embed.ir.ground import Ground


def post(vars: Vars, frame: Frame | None) -> None:
    """The breaking constraints of the model's kind."""
    if frame is None:
        _order_by_least_point(vars)
    else:
        _order_digits(vars, frame)


def orbit(ground: Ground, solution: Key) -> int:
    """Coverings that are copies of one solution, exactly.

    The group permutes steps and the lanes of each dimension. What fixes a covering permutes empty
    steps and lanes alone, for every other holds a point that no other does: group order by
    stabiliser order is the number of injections of the used ones.
    """
    total = 1
    sizes = [ground.steps, *ground.sizes.values()]
    for d, (size, names) in enumerate(zip(sizes, solution[1], strict=True)):
        # An ordered problem's steps are no copies of each other.
        if d or not ground.ordered:
            total *= math.perm(size, 1 + max(names))
    return total


def movers(frame: Frame) -> list[int]:
    """Digits that have a column: all but the second of each diagonal."""
    # The second of a pair moves with the first.
    twins = {b for _, b in frame.equal}
    return [n for n in range(len(frame.digits)) if n not in twins]


@dataclass(frozen=True)
class Map:
    """const: coordinates of the origin. columns: of each digit that moves, by coordinates."""

    frame: Frame
    const: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(frame: Frame, numbers: Sequence[int]) -> Map:
        """From the constant's coordinates, then each coordinate's coefficients."""
        count, width = len(frame.coordinates), len(movers(frame))
        # The solver's row: constants first, then the columns by coordinates.
        rows = [numbers[count + i * width : count + (i + 1) * width] for i in range(count)]
        return Map(frame, tuple(numbers[:count]), tuple(zip(*rows, strict=True)))


def copies(ground: Ground, one: Map) -> set[Map]:
    """The maps that say the same with digits counted from other ends, or with equal digits of a
    dimension exchanged: all that the definition admits (origin in the domain, last values used).
    Not for problems in which the order of steps counts."""
    digits, moving = one.frame.digits, movers(one.frame)
    paired = {n for pair in one.frame.equal for n in pair}
    # A digit of a diagonal is like no other, so it exchanges with none.
    kinds = [(digits[n].dim, digits[n].extent, n if n in paired else -1) for n in moving]
    orders = [
        order
        for order in itertools.permutations(range(len(moving)))
        if all(kinds[n] == kinds[m] for n, m in enumerate(order))
    ]
    axes = ground.op.axes
    extents = [math.prod(axes[a] for a in names) for names in one.frame.coordinates]
    at = {a: ground.points[:, n] for n, a in enumerate(axes)}
    flat = [functools.reduce(lambda v, a: v * axes[a] + at[a], n, 0) for n in one.frame.coordinates]
    effective = {tuple(map(int, p)) for p in zip(*flat, strict=True)}
    # The other end of each digit.
    ends = [digits[n].extent - 1 for n in moving]
    used: list[set[int]] = [set() for _ in moving]
    for values in itertools.product(*(range(e + 1) for e in ends)):
        # Values of digits that some effective point uses.
        if _shifted(one.const, one.columns, values) in effective:
            for seen, v in zip(used, values, strict=True):
                seen.add(v)
    out: set[Map] = set()
    for flips in itertools.product((False, True), repeat=len(moving)):
        # The far end becomes value 0 and must be used, as the definition wants of last values.
        if any((0 if f else e) not in s for f, e, s in zip(flips, ends, used, strict=True)):
            continue
        far = [e if f else 0 for f, e in zip(flips, ends, strict=True)]
        const = _shifted(one.const, one.columns, far)
        # The new origin has to be a point of the box.
        if not all(0 <= v < e for v, e in zip(const, extents, strict=True)):
            continue
        # Counted from the other end a digit runs the other way.
        columns = [
            tuple(-v for v in c) if f else c for f, c in zip(flips, one.columns, strict=True)
        ]
        out |= {Map(one.frame, const, tuple(columns[n] for n in order)) for order in orders}
    return out


def _shifted(
    const: Sequence[int], columns: Sequence[Sequence[int]], values: Sequence[int]
) -> tuple[int, ...]:
    return tuple(
        x + sum(v * c[i] for v, c in zip(values, columns, strict=True)) for i, x in enumerate(const)
    )


def _order_by_least_point(vars: Vars) -> None:
    axes, model = vars.ground.op.axes, vars.model
    # One more than the last point's number stands for "none".
    total = math.prod(axes.values())
    number: list[Any] = []
    for g, placed in enumerate(vars.placed):
        n = model.new_int_var(0, total, f"number{g}")
        flat: Any = 0
        for a, v in vars.axis_values(g).items():
            flat = flat * axes[a] + v
        model.add(n == flat).only_enforce_if(placed)
        # Empty places come last: their number is above every point's.
        model.add(n == total).only_enforce_if(~placed)
        number.append(n)
    held = list(zip(number, vars.places, strict=True))
    groups: list[list[list[Any]]] = []
    # Ordered steps are no copies of each other.
    if not vars.ground.ordered:
        groups.append([[n for n, p in held if p[0] == t] for t in range(vars.box.steps)])
    for d, size in enumerate(vars.box.sizes.values()):
        groups.append([[n for n, p in held if p[1][d] == k] for k in range(size)])
    for members in groups:
        least: list[Any] = []
        for numbers in members:
            least.append(model.new_int_var(0, total, "least"))
            model.add_min_equality(least[-1], numbers)
        # Equal only where both are empty.
        for a, b in itertools.pairwise(least):
            model.add(a <= b)


def _order_digits(vars: Vars, frame: Frame) -> None:
    paired = {n for pair in frame.equal for n in pair}
    # Wide enough for columns of either sign.
    widths = [2 * bound(vars.ground, names) + 1 for names in frame.coordinates]
    for n, (a, b) in enumerate(itertools.pairwise(frame.digits)):
        if vars.ground.ordered and a.dim == STEP:
            continue
        # Digits of a diagonal exchange with none.
        if (a.dim, a.extent) == (b.dim, b.extent) and not {n, n + 1} & paired:
            # Equal digits of one dimension in lexicographic order of their columns.
            vars.model.add(_code(vars, n, widths) <= _code(vars, n + 1, widths))
    _order_corners(vars, frame)


def _order_corners(vars: Vars, frame: Frame) -> None:
    """Flipping a digit whose far corner lies in the domain must not lower the origin."""
    model, axes = vars.model, vars.ground.op.axes
    extents = [math.prod(axes[a] for a in names) for names in frame.coordinates]
    moving = [n for n in range(len(frame.digits)) if n not in {b for _, b in frame.equal}]
    for n in moving:
        if vars.ground.ordered and frame.digits[n].dim == STEP:
            continue
        far = [
            const + (frame.digits[n].extent - 1) * column[n]
            for const, column in zip(vars.const, vars.columns, strict=True)
        ]
        # The other end becomes the last one, so it must be used.
        first = [p for p, v in zip(vars.placed, vars.box.values, strict=True) if v[n] == 0]
        used = model.new_bool_var("used")
        model.add_max_equality(used, first)
        outside = [~used]
        for x, extent in zip(far, extents, strict=True):
            below, above = model.new_bool_var("below"), model.new_bool_var("above")
            model.add(x <= -1).only_enforce_if(below)
            model.add(x >= 0).only_enforce_if(~below)
            model.add(x >= extent).only_enforce_if(above)
            model.add(x <= extent - 1).only_enforce_if(~above)
            outside += [below, above]
        origin, corner = 0, 0
        # Both points as numbers in row-major order: lexicographic order is theirs.
        for c, x, extent in zip(vars.const, far, extents, strict=True):
            origin, corner = origin * extent + c, corner * extent + x
        later = model.new_bool_var("later")
        model.add(origin <= corner).only_enforce_if(later)
        model.add(origin > corner).only_enforce_if(~later)
        model.add_bool_or([later, *outside])


def _code(vars: Vars, digit: int, widths: Sequence[int]) -> Any:
    """The digit's column as one number in mixed radix."""
    code: Any = 0
    for column, width in zip(vars.columns, widths, strict=True):
        # Mixed radix: comparing numbers compares columns lexicographically.
        code = code * width + column[digit]
    return code
