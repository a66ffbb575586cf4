"""Symmetry breaking: removes copies only, never a solution.

Irregular coverings: steps are exchangeable, and so are the lanes of a dimension. Both are put into
the order of the least point that they hold (empty ones last); every point has one step and one lane
a dimension, so exactly one covering of an orbit remains. Regular ones: equal digits of a dimension
(or of the steps) may be exchanged unless they are in a diagonal; their columns are put into
lexicographic order. A digit may be counted from either end: of all corners of the box that lie in
the domain, the origin is the lexicographically least.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from csp_embed.embed.ground.frames import Frame, bound
from csp_embed.embed.ground.problem import Ground, Key
from csp_embed.embed.ground.variables import Vars


def post(vars: Vars, frame: Frame | None) -> None:
    """The breaking constraints of the model's kind."""
    if frame is None:
        _order_by_least_point(vars)
    else:
        _order_digits(vars, frame)


def orbit(ground: Ground, solution: Key) -> int:
    """Coverings that are copies of one solution: injections of used steps and lanes."""
    total = 1
    sizes = [ground.steps, *ground.sizes.values()]
    for size, names in zip(sizes, solution[1], strict=True):
        total *= math.perm(size, 1 + max(names))
    return total


def _order_by_least_point(vars: Vars) -> None:
    axes, model = vars.ground.op.axes, vars.model
    total = math.prod(axes.values())
    number = []
    for g, placed in enumerate(vars.placed):
        n = model.new_int_var(0, total, f"number{g}")
        flat: Any = 0
        for a, v in vars.axis_values(g).items():
            flat = flat * axes[a] + v
        model.add(n == flat).only_enforce_if(placed)
        model.add(n == total).only_enforce_if(~placed)
        number.append(n)
    held = list(zip(number, vars.places, strict=True))
    groups = [[[n for n, p in held if p[0] == t] for t in range(vars.box.steps)]]
    for d, size in enumerate(vars.box.sizes.values()):
        groups.append([[n for n, p in held if p[1][d] == k] for k in range(size)])
    for members in groups:
        least = []
        for numbers in members:
            least.append(model.new_int_var(0, total, "least"))
            model.add_min_equality(least[-1], numbers)
        for a, b in itertools.pairwise(least):
            model.add(a <= b)


def _order_digits(vars: Vars, frame: Frame) -> None:
    paired = {n for pair in frame.equal for n in pair}
    widths = [2 * bound(vars.ground, names) + 1 for names in frame.coordinates]
    for n, (a, b) in enumerate(itertools.pairwise(frame.digits)):
        if (a.dim, a.extent) == (b.dim, b.extent) and not {n, n + 1} & paired:
            vars.model.add(_code(vars, n, widths) <= _code(vars, n + 1, widths))
    _order_corners(vars, frame)


def _order_corners(vars: Vars, frame: Frame) -> None:
    """Flipping any set of digits whose far corner lies in the domain must not lower the origin."""
    model, axes = vars.model, vars.ground.op.axes
    extents = [math.prod(axes[a] for a in names) for names in frame.coordinates]
    moving = [n for n, d in enumerate(frame.digits) if n not in {b for _, b in frame.equal}]
    for n in moving:
        far = [
            const + (frame.digits[n].extent - 1) * column[n]
            for const, column in zip(vars.const, vars.columns, strict=True)
        ]
        outside = []
        for x, extent in zip(far, extents, strict=True):
            below, above = model.new_bool_var("below"), model.new_bool_var("above")
            model.add(x <= -1).only_enforce_if(below)
            model.add(x >= extent).only_enforce_if(above)
            outside += [below, above]
        origin, corner = 0, 0
        for c, x, extent in zip(vars.const, far, extents, strict=True):
            origin, corner = origin * extent + c, corner * extent + x
        later = model.new_bool_var("later")
        model.add(origin <= corner).only_enforce_if(later)
        model.add_bool_or([later, *outside])


def _code(vars: Vars, digit: int, widths: Sequence[int]) -> Any:
    """The digit's column as one number in mixed radix."""
    code: Any = 0
    for column, width in zip(vars.columns, widths, strict=True):
        code = code * width + column[digit]
    return code
