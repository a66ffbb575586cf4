"""Builds a schedule for a contraction from its decisions.

Takes: Problem, Config.  Leaves: Schedule with tokens.  Assumes: the tile fits (tile.py has checked;
refused otherwise).

Program order: for each output tile: reset, then per reduction chunk the loads it misses and the
multiply-accumulates, then the epilogue in pieces, each stored as soon as it is done. Where the
contraction has several rounds, the steps between them run on the whole tile. The queues run ahead
of each other as far as tokens allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csp_embed.errors import Infeasible
from csp_embed.ir.operator import Step
from csp_embed.ir.schedule import COMPUTE, BiasTrick, Region, Schedule
from csp_embed.machine.reach import stored_memory
from csp_embed.schedule.buffers import Frame, Frames
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Map, Problem, identity
from csp_embed.schedule.nests import Covers, NestCache, Placed
from csp_embed.schedule.ring import Ring
from csp_embed.schedule.rows import Rows
from csp_embed.schedule.tiling import Range
from csp_embed.schedule.tiling import chunks as chunks_of
from csp_embed.schedule.tiling import pieces as pieces_of
from csp_embed.schedule.tiling import tiles as tiles_of


def build(
    problem: Problem, config: Config, trick: BiasTrick | None, covers: Covers | None = None
) -> Schedule:
    """The schedule for a contraction under `config`; `trick` adds one tensor step by multiply-
    accumulate.
    """
    assert problem.rhs is not None
    contract = problem.instruction
    rows = Rows(problem)
    cache = NestCache(problem, rows, {} if covers is None else covers, config.uops)
    lhs, rhs = Frames(problem.lhs, config.lhs_order), Frames(problem.rhs, config.rhs_order)
    dst = Frames(problem.dst, config.dst_order)
    adds = {
        i: Frames(_in_memory(m, i, problem, trick), tuple(range(len(m.grid))))
        for i, m in problem.adds.items()
    }

    tiles = tiles_of(problem, config)
    chunks = chunks_of(problem, config)
    steps = []
    rounds = range(len(problem.rounds) + 1)
    own_l, own_r = problem.sides
    for number, (tlo, thi) in enumerate(tiles):
        for turn in range(problem.contractions):
            back = config.snake and (number * problem.contractions + turn) % 2
            for clo, chi in chunks[::-1] if back else chunks:
                lo = tuple(c if r else t for c, t, r in zip(clo, tlo, problem.reduced, strict=True))
                hi = tuple(c if r else t for c, t, r in zip(chi, thi, problem.reduced, strict=True))
                fl, fr = lhs.at(lo, hi, own_l * turn), rhs.at(lo, hi, own_r * turn)
                if fl.number >= 0 and fr.number >= 0:
                    steps.append((number, lo, hi, fl, fr, turn))
    # Each use of a step's tensor in program order, and its place there by (tile, round).
    uses: dict[int, dict[tuple[int, int], int]] = {i: {} for i in adds}
    add_frames: dict[int, list[Frame]] = {i: [] for i in adds}
    for number, (tlo, thi) in enumerate(tiles):
        for turn in rounds:
            for i, step in problem.steps(turn):
                if step.access is not None:
                    uses[i][number, turn] = len(add_frames[i])
                    add_frames[i].append(adds[i].at(tlo, thi, turn))

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
    (base_l, room_l), (base_r, room_r) = _shares(problem, lhs, rhs, top)
    ring_l = Ring(lhs, [s[3] for s in steps], base_l, room_l, config.slots)
    ring_r = Ring(rhs, [s[4] for s in steps], base_r, room_r, config.slots)
    dst_frames = [dst.at(lo, hi) for lo, hi in tiles]
    acc_size = dst.largest
    if problem.copies:
        top[problem.dst.memory] -= acc_size
    copy_at = top[problem.dst.memory]
    acc_slots = 2 if len(tiles) > 1 and 2 * acc_size <= top[problem.dst.memory] else 1
    if acc_size > top[problem.dst.memory]:
        raise Infeasible(
            f"an output tile needs {acc_size} elements of {problem.dst.memory}",
            why=f"only {top[problem.dst.memory]} are free",
        )

    epilogue = _Epilogue(adds, rings_add, add_frames, uses, trick, const_at)
    regions: list[Frames] = [lhs, rhs]
    l_region, r_region = 0, 1
    add_region = {}
    for i, f in adds.items():
        add_region[i] = len(regions)
        regions.append(f)
    const_row = -1
    const_region = len(regions)
    repeats = 1 << max(0, (len(steps) // 4).bit_length() - 1)
    stored_at = [-1] * acc_slots
    by_tile: dict[tuple[int, int], list[int]] = {}
    for n, s in enumerate(steps):
        by_tile.setdefault((s[0], s[5]), []).append(n)
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
        last_tile = number == len(tiles) - 1
        pieces = pieces_of(problem, config, olo, ohi, last_tile, number >= len(tiles) - 2)
        add_need: dict[int, tuple[int, ...]] = {}
        for turn in rounds:
            for n in by_tile.get((number, turn), ()):
                _, lo, hi, fl, fr, _ = steps[n]
                brought = ring_l.bring(rows, l_region, n, fl), ring_r.bring(rows, r_region, n, fr)
                need = rows.latest(*brought)
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
                    [f.map for f, box in ((lhs, fl), (rhs, fr)) if not box.whole],
                    repeats=repeats,
                ):
                    row = rows.compute(t, after=need)
                    need = ()
                ring_l.touch(n, row)
                ring_r.touch(n, row)
            if trick is not None and const_row < 0:
                const_row = rows.load(const_map.memory, const_region, 0, const_at)
            add_need = {}
            for i, ring in rings_add.items():
                use = uses[i].get((number, turn))
                if use is not None:
                    brought_row = ring.bring(rows, add_region[i], use, add_frames[i][use])
                    add_need[i] = rows.latest(brought_row)
            if trick is not None and trick.step in add_need:
                add_need[trick.step] = rows.latest(*add_need[trick.step], const_row)
            if turn < len(problem.rounds):
                at = number, turn
                todo = problem.steps(turn)
                if problem.copies:
                    # The sum itself is completed first; what follows changes its copy.
                    own = 1 if todo and todo[0][1].op == "add" else 0
                    _steps(
                        problem, cache, rows, olo, ohi, frame, acc, at, epilogue, add_need,
                        todo[:own],
                    )  # fmt: skip
                    _copy(problem, cache, rows, olo, ohi, frame, acc, copy_at)
                    todo = todo[own:]
                _steps(
                    problem, cache, rows, olo, ohi, frame, copy_at if problem.copies else acc, at,
                    epilogue, add_need, todo,
                )  # fmt: skip
                if problem.copies:
                    _add(problem, cache, rows, olo, ohi, frame, acc, copy_at)
        for plo, phi in pieces:
            last = number, len(problem.rounds)
            todo = problem.steps(last[1])
            _steps(problem, cache, rows, plo, phi, frame, acc, last, epilogue, add_need, todo)
            box = tuple(
                (b[0], b[1]) for b in (problem.dst.box(plo, phi)[d] for d in config.dst_order)
            )
            at = acc + sum(
                (box[j][0] - frame.lo[d]) * frame.pitch[d] for j, d in enumerate(config.dst_order)
            )
            shadow = stored_memory(problem.isa, problem.dst.memory)
            stored_at[slot] = rows.store(
                shadow, const_region + 1, out_boxes.setdefault(box, len(out_boxes)), at
            )
    rows.finish()
    slots = max(ring.useful for ring in (ring_l, ring_r, *rings_add.values()))
    counts = {"tiles": len(tiles), "chunks": len(chunks), "slots": slots}
    return _schedule(problem, config, rows, regions, out_boxes, trick, counts)


def _shares(
    problem: Problem, lhs: Frames, rhs: Frames, top: dict[str, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(first element, elements) for either operand of what is free in its memory.

    Operands that share one memory share it by the sizes of their tiles.
    """
    assert problem.rhs is not None
    free_l, free_r = top[problem.lhs.memory], top[problem.rhs.memory]
    if problem.lhs.memory != problem.rhs.memory:
        return (0, free_l), (0, free_r)
    need_l, need_r = max(1, lhs.largest), max(1, rhs.largest)
    if need_l + need_r > free_l:
        raise Infeasible(
            f"tiles of both operands need {need_l + need_r} elements of {problem.lhs.memory}",
            why=f"only {free_l} are free",
        )
    share = need_l + (free_l - need_l - need_r) * need_l // (need_l + need_r)
    return (0, share), (share, free_l - share)


