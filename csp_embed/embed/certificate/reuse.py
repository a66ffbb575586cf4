"""Reuse with proof: an embedding solved for one shape, applied to another of the same operator.

Takes: an Embedding and the EmbedProblem of the other shape.  Leaves: `Reuse`: the embedding there,
its analytic cost, and a lower bound on the cost of every embedding, so that the gap is proved
without a solver. `bound` takes less than a millisecond and holds for every embedding there is;
`least` sweeps the lifted model (about the time of a search) and is exact for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from csp_embed.embed.algebra.cost import UNIT, objective, parts
from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.build import build
from csp_embed.embed.explain.pareto_space import space_of, sweep
from csp_embed.embed.model.greedy import cost_of
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.space.digits import (
    WHOLE,
    Carry,
    Decisions,
    Part,
    Place,
    expand,
    inner_scale,
    parts_of,
)
from csp_embed.embed.space.unit import Unit, accesses
from csp_embed.ir.affine import Affine, Limit, count_inside
from csp_embed.ir.embedding import Coordinate, Embedding
from csp_embed.ir.operator import FACTORS, Access, Operator, Role


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
    embedding: Embedding, problem: EmbedProblem, *, within: float = 0.0, sweep_too: bool = True
) -> Reuse | None:
    """The embedding applied to another problem, whatever its gap, in the embedding's own layout
    mode; None where its structure does not fit.

    within: gap that is good enough; sweep_too: sweep the lifted model where the cheap bound does
    not prove it.
    """
    # Layouts are part of what was proved: another mode is another embedding.
    problem = replace(problem, mode=embedding.layout_mode)
    try:
        found = build(problem, adapted(embedding, problem))
    except Reject:
        return None
    cost = found.cost["objective"]
    low, by = bound(problem), "bound"
    # 1e-12 is rounding; a bound that is met needs no sweep.
    if sweep_too and cost > low * (1 + within) * (1 + 1e-12):
        low, by = max(low, least(problem)), "sweep"
    # Rounding again: no bound stands above a cost that exists.
    low = min(low, cost)
    gap = cost / low - 1 if low else 0.0
    proof = {
        "status": "OPTIMAL" if gap <= 1e-12 else "FEASIBLE",
        "objective_cycles": cost, "bound_cycles": cost if gap <= 1e-12 else low, "rank": 0,
        "memory": problem.costs.memory, "families": [f"reuse: {by}"],
    }  # fmt: skip
    return Reuse(replace(found, proof=proof), cost, low, max(gap, 0.0), by)


def bound(problem: EmbedProblem) -> float:
    """Cycles that no embedding's analytic cost undercuts, of the lifted model or not.

    Every point whose factors exist takes a lane of some step (rule 5), every output a lane of some
    accumulator element, every element that is read a lane of some packed one.
    """
    op, unit, w = problem.op, problem.unit, problem.weights
    least_of: list[float] = []
    for commuted in problem.commutations:
        roles = accesses(op, commuted)
        limits = [limit for r, a in roles.items() if r != Role.DST for limit in _limits(op, a)]
        points = count_inside(limits, dict(op.axes))
        # Each step has as many lanes as the dimensions' product, and a point takes one.
        steps = -(-points // math.prod(unit.size.values()))
        served = {**roles, **op.steps_read()}
        elements = {r: _elements(op, unit, r, a) for r, a in served.items()}
        least_of.append(objective(*parts(w, steps, elements, commuted)) / UNIT)
    return min(least_of)


def _limits(op: Operator, access: Access) -> list[Limit]:
    shape = op.tensors[access.tensor].shape
    return [(dict(ix.terms), ix.const, size) for ix, size in zip(access.index, shape, strict=True)]


def _elements(op: Operator, unit: Unit, role: str, access: Access) -> int:
    """Memory elements that hold each tensor element once."""
    dims = unit.dims_of(role)
    lanes = math.prod(unit.size[d] for d in dims)
    shape = op.tensors[access.tensor].shape
    if role not in FACTORS:
        # A result's elements all need a home, read or not.
        count = math.prod(shape)
    else:
        read = [_reached(op, ix, size) for ix, size in zip(access.index, shape, strict=True)]
        used = [a for ix in access.index for a, _ in ix.terms]
        # An axis in two indices meets a diagonal; the longer of both is what is certain.
        count = math.prod(read) if len(used) == len(set(used)) else max(read)
    return -(-count // lanes)


def _reached(op: Operator, ix: Affine, size: int) -> int:
    """Index values in range that some point reads."""
    # One plain axis, by far the most usual: an interval.
    if len(ix.terms) == 1 and ix.terms[0][1] == 1:
        return max(0, min(size, ix.const + op.axes[ix.terms[0][0]]) - max(0, ix.const))
    values = np.array([ix.const])
    for axis, coef in ix.terms:
        values = np.unique(values[:, None] + coef * np.arange(op.axes[axis]))
    return int(((values >= 0) & (values < size)).sum())


def least(problem: EmbedProblem) -> float:
    """The least analytic cost of the lifted model, by sweeping it: no solver, no embedding built.

    Where the sweep is cut at its limit, `bound`."""
    # `count_filled`: figures of fill are of no use to a cost.
    swept = sweep(space_of(problem, count_filled=False), kinds=True)
    if not swept.complete or not swept.answers:
        return bound(problem)
    return min(cost_of(problem, picked) for picked in swept.answers) / UNIT


def decisions_of(embedding: Embedding) -> Decisions:
    """The decisions behind an embedding: the inverse of `digits.expand`.

    Raises: Reject, where it has a digit that no decision makes."""
    parts = parts_of(embedding)
    strange = [d.name for d in embedding.digits if d.name not in parts]
    if strange:
        raise Reject("reuse", f"{', '.join(strange)}: no digit of the lifted model")
    read = tuple(_carry_of(c, parts, embedding) for c in embedding.coordinates)
    inner = {c.axes[0]: {d for d, _ in c.inner} for c in read}
    # Lanes that stand elsewhere than inside a counter are lent with the whole axis only.
    lent = [all(d in inner[a] for a, d, _ in c.skew) for c in read]
    carries = tuple(
        c if fine else _by_whole(c, read, embedding) or c
        for c, fine in zip(read, lent, strict=True)
    )
    # Where a carry begins early, its coordinate's constant is less than that of one that does not.
    # Built as if nothing began early; the difference is how early it does.
    for at in range(len(carries)):
        carries = _settled(carries, at, embedding)
    return Decisions(embedding.commuted, carries)


def _settled(carries: tuple[Carry, ...], at: int, embedding: Embedding) -> tuple[Carry, ...]:
    """The carries with one of them as the embedding has it: a digit that is all of an axis reads
    alike as a skew by that digit and by the whole axis, and the loops tell which was meant."""
    trips = {c.name: c.extent for c in embedding.counters}
    wanted = embedding.coordinates[at]
    tried: list[tuple[Carry, ...]] = []
    whole = _by_whole(carries[at], carries, embedding)
    for carry in (carries[at], *([whole] if whole is not None else [])):
        some = (*carries[:at], carry, *carries[at + 1 :])
        begun = expand(embedding.operator, Decisions(embedding.commuted, some)).coordinates[at]
        early = replace(carry, early=begun.const - wanted.const)
        tried.append((*carries[:at], early, *carries[at + 1 :]))
        made = expand(embedding.operator, Decisions(embedding.commuted, tried[-1]))
        same = all(
            c.extent == trips.get(c.name) for c in made.counters if c.name in wanted.counters
        )
        if same and made.coordinates[at] == wanted:
            return tried[-1]
    return tried[0]


def _carry_of(c: Coordinate, parts: Mapping[str, Part], embedding: Embedding) -> Carry:
    """The carry of one coordinate, but for `early`."""
    extent = {x.name: x.extent for x in (*embedding.digits, *embedding.counters)}
    moves = _moves(c, parts)
    # Innermost first: coefficients of digits grow outwards.
    own = sorted((n for n in moves if parts[n].axes == c.axes), key=lambda n: abs(moves[n]))
    at = {place: [n for n in own if parts[n].place is place] for place in Place}
    diagonal = None
    for name in at[Place.DIAGONAL]:
        partner = dict(embedding.equal)[name]
        diagonal = (parts[name].dim, parts[partner].dim, extent[name])
    skews: list[tuple[str, str, Fraction]] = []
    for name, coef in moves.items():
        part = parts[name]
        if part.axes != c.axes:  # a digit that another coordinate owns
            owner = next(o for o in embedding.coordinates if o.axes == part.axes)
            # The skew's coefficient is the negative of what the other coordinate moves by.
            multiplier = Fraction(-coef, _moves(owner, parts)[name])
            skews.append((part.axes[0], part.dim, multiplier))
    return Carry(
        c.axes,
        tuple((parts[n].dim, extent[n]) for n in at[Place.INNER]),
        tuple((parts[n].dim, extent[n]) for n in at[Place.OUTER]),
        diagonal,
        tuple(skews),
    )


def _by_whole(
    carry: Carry, carries: Sequence[Carry], embedding: Embedding
) -> Carry | None:  # fmt: skip
    """The carry with all of one other axis as its skew, where its coordinate can be read so."""
    at = {c.axes: c for c in embedding.coordinates}
    own, out = at[carry.axes], None
    moved = {**own.digits, **own.counters}
    for other in (c for c in carries if c is not carry and len(c.axes) == 1):
        there = {**at[other.axes].digits, **at[other.axes].counters}
        ratios = {Fraction(-moved[n], k) for n, k in there.items() if n in moved}
        if there and there.keys() <= moved.keys() and len(ratios) == 1:
            out = replace(carry, skew=((other.axes[0], WHOLE, ratios.pop()),))
    return out


def _moves(c: Coordinate, parts: Mapping[str, Part]) -> dict[str, int]:
    """Coefficients of lane digits and inner counters, without the coordinate's own counter."""
    return {n: k for n, k in (*c.digits.items(), *c.counters.items()) if n in parts}


