"""Builds a schedule for a contraction from its decisions.

Takes: Problem, Config.  Leaves: Schedule with tokens.  Assumes: the tile fits (tile.py has checked;
refused otherwise).

Program order: for each output tile: reset, then per reduction chunk the loads it misses and the
multiply-accumulates, then the epilogue in pieces, each stored as soon as it is done. The queues run
ahead of each other as far as tokens allow.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from csp_embed.errors import Infeasible
from csp_embed.ir.schedule import (
    COMPUTE,
    FINISH,
    LOAD,
    STORE,
    BiasTrick,
    Region,
    Schedule,
    Template,
)
from csp_embed.schedule.config import Config, ranges
from csp_embed.schedule.cover import CoverLimits, Piece, cover
from csp_embed.schedule.frames import Frame, Frames
from csp_embed.schedule.problem import Map, Problem
from csp_embed.schedule.slots import allocate, has_reuse
from csp_embed.schedule.tokens import Tokens

Range = tuple[int, ...]


class Rows:
    """Schedule rows and tokens in program order; templates are shared by content."""

    def __init__(self, problem: Problem) -> None:
        self.isa = problem.isa
        self.tokens = Tokens(problem.isa.queues, problem.isa.limits.max_tokens)
        self.ops: list[tuple[int, int, int, int]] = []
        self.templates: list[Template] = []
        self.compute_queue = problem.instruction.queue or ""
        self.last_store = -1
        self.last_compute = -1
        self._memory = {m.name: m for m in problem.isa.memories}

    def load(self, memory: str, region: int, box: int, sram: int, after: int = -1) -> int:
        row = self.tokens.row(self._memory[memory].load_queue or "")
        self.ops.append((LOAD, region, box, sram))
        self.tokens.need(row, after)
        return row

    def compute(self, template: int, after: int = -1, after_store: int = -1) -> int:
        row = self.tokens.row(self.compute_queue)
        self.ops.append((COMPUTE, template, 0, 0))
        self.tokens.need(row, after)
        self.tokens.need(row, after_store)
        self.last_compute = row
        return row

    def store(self, memory: str, region: int, box: int, sram: int) -> int:
        row = self.tokens.row(self._memory[memory].store_queue or "")
        self.ops.append((STORE, region, box, sram))
        self.tokens.need(row, self.last_compute)
        self.last_store = row
        return row

    def finish(self) -> None:
        row = self.tokens.row(self.isa.of_kind("finish").queue or self.compute_queue)
        self.ops.append((FINISH, 0, 0, 0))
        self.tokens.need(row, self.last_store)


def cover_limits(problem: Problem, instruction_name: str, repeats: int) -> CoverLimits:
    """Limits of that instruction's fields; micro-op lists take at most a quarter of their
    memory.
    """
    instruction = problem.isa.instruction(instruction_name)
    depth = problem.depth[problem.isa.uop_memory]
    end = instruction.field(instruction.roles["uop_end"]).max
    iterations = min(
        instruction.field(instruction.roles["iter_out"]).max,
        instruction.field(instruction.roles["iter_in"]).max,
    )
    factors = tuple(
        min(instruction.field(o.factor_out).max, instruction.field(o.factor_in).max)
        for o in instruction.operands
    )
    return CoverLimits(
        uops=max(1, min(depth, end) // 4), iterations=iterations, factors=factors, repeats=repeats
    )


class Ring:
    """Slots of one operand's memory share."""

    def __init__(self, frames: Frames, steps: list[Frame], base: int, room: int, most: int) -> None:
        self.frames, self.base = frames, base
        self.size = max(1, frames.largest)
        fit = room // self.size
        if fit < 1:
            raise Infeasible(
                f"a tile of {frames.map.operand} needs {self.size} elements of {frames.map.memory}",
                why=f"only {room} are free",
                hint="this tile size should not have been tried: please report it",
            )
        keys = [f.key for f in steps]
        distinct = len({k for k in keys if k >= 0})
        if distinct > fit and not has_reuse(keys):
            most = min(most, 3 if fit >= 3 and fit % 2 else 2)
        self.slots = min(fit, max(1, distinct if distinct <= fit else most))
        self.plan = allocate(keys, self.slots)
        self.loaded = [-1] * self.slots
        self.read = [-1] * self.slots

    def address(self, step: int) -> int:
        return self.base + self.plan[step][0] * self.size

    def bring(self, rows: Rows, region: int, step: int, frame: Frame) -> int:
        """Loads what the step misses; returns the row that brought its box."""
        slot, fresh = self.plan[step]
        if fresh:
            self.loaded[slot] = rows.load(
                self.frames.map.memory,
                region,
                frame.number,
                self.address(step) + frame.shift,
                self.read[slot],
            )
        return self.loaded[slot]

    def touch(self, step: int, row: int) -> None:
        self.read[self.plan[step][0]] = row


