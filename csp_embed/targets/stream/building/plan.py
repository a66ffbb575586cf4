"""Where everything of a contraction's schedule stands, before its rows are written.

Takes: Problem, Config.  Leaves: a Plan: the steps of every output tile, the frames of all operands,
and their shares of the memories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import lt, sub
from typing import NamedTuple

from csp_embed.errors import Infeasible
from csp_embed.ir.schedule import BiasTrick
from csp_embed.schedule.buffers import Frame, Frames, Range, Shapes, joined
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Map, Problem
from csp_embed.schedule.points import every_result_has_a_product
from csp_embed.schedule.tiling import chunks as chunks_of
from csp_embed.schedule.tiling import tiles as tiles_of
from csp_embed.targets.stream.building.ring import Ring

Ranges = list[tuple[Range, Range]]
Walk = Callable[[int, int, int], Frame]
"""The frame of an operand by numbers of tile, chunk and round."""


class Shared:
    """What all schedules of a problem share: boxes by operand and order of dimensions."""

    def __init__(self, problem: Problem, trick: BiasTrick | None) -> None:
        self.problem, self.trick = problem, trick
        # Asked once for all schedules: it depends on the problem alone.
        self.filled = every_result_has_a_product(problem)
        self._forms: dict[object, int] = {}
        self._shapes: dict[tuple[str, tuple[int, ...]], Shapes] = {}

    def frames(self, m: Map, order: tuple[int, ...]) -> Frames:
        """No box yet."""
        shapes = self._shapes.get((m.operand, order))
        if shapes is None:
            shapes = self._shapes[m.operand, order] = Shapes(m, order, self._forms)
        return Frames(shapes)

    def number(self, coefs: tuple[int, ...]) -> int:
        """Of the form without bounds that moves so; equal for equal ones, as in `Shapes`."""
        return self._forms.setdefault((coefs, ()), len(self._forms))


class Step(NamedTuple):
    """The products of a tile and a chunk: extents of the counters, boxes of both operands."""

    extents: Range
    lhs: Frame
    rhs: Frame


@dataclass(frozen=True)
class Plan:
    """steps: of all tiles in program order; those of round r of tile n are numbers[n][r].
    dst_frames: per tile. add_frames: by epilogue step, per use; uses: of which tile and round.
    rings: slots of either operand. ring_adds: of the epilogue's tensors. acc_slots: tiles that the
    accumulators hold, each of acc_size elements; copy: address of their copy, where there is one.
    constant: address of the bias trick's constant. filled: no result sums padding alone."""

    problem: Problem
    config: Config
    trick: BiasTrick | None
    tiles: Ranges
    chunks: int
    steps: list[Step]
    numbers: list[list[range]]
    lhs: Frames
    rhs: Frames
    adds: dict[int, Frames]
    dst_frames: list[Frame]
    add_frames: dict[int, list[Frame]]
    uses: dict[int, dict[tuple[int, int], int]]
    ring_l: Ring
    ring_r: Ring
    ring_adds: dict[int, Ring]
    acc_size: int
    acc_slots: int
    copy: int
    constant: int
    filled: bool