def adapted(embedding: Embedding, problem: EmbedProblem) -> Decisions:
    """The same structure with factors for the problem's extents: shorter axes take fewer lanes, an
    axis that was carried whole takes the lanes that are free, and each factor is the least for its
    number of steps. Raises: Reject, where the operators do not have the same axes.
    """
    op, old = problem.op, decisions_of(embedding)
    if {a for c in old.carries for a in c.axes} != set(op.axes):
        raise Reject("reuse", "the operators have other axes")
    # What the old embedding left free of each dimension.
    size = dict(problem.unit.size)
    for dim in size:
        size[dim] //= math.prod(d.extent for d in embedding.digits if d.dim == dim)
    carries: list[Carry] = []
    for carry in old.carries:
        extent = math.prod(op.axes[a] for a in carry.axes)
        before = math.prod(embedding.operator.axes[a] for a in carry.axes)
        carries.append(_fitted(carry, extent, before, size))
    return Decisions(old.commuted, tuple(_respanned(carries, op)))


def _fitted(carry: Carry, extent: int, before: int, free: dict[str, int]) -> Carry:
    lanes = carry.inner_lanes * math.prod(e for _, e in carry.outer)
    # An axis that fitted whole may fit whole again, in more lanes than before.
    whole = lanes >= before and not carry.skew
    # A window has no extent of its own: it is cut to its span below.
    left = extent if not carry.skew else 1 << 40

    def fit(dim: str, factor: int) -> int:
        nonlocal left
        if whole and free.get(dim, 1) > 1 and left > factor:
            grown = min(left, factor * free[dim])
            free[dim] = free[dim] * factor // grown
            factor = grown
        factor = min(factor, left)
        # The least factor for the same number of rounds: more lanes would be pad.
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
    out: list[Carry] = []
    for c in carries:
        if any(d == WHOLE for _, d, _ in c.skew):
            # What it spans at these extents is found anew when it is built.
            out.append(c)
            continue
        skew = tuple(s for s in c.skew if any(d == s[1] for d, _ in by_axis[s[0]].inner))
        # Without the digit that it absorbed a skew moves nothing.
        if c.skew:
            span = op.axes[c.axes[0]] + sum(
                int(abs(m * inner_scale(by_axis[a])[d])) * (dict(by_axis[a].inner)[d] - 1)
                for a, d, m in skew
            )
            factor = [(d, min(f, span)) for d, f in c.inner]
            c = replace(c, skew=skew, inner=tuple(x for x in factor if x[1] > 1))
        out.append(c)
    return out
