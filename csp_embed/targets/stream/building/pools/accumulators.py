"""Schedules for operators that live on the accumulator memory: pooling by maximum or minimum,
elementwise programs.

Takes: a Problem without rhs.  Leaves: Schedule.  All loads go to the accumulator memory and so
through the compute queue;
stores overlap with the next tile where two tiles fit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csp_embed.errors import Infeasible
from csp_embed.ir.operator import Step
from csp_embed.ir.schedule import COMPUTE, Box, Region, Schedule
from csp_embed.machine.costs import Costs
from csp_embed.machine.reach import stored_memory
from csp_embed.schedule.buffers import Frame, Range, joined
from csp_embed.schedule.config import ranges
from csp_embed.schedule.inputs import Problem, identity
from csp_embed.schedule.tile import dimension_order, sizes, thinned
from csp_embed.targets.stream.building.nests import Nests, Placed
from csp_embed.targets.stream.building.plan import Ranges, Shared
from csp_embed.targets.stream.building.rows import Rows

# int8's ends: no input is beyond them, so the first one that arrives wins.
NEUTRAL = {"max": -128, "min": 127}
TILES = 50_000  # that are priced: well under a second


def build(shared: Shared, costs: Costs) -> Schedule:
    """Raises: Infeasible where one vector and its operands do not fit."""
    walk = Walk(shared, costs)
    for number in range(len(walk.tiles)):
        walk.run(number)
    return walk.schedule()


class Tile(NamedTuple):
    """extents, lo, hi: of its results, one value of each reduced counter. parts: per chunk with a
    source its box and extents. whole: no result lacks its source."""

    extents: Range
    lo: Range
    hi: Range
    frame: Frame
    parts: list[tuple[Frame, Range]]
    adds: list[Frame]
    whole: bool


class Walk:
    """Tiles, their places, and the rows that are written for one after the other."""

    def __init__(self, shared: Shared, costs: Costs) -> None:
        problem = self.problem = shared.problem
        self.kind = problem.embedding.operator.kind
        self.copies = 1
        self._arrange(shared, costs)
        self.rows = Rows(problem)
        self._nests = Nests(problem, self.rows, {})
        self._map = problem.isa.of_kind("map").name
        self._shadow = stored_memory(problem.isa, problem.dst.memory)
        self._stored = [-1] * self.copies
        self._after_store = -1
        self._held: dict[int, int] = {}
        self._out_boxes: dict[Box, int] = {}

    def _arrange(self, shared: Shared, costs: Costs) -> None:
        """The tiles, and where everything of them stands.

        Raises: Infeasible where it does not fit.
        """
        problem = self.problem
        plain = self.kind == "map"
        # First guess with the grid's own order: whether a copy is possible decides how large a tile
        # may be.
        maybe = plain and _alike(problem, tuple(range(len(problem.dst.grid)))) is not None
        self.extents = _tile(problem, maybe, costs)
        self.dst_order, order_l, *order_adds = (
            dimension_order(m, self.extents)
            for m in (problem.dst, problem.lhs, *problem.adds.values())
        )
        # With the tile's order of dimensions the answer may differ from the guess; only this one is
        # used.
        # Loaded straight into its place where both have the same shape; otherwise added to zero.
        alike = _alike(problem, self.dst_order) if plain else None
        self.copy = alike is not None
        self._frame(shared, order_l if alike is None else alike, order_adds)
        self._share()

    def _frame(
        self, shared: Shared, order_l: tuple[int, ...], order_adds: Sequence[tuple[int, ...]]
    ) -> None:
        """The tiles with the boxes that they touch."""
        problem = self.problem
        self.lhs = shared.frames(problem.lhs, order_l)
        self.dst = shared.frames(problem.dst, self.dst_order)
        self.adds = [
            shared.frames(m, order)
            for m, order in zip(problem.adds.values(), order_adds, strict=True)
        ]
        chunks = boxes(problem, self.extents, reduced=True)
        self.chunks = len(chunks)
        self.tiles = [
            self._plan(lo, hi, chunks) for lo, hi in boxes(problem, self.extents, reduced=False)
        ]

    def _plan(self, lo: Range, hi: Range, chunks: Ranges) -> Tile:
        reduced = self.problem.reduced
        parts = []
        for clo, chi in chunks:
            plo, phi = joined(lo, clo, reduced), joined(hi, chi, reduced)
            source = self.lhs.at(plo, phi)
            # A chunk that lies in padding alone has no box: nothing is loaded and nothing is taken
            # in.
            if source.number >= 0:
                parts.append((source, tuple(b - a for a, b in zip(plo, phi, strict=True))))
        # A reduced counter counts once for the result, however many values it has.
        olo, ohi = lo, tuple(a + 1 if r else b for a, b, r in zip(lo, hi, reduced, strict=True))
        inside = zip(self.problem.lhs.box(olo, ohi), self.problem.lhs.grid, strict=True)
        return Tile(
            tuple(b - a for a, b in zip(olo, ohi, strict=True)),
            olo,
            ohi,
            self.dst.at(lo, hi),
            parts,
            [f.at(lo, hi) for f in self.adds],
            all(a >= 0 and b <= g for (a, b), g in inside),
        )

    def _share(self) -> None:
        """Places of the results (two where they fit), the source and the epilogue's tensors.

        Raises: Infeasible where they do not fit.
        """
        # A source in its place needs no room of its own: it is the result.
        room = self.problem.depth[self.problem.dst.memory]
        source = 0 if self.copy else self.lhs.largest
        others = source + sum(f.largest for f in self.adds)
        # A second place lets a tile begin while the one before is still stored; with one tile it is
        # wasted.
        two = len(self.tiles) > 1 and 2 * self.dst.largest <= room - others
        self.copies = 2 if two else 1
        self.base_lhs = self.copies * self.dst.largest
        at = self.base_lhs + source
        self.base_adds = []
        for f in self.adds:
            self.base_adds.append(at)
            at += f.largest
        if at > room:
            raise Infeasible(
                f"a tile needs {at} elements of {self.problem.dst.memory}",
                why=f"{room} are there",
                hint="use a configuration with larger buffers",
            )

    def run(self, number: int) -> None:
        """All rows of a tile."""
        tile, slot = self.tiles[number], number % self.copies
        acc = slot * self.dst.largest
        here: Placed = (tile.frame.shape.form, acc + tile.frame.shape.start)
        # Only the first write has to wait for the store of what stood here; later ones follow in
        # order.
        self._after_store = self._stored[slot]
        self._take_in(number, acc, here)
        self._bring(number)
        self._epilogue(number, here)
        whole = self.problem.dst.box(tile.lo, tile.hi)
        box = tuple(whole[d] for d in self.dst_order)
        number_of_box = self._out_boxes.setdefault(box, len(self._out_boxes))
        region = 1 + len(self.adds)
        self._stored[slot] = self.rows.store(self._shadow, region, number_of_box, acc)

    def _take_in(self, number: int, acc: int, here: Placed) -> None:
        """Brings the source of a tile, and reduces it, to its results at `acc`."""
        tile = self.tiles[number]
        if self.copy:
            self._place(tile, acc)
        else:
            self._gather(tile, here)

    def _bring(self, number: int) -> None:
        """Loads the epilogue's tensors for a tile."""
        for n, (frames, frame) in enumerate(zip(self.adds, self.tiles[number].adds, strict=True)):
            # A tensor that is there already, as a bias for all tiles, is loaded once.
            if self._held.get(n) != frame.key:
                self.rows.load(frames.map.memory, 1 + n, frame.number, self.base_adds[n])
                self._held[n] = frame.key

    def _place(self, tile: Tile, acc: int) -> None:
        """Loads the source where the result will be. An elementwise program has one part."""
        for source, _ in tile.parts:
            sram = acc + source.shape.shift
            memory = self.problem.lhs.memory
            row = self.rows.load(memory, 0, source.number, sram, self._after_store)
            self._after_store = -1
            # Loads of accumulators run in the compute queue: to the stores they are compute rows.
            self.rows.last_compute = row

    def _gather(self, tile: Tile, here: Placed) -> None:
        """Zeroes the result, or makes it neutral, and takes in one chunk of the source after the
        other."""
        contract = next((i for i in self.problem.isa.instructions if i.kind == "contract"), None)
        if contract is None:
            raise Infeasible(
                f"{self.problem.embedding.operator.name} needs accumulators that are set to 0",
                why=f"{self.problem.isa.name} has no contraction, whose reset does that",
                hint="use a machine with a contraction, such as --isa vta",
            )
        # A reset has no factors.
        nothing: Placed = (None, 0)
        self._compute(contract.name, tile.extents, [here, nothing, nothing], reset=True)
        if self.kind != "map":
            op, neutral = self._emptied
            self._compute(self._map, tile.extents, [here, here], op=op, imm=neutral)
        for source, extents in tile.parts:
            sram = self.base_lhs + source.shape.shift
            self.rows.load(self.problem.lhs.memory, 0, source.number, sram)
            there: Placed = (source.shape.form, self.base_lhs + source.shape.start)
            # Elementwise programs add to the zeros of the reset.
            op = "add" if self.kind == "map" else self.kind
            self._compute(self._map, extents, [here, there], op=op)

    @property
    def _emptied(self) -> tuple[str, int]:
        """A step that makes zeros neutral: min(0, -128) is -128, so the opposite of the pool's
        function sets what no instruction can load."""
        return ("min" if self.kind == "max" else "max"), NEUTRAL[self.kind]

    def _epilogue(self, number: int, here: Placed) -> None:
        problem, tile = self.problem, self.tiles[number]
        for i, step in enumerate(problem.epilogue):
            if step.access is None:
                self._compute(self._map, tile.extents, [here, here], op=step.op, imm=step.imm)
            else:
                self._with_tensor(number, list(problem.adds).index(i), step, here)
        # Padding of an elementwise program is what the reset left; only steps reach a store.
        computed = not self.copy and (self.kind != "map" or tile.whole)
        if not problem.epilogue and not computed:
            copying, imm = identity(problem.isa)
            # A step that changes nothing writes the mirror that stores read.
            self._compute(self._map, tile.extents, [here, here], op=copying, imm=imm)

    def _with_tensor(self, number: int, n: int, step: Step, here: Placed) -> None:
        """A step that reads the epilogue's tensor number n."""
        tile = self.tiles[number]
        shape = tile.adds[n].shape
        there: Placed = (shape.form, self.base_adds[n] + shape.start)
        self._compute(self._map, tile.extents, [here, there], op=step.op)

    def _compute(
        self,
        name: str,
        extents: Range,
        operands: list[Placed],
        *,
        reset: bool = False,
        op: str = "",
        imm: int | None = None,
        after: tuple[int, ...] = (),
    ) -> int:
        """Writes a nest; its last row, -1 where it has no point. after: rows that the first of it
        waits for, the latest first."""
        # 8: a nest runs once per tile and there are usually several; it only decides how micro-ops
        # are weighed.
        row = -1
        for t in self._nests.templates(name, extents, operands, 8, reset=reset, op=op, imm=imm):
            row = self.rows.compute(t, after, self._after_store)
            self._after_store, after = -1, ()
        return row

    def schedule(self) -> Schedule:
        """All rows, with what they name."""
        rows, dst = self.rows, self.problem.dst
        rows.finish()
        regions = [
            Region(f.map.operand, f.map.memory, f.map.grid, f.order, tuple(f.boxes), False)
            for f in (self.lhs, *self.adds)
        ]
        out, splits = tuple(self._out_boxes), self.problem.splits
        regions.append(Region("dst", self._shadow, dst.grid, self.dst_order, out, False, splits))
        steps = sum(rows.templates[r[1]].steps for r in rows.ops if r[0] == COMPUTE)
        return Schedule(
            regions=tuple(regions),
            templates=tuple(rows.templates),
            ops=np.array(rows.ops, dtype=np.int64).reshape(-1, 4),
            tokens=np.array(rows.tokens.bits(), dtype=np.int64),
            tile=dict(zip(self.problem.names, self.extents, strict=True)),
            stats={"tiles": len(self.tiles), "chunks": self.chunks, "steps": steps},
        )