def plan_of(shared: Shared, config: Config) -> Plan:
    """Raises: Infeasible where the tile does not fit."""
    problem, trick = shared.problem, shared.trick
    assert problem.rhs is not None  # else it is no contraction
    lhs = shared.frames(problem.lhs, config.lhs_order)
    rhs = shared.frames(problem.rhs, config.rhs_order)
    dst = shared.frames(problem.dst, config.dst_order)
    # Tensors of steps keep the grid's own order: they are small and loaded once.
    adds = {
        i: shared.frames(_in_memory(m, i, problem, trick), tuple(range(len(m.grid))))
        for i, m in problem.adds.items()
    }
    tiles, chunks = tiles_of(problem, config), chunks_of(problem, config)
    steps, numbers = _steps(problem, tiles, chunks, lhs, rhs, config.snake)
    add_frames, uses = _uses(problem, tiles, adds)
    # Shares of the memories: operands from the bottom, the epilogue's tensors and constants from
    # the top.
    top = dict(problem.depth)
    constant = -1
    if trick is not None:
        memory = constant_map(problem, trick).memory
        # One element, at the very top, where no ring's share can reach it.
        top[memory] -= 1
        constant = top[memory]
    ring_adds = {i: _ring_at_top(f, add_frames[i], top, config.slots) for i, f in adds.items()}
    (base_l, room_l), (base_r, room_r) = _shares(problem, lhs, rhs, top)
    ring_l = Ring(lhs, [s.lhs for s in steps], base_l, room_l, config.slots)
    ring_r = Ring(rhs, [s.rhs for s in steps], base_r, room_r, config.slots)
    dst_frames = [dst.at(lo, hi) for lo, hi in tiles]
    # Beside the sums of a tile stands their copy.
    room = top[problem.dst.memory] - (dst.largest if problem.copies else 0)
    if dst.largest > room:
        raise Infeasible(
            f"an output tile needs {dst.largest} elements of {problem.dst.memory}",
            why=f"only {room} are free",
            hint="a larger memory in --vta-config, or another layout",
        )
    # Two tiles of sums: one is stored while the next is computed.
    acc_slots = 2 if len(tiles) > 1 and 2 * dst.largest <= room else 1
    return Plan(
        problem, config, trick, tiles, len(chunks), steps, numbers, lhs, rhs, adds, dst_frames,
        add_frames, uses, ring_l, ring_r, ring_adds, dst.largest, acc_slots, room, constant,
        shared.filled,
    )  # fmt: skip


def _uses(
    problem: Problem, tiles: Ranges, adds: dict[int, Frames]
) -> tuple[dict[int, list[Frame]], dict[int, dict[tuple[int, int], int]]]:
    """By epilogue step the frames of its tensor in program order, and their places there by (tile,
    round)."""
    frames: dict[int, list[Frame]] = {i: [] for i in adds}
    uses: dict[int, dict[tuple[int, int], int]] = {i: {} for i in adds}
    for number, (lo, hi) in enumerate(tiles):
        for turn in range(len(problem.rounds) + 1):
            for i, step in problem.steps(turn):
                # Several steps of a round may read one tensor; it is brought once.
                if step.access is not None and (number, turn) not in uses[i]:
                    uses[i][number, turn] = len(frames[i])
                    frames[i].append(adds[i].at(lo, hi, turn))
    return frames, uses


def constant_map(problem: Problem, trick: BiasTrick) -> Map:
    """The operand in whose memory the trick's constant stands."""
    side = problem.lhs if trick.factor_side == "rhs" else problem.rhs
    assert side is not None  # the trick is one of contractions
    return side


def _in_memory(m: Map, step: int, problem: Problem, trick: BiasTrick | None) -> Map:
    """An epilogue tensor's map; under the bias trick its factors lie in an operand memory."""
    memory = problem.dst.memory
    if trick is not None and trick.step == step:
        # Its factors are multiplied like any operand, so they lie where the instruction reads
        # these.
        side = problem.rhs if trick.factor_side == "rhs" else problem.lhs
        assert side is not None  # as above
        memory = side.memory
    return Map(m.operand, memory, m.grid, m.origin, m.step)


def _steps(
    problem: Problem, tiles: Ranges, chunks: Ranges, lhs: Frames, rhs: Frames, snake: bool
) -> tuple[list[Step], list[list[range]]]:
    """All steps, and which of them each round of each tile has. Where an operand is only padding
    there is no step."""
    chunks, parts, whole = _parts(problem, chunks)
    left, right = _walk(lhs, tiles, chunks, problem), _walk(rhs, tiles, chunks, problem)
    own_l, own_r = problem.sides
    turns = problem.turns
    outer = [tuple(map(sub, hi, lo)) for lo, hi in tiles]
    inner = [tuple(map(sub, hi, lo)) for lo, hi in chunks]
    extents: dict[tuple[Range, Range], Range] = {}
    steps: list[Step] = []
    numbers = []
    for t, size in enumerate(outer):
        mine = []
        for at, turn in enumerate(turns):
            first, forth = len(steps), parts[at]
            # Every other pass backwards: what was loaded last is used first, and need not be loaded
            # again.
            for c in forth[::-1] if snake and (t * len(turns) + at) % 2 else forth:
                if whole[c] == c:
                    fl, fr = left(t, c, own_l * turn), right(t, c, own_r * turn)
                else:
                    lo = joined(tiles[t][0], chunks[c][0], problem.reduced)
                    fl, fr = (
                        walk(t, c, turn) if own else _part(walk, t, c, whole[c], lo)
                        for walk, own in ((left, own_l), (right, own_r))
                    )
                # One operand lies in padding alone: the products are 0.
                if fl.number >= 0 and fr.number >= 0:
                    both = (size, inner[c])
                    # A few extents recur for thousands of steps; one tuple each keeps later
                    # look-ups cheap.
                    if both not in extents:
                        extents[both] = joined(*both, problem.reduced)
                    steps.append(Step(extents[both], fl, fr))
            mine.append(range(first, len(steps)))
        numbers.append(mine)
    return steps, numbers


