"""What scheduling needs of an embedding, as plain integers.

Takes: an Embedding and an Isa.  Leaves: a Problem: counters, and per operand the affine map from
counters
to grid indices.  Assumes: every output counter moves exactly one grid dimension of dst, by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible
from csp_embed.ir.embedding import Counter, Embedding, Layout
from csp_embed.ir.operator import Step
from csp_embed.ir.schedule import BiasLanes
from csp_embed.machine.reach import reach
from csp_embed.machine.spec import Instruction, Isa
from csp_embed.ops.wide import BITS, width


@dataclass(frozen=True)
class Map:
    """Grid index of an operand: origin[d] + sum over counters of step[c, d] * value[c]. order: of
    the dimensions in DRAM, where it is pinned."""

    operand: str
    memory: str
    grid: tuple[int, ...]
    origin: tuple[int, ...]
    step: NDArray[np.int64]
    order: tuple[int, ...] | None = None

    def box(self, lo: tuple[int, ...], hi: tuple[int, ...]) -> list[tuple[int, int]]:
        """Unclipped index range per grid dimension over counters in [lo, hi)."""
        out = []
        for first, movers in zip(self.origin, self.movers, strict=True):
            a = b = first
            # Steps may be negative (reversed digits): then the first value is the far end.
            for c, s in movers:
                if s > 0:
                    a += s * lo[c]
                    b += s * (hi[c] - 1)
                else:
                    a += s * (hi[c] - 1)
                    b += s * lo[c]
            out.append((a, b + 1))
        return out

    @cached_property
    def movers(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Per dimension (counter, step) of the counters that move it."""
        return tuple(
            tuple((c, int(s)) for c, s in enumerate(self.step[:, d]) if s)
            for d in range(len(self.grid))
        )


@dataclass(frozen=True)
class Problem:
    """Counters in embedding order. `instruction` executes the points; `adds` are the epilogue's
    tensors by
    step number. out_dim: counter -> dimension of dst. splits: see `split_dims`. depth: usable
    elements by memory. rounds: the contraction is done once more for each entry, first, with other
    constants and into the same accumulators; the entry's steps follow it. Their tensors are those
    of the epilogue, read alike, with values of their own. repeats: every round has the same
    factors. copies: so many rounds after the first one make no products: each adds what was kept
    last. kept: (round, steps) pairs: the sums are kept as they are after so many steps of that
    round. dropped: steps of the epilogue
    that the last round leaves out. live: of each round with products, by counter, the range beyond
    which its constants are 0; none: all of it. bias_lanes: how a dropped step is done."""

    embedding: Embedding
    isa: Isa
    names: tuple[str, ...]
    extents: tuple[int, ...]
    reduced: tuple[bool, ...]
    instruction: Instruction
    lhs: Map
    rhs: Map | None
    dst: Map
    adds: dict[int, Map]
    epilogue: tuple[Step, ...]
    out_dim: dict[int, int]
    splits: tuple[tuple[tuple[int, int], ...], ...]
    depth: dict[str, int]
    rounds: tuple[tuple[Step, ...], ...] = ()
    repeats: bool = False
    copies: int = 0
    kept: tuple[tuple[int, int], ...] = ()
    dropped: frozenset[int] = frozenset()
    live: tuple[tuple[tuple[int, int], ...], ...] = ()
    bias_lanes: BiasLanes | None = None

    @property
    def contractions(self) -> int:
        """How often the products are made."""
        return len(self.turns)

    @property
    def turns(self) -> tuple[int, ...]:
        """Rounds that make products; the others add what was kept."""
        return (0, *range(self.copies + 1, len(self.rounds) + 1))

    @property
    def passes(self) -> float:
        """How often the products are made, rounds whose constants are 0 in places counted in
        part."""
        if not self.live:
            return float(self.contractions)
        whole = math.prod(self.extents)
        return sum(math.prod(b - a for a, b in r) for r in self.live) / whole

    @property
    def sides(self) -> tuple[bool, bool]:
        """Whether lhs and rhs hold constants that differ by round."""
        if self.repeats or not self.rounds:
            # Rounds with the same factors differ in what follows them only.
            return False, False
        tensors, layouts = self.embedding.operator.tensors, self.embedding.layouts
        lhs, rhs = (tensors[layouts[r].tensor].constant for r in ("lhs", "rhs"))
        return lhs, rhs

    def steps(self, round: int) -> tuple[tuple[int, Step], ...]:
        """What follows a round, each step with the number of the epilogue's step whose tensor it
        reads."""
        if round == len(self.rounds):
            return tuple((i, s) for i, s in enumerate(self.epilogue) if i not in self.dropped)
        reads = {str(s.access): i for i, s in enumerate(self.epilogue) if s.access is not None}
        return tuple(
            (-1 if s.access is None else reads[str(s.access)], s) for s in self.rounds[round]
        )

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(i for i, r in enumerate(self.reduced) if not r)

    @property
    def reductions(self) -> tuple[int, ...]:
        return tuple(i for i, r in enumerate(self.reduced) if r)


