"""Judges an embedding by the rules of the embedding problem; shares no code with the search.

Takes: Embedding, Isa.  Leaves: `Verdict`.

Small operators are judged by enumeration: every step, every lane, every operator point. Large ones
are judged exactly where an argument over coordinates suffices (each has lanes and counters of its
own that enumerate its range exactly once, whatever the others are: rules 3 and 5) and on a fixed
sample of steps, corners included, for what the lanes hold (rules 2, 4, 6, 7); `Verdict.exact` says
which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import CheckError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Access
from csp_embed.judge.embedding.breach import Breach
from csp_embed.judge.embedding.cover import by_coordinates, missed
from csp_embed.judge.embedding.points import (
    Ints,
    Lanes,
    asked,
    held,
    lanes_of,
    met,
    operand_dims,
    points,
)
from csp_embed.machine.spec import Isa


@dataclass(frozen=True)
class Verdict:
    """breaches: one per rule and place, empty if the embedding is right. exact: everything was
    enumerated; otherwise `steps` sampled steps and the argument over coordinates."""

    breaches: tuple[Breach, ...]
    exact: bool
    steps: int


def verify(embedding: Embedding, isa: Isa, *, limit: int = 4_000_000) -> Verdict:
    """As `judge`, raising CheckError where a rule is broken."""
    verdict = judge(embedding, isa, limit=limit)
    if verdict.breaches:
        what = f"the embedding of {embedding.operator.name} breaks {verdict.breaches[0]}"
        raise CheckError(
            what,
            where=embedding.formula(),
            why="; ".join(map(str, verdict.breaches)),
            hint="docs/embedding-rules.md states the rules; csp-embed explain finds legal ones",
        )
    return verdict


def judge(embedding: Embedding, isa: Isa, *, limit: int = 4_000_000) -> Verdict:
    """All broken rules. limit: instruction points (steps times lanes) that are enumerated."""
    early = [*_kind(embedding, isa), *_regular(embedding)]
    if early:
        return Verdict(tuple(early), True, 0)
    dims = operand_dims(embedding, isa)
    sizes = {d: n for d, n in isa.dims.items() if any(d in v for v in dims.values())}
    lanes = lanes_of(embedding, sizes)
    early = [Breach(8, f"lanes of {d} are named twice or do not exist") for d in lanes.clash]
    early += _content_dims(embedding, dims)
    if early:
        return Verdict(tuple(early), True, 0)
    total = math.prod(c.extent for c in embedding.counters) * lanes.count
    exact = total <= limit and math.prod(embedding.operator.axes.values()) <= limit
    out = [] if exact else by_coordinates(embedding)
    cover = np.zeros(math.prod(embedding.operator.axes.values()) if exact else 0, np.int64)
    steps = 0
    for values, count in _steps(embedding, lanes, exact, limit):
        steps += count
        out += _judge_steps(embedding, dims, lanes, values, count, cover)
        if out:
            break
    if exact and not out:
        out += missed(embedding, cover)
    if not out:
        out += _homes(embedding, dims, lanes, limit)
    return Verdict(tuple(dict.fromkeys(out)), exact, steps)


def accesses(embedding: Embedding) -> dict[str, Access]:
    """Operand -> the operator's access that it must serve."""
    op = embedding.operator
    out = {"dst": op.out, "lhs": op.lhs}
    if op.rhs is not None:
        pair = (op.rhs, op.lhs) if embedding.commuted else (op.lhs, op.rhs)
        out["lhs"], out["rhs"] = pair
    tensors = [s.access for s in op.epilogue if s.access is not None]
    return out | {f"add{n}": a for n, a in enumerate(tensors)}


def _kind(embedding: Embedding, isa: Isa) -> Iterator[Breach]:
    op = embedding.operator
    found = [i for i in isa.instructions if i.name == embedding.instruction]
    wanted = "contract" if op.kind == "contract" else "map"
    if not found or found[0].kind != wanted:
        yield Breach(1, f"{op.kind} needs a {wanted} instruction, not {embedding.instruction}")
        return
    can = {m.function for i in isa.instructions for m in i.ops}
    needed = {s.op for s in op.epilogue} | ({op.kind} & {"max", "min"})
    for name in sorted(needed - can):
        yield Breach(1, f"{isa.name} has no elementwise {name}")
    if set(embedding.layouts) != set(accesses(embedding)):
        yield Breach(1, f"layouts of {sorted(embedding.layouts)} for other operands")


