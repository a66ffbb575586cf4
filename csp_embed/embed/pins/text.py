"""What the user pins, from text to predicates on options.

Takes: texts such as "fix i=c,r", "forbid skew", "layout x=NHWC".  Leaves: `Pins`.

    fix DIM=ITEM,…    the lanes of DIM carry exactly these axes: c, c:4 (on four lanes), c*r (fused
                      into one coordinate), c*r:15; nothing after = : all lanes of DIM idle.
                      An axis of one value is carried anywhere.
    fix AXIS=DIM,…    AXIS is carried by exactly these dimensions; nothing after = : a loop alone
    fix commuted | straight
    forbid skew | diagonal | fuse | commuted | outer    outer: lanes that stand a loop apart
    forbid DIM=AXIS,…   none of these axes on DIM
    forbid AXIS         AXIS on no lanes
    layout TENSOR=ORDER see layouts.py; run-time tensors then stand strictly (no duplicates)

A name that is both a dimension and an axis is read as the dimension.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from csp_embed.embed.pins.layouts import layout_pin
from csp_embed.embed.problem import EmbedProblem, Keep, Option, Pins
from csp_embed.embed.space.digits import LOOP, Carry
from csp_embed.embed.space.unit import Unit
from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator

WORDS = ("skew", "diagonal", "fuse", "commuted", "outer")


def read_pins(problem: EmbedProblem, texts: Sequence[str]) -> Pins:
    """Raises: InputError, where a text names no dimension, axis or tensor of this problem."""
    op, unit = problem.op, problem.unit
    out = Pins()
    for text in texts:
        verb, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        name = f"{verb} {rest}"
        if verb == "layout":
            found = layout_pin(problem, rest)
            out = _with(out, name, found.keep, found.factors)
            out = replace(
                out,
                arrangers={**out.arrangers, name: found.arrange},
                strict=out.strict or found.strict,
                reasons={**out.reasons, **({name: found.why} if found.why else {})},
            )
        elif verb == "fix":
            keep, factors = _fix(op, unit, rest)
            out = _with(out, name, keep, factors)
        elif verb == "forbid":
            out = _with(out, name, _forbid(op, unit, rest), {})
        else:
            raise InputError(f"the pin {text!r} is unknown", hint="fix …, forbid … or layout …")
    return out


def _with(pins: Pins, name: str, keep: Keep, factors: Mapping[str, frozenset[int]]) -> Pins:
    merged = dict(pins.factors)
    for axis, sizes in factors.items():
        # Pins on one axis add up: each size must be on offer.
        merged[axis] = merged.get(axis, frozenset()) | sizes
    return replace(pins, keeps={**pins.keeps, name: keep}, factors=merged)


def _fix(op: Operator, unit: Unit, text: str) -> tuple[Keep, dict[str, frozenset[int]]]:
    if text in ("commuted", "straight"):
        wanted = text == "commuted"
        return lambda o: o.commuted == wanted, {}
    left, sign, right = text.partition("=")
    left = left.strip()
    names = [n.strip() for n in right.split(",") if n.strip()]
    if not sign or (left not in unit.size and left not in op.axes):
        raise InputError(
            # Both readings are known names; a dimension wins, as the text above says.
            f"--fix {text} cannot be read", why=_known(op, unit),
            hint="--fix 'i=c,r' or --fix 'q=o' or --fix commuted",
        )  # fmt: skip
    if left in unit.size:
        items = [_item(op, unit, left, n) for n in names]
        # Sizes that were asked for are offered to the search.
        factors = {"*".join(i.axes): frozenset({i.lanes}) for i in items if i.lanes}
        return _carries_exactly(op, left, items), factors
    for n in names:
        if n not in unit.size:
            raise InputError(
                f"--fix {text}: {n} is no dimension",
                why=_known(op, unit),
                hint=f"one of {', '.join(unit.size)}",
            )
    return _stands_on(op, left, frozenset(names)), {}


def _known(op: Operator, unit: Unit) -> str:
    sizes = ", ".join(f"{d} ({n} lanes)" for d, n in unit.size.items())
    axes = ", ".join(f"{a} ({n})" for a, n in op.axes.items())
    return f"dimensions of {unit.instruction}: {sizes}; axes: {axes}"


@dataclass(frozen=True)
class _Item:
    axes: tuple[str, ...]
    lanes: int


def _item(op: Operator, unit: Unit, dim: str, text: str) -> _Item:
    match = re.fullmatch(r"([A-Za-z_]\w*(?:\*[A-Za-z_]\w*)*)(?::(\d+))?", text.replace(" ", ""))
    axes = tuple(match[1].split("*")) if match else ()
    if match is None or not set(axes) <= set(op.axes):
        raise InputError(
            f"{text} is no axis of the operator",
            why=_known(op, unit),
            hint=f"axes are {', '.join(op.axes)}; a product is written a*b",
        )
    lanes = int(match[2] or 0)
    extent = math.prod(op.axes[a] for a in axes)
    if lanes > min(unit.size[dim], extent) or (match[2] and lanes < 1):
        raise InputError(
            f"{text}: {lanes} lanes",
            why=f"{dim} has {unit.size[dim]}, the axis {extent} values",
            hint=f"at most {min(unit.size[dim], extent)} lanes",
        )
    # In the operator's order, whatever the user typed: fused coordinates are row-major over it.
    order = {a: n for n, a in enumerate(op.axes)}
    return _Item(tuple(sorted(axes, key=order.__getitem__)), lanes)


def on(carry: Carry, dim: str) -> int:
    """Lanes of `dim` that a carry takes; 1: none."""
    out = math.prod(e for d, e in (*carry.inner, *carry.outer) if d == dim)
    return out * (carry.diagonal[2] if carry.diagonal and dim in carry.diagonal[:2] else 1)


def dims_of(carry: Carry) -> frozenset[str]:
    """Dimensions that a carry stands on."""
    own = {d for d, _ in (*carry.inner, *carry.outer)} - {LOOP}
    return frozenset(own | set(carry.diagonal[:2] if carry.diagonal else ()))


def _carries_exactly(op: Operator, dim: str, items: Sequence[_Item]) -> Keep:
    single = {i.axes[0]: i.lanes for i in items if len(i.axes) == 1}
    groups = {i.axes: i.lanes for i in items if len(i.axes) > 1}
    wanted = set(single) | {a for g in groups for a in g}
    # An axis of extent 1 stands everywhere and nowhere.
    wanted = {a for a in wanted if op.axes[a] > 1}

    def keep(option: Option) -> bool:
        if any(a in g for a in _alone(option) for g in groups if op.axes[a] > 1):
            return False
        for carry in option.carries:
            lanes = on(carry, dim)
            axes, axis = set(carry.axes), carry.axes[0]
            if len(carry.axes) > 1:
                # Nothing of it is wanted here, and it takes no lanes.
                if not axes & wanted and lanes == 1:
                    continue
                if carry.axes not in groups and not axes <= set(single):
                    return False
                if lanes == 1 or groups.get(carry.axes, 0) not in (0, lanes):
                    return False
            elif (lanes > 1) != bool(axes & wanted):
                return False
            elif axis in single and single[axis] not in (0, lanes):
                return lanes == 1 and op.axes[axis] == 1
        return True

    return keep


def _alone(option: Option) -> set[str]:
    return {c.axes[0] for c in option.carries if len(c.axes) == 1}


def _stands_on(op: Operator, axis: str, dims: frozenset[str]) -> Keep:
    def keep(option: Option) -> bool:
        # One value needs no lane.
        if op.axes[axis] == 1:
            return True
        if axis in option.given and not dims:
            return False
        return all(dims_of(c) == dims for c in option.carries if axis in c.axes)

    return keep


def _forbid(op: Operator, unit: Unit, text: str) -> Keep:
    tests: dict[str, Callable[[Option], bool]] = {
        "skew": lambda o: any(c.skew for c in o.carries),
        "diagonal": lambda o: any(c.diagonal for c in o.carries),
        "fuse": lambda o: any(len(c.axes) > 1 for c in o.carries),
        "commuted": lambda o: o.commuted,
        "outer": lambda o: any(c.outer for c in o.carries),
    }
    # Forms that people type by analogy with the others.
    word = {"commute": "commuted", "skewed": "skew", "fused": "fuse"}.get(text, text)
    if word in tests:
        broken = tests[word]
        return lambda o: not broken(o)
    left, sign, right = text.partition("=")
    left = left.strip()
    axes = {a.strip() for a in right.split(",")} if sign else {left}
    if (sign and left not in unit.size) or not axes <= set(op.axes):
        raise InputError(
            f"--forbid {text} cannot be read", why=f"words: {', '.join(WORDS)}; {_known(op, unit)}",
            hint="--forbid skew, --forbid 'i=c' or --forbid q",
        )  # fmt: skip
    if sign:
        return lambda o: all(on(c, left) == 1 for c in o.carries if axes & set(c.axes))
    return lambda o: not any(dims_of(c) for c in o.carries if axes & set(c.axes))