def build(
    embedding: Embedding,
    isa: Isa,
    rounds: tuple[tuple[Step, ...], ...] = (),
    repeats: bool = False,
    copies: int = 0,
    kept: tuple[tuple[int, int], ...] = (),
    dropped: frozenset[int] = frozenset(),
) -> Problem:
    """rounds and what follows: see Problem. Of a factor wider than int8 each digit is a round.

    Raises: Infeasible where the machine lacks a function.
    """
    # An operator that fits one micro-operation has no loop; one of extent 1 keeps what follows
    # plain.
    counters = embedding.counters or (Counter("once", 1, True),)
    names = tuple(c.name for c in counters)
    instruction = isa.instruction(embedding.instruction)

    def to_map(layout: Layout) -> Map:
        step = np.array(
            [layout.step.get(n, (0,) * len(layout.grid)) for n in names], dtype=np.int64
        ).reshape(len(names), len(layout.grid))
        return Map(layout.operand, layout.memory, layout.grid, layout.origin, step, layout.order)

    layouts = embedding.layouts
    dst = to_map(layouts["dst"])
    dst, splits = split_dims(dst)
    out_dim = {}
    for i, counter in enumerate(counters):
        moved = [d for d in range(len(dst.grid)) if dst.step[i, d]]
        # Everything below relies on it: an output tile is a box, and stores are rectangles.
        assert len(moved) == (0 if counter.reduced else 1), (counter, dst)
        if moved:
            assert dst.step[i, moved[0]] == 1, (counter, dst)
            out_dim[i] = moved[0]
    adds = {}
    tensor_steps = [i for i, s in enumerate(embedding.operator.epilogue) if s.access is not None]
    for number, i in enumerate(tensor_steps):
        adds[i] = to_map(layouts[f"add{number}"])
    rounds = rounds or ((Step("shr", -BITS),),) * (width(embedding.operator) - 1)
    _check_ops(embedding, isa, [s for steps in rounds for s in steps])
    return Problem(
        embedding=embedding,
        isa=isa,
        names=names,
        extents=tuple(c.extent for c in counters),
        reduced=tuple(c.reduced for c in counters),
        instruction=instruction,
        lhs=to_map(layouts["lhs"]),
        rhs=to_map(layouts["rhs"]) if "rhs" in layouts else None,
        dst=dst,
        adds=adds,
        epilogue=embedding.operator.epilogue,
        out_dim=out_dim,
        splits=splits,
        depth={m.name: reach(isa, m.name) for m in isa.memories},
        rounds=rounds,
        repeats=repeats,
        copies=copies,
        kept=kept,
        dropped=dropped,
    )


