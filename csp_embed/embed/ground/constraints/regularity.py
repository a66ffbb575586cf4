"""Regular (rule 8). Required unless switched off: (lane digits, counters) -> coordinates is one
integer affine map, and places outside the domain are pad and no others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from csp_embed.embed.ground.numerations import STEP, Frame, bound
from csp_embed.embed.ground.variables import Vars, overhangs

NAME = "regularity"


def post(vars: Vars, frame: Frame) -> None:
    """placed[g] <=> const + sum column * digit(g) is an effective point, and then that point."""
    model, axes = vars.model, vars.ground.op.axes
    # The second digit of a diagonal moves nothing by itself.
    moving = [n for n in range(len(frame.digits)) if n not in {b for _, b in frame.equal}]
    # Counters may run either way where the order of steps counts.
    turning = [n for n in moving if vars.ground.ordered and frame.digits[n].dim == STEP]
    back = sum(frame.digits[n].extent - 1 for n in turning)
    extents = [math.prod(axes[a] for a in names) for names in frame.coordinates]
    for names, extent in zip(frame.coordinates, extents, strict=True):
        most = bound(vars.ground, names)
        # The origin may lie outside by as far as the counters run back.
        const = model.new_int_var(-back * most, extent - 1 + back * most, f"const {names}")
        vars.const.append(const)
        # Columns of digits that do not move stay 0.
        column: list[Any] = [0] * len(frame.digits)
        for n in moving:
            column[n] = model.new_int_var(-most, most, f"column {names} {n}")
        vars.columns.append(column)
    for g, digits in enumerate(vars.box.values):
        at = [
            # Digits of value 0 add nothing: shorter sums are quicker.
            const + sum(c * v for c, v in zip(column, digits, strict=True) if v)
            for const, column in zip(vars.const, vars.columns, strict=True)
        ]
        _point(vars, frame, g, at)
    # With an order of steps it is not known which end of a counter is the origin.
    if turning:
        _origin_at_some_end(vars, frame, turning, extents)
        return
    for n in moving:
        # Each digit is used: else a smaller frame says the same (see numerations.py).
        vars.post(NAME, model.add_bool_or(_placed_at(vars, n, frame.digits[n].extent - 1)))


def _placed_at(vars: Vars, digit: int, value: int) -> list[Any]:
    return [p for p, v in zip(vars.placed, vars.box.values, strict=True) if v[digit] == value]


def _origin_at_some_end(
    vars: Vars, frame: Frame, turning: Sequence[int], extents: Sequence[int]
) -> None:
    """Where the order of steps counts, counters run either way: counted from some end of each, the
    origin is in the domain, and the digit's other end is used."""
    model = vars.model
    some: list[Any] = []
    for turned in itertools.product((False, True), repeat=len(turning)):
        # One combination of ends must hold; each has a literal.
        literal = model.new_bool_var(f"turned {turned}")
        some.append(literal)
        away = [n for n, t in zip(turning, turned, strict=True) if t]
        for const, column, extent in zip(vars.const, vars.columns, extents, strict=True):
            origin = const + sum((frame.digits[n].extent - 1) * column[n] for n in away)
            # Counted from these ends the origin lies in the domain.
            model.add_linear_constraint(origin, 0, extent - 1).only_enforce_if(literal)
        for n, digit in enumerate(frame.digits):
            if n not in {b for _, b in frame.equal}:
                end = _placed_at(vars, n, 0 if n in away else digit.extent - 1)
                model.add_bool_or(end).only_enforce_if(literal)
    vars.post(NAME, model.add_bool_or(some))


def _point(vars: Vars, frame: Frame, g: int, at: list[Any]) -> None:
    model, axes, placed = vars.model, vars.ground.op.axes, vars.placed[g]
    value = vars.axis_values(g)
    reasons: list[Any] = []
    for names, x in zip(frame.coordinates, at, strict=True):
        flat: Any = 0
        for a in names:
            flat = flat * axes[a] + value[a]
        # The map's value, where the place holds a point.
        vars.post(NAME, model.add(x == flat), placed)
        extent = math.prod(axes[a] for a in names)
        below, above = model.new_bool_var("below"), model.new_bool_var("above")
        vars.post(NAME, model.add(x <= -1), below)
        vars.post(NAME, model.add(x >= extent), above)
        vars.post(NAME, model.add(x >= 0), ~below)
        vars.post(NAME, model.add(x <= extent - 1), ~above)
        # Pad must have a reason: outside the domain, or without effect.
        reasons += [below, above]
    limits = overhangs(vars.ground)
    if limits:
        reasons += _no_effect(vars, frame, at, limits, reasons)
    vars.post(NAME, model.add_bool_or([placed, *reasons]))


def _no_effect(
    vars: Vars, frame: Frame, at: list[Any], limits: list[Any], outside: Sequence[Any]
) -> list[Any]:
    """Booleans, one per index bound: in the domain, but a factor is out of range there."""
    model, axes = vars.model, vars.ground.op.axes
    inside = model.new_bool_var("inside")
    # Inside unless some coordinate is below or above.
    model.add_bool_or([inside, *outside])
    value: dict[str, Any] = {}
    for names, x in zip(frame.coordinates, at, strict=True):
        extent = math.prod(axes[a] for a in names)
        model.add_linear_constraint(x, 0, extent - 1).only_enforce_if(inside)
        # An axis by itself is its coordinate.
        if len(names) == 1:
            value[names[0]] = x
            continue
        flat: Any = 0
        for a in names:
            value[a] = model.new_int_var(0, axes[a] - 1, a)
            # One value where it does not matter, so that solutions count once.
            model.add(value[a] == 0).only_enforce_if(~inside)
            flat = flat * axes[a] + value[a]
        model.add(x == flat).only_enforce_if(inside)
    out: list[Any] = []
    for low, high, terms, const in limits:
        index = const + sum(c * value[a] for a, c in terms)
        for broken, kept in (
            (index <= low - 1, index >= low),
            (index >= high + 1, index <= high),
        ):
            literal = model.new_bool_var("out of range")
            model.add(broken).only_enforce_if(literal)
            # Both ways: the literal is true exactly where the bound is broken, inside the domain.
            model.add(kept).only_enforce_if([inside, ~literal])
            model.add_implication(literal, inside)
            out.append(literal)
    return out