def _alike(problem: Problem, order: tuple[int, ...]) -> tuple[int, ...] | None:
    """lhs dimensions in dst's order where a tile of both lies alike, else None."""
    out = []
    for d in order:
        movers = [c for c in range(len(problem.extents)) if problem.dst.step[c, d]]
        found = [
            e
            # The same counters, by single steps, from the same origin, over the same sizes: then
            # one box describes both.
            for e in range(len(problem.lhs.grid))
            if [c for c in range(len(problem.extents)) if problem.lhs.step[c, e]] == movers
            and all(problem.lhs.step[c, e] == 1 for c in movers)
            and problem.lhs.grid[e] == problem.dst.grid[d]
            and problem.lhs.origin[e] == problem.dst.origin[d]
        ]
        if len(found) != 1 or not movers:
            return None
        out.append(found[0])
    return tuple(out) if len(out) == len(problem.lhs.grid) else None


def boxes(problem: Problem, tile: tuple[int, ...], *, reduced: bool) -> Ranges:
    """Counter ranges of all tiles (or of all reduction chunks); the other counters are whole."""
    axes = [
        ranges(e, t) if r == reduced else [(0, e)]
        for e, t, r in zip(problem.extents, tile, problem.reduced, strict=True)
    ]
    return [
        (tuple(a for a, _ in pick), tuple(b for _, b in pick)) for pick in itertools.product(*axes)
    ]