@dataclass(frozen=True)
class _Epilogue:
    """What the epilogue of every tile needs: the tensors of its steps, their slots and frames per
    use, uses by (tile, round), and where the
    bias trick's constant lies."""

    adds: dict[int, Frames]
    rings: dict[int, Ring]
    frames: dict[int, list[Frame]]
    uses: dict[int, dict[tuple[int, int], int]]
    trick: BiasTrick | None
    constant: int


def _copy(
    problem: Problem, cache: NestCache, rows: Rows, lo: Range, hi: Range, frame: Frame, acc: int,
    copy: int,
) -> None:  # fmt: skip
    """The sums from `acc` on, once more from `copy` on."""
    none = (None, None, 0)
    for t in cache.templates(
        problem.instruction.name, lo, hi, [(problem.dst, frame, copy), none, none], [],
        repeats=64, reset=True,
    ):  # fmt: skip
        rows.compute(t)
    _add(problem, cache, rows, lo, hi, frame, copy, acc)


def _add(
    problem: Problem, cache: NestCache, rows: Rows, lo: Range, hi: Range, frame: Frame, to: int,
    what: int,
) -> None:  # fmt: skip
    """Adds the sums from `what` on to those from `to` on."""
    operands: list[Placed] = [(problem.dst, frame, to), (problem.dst, frame, what)]
    name = problem.isa.of_kind("map").name
    for t in cache.templates(name, lo, hi, operands, [], repeats=64, op="add"):
        rows.compute(t)


