"""Schedules for operators that live on the accumulator memory: pooling by maximum or minimum,
elementwise programs.

Takes: a Problem without rhs.  Leaves: Schedule.  All loads go to the accumulator memory and so
through the compute queue;
stores overlap with the next tile where two tiles fit.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from csp_embed.errors import Infeasible
from csp_embed.ir.schedule import COMPUTE, Region, Schedule
from csp_embed.machine.reach import stored_memory
from csp_embed.schedule.buffers import Frames
from csp_embed.schedule.config import ranges
from csp_embed.schedule.inputs import Map, Problem, identity
from csp_embed.schedule.tile import dimension_order, sizes
from csp_embed.schedule.tiling import Range
from csp_embed.targets.stream.nests import NestCache, Placed
from csp_embed.targets.stream.rows import Rows

NEUTRAL = {"max": -128, "min": 127}


def build(problem: Problem) -> Schedule:
    """Raises: Infeasible where one vector and its operands do not fit."""
    kind = problem.embedding.operator.kind
    maybe = kind == "map" and _alike(problem, tuple(range(len(problem.dst.grid)))) is not None
    tile = _tile(problem, maybe)
    orders = {
        m.operand: dimension_order(m, tile, problem.extents)
        for m in (problem.lhs, problem.dst, *problem.adds.values())
    }
    rows = Rows(problem)
    cache = NestCache(problem, rows, {})
    # Loaded straight into its place where both have the same shape; otherwise added to zero.
    alike = _alike(problem, orders["dst"]) if kind == "map" else None
    copy = alike is not None
    lhs = Frames(problem.lhs, orders["lhs"] if alike is None else alike)
    dst = Frames(problem.dst, orders["dst"])
    adds = {i: Frames(m, orders[m.operand]) for i, m in problem.adds.items()}
    tiles = _boxes(problem, tile, reduced=False)
    chunks = _boxes(problem, tile, reduced=True)
    plan = []
    for lo, hi in tiles:
        parts = []
        for clo, chi in chunks:
            plo = tuple(c if r else t for c, t, r in zip(clo, lo, problem.reduced, strict=True))
            phi = tuple(c if r else t for c, t, r in zip(chi, hi, problem.reduced, strict=True))
            parts.append((plo, phi, lhs.at(plo, phi)))
        plan.append((lo, hi, dst.at(lo, hi), parts, [f.at(lo, hi) for f in adds.values()]))
    room = problem.depth[problem.dst.memory]
    copies = (
        2 if len(tiles) > 1 and 2 * dst.largest <= room - _others(problem, copy, lhs, adds) else 1
    )
    base_lhs = copies * dst.largest
    base_adds, at = {}, base_lhs + (0 if copy else lhs.largest)
    for i, f in adds.items():
        base_adds[i] = at
        at += f.largest
    if at > room:
        raise Infeasible(
            f"a tile needs {at} elements of {problem.dst.memory}",
            why=f"{room} are there",
            hint="use a configuration with larger buffers",
        )
    map_name = problem.isa.of_kind("map").name
    contract = next((i for i in problem.isa.instructions if i.kind == "contract"), None)
    stored = [-1] * copies
    held: dict[int, int] = {}
    out_boxes: dict[tuple[tuple[int, int], ...], int] = {}
    shadow = stored_memory(problem.isa, problem.dst.memory)
    for number, (lo, hi, frame, parts, extra) in enumerate(plan):
        slot = number % copies
        acc = slot * dst.largest
        olo = tuple(a for a in lo)
        ohi = tuple(a + 1 if r else b for a, b, r in zip(lo, hi, problem.reduced, strict=True))
        here = (problem.dst, frame, acc)
        after_store = stored[slot]

        def run(
            name: str,
            operands: list[Placed],
            plo: Range,
            phi: Range,
            guards: tuple[Map, ...] = (),
            *,
            reset: bool = False,
            op: str = "",
            imm: int | None = None,
        ) -> None:
            nonlocal after_store
            for t in cache.templates(
                name, plo, phi, operands, list(guards), repeats=8, reset=reset, op=op, imm=imm
            ):
                rows.compute(t, after_store=after_store)
                after_store = -1

        if copy:
            # An elementwise program has no reduction, so there is one part.
            ((_, _, source),) = parts
            if source.number >= 0:
                sram = acc + source.shift
                row = rows.load(problem.lhs.memory, 0, source.number, sram, after_store)
                after_store = -1
                rows.last_compute = row
        else:
            if contract is None:
                raise Infeasible(
                    f"{problem.embedding.operator.name} needs accumulators that are set to 0",
                    why=f"{problem.isa.name} has no contraction, whose reset does that",
                    hint="use a machine with a contraction, such as --isa vta",
                )
            blank = (None, None, 0)
            run(contract.name, [here, blank, blank], olo, ohi, reset=True)
            if kind != "map":
                opposite = "min" if kind == "max" else "max"
                run(map_name, [here, here], olo, ohi, op=opposite, imm=NEUTRAL[kind])
            for plo, phi, source in parts:
                if source.number < 0:
                    continue
                rows.load(problem.lhs.memory, 0, source.number, base_lhs + source.shift)
                operands = [here, (problem.lhs, source, base_lhs)]
                op = "add" if kind == "map" else kind
                run(map_name, operands, plo, phi, (problem.lhs,), op=op)
        for (i, f), add_frame in zip(adds.items(), extra, strict=True):
            if held.get(i) != add_frame.key:
                rows.load(f.map.memory, 1 + list(adds).index(i), add_frame.number, base_adds[i])
                held[i] = add_frame.key
        # Padding of an elementwise program is what the reset left; only steps reach a store.
        whole = zip(problem.lhs.box(olo, ohi), problem.lhs.grid, strict=True)
        computed = not copy and (kind != "map" or all(a >= 0 and b <= g for (a, b), g in whole))
        for i, step in enumerate(problem.epilogue):
            computed = True
            if step.access is None:
                run(map_name, [here, here], olo, ohi, op=step.op, imm=step.imm)
            else:
                n = list(adds).index(i)
                run(map_name, [here, (adds[i].map, extra[n], base_adds[i])], olo, ohi, op=step.op)
        if not computed:
            # A store reads what a compute step wrote last, so a plain copy needs one.
            copying, imm = identity(problem.isa)
            run(map_name, [here, here], olo, ohi, op=copying, imm=imm)
        wanted = problem.dst.box(olo, ohi)
        box = tuple(wanted[d] for d in orders["dst"])
        stored[slot] = rows.store(
            shadow, 1 + len(adds), out_boxes.setdefault(box, len(out_boxes)), acc
        )
    rows.finish()
    regions = [
        Region(f.map.operand, f.map.memory, f.map.grid, f.order, tuple(f.boxes), False)
        for f in (lhs, *adds.values())
    ]
    regions.append(
        Region(
            "dst", shadow, problem.dst.grid, orders["dst"], tuple(out_boxes), False, problem.splits
        )
    )
    steps = sum(rows.templates[r[1]].steps for r in rows.ops if r[0] == COMPUTE)
    return Schedule(
        regions=tuple(regions),
        templates=tuple(rows.templates),
        ops=np.array(rows.ops, dtype=np.int64).reshape(-1, 4),
        tokens=np.array(rows.tokens.bits, dtype=np.int64),
        tile=dict(zip(problem.names, tile, strict=True)),
        stats={"tiles": len(tiles), "chunks": len(chunks), "steps": steps},
    )


def _alike(problem: Problem, order: tuple[int, ...]) -> tuple[int, ...] | None:
    """lhs dimensions in dst's order where a tile of both lies alike, else None."""
    out = []
    for d in order:
        movers = [c for c in range(len(problem.extents)) if problem.dst.step[c, d]]
        found = [
            e
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


def _others(problem: Problem, copy: bool, lhs: Frames, adds: dict[int, Frames]) -> int:
    return (0 if copy else lhs.largest) + sum(f.largest for f in adds.values())


def _boxes(problem: Problem, tile: tuple[int, ...], *, reduced: bool) -> list[tuple[Range, Range]]:
    """Counter ranges of all tiles (or of all reduction chunks); the other counters are whole."""
    axes = [
        ranges(e, t) if r == reduced else [(0, e)]
        for e, t, r in zip(problem.extents, tile, problem.reduced, strict=True)
    ]
    return [
        (tuple(a for a, _ in pick), tuple(b for _, b in pick)) for pick in itertools.product(*axes)
    ]


def _tile(problem: Problem, copy: bool) -> tuple[int, ...]:
    """The largest tile of which two results and its operands fit; reductions whole if possible."""
    room = problem.depth[problem.dst.memory]
    maps = [*problem.adds.values()]
    if not copy:
        maps.append(problem.lhs)
    lists = [sizes(e, max(room, 1), False) for e in problem.extents]
    while math.prod(len(v) for v in lists) > 50_000:
        longest = max(range(len(lists)), key=lambda c: len(lists[c]))
        v = lists[longest]
        lists[longest] = [*v[:-1:2], v[-1]] if len(v) > 2 else [1]
    best: tuple[tuple[float, ...], tuple[int, ...]] | None = None
    for tile in itertools.product(*lists):
        outputs = [t for t, r in zip(tile, problem.reduced, strict=True) if not r]
        vectors = math.prod(outputs)
        need = sum(math.prod(b - a for a, b in m.box((0,) * len(tile), tile)) for m in maps)
        copies = 2 if need + 2 * vectors <= room else 1
        if need + copies * vectors > room:
            continue
        chunks = math.prod(
            -(-e // t) for e, t, r in zip(problem.extents, tile, problem.reduced, strict=True) if r
        )
        score = (vectors / max(1, need + 64) / chunks, float(copies), float(vectors))
        if best is None or score > best[0]:
            best = (score, tile)
    if best is None:
        raise Infeasible(
            f"{problem.embedding.operator.name}: one vector with its operands does not fit",
            why=f"{problem.dst.memory} has {room} elements",
            hint="use a configuration with larger buffers",
        )
    return best[1]
