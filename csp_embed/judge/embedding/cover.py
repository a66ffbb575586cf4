"""Every operator point once (rules 3 and 5): by an argument over coordinates, or from counts.

Takes: Embedding.  Leaves: breaches. An embedding too large to enumerate is right in these rules
where each coordinate has lanes and counters of its own that take it through its range exactly once,
whatever the others are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from csp_embed.ir.embedding import Coordinate, Embedding
from csp_embed.ir.operator import Operator
from csp_embed.judge.embedding.breach import Breach
from csp_embed.judge.embedding.points import Ints


def by_coordinates(embedding: Embedding) -> list[Breach]:
    """Rules 3 and 5 without enumeration: every coordinate has lanes and counters of its own that
    take it through its range exactly once, whatever the shared ones are."""
    trips = {c.name: c.extent for c in embedding.counters}
    trips |= {d.name: d.extent for d in embedding.digits}
    # A digit that must equal another one moves nothing by itself: only its partner is asked for.
    partners = {second for _, second in embedding.equal}
    uses: dict[str, int] = {}
    for c in embedding.coordinates:
        for name in (*c.digits, *c.counters):
            uses[name] = uses.get(name, 0) + 1
    out = [
        Breach(3, f"{n} moves no axis: points repeat")
        for n in trips
        if n not in uses and n not in partners and trips[n] > 1
    ]
    for c in embedding.coordinates:
        parts = {**c.digits, **c.counters}
        # A shared name belongs to the coordinate in which it is not alone responsible: a skewed
        # window borrows the lanes of the output it serves.
        own = {n: k for n, k in parts.items() if uses[n] == 1 or _owner(embedding, n) is c}
        shared = {n: k for n, k in parts.items() if n not in own}
        # Axes that the shared names alone move: each of their values needs some values of this one.
        led = [o for o in embedding.coordinates if o is not c and len(o.axes) == 1
               and {*o.digits, *o.counters} <= shared.keys()]  # fmt: skip
        out += _once(embedding.operator, c, own, shared, trips, led)
    return out


def _owner(embedding: Embedding, name: str) -> Coordinate | None:
    """Of a digit in two coordinates: the one that is an output's (the reduced one is skewed)."""
    outs = set(embedding.operator.out_axes)
    holders = [c for c in embedding.coordinates if name in c.digits or name in c.counters]
    return next((c for c in holders if c.axes[0] in outs), None)


def _needed(op: Operator, axes: tuple[str, ...], fixed: Mapping[str, int]) -> Ints:
    """Values of a coordinate, row-major over its axes, that an embedding may not leave out. fixed:
    values that other axes have.

    A reduced value at which a factor's index is out of range whatever the other axes are (a tap
    that only touches padding) adds nothing to any result. Values of output axes always count: every
    element of the result needs a home.
    """
    sizes = [op.axes[a] for a in axes]
    value = np.unravel_index(np.arange(math.prod(sizes)), sizes)
    good = np.ones(math.prod(sizes), bool)
    if any(not 0 <= v < op.axes[a] for a, v in fixed.items()):
        return np.flatnonzero(~good)  # no point is there
    for axis, own in zip(axes, value, strict=True):
        if axis in op.out_axes:
            continue
        for access in [op.lhs, *([op.rhs] if op.rhs else [])]:
            for size, ix in zip(op.tensors[access.tensor].shape, access.index, strict=True):
                coef = {a: c for a, c in ix.terms}
                if axis not in coef:
                    continue
                at = ix.const + sum(coef.get(a, 0) * v for a, v in fixed.items())
                others = [c * (op.axes[a] - 1) for a, c in coef.items()
                          if a != axis and a not in fixed]  # fmt: skip
                least = at + sum(min(o, 0) for o in others) + coef[axis] * own
                most = at + sum(max(o, 0) for o in others) + coef[axis] * own
                good &= (most >= 0) & (least < size)
    return np.flatnonzero(good)


def _once(
    op: Operator,
    c: Coordinate,
    own: Mapping[str, int],
    shared: Mapping[str, int],
    trips: Mapping[str, int],
    led: Sequence[Coordinate],
) -> list[Breach]:
    values = np.array([c.const], np.int64)
    for name, coef in own.items():
        # All values of a coordinate as one sumset; repeated values stay in, for they are what rule
        # 3 looks for.
        values = (values[:, None] + coef * np.arange(trips[name])[None]).ravel()
    # What the shared names do: (offset of this coordinate, value of each that they lead). Only
    # distinct ones matter: the argument is made once for each.
    rows = np.array([[0, *(o.const for o in led)]], np.int64)
    for name, coef in shared.items():
        step = [coef, *(o.digits.get(name, 0) + o.counters.get(name, 0) for o in led)]
        moved = np.arange(trips[name])[:, None] * np.array(step, np.int64)
        rows = np.unique((rows[:, None] + moved[None]).reshape(-1, len(step)), axis=0)
    for offset, *fixed in rows.tolist():
        inside = values + offset
        inside = inside[(inside >= 0) & (inside < c.extent)]
        found = np.unique(inside)
        if len(inside) != len(found):
            return [Breach(3, f"values of {'*'.join(c.axes)} are met twice")]
        # `needed` leaves out values that add nothing, so a missed one changes the result.
        at = {o.axes[0]: v for o, v in zip(led, fixed, strict=True)}
        missed = np.setdiff1d(_needed(op, c.axes, at), found, assume_unique=True)
        if len(missed):
            return [Breach(5, f"value {missed[0]} of {'*'.join(c.axes)} is missed")]
    return []


def missed(embedding: Embedding, cover: Ints) -> list[Breach]:
    """Rule 5, after all steps: nothing that has all its factors is missed."""
    op = embedding.operator
    index = np.indices(tuple(op.axes.values())).reshape(len(op.axes), -1)
    good = np.ones(index.shape[1], bool)
    # Points whose factors all exist; one whose factor is padding adds 0 wherever it is left out.
    order = {a: n for n, a in enumerate(op.axes)}
    for access in [op.out, op.lhs, *([op.rhs] if op.rhs else [])]:
        for size, ix in zip(op.tensors[access.tensor].shape, access.index, strict=True):
            value = ix.const + sum(c * index[order[a]] for a, c in ix.terms)
            good &= (value >= 0) & (value < size)
    missed = good & (cover == 0)
    if not missed.any():
        return []
    at = index[:, int(np.argmax(missed))]
    text = " ".join(f"{a}={int(v)}" for a, v in zip(op.axes, at, strict=True))
    return [Breach(5, f"operator point {text} is missed")]