def _regular(embedding: Embedding) -> Iterator[Breach]:
    carried = [a for c in embedding.coordinates for a in c.axes]
    if sorted(carried) != sorted(embedding.operator.axes):
        yield Breach(8, f"coordinates carry {carried}, not each axis once")
    digits = {d.name for d in embedding.digits}
    counters = {c.name for c in embedding.counters}
    for c in embedding.coordinates:
        if not set(c.digits) <= digits or not set(c.counters) <= counters:
            yield Breach(8, f"coordinate {c.axes} names digits or counters that do not exist")
        if c.extent != math.prod(embedding.operator.axes.get(a, 0) for a in c.axes):
            yield Breach(8, f"coordinate {c.axes} has extent {c.extent}")
    for role, layout in embedding.layouts.items():
        unknown = set(layout.step) - counters
        if unknown:
            yield Breach(8, f"{role} steps with {sorted(unknown)}, which are no counters")


def _content_dims(embedding: Embedding, dims: Mapping[str, tuple[str, ...]]) -> Iterator[Breach]:
    """A lane's content may depend on its own digits only."""
    dim_of = {d.name: d.dim for d in embedding.digits}
    for role, layout in embedding.layouts.items():
        used = {n for t in layout.digit_coef for n in t} | {
            n for f in layout.fused for n in f.digit_coef
        }
        for name in sorted(used | {n for pair in layout.equal for n in pair}):
            if dim_of.get(name) not in dims[role]:
                yield Breach(
                    7, f"content of {role} depends on digit {name}, which it does not have"
                )


