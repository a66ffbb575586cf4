"""Builds a schedule for a contraction from its decisions.

Takes: Problem, Config.  Leaves: Schedule with tokens.  Assumes: the tile fits (schedule/tile.py has
checked; refused otherwise).

Program order: for each output tile: reset, then per reduction chunk the loads it misses and the
multiply-accumulates, then the epilogue in pieces, each stored as soon as it is done. Where the
contraction has several rounds, the steps between them run on the whole tile. The queues run ahead
of each other as far as tokens allow.
"""

from __future__ import annotations

import numpy as np

from csp_embed.ir.schedule import COMPUTE, Box, Region, Schedule
from csp_embed.machine.reach import stored_memory
from csp_embed.schedule.buffers import Frames
from csp_embed.schedule.config import Config
from csp_embed.schedule.tiling import pieces as pieces_of
from csp_embed.targets.stream.building.epilogue import Epilogue
from csp_embed.targets.stream.building.nests import Covers, Nests, Placed
from csp_embed.targets.stream.building.plan import Plan, Shared, constant_map, plan_of
from csp_embed.targets.stream.building.rows import Rows


def build(shared: Shared, config: Config, covers: Covers | None = None) -> Schedule:
    """The schedule for a contraction under `config`.

    covers: what its other schedules know of loops. Raises: Infeasible where the tile does not fit.
    """
    walk = _Walk(plan_of(shared, config), {} if covers is None else covers)
    for number in range(len(walk.plan.tiles)):
        walk.reset(number)
        for turn in range(len(shared.problem.rounds)):
            walk.accumulate(number, turn)
            walk.between(number, turn)
        walk.accumulate(number, len(shared.problem.rounds))
        walk.finish(number)
    return walk.schedule()