Covers = dict[tuple[object, ...], list[Piece]]
"""Pieces at base address 0 by shape; one dictionary serves all schedules of an embedding."""


class NestCache:
    """Templates by what makes them differ, so that equal tiles share them."""

    def __init__(self, problem: Problem, rows: Rows, covers: Covers) -> None:
        self.problem, self.rows, self.covers = problem, rows, covers
        self._memo: dict[tuple[object, ...], tuple[int, ...]] = {}

    def templates(
        self,
        instruction: str,
        lo: Range,
        hi: Range,
        operands: list[tuple[Map | None, Frame | None, int]],
        guards: list[Map],
        *,
        repeats: int,
        reset: bool = False,
        op: str = "",
        imm: int | None = None,
    ) -> tuple[int, ...]:
        """Template numbers for all points of [lo, hi) where no guard's grid is left.

        operands: per instruction operand (map, frame, base address); map None: one fixed element.
        """
        extents = tuple(b - a for a, b in zip(lo, hi, strict=True))
        coef_rows, base = [], []
        for m, frame, at in operands:
            if m is None or frame is None:
                coef_rows.append((0,) * len(lo))
                base.append(at)
                continue
            coefs, const = [0] * len(lo), at
            for d, pitch in enumerate(frame.pitch):
                if not pitch:
                    continue
                const += (m.origin[d] - frame.lo[d]) * pitch
                for c, s in m.movers[d]:
                    coefs[c] += s * pitch
                    const += s * lo[c] * pitch
            coef_rows.append(tuple(coefs))
            base.append(const)
        constraints = []
        for m in guards:
            wanted = m.box(lo, hi)
            for d, (a, b) in enumerate(wanted):
                if a < 0 or b > m.grid[d]:
                    k = tuple(int(s) for s in m.step[:, d])
                    const = m.origin[d] + sum(s * v for s, v in zip(k, lo, strict=True))
                    constraints.append((k, const, m.grid[d]))
        key = (
            instruction,
            extents,
            tuple(coef_rows),
            tuple(base),
            tuple(constraints),
            reset,
            op,
            imm,
        )
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._make(key, repeats)
        return found

    def _make(self, key: tuple[object, ...], repeats: int) -> tuple[int, ...]:
        instruction, extents, coef_rows, base, constraints, reset, op, imm = key
        assert isinstance(instruction, str)
        assert isinstance(constraints, tuple)
        shape = (instruction, extents, coef_rows, constraints, repeats)
        pieces = self.covers.get(shape)
        if pieces is None:
            coef = np.array(coef_rows, dtype=np.int64)
            pieces = self.covers[shape] = cover(
                extents,  # type: ignore[arg-type]
                constraints,
                coef,
                np.zeros(len(coef), dtype=np.int64),
                cover_limits(self.problem, instruction, repeats),
            )
        start = np.array(base, dtype=np.int64)
        numbers = []
        for p in pieces:
            self.rows.templates.append(
                Template(
                    instruction,
                    p.uops + start,
                    p.iter_out,
                    p.iter_in,
                    p.factors,
                    bool(reset),
                    str(op),
                    imm,  # type: ignore[arg-type]
                )
            )
            numbers.append(len(self.rows.templates) - 1)
        return tuple(numbers)