def _tile(problem: Problem, copy: bool, costs: Costs) -> tuple[int, ...]:
    """The tile that takes the fewest cycles by estimate: loads and steps share the compute queue,
    and stores run beside them where two results fit.

    Raises: Infeasible where not even one vector fits with its operands.
    """
    room = problem.depth[problem.dst.memory]
    size = problem.isa.memory(problem.dst.memory).elem_bytes / costs.read_bytes
    out = problem.isa.memory(stored_memory(problem.isa, problem.dst.memory)).elem_bytes
    store = costs.store_cycles(out)
    adds = list(problem.adds.values())
    each = sum(
        costs.immediate_step if s.access is None else costs.tensor_step for s in problem.epilogue
    )
    instructions = len(problem.epilogue) + (0 if copy else 3)
    lists = [sizes(e, max(room, 1), False) for e in problem.extents]
    lists = thinned(lists, TILES)
    best: tuple[tuple[float, ...], tuple[int, ...]] | None = None
    for tile in itertools.product(*lists):
        vectors = math.prod(t for t, r in zip(tile, problem.reduced, strict=True) if not r)
        zero = (0,) * len(tile)
        source, *added = (
            math.prod(b - a for a, b in m.box(zero, tile)) for m in (problem.lhs, *adds)
        )
        need = sum(added) + (0 if copy else source)
        copies = 2 if need + 2 * vectors <= room else 1
        if need + copies * vectors > room:
            continue
        parts = [-(-e // t) for e, t in zip(problem.extents, tile, strict=True)]
        tiles = math.prod(n for n, r in zip(parts, problem.reduced, strict=True) if not r)
        chunks = math.prod(n for n, r in zip(parts, problem.reduced, strict=True) if r)
        # A tensor that is whole in every tile is loaded once.
        again = sum(
            n for n, m in zip(added, adds, strict=True) if n < math.prod(m.grid) or tiles == 1
        )
        taken = 0.0 if copy else costs.reset_step + costs.immediate_step
        points = 0 if copy else math.prod(tile)
        work = (
            size * (chunks * source + again)
            + costs.dma_gap * (chunks + sum(n < math.prod(m.grid) for n, m in
                                            zip(added, adds, strict=True)))
            + costs.instruction * (instructions + chunks)
            + vectors * (each + taken)
            + chunks * points * costs.tensor_step
        )  # fmt: skip
        stores = costs.instruction + costs.burst_setup + vectors * store
        serial = tiles * (work + stores)
        beside = tiles * max(work, stores) + min(work, stores)
        score = (serial if copies == 1 or tiles == 1 else beside, -float(vectors))
        if best is None or score < best[0]:
            best = (score, tile)
    if best is None:
        raise Infeasible(
            f"{problem.embedding.operator.name}: one vector with its operands does not fit",
            why=f"{problem.dst.memory} has {room} elements",
            hint="use a configuration with larger buffers",
        )
    return best[1]