class _Walk:
    """Writes the rows of one tile after the other."""

    def __init__(self, plan: Plan, covers: Covers) -> None:
        self.plan = plan
        self.rows = Rows(plan.problem)
        self._nests = Nests(plan.problem, self.rows, covers, plan.config.uops)
        self._epilogue = Epilogue(plan, self._nests, self.rows)
        self._contract = plan.problem.instruction.name
        self._shadow = stored_memory(plan.problem.isa, plan.problem.dst.memory)
        # How often a nest is expected to run, as a power of two, so that equal shapes find each
        # other.
        self._repeats = 1 << max(0, (len(plan.steps) // 4).bit_length() - 1)
        self._regions: list[Frames] = [plan.lhs, plan.rhs, *plan.adds.values()]
        self._constant_row = -1
        self._stored_at = [-1] * plan.acc_slots
        self._out_boxes: dict[Box, int] = {}

    def reset(self, number: int) -> None:
        """Zeroes the accumulators of a tile, once what they held is stored."""
        lo, hi = self._outputs(number)
        extents = tuple(b - a for a, b in zip(lo, hi, strict=True))
        nothing: Placed = (None, 0)
        operands = [self._accumulators(number), nothing, nothing]
        # Earlier tiles in the same place must be stored before it is zeroed.
        after = self._stored_at[number % self.plan.acc_slots]
        for t in self._nests.templates(
            self._contract, extents, operands, self._repeats, reset=True
        ):
            self.rows.compute(t, after_store=after)
            # The rest of the reset runs in the same queue, behind the first.
            after = -1

    def accumulate(self, number: int, turn: int) -> None:
        """The products of a round of a tile, chunk by chunk, with the loads that each misses."""
        problem = self.plan.problem
        if turn not in problem.turns:
            lo, hi = self._outputs(number)
            frame = self.plan.dst_frames[number]
            self._epilogue.add(lo, hi, frame, self._base(number), self.plan.copy)
            return  # what was kept stands for the products
        ring_l, ring_r = self.plan.ring_l, self.plan.ring_r
        here = self._accumulators(number)
        for n in self.plan.numbers[number][problem.turns.index(turn)]:
            extents, left, right = self.plan.steps[n]
            one, two = ring_l.bring(self.rows, 0, n, left), ring_r.bring(self.rows, 1, n, right)
            operands: list[Placed] = [
                here,
                (left.shape.form, ring_l.address(n) + left.shape.start),
                (right.shape.form, ring_r.address(n) + right.shape.start),
            ]
            # The later row first: it often implies the earlier one, and then that needs no token.
            need = (one, two) if one > two else (two, one)
            row = -1
            for t in self._nests.templates(self._contract, extents, operands, self._repeats):
                row = self.rows.compute(t, need)
                need = ()
            ring_l.touch(n, row)
            ring_r.touch(n, row)

    def between(self, number: int, turn: int) -> None:
        """The steps between two rounds, on the whole tile."""
        problem, epilogue = self.plan.problem, self._epilogue
        lo, hi = self._outputs(number)
        frame, acc = self.plan.dst_frames[number], self._base(number)
        brought, todo = self._bring(number, turn), problem.steps(turn)
        use = (number, turn)
        own = 0
        for steps in (steps for at, steps in problem.kept if at == turn):
            # What is kept is completed first; what follows is lost with the next steps.
            epilogue.run(lo, hi, frame, acc, use, brought, todo[own:steps])
            epilogue.copy(lo, hi, frame, acc)
            own = steps
        epilogue.run(lo, hi, frame, acc, use, brought, todo[own:])

    def finish(self, number: int) -> None:
        """The epilogue and the stores of a tile."""
        plan, order = self.plan, self.plan.config.dst_order
        lo, hi = self._outputs(number)
        frame, acc = plan.dst_frames[number], self._base(number)
        turn = len(plan.problem.rounds)
        brought, todo = self._bring(number, turn), plan.problem.steps(turn)
        last = len(plan.tiles) - 1
        # The last tiles are cut finer: their stores have nothing left to overlap with.
        for plo, phi in pieces_of(
            plan.problem, plan.config, lo, hi, number == last, number >= last - 1
        ):
            self._epilogue.run(plo, phi, frame, acc, (number, turn), brought, todo)
            whole = plan.problem.dst.box(plo, phi)
            box = tuple(whole[d] for d in order)
            # A piece begins inside its tile's box; pitches lead to its first element.
            at = acc + sum((whole[d][0] - frame.shape.lo[d]) * frame.shape.pitch[d] for d in order)
            # One store per piece: the next tile only waits for the last of them.
            self._stored_at[number % plan.acc_slots] = self.rows.store(
                self._shadow,
                len(self._regions) + 1,
                self._out_boxes.setdefault(box, len(self._out_boxes)),
                at,
            )

    def _bring(self, number: int, turn: int) -> dict[int, tuple[int, ...]]:
        """The rows that brought each tensor of a round's steps for a tile; latest first."""
        plan = self.plan
        # Loaded once, with the first tensor that needs it, and never replaced.
        if plan.trick is not None and self._constant_row < 0:
            memory = constant_map(plan.problem, plan.trick).memory
            self._constant_row = self.rows.load(memory, len(self._regions), 0, plan.constant)
        out: dict[int, tuple[int, ...]] = {}
        for n, (i, ring) in enumerate(plan.ring_adds.items()):
            use = plan.uses[i].get((number, turn))
            if use is not None:
                out[i] = (ring.bring(self.rows, 2 + n, use, plan.add_frames[i][use]),)
        # Two rows are waited for; the latest first, as `Rows.compute` wants them.
        if plan.trick is not None and plan.trick.step in out:
            i = plan.trick.step
            out[i] = tuple(sorted((*out[i], self._constant_row), reverse=True))
        return out

    # Tiles alternate between the places that there are.
    def _base(self, number: int) -> int:
        return number % self.plan.acc_slots * self.plan.acc_size

    def _accumulators(self, number: int) -> Placed:
        shape = self.plan.dst_frames[number].shape
        return shape.form, self._base(number) + shape.start

    def _outputs(self, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Counter ranges of a tile's elements: one value of each reduced counter."""
        lo, hi = self.plan.tiles[number]
        reduced = self.plan.problem.reduced
        return lo, tuple(a + 1 if r else b for a, b, r in zip(lo, hi, reduced, strict=True))

    def schedule(self) -> Schedule:
        """All rows, with what they name."""
        plan, rows = self.plan, self.rows
        rows.finish()
        rings = (plan.ring_l, plan.ring_r, *plan.ring_adds.values())
        kinds = np.array(rows.ops, dtype=np.int64).reshape(-1, 4)
        # Templates are shared, so steps are counted by how often each runs.
        runs = np.bincount(kinds[kinds[:, 0] == COMPUTE, 1], minlength=len(rows.templates)).tolist()
        return Schedule(
            regions=self._all_regions(),
            templates=tuple(rows.templates),
            ops=kinds,
            tokens=np.array(rows.tokens.bits(), dtype=np.int64),
            bias_trick=plan.trick,
            bias_lanes=plan.problem.bias_lanes,
            tile=dict(zip(plan.problem.names, plan.config.tile, strict=True)),
            stats={
                "tiles": len(plan.tiles),
                "chunks": plan.chunks,
                "slots": max(ring.useful for ring in rings),
                "uops": self._nests.listed,
                "steps": sum(n * t.steps for n, t in zip(runs, rows.templates, strict=True)),
            },
        )

    def _all_regions(self) -> tuple[Region, ...]:
        """Operands, the trick's constant (which may be none), the result."""
        problem, trick = self.plan.problem, self.plan.trick
        tensors = problem.embedding.operator.tensors
        out = []
        for frames in self._regions:
            m = frames.map
            constant = tensors[problem.embedding.layouts[m.operand].tensor].constant
            rounds = tuple(frames.rounds) if any(frames.rounds) else ()
            out.append(
                Region(
                    m.operand, m.memory, m.grid, frames.order, tuple(frames.boxes), constant,
                    rounds=rounds,
                )
            )  # fmt: skip
        if trick is not None:
            memory = constant_map(problem, trick).memory
            out.append(Region("const", memory, (1,), (0,), (((0, 1),),), True))
        else:
            # An empty region keeps the numbers of regions the same with and without the trick.
            out.append(Region("const", problem.lhs.memory, (0,), (0,), (), True))
        order, boxes = self.plan.config.dst_order, tuple(self._out_boxes)
        grid = problem.dst.grid
        out.append(Region("dst", self._shadow, grid, order, boxes, False, problem.splits))
        return tuple(out)