def _parts(problem: Problem, chunks: Ranges) -> tuple[Ranges, list[list[int]], list[int]]:
    """Chunks of all rounds; the numbers of those of each round, without what its constants leave at
    0; the number of the whole chunk that each is a part of."""
    numbers = list(range(len(chunks)))
    if not problem.live:
        return chunks, [numbers] * problem.contractions, numbers
    known = {chunk: n for n, chunk in enumerate(chunks)}
    parts: list[list[int]] = []
    for live in problem.live:
        mine: list[int] = []
        for n, (lo, hi) in enumerate(chunks):
            low = tuple([max(a, r[0]) for a, r in zip(lo, live, strict=True)])
            high = tuple([min(b, r[1]) for b, r in zip(hi, live, strict=True)])
            if all(map(lt, low, high)):
                found = known.setdefault((low, high), len(known))
                if found == len(numbers):
                    numbers.append(n)
                mine.append(found)
        parts.append(mine)
    return list(known), parts, numbers


def _part(walk: Walk, t: int, c: int, whole: int, lo: Range) -> Frame:
    """The frame of an operand that all rounds share: the whole chunk's, so that it is loaded once
    for all of them, from the counters `lo` on."""
    frame = walk(t, whole, 0)
    # A grid's border is counted from the first counters of a box, so there the part has its own.
    if frame.shape.form.guards:
        return walk(t, c, 0)
    return frame._replace(shape=frame.shape._replace(start=frame.shape.form.first(lo)))


def _walk(frames: Frames, tiles: Ranges, chunks: Ranges, problem: Problem) -> Walk:
    """The frame of an operand by numbers of tile, chunk and round. Tiles that move it alike share
    one, and there are many more pairs than such frames."""

    def numbered(parts: Ranges, reduced: bool) -> list[int]:
        # Counters that do not move the operand must not tell tiles apart.
        moving = [c for c in frames.shapes.moving if problem.reduced[c] == reduced]
        known: dict[tuple[tuple[int, int], ...], int] = {}
        return [
            known.setdefault(tuple([(lo[c], hi[c]) for c in moving]), len(known))
            for lo, hi in parts
        ]

    outer, inner = numbered(tiles, False), numbered(chunks, True)
    known: dict[tuple[int, int, int], Frame] = {}

    def at(t: int, c: int, turn: int) -> Frame:
        key = (outer[t], inner[c], turn)
        found = known.get(key)
        if found is None:
            (tlo, thi), (clo, chi) = tiles[t], chunks[c]
            lo, hi = joined(tlo, clo, problem.reduced), joined(thi, chi, problem.reduced)
            found = known[key] = frames.at(lo, hi, turn)
        return found

    return at


def _ring_at_top(frames: Frames, steps: list[Frame], top: dict[str, int], most: int) -> Ring:
    """Slots of an epilogue's tensor, an eighth of what is free; `top` shrinks by them."""
    memory = frames.map.memory
    n = max(1, frames.largest)
    distinct = len({f.key for f in steps})
    # An eighth: enough for overlap, and too little to make the operands' tiles smaller.
    budget = max(n, top[memory] // 8)
    # One slot if the tensor never changes, two to load ahead.
    room = n * min(distinct, max(1 if distinct == 1 else 2, budget // n))
    # Never more than half: the operands must have room.
    if room > top[memory] // 2:
        room = n
    top[memory] -= room
    return Ring(frames, steps, top[memory], room, most)


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
            hint="a larger memory in --vta-config, or another layout",
        )
    # By the sizes of their tiles, so that both hold about as many of them.
    share = need_l + (free_l - need_l - need_r) * need_l // (need_l + need_r)
    return (0, share), (share, free_l - share)
