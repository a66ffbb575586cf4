"""Schedules for pools and elementwise programs whose source comes in as a factor: a contraction
with an identity matrix puts it into the accumulators (`ir.schedule.Identity`).

Takes: a Problem without rhs, an Identity.  Leaves: Schedule.  Loads run beside the compute queue;
a window's maxima are taken along one dimension after the other (`windows.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from csp_embed.errors import Infeasible
from csp_embed.ir.operator import Step
from csp_embed.ir.schedule import Identity, Region, Schedule
from csp_embed.machine.costs import Costs
from csp_embed.schedule.buffers import Form, Range, joined
from csp_embed.schedule.inputs import Map, Problem
from csp_embed.schedule.tile import dimension_order
from csp_embed.targets.stream.building.nests import Placed
from csp_embed.targets.stream.building.plan import Shared
from csp_embed.targets.stream.building.pools.accumulators import NEUTRAL, Tile, Walk
from csp_embed.targets.stream.building.pools.window_tiles import tile_of
from csp_embed.targets.stream.building.pools.windows import (
    APART,
    Key,
    Loop,
    Reduction,
    loops_of,
    reductions,
)
from csp_embed.targets.stream.building.ring import Ring


def build(problem: Problem, identity: Identity, costs: Costs) -> Schedule:
    """Raises: Infeasible where the window moves in a way that `windows` does not know, or does not
    fit whole."""
    contract = problem.isa.of_kind("contract")
    memory = next(o.memory for o in contract.operands if o.role == identity.role)

    def narrow(m: Map) -> Map:
        return replace(m, memory=memory) if m.operand in identity.operands else m

    narrowed = replace(
        problem,
        lhs=narrow(problem.lhs),
        adds={i: narrow(m) for i, m in problem.adds.items()},
    )
    walk = _Walk(Shared(narrowed, None), costs, identity)
    for number in range(len(walk.tiles)):
        walk.run(number)
    return walk.schedule()


class _Walk(Walk):
    def __init__(self, shared: Shared, costs: Costs, identity: Identity) -> None:
        self._identity, self._costs = identity, costs
        self._shared = shared
        contract = shared.problem.isa.of_kind("contract")
        self._contract = contract.name
        self._roles = [o.role for o in contract.operands]
        self._held_memory = next(o.memory for o in contract.operands if o.role == identity.held)
        self._identity_row = -1
        super().__init__(shared, costs)

    def _arrange(self, shared: Shared, costs: Costs) -> None:
        problem = self.problem
        self.copy = False
        # The order of the result's dimensions follows the tile, and the loops follow that order;
        # which counters are windows does not depend on it.
        plain = tuple(range(len(problem.dst.grid)))
        loops = loops_of(problem, plain)
        if loops is None:
            raise _unknown(problem)
        self.extents = tile_of(problem, loops, costs, self._held_memory == problem.lhs.memory)
        self.dst_order, order_l, *order_adds = (
            dimension_order(m, self.extents)
            for m in (problem.dst, problem.lhs, *problem.adds.values())
        )
        self.loops = loops_of(problem, self.dst_order) or loops
        self._frame(shared, order_l, order_adds)
        self._share()

    def _share(self) -> None:
        problem = self.problem
        room = problem.depth[problem.dst.memory]
        ways = self._ways = [self._reduction(tile) for tile in self.tiles]
        largest = self.dst.largest
        scratch = max(way.cells() - math.prod(way.shape(way.final)) for way in ways)
        direct = [f for f in self.adds if f.map.operand not in self._identity.operands]
        others = scratch + sum(f.largest for f in direct)
        two = len(self.tiles) > 1 and 2 * largest + others <= room
        self.copies = 2 if two else 1
        self._scratch = at = self.copies * largest
        at += scratch
        self.base_adds: list[int] = []
        for f in self.adds:
            self.base_adds.append(at)
            at += f.largest if f in direct else 0
        self.base_lhs = 0
        if at > room:
            raise Infeasible(
                f"a tile needs {at} elements of {problem.dst.memory}",
                why=f"{room} are there",
                hint="use a configuration with larger buffers",
            )
        memory = problem.lhs.memory
        top = problem.depth[memory]
        self._one = problem.depth[self._held_memory] - 1
        if self._held_memory == memory:
            top -= 1
        # Tensors of steps from the top, two places where they change; the source gets the rest.
        self._rings: dict[int, Ring] = {}
        for n, f in enumerate(self.adds):
            if f in direct:
                continue
            steps = [tile.adds[n] for tile in self.tiles]
            need = max(1, f.largest) * (1 if len({s.key for s in steps}) == 1 else 2)
            top -= need
            self._rings[n] = Ring(f, steps, top, need, 2)
        zero, whole, reduced = (0,) * len(problem.extents), problem.extents, problem.reduced
        self._sources = [
            self.lhs.at(joined(t.lo, zero, reduced), joined(t.hi, whole, reduced))
            for t in self.tiles
        ]
        self._ring = Ring(self.lhs, self._sources, 0, top, 16)

    def _reduction(self, tile: Tile) -> Reduction:
        outputs = [tile.extents[loop.counter] if loop.counter >= 0 else 1 for loop in self.loops]
        return reductions(self.loops, outputs, self._costs)

    # What a tile takes in, and its windows.
    def _take_in(self, number: int, acc: int, here: Placed) -> None:
        way = self._ways[number]
        at = self._places(way, acc)
        results = math.prod(way.shape(way.final))
        # All sums at once: the results, which may have to wait for a store, and the rest.
        for start, size in ((acc, results), (self._scratch, way.cells() - results)):
            if size:
                self._nest(self._contract, (size,), ((1,), start), reset=True)
        source, row, need = self._sources[number], -1, ()
        if source.number >= 0:
            # The later row first, as `Rows.compute` wants them.
            pair = (self._ring.bring(self.rows, 0, number, source), self._ones())
            need = tuple(sorted(pair, reverse=True))
        for key in itertools.product(*way.labels(())):
            last = self._fill(number, way, key, at[key], need)
            row, need = (row, need) if last < 0 else (last, ())
        self._ring.touch(number, row)
        done: list[int] = []
        for n in way.order:
            self._reduce(way, n, done, at)
            done.append(n)

    def _places(self, way: Reduction, acc: int) -> dict[Key, int]:
        """The first accumulator of every array; the results stand at `acc`."""
        out, at = {way.final: acc}, self._scratch
        for key in way.arrays():
            if key != way.final:
                out[key] = at
                at += math.prod(way.shape(key))
        return out

    def _fill(
        self, number: int, way: Reduction, key: Key, start: int, need: tuple[int, ...]
    ) -> int:
        """Takes in the elements of a class, behind the rows `need`; beyond the grid stands what
        changes no maximum. The last row, -1 where no element is in the grid."""
        tile, shape = self.tiles[number], way.shape(key)
        pitch = _pitches(shape)
        source = self._sources[number].shape
        inside: list[tuple[int, int]] = []
        coefs: list[int] = []
        # Where the frame has the source's index `origin`, then of the array's first element.
        at = self._ring.address(number) + sum(
            (o - first) * width
            for o, first, width in zip(
                self.problem.lhs.origin, source.lo, source.pitch, strict=True
            )
        )
        for loop, label, length in zip(self.loops, key, shape, strict=True):
            first, last, coef = 0, length, 0
            for e, step in loop.dims:
                begin = self._index(tile.lo, loop, label, e, step)
                # Elements begin + step*j of the source, for j in the array.
                grid = self.problem.lhs.grid[e]
                first = max(first, -(begin // step))
                last = min(last, -((begin - grid) // step))
                coef += step * source.pitch[e]
                at += (begin - self.problem.lhs.origin[e]) * source.pitch[e]
            inside.append((first, last))
            coefs.append(coef)
        if self.kind in NEUTRAL:
            self._border(shape, inside, pitch, start)
        lengths = tuple(b - a for a, b in inside)
        if source.box is None or min(lengths, default=1) < 1:
            return -1
        to = start + sum(a * p for (a, _), p in zip(inside, pitch, strict=True))
        at += sum(a * c for (a, _), c in zip(inside, coefs, strict=True))
        return self._nest(self._contract, lengths, (pitch, to), (tuple(coefs), at), after=need)

    def _index(self, lo: Range, loop: Loop, label: int, e: int, step: int) -> int:
        """Index of the source's dimension e at the first element of a class."""
        outputs = lo[loop.counter] if loop.counter >= 0 else 0
        return (
            self.problem.lhs.origin[e]
            + step * (outputs + loop.first[label])
            + (loop.residues[label])
        )

    def _border(
        self, shape: Range, inside: Sequence[tuple[int, int]], pitch: Range, start: int
    ) -> None:
        """Fills what lies outside of the grid, one slab for each side of each dimension."""
        op, neutral = self._emptied
        box = [(0, n) for n in shape]
        for n, (a, b) in enumerate(inside):
            for side in ((0, min(max(a, 0), shape[n])), (max(min(b, shape[n]), a, 0), shape[n])):
                slab = [*box[:n], side, *box[n + 1 :]]
                lengths = tuple(y - x for x, y in slab)
                if min(lengths) < 1:
                    continue
                at = start + sum(x * p for (x, _), p in zip(slab, pitch, strict=True))
                here = (pitch, at)
                self._nest(self._map, lengths, here, here, op=op, imm=neutral)
            # What is left is inside along this dimension.
            box[n] = (max(a, 0), max(min(b, shape[n]), a, 0))
            if box[n][0] >= box[n][1]:
                return

    def _reduce(self, way: Reduction, n: int, done: Sequence[int], at: dict[Key, int]) -> None:
        """Takes the maxima along loop n of all arrays that are left."""
        loop = self.loops[n]
        labels = way.labels(done)
        labels[n] = [loop.centre]
        for key in itertools.product(*labels):
            lengths = way.shape(key)
            to = (_pitches(lengths), at[key])
            taps = self._halved(way, key, n, at) if loop.counter < 0 else loop.taps
            for t, (k, shift) in enumerate(taps):
                if k == loop.centre:
                    continue
                source = (*key[:n], k, *key[n + 1 :])
                pitch = _pitches(way.shape(source))
                start = at[source] + (shift - loop.first[k]) * pitch[n]
                # Outputs that stand apart are 0 so far: the first tap is added.
                op = "add" if loop.centre == APART and t == 0 else self.kind
                self._nest(self._map, lengths, to, (pitch, start), op=op)

    def _halved(
        self, way: Reduction, key: Key, n: int, at: dict[Key, int]
    ) -> tuple[tuple[int, int], ...]:
        """Compares the taps of one output into the first two of them, and names those."""
        source = (*key[:n], 0, *key[n + 1 :])
        shape = way.shape(source)
        pitch, left = _pitches(shape), len(way.loops[n].taps)
        while left > 2:
            half = (left + 1) // 2
            lengths = (*shape[:n], left - half, *shape[n + 1 :])
            what = (pitch, at[source] + half * pitch[n])
            self._nest(self._map, lengths, (pitch, at[source]), what, op=self.kind)
            left = half
        return way.loops[n].taps[:left]

    # Tensors of steps that come in the same way are added as they come.
    def _bring(self, number: int) -> None:
        for n, (frames, frame) in enumerate(zip(self.adds, self.tiles[number].adds, strict=True)):
            if n not in self._rings and self._held.get(n) != frame.key:
                self.rows.load(frames.map.memory, 1 + n, frame.number, self.base_adds[n])
                self._held[n] = frame.key

    def _with_tensor(self, number: int, n: int, step: Step, here: Placed) -> None:
        ring = self._rings.get(n)
        if ring is None:
            super()._with_tensor(number, n, step, here)
            return
        tile = self.tiles[number]
        need = (ring.bring(self.rows, 1 + n, number, tile.adds[n]), self._ones())
        shape = tile.adds[n].shape
        there: Placed = (shape.form, ring.address(number) + shape.start)
        row = self._compute(
            self._contract, tile.extents, self._factors(here, there),
            after=tuple(sorted(need, reverse=True)),
        )  # fmt: skip
        ring.touch(number, row)

    def _ones(self) -> int:
        """The row that loaded the identity; the first call writes it."""
        if self._identity_row < 0:
            region = 2 + len(self.adds)
            self._identity_row = self.rows.load(self._held_memory, region, 0, self._one)
        return self._identity_row

    def _factors(self, here: Placed, there: Placed) -> list[Placed]:
        held: Placed = (None, self._one)
        by_role = {"dst": here, self._identity.role: there, self._identity.held: held}
        return [by_role[role] for role in self._roles]

    def _nest(
        self,
        name: str,
        lengths: Range,
        to: tuple[Range, int],
        what: tuple[Range, int] | None = None,
        *,
        reset: bool = False,
        op: str = "",
        imm: int | None = None,
        after: tuple[int, ...] = (),
    ) -> int:
        """As `_compute`, over loops of these lengths; operands by (elements of a step, first)."""
        here = self._placed(*to)
        if reset:
            operands: list[Placed] = [here, (None, 0), (None, 0)]
        else:
            assert what is not None
            there = self._placed(*what)
            operands = self._factors(here, there) if name == self._contract else [here, there]
        return self._compute(name, lengths, operands, reset=reset, op=op, imm=imm, after=after)

    def _placed(self, coefs: Range, start: int) -> Placed:
        return Form(self._shared.number(coefs), coefs, 0, ()), start

    def schedule(self) -> Schedule:
        made = super().schedule()
        one = Region("identity", self._held_memory, (1,), (0,), (((0, 1),),), True)
        return replace(made, regions=(*made.regions, one), identity=self._identity)


def _pitches(shape: Range) -> Range:
    return tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))


def _unknown(problem: Problem) -> Infeasible:
    return Infeasible(
        f"{problem.embedding.operator.name} moves over its source in no plain window",
        why="its maxima cannot be taken along one dimension after the other",
    )