def _steps(
    problem: Problem,
    cache: NestCache,
    rows: Rows,
    lo: Range,
    hi: Range,
    frame: Frame,
    acc: int,
    at: tuple[int, int],
    what: _Epilogue,
    add_need: dict[int, tuple[int, ...]],
    todo: Sequence[tuple[int, Step]],
) -> None:
    """The steps `todo` of one piece [lo, hi) at (tile, round), whose accumulators start at `acc`;
    add_need: the row that
    brought each step's tensor."""
    adds, rings, add_frames = what.adds, what.rings, what.frames
    trick, const_at = what.trick, what.constant
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
            name = problem.isa.of_kind("map").name
            op, imm = identity(problem.isa)
            for t in cache.templates(name, lo, hi, [here, here], [], repeats=1, op=op, imm=imm):
                rows.compute(t)
        return
    for i, step in todo:
        need: tuple[int, ...] = ()
        if step.access is None:
            operands, name = [here, here], map_instruction.name
        else:
            ring, use = rings[i], what.uses[i][at]
            source = (adds[i].map, add_frames[i][use], ring.address(use))
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
            need = ()
        if step.access is not None:
            rings[i].touch(use, row)


def _in_memory(m: Map, step: int, problem: Problem, trick: BiasTrick | None) -> Map:
    """An epilogue tensor's map; under the bias trick its factors lie in an operand memory."""
    memory = problem.dst.memory
    if trick is not None and trick.step == step:
        side = problem.rhs if trick.factor_side == "rhs" else problem.lhs
        assert side is not None
        memory = side.memory
    return Map(m.operand, memory, m.grid, m.origin, m.step)


def _schedule(
    problem: Problem,
    config: Config,
    rows: Rows,
    regions: list[Frames],
    out_boxes: dict[tuple[tuple[int, int], ...], int],
    trick: BiasTrick | None,
    counts: dict[str, int],
) -> Schedule:
    """All parts together; counts: of tiles, of chunks, and of the most slots that are of use."""
    assert problem.rhs is not None
    tensors = problem.embedding.operator.tensors
    out = []
    for frames in regions:
        m = frames.map
        layout = problem.embedding.layouts[m.operand]
        constant = tensors[layout.tensor].constant
        turns = tuple(frames.rounds) if any(frames.rounds) else ()
        out.append(
            Region(
                m.operand,
                m.memory,
                m.grid,
                frames.order,
                tuple(frames.boxes),
                constant,
                rounds=turns,
            )
        )
    if trick is not None:
        side = problem.lhs if trick.factor_side == "rhs" else problem.rhs
        out.append(Region("const", side.memory, (1,), (0,), (((0, 1),),), True))
    else:
        out.append(Region("const", problem.lhs.memory, (0,), (0,), (), True))
    out.append(
        Region(
            "dst",
            stored_memory(problem.isa, problem.dst.memory),
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
        stats=counts | {"steps": steps},
    )
