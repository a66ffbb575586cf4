"""The complete lifted space of a small operator: every affine map, judged by the lifted algebra.

Takes: Ground (operator, machine, step limit), Isa.  Leaves: embeddings, built by the code that
`compile` uses.

The search (options.py) weighs a subset of this space; see the lemmas there. Candidates are all
affine maps over prime digits (ground/numerations.py) that meet every effective point once (rules 3
and 5) and in which a lane digit moves no operand that lacks its dimension, and the result if it has
it (else lanes would repeat outputs: two homes). Whether a candidate is an
embedding is decided by rows, grids, range checks and counts alone, point by point
nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.build import build_map
from csp_embed.embed.ground.numerations import STEP, Frame, frames
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.space.digits import Map
from csp_embed.ir.embedding import Coordinate, Counter, Digit, Embedding
from csp_embed.ir.ground import Ground
from csp_embed.machine.spec import Isa
from tests.oracles.affine import Affine, Maps


def complete_embeddings(
    ground: Ground, isa: Isa, mode: str = "relaxed"
) -> Iterator[tuple[Affine, Embedding]]:
    """Every embedding of at most the ground problem's steps (empty ones counted), and its map."""
    problem = EmbedProblem.of(ground.op, isa, mode)
    for frame in frames(ground):
        for found in Maps(ground, frame, lambda f, n, v: own_lanes(ground, f, n, v)):
            try:
                yield found, build_map(problem, map_of(ground, found), ground.commuted)
            except Reject:
                continue


def own_lanes(ground: Ground, frame: Frame, digit: int, column: Sequence[int]) -> bool:
    """Whether the digit moves only operands that have its dimension (of a pair: one of the two),
    and the result exactly if that has it.

    A fused coordinate is no affine function of a tensor's indices: who reads it has the digit."""
    if frame.digits[digit].dim == STEP:
        return True
    dims = {frame.digits[digit].dim}
    dims |= {frame.digits[b].dim for a, b in frame.equal if a == digit}
    pairs = zip(frame.coordinates, column, strict=True)
    moves = any(v for axes, v in pairs if axes[0] in ground.op.out_axes)
    if moves != bool(dims & set(ground.dims["dst"])):
        return False
    for role, access in ground.accesses.items():
        if dims & set(ground.dims[role]):
            continue
        for ix in access.index:
            plain, fused = 0, False
            for axes, moved in zip(frame.coordinates, column, strict=True):
                plain += ix.coef(axes[0]) * moved if len(axes) == 1 else 0
                fused |= len(axes) > 1 and moved != 0 and any(ix.coef(a) for a in axes)
            if plain or fused:
                return False
    return True


def map_of(ground: Ground, found: Affine) -> Map:
    """The same as digits, counters and coordinates, named by dimension and radix."""
    frame, op = found.frame, ground.op
    names = [f"{d.dim}*{d.radix}" for d in frame.digits]
    outputs = [k for k, axes in enumerate(frame.coordinates) if axes[0] in op.out_axes]
    counters = [
        Counter(names[n], d.extent, not any(found.columns[n][k] for k in outputs))
        for n, d in enumerate(frame.digits)
        if d.dim == STEP
    ]
    digits = [
        Digit(names[n], d.dim, d.extent, d.radix)
        for n, d in enumerate(frame.digits)
        if d.dim != STEP
    ]
    coordinates = []
    for k, axes in enumerate(frame.coordinates):
        parts = {n: v[k] for n, v in found.columns.items() if v[k]}
        lanes = {names[n]: v for n, v in parts.items() if frame.digits[n].dim != STEP}
        loops = {names[n]: v for n, v in parts.items() if frame.digits[n].dim == STEP}
        extent = math.prod(op.axes[a] for a in axes)
        coordinates.append(Coordinate(axes, extent, found.const[k], lanes, loops))
    return Map(
        tuple(digits),
        tuple(sorted(counters, key=lambda c: c.reduced)),
        tuple(coordinates),
        tuple((names[a], names[b]) for a, b in frame.equal),
    )
