"""Regular (rule 8). Required unless switched off: (lane digits, counters) -> coordinates is one
integer affine map, and places outside the domain are pad and no others."""

from __future__ import annotations

import math
from typing import Any

from csp_embed.embed.ground.frames import Frame, bound
from csp_embed.embed.ground.variables import Vars, overhangs

NAME = "regularity"


def post(vars: Vars, frame: Frame) -> None:
    """placed[g] <=> const + sum column * digit(g) is an effective point, and then that point."""
    model, axes = vars.model, vars.ground.op.axes
    moving = [n for n in range(len(frame.digits)) if n not in {b for _, b in frame.equal}]
    for names in frame.coordinates:
        extent, most = math.prod(axes[a] for a in names), bound(vars.ground, names)
        vars.const.append(model.new_int_var(0, extent - 1, f"const {names}"))
        column: list[Any] = [0] * len(frame.digits)
        for n in moving:
            column[n] = model.new_int_var(-most, most, f"column {names} {n}")
        vars.columns.append(column)
    for g, digits in enumerate(vars.box.values):
        at = [
            const + sum(c * v for c, v in zip(column, digits, strict=True) if v)
            for const, column in zip(vars.const, vars.columns, strict=True)
        ]
        _point(vars, frame, g, at)
    for n in moving:
        last = frame.digits[n].extent - 1
        used = [p for p, v in zip(vars.placed, vars.box.values, strict=True) if v[n] == last]
        vars.post(NAME, model.add_bool_or(used))


def _point(vars: Vars, frame: Frame, g: int, at: list[Any]) -> None:
    model, axes, placed = vars.model, vars.ground.op.axes, vars.placed[g]
    value = vars.axis_values(g)
    reasons = []
    for names, x in zip(frame.coordinates, at, strict=True):
        flat: Any = 0
        for a in names:
            flat = flat * axes[a] + value[a]
        vars.post(NAME, model.add(x == flat), placed)
        extent = math.prod(axes[a] for a in names)
        below, above = model.new_bool_var("below"), model.new_bool_var("above")
        vars.post(NAME, model.add(x <= -1), below)
        vars.post(NAME, model.add(x >= extent), above)
        vars.post(NAME, model.add(x >= 0), ~below)
        vars.post(NAME, model.add(x <= extent - 1), ~above)
        reasons += [below, above]
    limits = overhangs(vars.ground)
    if limits:
        reasons += _no_effect(vars, frame, at, limits)
    vars.post(NAME, model.add_bool_or([placed, *reasons]))


def _no_effect(vars: Vars, frame: Frame, at: list[Any], limits: list[Any]) -> list[Any]:
    """Booleans, one per index bound: in the domain, but a factor is out of range there."""
    model, axes = vars.model, vars.ground.op.axes
    inside = model.new_bool_var("inside")
    value: dict[str, Any] = {}
    for names, x in zip(frame.coordinates, at, strict=True):
        extent = math.prod(axes[a] for a in names)
        model.add_linear_constraint(x, 0, extent - 1).only_enforce_if(inside)
        if len(names) == 1:
            value[names[0]] = x
            continue
        flat: Any = 0
        for a in names:
            value[a] = model.new_int_var(0, axes[a] - 1, a)
            model.add(value[a] == 0).only_enforce_if(~inside)
            flat = flat * axes[a] + value[a]
        model.add(x == flat).only_enforce_if(inside)
    out = []
    for low, high, terms, const in limits:
        index = const + sum(c * value[a] for a, c in terms)
        for broken, where in ((index <= low - 1, "low"), (index >= high + 1, "high")):
            literal = model.new_bool_var(where)
            model.add(broken).only_enforce_if(literal)
            model.add_implication(literal, inside)
            out.append(literal)
    return out