def _steps(
    embedding: Embedding, lanes: Lanes, exact: bool, limit: int
) -> Iterator[tuple[dict[str, Ints], int]]:
    """Counter values, in batches: all of them, or corners and a fixed random sample."""
    names = [c.name for c in embedding.counters]
    extents = [c.extent for c in embedding.counters]
    # 500,000 points per batch keep a dozen int64 tables of it in a few tens of MB.
    batch = max(1, 500_000 // lanes.count)
    if exact:
        total = math.prod(extents)
        for start in range(0, total, batch):
            index = np.arange(start, min(start + batch, total))
            table = np.unravel_index(index, extents) if extents else ()
            yield dict(zip(names, table, strict=True)), len(index)
        return
    # A fixed seed: the same embedding gets the same verdict, whoever asks.
    rng = np.random.default_rng(0)
    # Corners are where windows and ragged ends break; at most 256, for 2^n of them would not end.
    corners = list(itertools.islice(itertools.product(*((0, e - 1) for e in extents)), 256))
    count = max(64, limit // (16 * lanes.count))
    # One row for each draw, of no columns where nothing loops.
    drawn = np.array([rng.integers(0, e, count) for e in extents], np.int64)
    drawn = drawn.reshape(len(extents), count).T
    table = np.concatenate([np.array(corners, np.int64), drawn])
    for start in range(0, len(table), batch):
        part = table[start : start + batch]
        yield {n: part[:, k] for k, n in enumerate(names)}, len(part)


def _judge_steps(
    embedding: Embedding,
    dims: Mapping[str, tuple[str, ...]],
    lanes: Lanes,
    values: Mapping[str, Ints],
    count: int,
    cover: Ints,
) -> list[Breach]:
    op = embedding.operator
    at = points(embedding, lanes, values, count)
    want: dict[str, Ints] = {}
    have: dict[str, Ints] = {}
    in_grid: dict[str, NDArray[np.bool_]] = {}
    out: list[Breach] = []
    for role, access in accesses(embedding).items():
        layout = embedding.layouts[role]
        want[role] = asked(access, op.tensors[access.tensor].shape, at)
        grid, in_grid[role] = met(layout, values, count)
        have[role] = held(layout, embedding, dims[role], lanes, grid)
    inputs = [r for r in ("lhs", "rhs") if r in want]
    runs = np.logical_and.reduce([in_grid[r] for r in inputs])[:, None]
    # Lanes of the accumulator that hold no element of the result: garbage there harms nobody.
    dead = have["dst"] < 0
    for role in want:
        # Only where the point is one of the operator's and the element lies in the packed grid:
        # elsewhere nothing was promised.
        known = at.inside & in_grid[role][:, None]
        wrong = known & (want[role] != have[role])
        if wrong.any():
            out.append(_mismatch(embedding, role, dims[role], lanes, at.inside, want[role], wrong))
    if (at.inside & ~in_grid["dst"][:, None]).any():
        out.append(Breach(6, "a step's result lies outside the result's grid"))
    # A point has work only if both factors exist; others may be skipped, that is how padding is
    # free.
    effect = np.logical_and.reduce([want[r] >= 0 for r in inputs])
    if (at.inside & effect & ~runs).any():
        out.append(Breach(5, "a step with work is left out: its element is not packed"))
    # No point of the operator, both factors live, and a result lane that somebody reads: its
    # product is added to a wrong sum.
    live = np.logical_and.reduce([have[r] >= 0 for r in inputs]) & runs & ~dead & ~at.inside
    if live.any():
        p = np.argwhere(live)[0][1]
        lane = {d: int(v[p]) for d, v in lanes.lane.items()}
        out.append(Breach(4, f"a pad point adds live data to a live lane: lanes {lane}"))
    if len(cover):
        # Flat point numbers, row-major over the operator's axes, as `missed` reads them back.
        sizes = list(op.axes.items())
        index = np.zeros(at.inside.shape, np.int64)
        for axis, n in sizes:
            index = index * n + np.where(at.inside, at.axes[axis], 0)
        met_here = at.inside & runs
        # add.at, for points may repeat within a batch, and `cover[index] += 1` would count them
        # once.
        np.add.at(cover, index[met_here], 1)
        if (cover > 1).any():
            point = np.unravel_index(int(np.argmax(cover > 1)), [n for _, n in sizes])
            text = " ".join(f"{a}={int(v)}" for (a, _), v in zip(sizes, point, strict=True))
            out.append(Breach(3, f"operator point {text} is met twice"))
    return out


def _mismatch(
    embedding: Embedding,
    role: str,
    dims: tuple[str, ...],
    lanes: Lanes,
    inside: NDArray[np.bool_],
    want: Ints,
    wrong: NDArray[np.bool_],
) -> Breach:
    """Rule 2 where lanes that share an operand element want different tensor elements in one step,
    else rule 7: the layout holds something else than a step reads."""
    s = int(np.argwhere(wrong)[0][0])
    # Lanes with the same coordinates in the operand's own dimensions read one and the same lane of
    # it.
    column = np.zeros(lanes.count, np.int64)
    for d in dims:
        column = column * (int(lanes.lane[d].max()) + 1) + lanes.lane[d]
    asked_by: dict[int, set[int]] = {}
    for p in np.flatnonzero(inside[s]):
        asked_by.setdefault(int(column[p]), set()).add(int(want[s, p]))
    if any(len(v) > 1 for v in asked_by.values()):
        other = [d for d in lanes.lane if d not in dims]
        return Breach(
            2, f"one lane of {role} serves points of other {other} that need other elements"
        )
    tensor = embedding.layouts[role].tensor
    return Breach(7, f"a lane of {role} holds another element of {tensor} than a step reads")


def _homes(
    embedding: Embedding, dims: Mapping[str, tuple[str, ...]], lanes: Lanes, limit: int
) -> list[Breach]:
    """Rule 6 and the layouts' promises: an output element stands once; no element of a strict
    run-time operand or of one that claims no duplicates stands twice."""
    out: list[Breach] = []
    op = embedding.operator
    for role, layout in embedding.layouts.items():
        # One column per lane of this operand.
        first = np.ones(lanes.count, bool)
        for d in lanes.lane:
            if d not in dims[role]:
                first &= lanes.lane[d] == 0
        keep = np.flatnonzero(first)
        # Not enumerated: it would take minutes.
        if layout.elements * len(keep) > 16 * limit:
            continue
        part = Lanes(
            len(keep),
            {n: v[keep] for n, v in lanes.digit.items()},
            {n: v[keep] for n, v in lanes.pad.items()},
            {n: v[keep] for n, v in lanes.lane.items()},
            (),
        )
        size = math.prod(op.tensors[layout.tensor].shape)
        seen = np.zeros(size, np.int64)
        batch = max(1, 1_000_000 // len(keep))
        for start in range(0, layout.elements, batch):
            index = np.arange(start, min(start + batch, layout.elements))
            if layout.grid:
                grid = np.stack(np.unravel_index(index, layout.grid), axis=1)
            else:
                grid = np.zeros((len(index), 0), np.int64)
            content = held(layout, embedding, dims[role], part, grid)
            seen += np.bincount(content[content >= 0], minlength=size)
        most, least = int(seen.max()), int(seen.min())
        if role == "dst" and most > 1:
            out.append(Breach(6, f"an element of {layout.tensor} has {most} homes"))
        elif role == "dst" and least < 1:
            out.append(Breach(6, f"an element of {layout.tensor} has no home"))
        elif (most > 1) != layout.duplicates:
            # Claimed duplicates that are none are wrong too: the host packs by the claim.
            text = "stands twice" if most > 1 else "stands once, though duplicates are claimed"
            out.append(Breach(9, f"an element of {layout.tensor} {text}"))
        strict = embedding.layout_mode == "strict" and not op.tensors[layout.tensor].constant
        if strict and role in ("lhs", "rhs") and (most != 1 or least != 1):
            out.append(
                Breach(9, f"strict, but elements of {layout.tensor} stand {least}..{most} times")
            )
    return out
