"""Reuse with proof: an embedding solved for one shape, applied to another of the same operator.

Takes: an Embedding and the Operator of the other shape.  Leaves: `Reuse`: the embedding there, its
analytic cost, and a lower bound on the cost of every embedding, so that the gap is proved without a
solver. `bound` takes less than a millisecond and holds for every embedding there is; `least` sweeps
the lifted model (about the time of a search) and is exact for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from csp_embed.embed.algebra.cost import UNIT, Limit, objective, parts, steps_within, weights
from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.build import build
from csp_embed.embed.explain.pareto_space import space_of, sweep
from csp_embed.embed.model.greedy import cost_of
from csp_embed.embed.problem import Problem
from csp_embed.embed.space.digits import LOOP, Carry, Choice, expand, inner_digits
from csp_embed.embed.space.unit import Unit, accesses, unit_for
from csp_embed.ir.embedding import Coordinate, Embedding
from csp_embed.ir.operator import Access, Affine, Operator
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.spec import Isa


@dataclass(frozen=True)
class Reuse:
    """embedding: of the new shape, with `proof` filled. gap: (cost - bound) / bound, 0 where it is
    proved optimal. proved_by: "bound" or "sweep"."""

    embedding: Embedding
    cost: float
    bound: float
    gap: float
    proved_by: str


def reuse(
    embedding: Embedding,
    op: Operator,
    isa: Isa,
    *,
    within: float = 0.0,
    sweep_too: bool = True,
    costs: Costs | None = None,
) -> Reuse | None:
    """The embedding applied to `op`, whatever its gap; None where its structure does not fit.

    within: gap that is good enough; sweep_too: sweep the lifted model where the cheap bound does
    not prove it.
    """
    costs = costs or costs_of(isa)
    try:
        found = build(op, isa, adapted(embedding, op, isa), embedding.layout_mode, costs)
    except Reject:
        return None
    cost = found.cost["objective"]
    low, by = bound(op, isa, costs), "bound"
    if sweep_too and cost > low * (1 + within) * (1 + 1e-12):
        low, by = max(low, least(op, isa, embedding.layout_mode, costs)), "sweep"
    low = min(low, cost)
    gap = cost / low - 1 if low else 0.0
    proof = {
        "status": "OPTIMAL" if gap <= 1e-12 else "FEASIBLE",
        "objective_cycles": cost, "bound_cycles": cost if gap <= 1e-12 else low, "rank": 0,
        "memory": costs.memory, "families": [f"reuse: {by}"],
    }  # fmt: skip
    return Reuse(replace(found, proof=proof), cost, low, max(gap, 0.0), by)


def bound(op: Operator, isa: Isa, costs: Costs | None = None) -> float:
    """Cycles that no embedding's analytic cost undercuts, of the lifted model or not.

    Every point whose factors exist takes a lane of some step (rule 5), every output a lane of some
    accumulator element, every element that is read a lane of some packed one.
    """
    unit = unit_for(op, isa)
    w = weights(op, isa, unit, costs or costs_of(isa))
    least_of = []
    for commuted in (False, True) if op.rhs is not None else (False,):
        roles = accesses(op, commuted)
        limits = [limit for r, a in roles.items() if r != "dst" for limit in _limits(op, a)]
        points = steps_within(limits, dict(op.axes))
        steps = -(-points // math.prod(unit.size.values()))
        tensors = [s.access for s in op.epilogue if s.access is not None]
        served = dict(roles) | {f"add{n}": a for n, a in enumerate(tensors)}
        elements = {r: _elements(op, unit, r, a) for r, a in served.items()}
        least_of.append(objective(*parts(w, steps, elements, commuted)) / UNIT)
    return min(least_of)


def _limits(op: Operator, access: Access) -> list[Limit]:
    shape = op.tensors[access.tensor].shape
    return [(dict(ix.terms), ix.const, size) for ix, size in zip(access.index, shape, strict=True)]


def _elements(op: Operator, unit: Unit, role: str, access: Access) -> int:
    """Memory elements that hold each tensor element once."""
    dims = unit.dims["dst" if role.startswith("add") else role]
    lanes = math.prod(unit.size[d] for d in dims)
    shape = op.tensors[access.tensor].shape
    if role == "dst" or role.startswith("add"):
        count = math.prod(shape)
    else:
        read = [_reached(op, ix, size) for ix, size in zip(access.index, shape, strict=True)]
        used = [a for ix in access.index for a, _ in ix.terms]
        count = math.prod(read) if len(used) == len(set(used)) else max(read)
    return -(-count // lanes)


def _reached(op: Operator, ix: Affine, size: int) -> int:
    """Index values in range that some point reads."""
    if len(ix.terms) == 1 and ix.terms[0][1] == 1:
        return max(0, min(size, ix.const + op.axes[ix.terms[0][0]]) - max(0, ix.const))
    values = np.array([ix.const])
    for axis, coef in ix.terms:
        values = np.unique(values[:, None] + coef * np.arange(op.axes[axis]))
    return int(((values >= 0) & (values < size)).sum())


def least(op: Operator, isa: Isa, mode: str = "relaxed", costs: Costs | None = None) -> float:
    """The least analytic cost of the lifted model, by sweeping it: no solver, no embedding built.

    Where the sweep is cut at its limit, `bound`."""
    space = space_of(op, isa, mode, count_filled=False, costs=costs)
    swept = sweep(space, kinds=True)
    if not swept.complete or not swept.answers:
        return bound(op, isa, costs)
    problem = Problem(op, isa, space.unit, mode, space.blocks, (), space.costs)
    w = weights(op, isa, space.unit, space.costs)
    return min(cost_of(problem, picked, w) for picked in swept.answers) / UNIT


def choice_of(embedding: Embedding) -> Choice:
    """The decisions behind an embedding: the inverse of `choice.expand`."""
    digits = {d.name: d for d in embedding.digits}
    trips = {c.name: c.extent for c in embedding.counters}
    partner = dict(embedding.equal)
    inner: dict[str, list[tuple[str, int]]] = {}
    carries = []
    for c in embedding.coordinates:
        prefix = _prefix(c, digits)
        own = {n: k for n, k in _moves(c).items() if n.startswith(prefix + ".")}
        plain = [n for n in sorted(own, key=lambda n: abs(own[n])) if n[-1] not in "^="]
        outer = [n for n in sorted(own, key=lambda n: abs(own[n])) if n.endswith("^")]
        diagonal = next((n for n in own if n.endswith("=")), None)
        inner[c.axes[0]] = [
            (LOOP, trips[n]) if n in trips else (digits[n].dim, digits[n].extent) for n in plain
        ]
        pair = None
        if diagonal is not None:
            pair = (digits[diagonal].dim, digits[partner[diagonal]].dim, digits[diagonal].extent)
        carries.append(
            Carry(
                c.axes,
                tuple(inner[c.axes[0]]),
                tuple((digits[n].dim, digits[n].extent) for n in outer),
                pair,
                tuple(_skews(c, own, embedding)),
            )
        )
    found = Choice(embedding.commuted, tuple(carries))
    begun = expand(embedding.operator, found).coordinates
    return Choice(
        embedding.commuted,
        tuple(
            replace(carry, early=new.const - old.const)
            for carry, new, old in zip(carries, begun, embedding.coordinates, strict=True)
        ),
    )


def _moves(c: Coordinate) -> dict[str, int]:
    """Lane digits and inner counters."""
    return {**c.digits, **{n: k for n, k in c.counters.items() if n.endswith(f".{LOOP}")}}


def _prefix(c: Coordinate, digits: Mapping[str, object]) -> str:
    name = "*".join(c.axes)
    names = (*c.digits, *c.counters)
    return f"u({name})" if any(n.split(".")[0] == f"u({name})" for n in names) else name


def _skews(
    c: Coordinate, own: Mapping[str, int], embedding: Embedding
) -> list[tuple[str, str, Fraction]]:
    """(axis, dimension, multiplier) of the digits that another coordinate owns."""
    out = []
    for name, coef in _moves(c).items():
        if name in own:
            continue
        axis, dim = name.split(".")
        owner = next(o for o in embedding.coordinates if o.axes == (axis,))
        out.append((axis, dim, Fraction(-coef, _moves(owner)[name])))
    return out


def adapted(embedding: Embedding, op: Operator, isa: Isa) -> Choice:
    """The same structure with factors for the extents of `op`: shorter axes take fewer lanes, an
    axis that was carried whole takes the lanes that are free, and each factor is the least for its
    number of steps. Raises: Reject, where the operators do not have the same axes.
    """
    old = choice_of(embedding)
    if {a for c in old.carries for a in c.axes} != set(op.axes):
        raise Reject("reuse", "the operators have other axes")
    size = dict(unit_for(op, isa).size)
    for dim in size:
        size[dim] //= math.prod(d.extent for d in embedding.digits if d.dim == dim)
    carries: list[Carry] = []
    for carry in old.carries:
        extent = math.prod(op.axes[a] for a in carry.axes)
        before = math.prod(embedding.operator.axes[a] for a in carry.axes)
        carries.append(_fitted(carry, extent, before, size))
    return Choice(old.commuted, tuple(_respanned(carries, op)))


def _fitted(carry: Carry, extent: int, before: int, free: dict[str, int]) -> Carry:
    lanes = carry.inner_lanes * math.prod(e for _, e in carry.outer)
    whole = lanes >= before and not carry.skew
    left = extent if not carry.skew else 1 << 40

    def fit(dim: str, factor: int) -> int:
        nonlocal left
        if whole and free.get(dim, 1) > 1 and left > factor:
            grown = min(left, factor * free[dim])
            free[dim] = free[dim] * factor // grown
            factor = grown
        factor = min(factor, left)
        factor = -(-left // -(-left // factor)) if not carry.skew else factor
        left = -(-left // factor)
        return factor

    inner = tuple((d, fit(d, f)) for d, f in carry.inner)
    diagonal = None
    if carry.diagonal:
        a, b, factor = carry.diagonal
        factor = min(factor, left)
        left = -(-left // factor)
        diagonal = (a, b, factor) if factor > 1 else None
    outer = tuple((d, fit(d, f)) for d, f in carry.outer)
    return replace(
        carry,
        inner=tuple(x for x in inner if x[1] > 1),
        outer=tuple(x for x in outer if x[1] > 1),
        diagonal=diagonal,
    )


def _respanned(carries: Sequence[Carry], op: Operator) -> list[Carry]:
    """Skews only along digits that are still there, and no wider than the window."""
    by_axis = {c.axes[0]: c for c in carries}
    out = []
    for c in carries:
        skew = tuple(s for s in c.skew if any(d == s[1] for d, _ in by_axis[s[0]].inner))
        if c.skew:
            span = op.axes[c.axes[0]] + sum(
                int(abs(m * dict(inner_digits(by_axis[a]))[f"{a}.{d}"]))
                * (dict(by_axis[a].inner)[d] - 1)
                for a, d, m in skew
            )
            factor = [(d, min(f, span)) for d, f in c.inner]
            c = replace(c, skew=skew, inner=tuple(x for x in factor if x[1] > 1))
        out.append(c)
    return out