def split_dims(dst: Map) -> tuple[Map, tuple[tuple[tuple[int, int], ...], ...]]:
    """dst with one grid dimension per counter, and per old dimension its parts (unit, size),
    outermost first.

    An output index like 6*g+k is moved by two counters; it is a mixed radix, so its grid dimension
    splits into one
    for g and one for k. The outermost part is rounded up.
    """
    grid: list[int] = []
    origin: list[int] = []
    columns: list[NDArray[np.int64]] = []
    splits = []
    for d, size in enumerate(dst.grid):
        column = dst.step[:, d]
        # Largest unit first: the digits of the index from the outside in.
        movers = sorted((int(column[c]), c) for c in range(len(column)) if column[c])[::-1]
        if len(movers) <= 1:
            movers = movers or [(1, -1)]
        parts, above = [], None
        for unit, c in movers:
            assert above is None or above % unit == 0, (
                "an output index is a mixed radix of its axes"
            )
            parts.append((unit, -(-size // unit) if above is None else above // unit))
            above = unit
            new = np.zeros(len(column), dtype=np.int64)
            if c >= 0:
                new[c] = 1
            columns.append(new)
            grid.append(parts[-1][1])
            origin.append(dst.origin[d] if len(movers) == 1 else 0)
        assert above == 1, "every element of a result is stored"
        assert len(movers) == 1 or dst.origin[d] == 0
        splits.append(tuple(parts))
    step = (
        np.stack(columns, axis=1) if columns else np.zeros((dst.step.shape[0], 0), dtype=np.int64)
    )
    # Where the old dimensions begin in the new numbering.
    first = [sum(len(p) for p in splits[:d]) for d in range(len(splits))]
    order = None
    if dst.order is not None:
        order = tuple(first[d] + j for d in dst.order for j in range(len(splits[d])))
    return Map(dst.operand, dst.memory, tuple(grid), tuple(origin), step, order), tuple(splits)


IDENTITIES = {"add": 0, "shr": 0, "mul": 1}


def identity(isa: Isa) -> tuple[str, int]:
    """An operation and immediate that change nothing: what makes the shadow of a value current.

    Raises: Infeasible where the machine has none.
    """
    mapped = isa.of_kind("map")
    have = {o.function for o in mapped.ops if o.portable}
    field = mapped.field(mapped.roles["imm"])
    # Any of them writes the mirror anew, which is what a copy is for.
    for name, imm in IDENTITIES.items():
        if name in have and field.min <= imm <= field.max:
            return name, imm
    raise Infeasible(
        f"{isa.name} cannot copy an accumulator to where it is stored from",
        where=isa.where(f"instructions.{mapped.name}.ops", f"instructions.{mapped.name}"),
        why=f"{mapped.name} has none of {', '.join(IDENTITIES)}",
        hint="add one of these operations, or an epilogue to the operator",
    )


def _check_ops(embedding: Embedding, isa: Isa, more: Sequence[Step]) -> None:
    map_instruction = next((i for i in isa.instructions if i.kind == "map"), None)
    have = {o.function: o for o in map_instruction.ops if o.portable} if map_instruction else {}
    for step in (*more, *embedding.operator.epilogue):
        if step.op not in have:
            raise Infeasible(
                f"{embedding.operator.name} needs `{step.op}` on the accumulator",
                where=f"epilogue step `{step}`",
                why=f"{isa.name} has only {', '.join(sorted(have)) or 'no elementwise operation'}",
                hint="write the epilogue with the operations that the machine has",
            )
        imm_field = map_instruction.roles.get("imm") if map_instruction else None
        if step.imm is not None and map_instruction is not None and imm_field:
            f = map_instruction.field(imm_field)
            if not f.min <= step.imm <= f.max:
                raise Infeasible(
                    f"immediate {step.imm} does not fit",
                    where=f"epilogue step `{step}`",
                    why=f"{isa.name}.{map_instruction.name} takes {f.min}..{f.max}",
                    hint="use a tensor operand or a smaller constant",
                )