def build(
    problem: Problem, config: Config, trick: BiasTrick | None, covers: Covers | None = None
) -> Schedule:
    """The schedule for a contraction under `config`; `trick` adds one tensor step by multiply-
    accumulate.
    """
    assert problem.rhs is not None
    contract = problem.instruction
    rows = Rows(problem)
    cache = NestCache(problem, rows, {} if covers is None else covers)
    lhs, rhs = Frames(problem.lhs, config.lhs_order), Frames(problem.rhs, config.rhs_order)
    dst = Frames(problem.dst, config.dst_order)
    adds = {
        i: Frames(_in_memory(m, i, problem, trick), tuple(range(len(m.grid))))
        for i, m in problem.adds.items()
    }

    tiles = _tiles(problem, config)
    chunks = _chunks(problem, config)
    steps = []
    for number, (tlo, thi) in enumerate(tiles):
        walk = chunks[::-1] if config.snake and number % 2 else chunks
        for clo, chi in walk:
            lo = tuple(c if r else t for c, t, r in zip(clo, tlo, problem.reduced, strict=True))
            hi = tuple(c if r else t for c, t, r in zip(chi, thi, problem.reduced, strict=True))
            fl, fr = lhs.at(lo, hi), rhs.at(lo, hi)
            if fl.number >= 0 and fr.number >= 0:
                steps.append((number, lo, hi, fl, fr))
    add_frames = {i: [f.at(tlo, thi) for tlo, thi in tiles] for i, f in adds.items()}

    # Shares of the memories: operands from the bottom, the epilogue's tensors and constants from
    # the top.
    top = dict(problem.depth)
    const_at, rings_add = -1, {}
    if trick is not None:
        const_map = problem.lhs if trick.factor_side == "rhs" else problem.rhs
        top[const_map.memory] -= 1
        const_at = top[const_map.memory]
    for i, frames in adds.items():
        memory = frames.map.memory
        n = max(1, frames.largest)
        distinct = len({f.key for f in add_frames[i]})
        budget = max(n, top[memory] // 8)
        room = n * min(distinct, max(1 if distinct == 1 else 2, budget // n))
        if room > top[memory] // 2:
            room = n
        top[memory] -= room
        rings_add[i] = Ring(frames, add_frames[i], top[memory], room, config.slots)
    ring_l = Ring(lhs, [s[3] for s in steps], 0, top[problem.lhs.memory], config.slots)
    ring_r = Ring(rhs, [s[4] for s in steps], 0, top[problem.rhs.memory], config.slots)
    dst_frames = [dst.at(lo, hi) for lo, hi in tiles]
    acc_size = dst.largest
    acc_slots = 2 if len(tiles) > 1 and 2 * acc_size <= top[problem.dst.memory] else 1
    if acc_size > top[problem.dst.memory]:
        raise Infeasible(
            f"an output tile needs {acc_size} elements of {problem.dst.memory}",
            why=f"only {top[problem.dst.memory]} are free",
        )

    regions: list[tuple[Frames, bool]] = [(lhs, False), (rhs, False)]
    l_region, r_region = 0, 1
    add_region = {}
    for i, f in adds.items():
        add_region[i] = len(regions)
        regions.append((f, False))
    const_row = -1
    const_region = len(regions)
    repeats = 1 << max(0, (len(steps) // 4).bit_length() - 1)
    stored_at = [-1] * acc_slots
    by_tile: dict[int, list[int]] = {}
    for n, s in enumerate(steps):
        by_tile.setdefault(s[0], []).append(n)
    out_boxes: dict[tuple[tuple[int, int], ...], int] = {}

    for number, (tlo, thi) in enumerate(tiles):
        slot = number % acc_slots
        acc = slot * acc_size
        frame = dst_frames[number]
        one = tuple(
            (a, a + 1) if r else (a, b) for a, b, r in zip(tlo, thi, problem.reduced, strict=True)
        )
        olo, ohi = tuple(a for a, _ in one), tuple(b for _, b in one)
        first = stored_at[slot]
        for t in cache.templates(
            contract.name,
            olo,
            ohi,
            [(problem.dst, frame, acc), (None, None, 0), (None, None, 0)],
            [],
            repeats=repeats,
            reset=True,
        ):
            rows.compute(t, after_store=first)
            first = -1
        for n in by_tile.get(number, ()):
            _, lo, hi, fl, fr = steps[n]
            need = max(ring_l.bring(rows, l_region, n, fl), ring_r.bring(rows, r_region, n, fr))
            row = -1
            for t in cache.templates(
                contract.name,
                lo,
                hi,
                [
                    (problem.dst, frame, acc),
                    (problem.lhs, fl, ring_l.address(n)),
                    (problem.rhs, fr, ring_r.address(n)),
                ],
                [problem.lhs, problem.rhs],
                repeats=repeats,
            ):
                row = rows.compute(t, after=need)
                need = -1
            ring_l.touch(n, row)
            ring_r.touch(n, row)
        last_tile = number == len(tiles) - 1
        pieces = _pieces(problem, config, olo, ohi, last_tile, number >= len(tiles) - 2)
        if trick is not None and const_row < 0:
            const_row = rows.load(const_map.memory, const_region, 0, const_at)
        add_need = {
            i: ring.bring(rows, add_region[i], number, add_frames[i][number])
            for i, ring in rings_add.items()
        }
        if trick is not None:
            add_need[trick.step] = max(add_need[trick.step], const_row)
        for plo, phi in pieces:
            _epilogue(
                problem,
                cache,
                rows,
                plo,
                phi,
                frame,
                acc,
                trick,
                const_at,
                number,
                adds,
                rings_add,
                add_frames,
                add_need,
            )
            box = tuple(
                (b[0], b[1]) for b in (problem.dst.box(plo, phi)[d] for d in config.dst_order)
            )
            at = acc + sum(
                (box[j][0] - frame.lo[d]) * frame.pitch[d] for j, d in enumerate(config.dst_order)
            )
            shadow = _stored_memory(problem)
            stored_at[slot] = rows.store(
                shadow, const_region + 1, out_boxes.setdefault(box, len(out_boxes)), at
            )
    rows.finish()
    return _schedule(problem, config, rows, regions, out_boxes, trick, tiles, chunks)


def _epilogue(
    problem,
    cache,
    rows,
    lo,
    hi,
    frame,
    acc,
    trick,
    const_at,
    tile,  # type: ignore[no-untyped-def]
    adds,
    rings,
    add_frames,
    add_need,
) -> None:
    map_instruction = problem.isa.of_kind("map") if problem.epilogue else None
    vectors = math.prod(b - a for a, b in zip(lo, hi, strict=True))
    here = (problem.dst, frame, acc)
    if not problem.epilogue:
        # A store reads what a step that is no reset wrote last: outputs without a single product
        # need one.
        if any(
            a < 0 or b > g
            for m in (problem.lhs, problem.rhs)
            for (a, b), g in zip(m.box((0,) * len(lo), problem.extents), m.grid, strict=True)
        ):
            for t in cache.templates(
                problem.isa.of_kind("map").name,
                lo,
                hi,
                [here, here],
                [],
                repeats=1,
                op="add",
                imm=0,
            ):
                rows.compute(t)
        return
    for i, step in enumerate(problem.epilogue):
        need = -1
        if step.access is None:
            operands, name = [here, here], map_instruction.name
        else:
            ring = rings[i]
            source = (adds[i].map, add_frames[i][tile], ring.address(tile))
            need = add_need[i]
            if trick is not None and trick.step == i:
                const = (None, None, const_at)
                pair = [const, source] if trick.factor_side == "rhs" else [source, const]
                operands, name = [here, *pair], problem.instruction.name
            else:
                operands, name = [here, source], map_instruction.name
        for t in cache.templates(
            name,
            lo,
            hi,
            operands,
            [],
            repeats=64 if vectors > 8 else 1,
            op="" if name == problem.instruction.name else step.op,
            imm=step.imm,
        ):
            row = rows.compute(t, after=need)
            need = -1
        if step.access is not None:
            rings[i].touch(tile, row)


def _stored_memory(problem: Problem) -> str:
    """The memory that stores read for the accumulator: its shadow where it has one."""
    for m in problem.isa.memories:
        if m.shadow_of == problem.dst.memory and m.store_queue:
            return m.name
    return problem.dst.memory


def _in_memory(m: Map, step: int, problem: Problem, trick: BiasTrick | None) -> Map:
    """An epilogue tensor's map; under the bias trick its factors lie in an operand memory."""
    memory = problem.dst.memory
    if trick is not None and trick.step == step:
        side = problem.rhs if trick.factor_side == "rhs" else problem.lhs
        assert side is not None
        memory = side.memory
    return Map(m.operand, memory, m.grid, m.origin, m.step)


def _tiles(problem: Problem, config: Config) -> list[tuple[Range, Range]]:
    """Counter ranges of every output tile in program order; reductions are whole."""
    tapered = _tapered(problem, config)
    axes = [
        ranges(
            problem.extents[c], config.tile[c], *((config.up, config.down) if c == tapered else ())
        )
        for c in config.order
    ]
    out = []
    for pick in itertools.product(*axes):
        lo, hi = [0] * len(problem.extents), list(problem.extents)
        for c, (a, b) in zip(config.order, pick, strict=True):
            lo[c], hi[c] = a, b
        out.append((tuple(lo), tuple(hi)))
    return out


def _tapered(problem: Problem, config: Config) -> int:
    """The outermost loop with several parts of more than one."""
    for c in (*config.order, *config.reduce_order):
        if 1 < config.tile[c] < problem.extents[c]:
            return c
    return -1


def _chunks(problem: Problem, config: Config) -> list[tuple[Range, Range]]:
    tapered = _tapered(problem, config)
    axes = [
        ranges(
            problem.extents[c], config.tile[c], *((config.up, config.down) if c == tapered else ())
        )
        for c in config.reduce_order
    ]
    out = []
    for pick in itertools.product(*axes):
        lo, hi = [0] * len(problem.extents), list(problem.extents)
        for c, (a, b) in zip(config.reduce_order, pick, strict=True):
            lo[c], hi[c] = a, b
        out.append((tuple(lo), tuple(hi)))
    return out


def _pieces(
    problem: Problem, config: Config, lo: Range, hi: Range, last: bool, late: bool
) -> list[tuple[Range, Range]]:
    """Parts of a tile that are finished and stored one after the other."""
    vectors = math.prod(b - a for a, b in zip(lo, hi, strict=True))
    want = config.tail if last else max(2 * config.tail, 256) if late else 1024
    dims = [c for d in config.dst_order for c, at in problem.out_dim.items() if at == d]
    cut = next((c for c in dims if hi[c] - lo[c] > 1), None)
    if cut is None or vectors <= want:
        return [(lo, hi)]
    n = hi[cut] - lo[cut]
    rows_each = max(1, round(want / (vectors / n)))
    out = []
    for a, b in ranges(n, rows_each):
        plo, phi = list(lo), list(hi)
        plo[cut], phi[cut] = lo[cut] + a, lo[cut] + b
        out.append((tuple(plo), tuple(phi)))
    return out


def _schedule(problem, config, rows, regions, out_boxes, trick, tiles, chunks) -> Schedule:  # type: ignore[no-untyped-def]
    tensors = problem.embedding.operator.tensors
    out = []
    for frames, _ in regions:
        m = frames.map
        layout = problem.embedding.layouts[m.operand]
        constant = tensors[layout.tensor].constant
        out.append(Region(m.operand, m.memory, m.grid, frames.order, tuple(frames.boxes), constant))
    if trick is not None:
        side = problem.lhs if trick.factor_side == "rhs" else problem.rhs
        out.append(Region("const", side.memory, (1,), (0,), (((0, 1),),), True))
    else:
        out.append(Region("const", problem.lhs.memory, (0,), (0,), (), True))
    out.append(
        Region(
            "dst",
            _stored_memory(problem),
            problem.dst.grid,
            config.dst_order,
            tuple(out_boxes),
            False,
            problem.splits,
        )
    )
    steps = sum(rows.templates[r[1]].steps for r in rows.ops if r[0] == COMPUTE)
    return Schedule(
        regions=tuple(out),
        templates=tuple(rows.templates),
        ops=np.array(rows.ops, dtype=np.int64).reshape(-1, 4),
        tokens=np.array(rows.tokens.bits, dtype=np.int64),
        bias_trick=trick,
        tile=dict(zip(problem.names, config.tile, strict=True)),
        stats={"tiles": len(tiles), "chunks": len(chunks), "steps": steps},
    )
