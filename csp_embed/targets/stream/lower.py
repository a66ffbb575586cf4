"""Schedule to instruction stream: micro-op placement, DMA rectangles, DRAM addresses, fields.

Takes: Schedule, Isa.  Leaves: Lowered: a Stream, the micro-op image, and where each region lies in
DRAM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.schedule import (
    COMPUTE,
    FINISH,
    Region,
    Schedule,
    Template,
)
from csp_embed.ir.stream import Stream
from csp_embed.machine.reach import reach
from csp_embed.machine.spec import Instruction, Isa
from csp_embed.machine.words.bits import encode_uops
from csp_embed.targets.stream.columns import Columns, Ints
from csp_embed.targets.stream.rectangles import Rectangle, runs
from csp_embed.targets.stream.transfers import Rects, Transfers, limits_of, rectangle_fields
from csp_embed.targets.stream.uops import UopPlan, place


@dataclass(frozen=True)
class Lowered:
    """address: byte address per region; box_start: first element per box where a region is kept by
    boxes. ends: instructions up to the end of each row of the schedule.
    """

    stream: Stream
    uop_words: NDArray[np.uint32]
    uop_address: int
    address: tuple[int, ...]
    size_bytes: tuple[int, ...]
    box_start: tuple[tuple[int, ...], ...]
    ends: Ints


def lower(
    schedule: Schedule,
    isa: Isa,
    known: Rects | None = None,
    placed: tuple[Sequence[int], int] | None = None,
) -> Lowered:
    """known: rectangles of other schedules, to which those of this one are added. placed: byte
    address of every region, and of the micro-ops, where they are decided already; a region of which
    only a part is used may begin before its memory does.

    Raises: InputError where the image does not fit below the machine's address limit.
    """
    uop_lists, uses = _uop_uses(schedule, isa)
    # Micro-ops are placed once for the whole stream: equal lists are loaded once, if they still are
    # there.
    plan = place(uop_lists, uses, reach(isa, isa.uop_memory))
    if placed is None:
        address, sizes, starts, uop_address = _addresses(schedule, isa, plan)
    else:
        address, uop_address = list(placed[0]), placed[1]
        starts, counts = zip(*map(_elements, schedule.regions), strict=True)
        sizes = [
            n * isa.memory(r.memory).elem_bytes
            for n, r in zip(counts, schedule.regions, strict=True)
        ]
    kind = schedule.ops[:, 0]
    computes = np.flatnonzero(kind == COMPUTE)
    loads = _uop_loads(isa, plan, uop_address)
    rects = Transfers(schedule, isa, address, starts, {} if known is None else known)
    # Instructions of each row: rectangles, or what micro-ops are loaded and the compute itself.
    # Rectangles may be several instructions a row.
    count = np.ones(len(kind), dtype=np.int64)
    # Every row is at least one instruction.
    count[rects.rows] = rects.count
    for use, several in loads.items():
        count[computes[use]] += len(several)
    # A row ends at its last instruction: pushes stand there, pops at its first.
    last = np.cumsum(count) - 1
    writer = Columns(isa, int(last[-1]) + 1 if len(last) else 0)
    rects.write(writer, last - count + 1)
    _write_uop_loads(writer, isa, loads, (last - count + 1)[computes])
    _write_computes(writer, isa, schedule, plan.at, last[computes], computes)
    finish = isa.of_kind("finish")
    ends = np.flatnonzero(kind == FINISH)
    writer.put(last[ends], finish, {}, schedule.tokens[ends])
    stream = Stream(writer.code, writer.fields)
    return Lowered(
        stream, plan.words, uop_address, tuple(address), tuple(sizes), tuple(starts), last + 1
    )


def _uop_loads(isa: Isa, plan: UopPlan, address: int) -> dict[int, list[Rectangle]]:
    """The loads of micro-ops before each use that misses some."""
    first, limits = address // isa.memory(isa.uop_memory).elem_bytes, limits_of(isa.of_kind("load"))
    # Elements of micro-ops in DRAM count from address 0, as all elements do.
    return {
        use: runs(first + word, at, length, limits)
        for use, (word, at, length) in plan.before.items()
    }


def _write_uop_loads(
    writer: Columns, isa: Isa, loads: dict[int, list[Rectangle]], at: Ints
) -> None:
    """at: position of the first instruction of each use."""
    rows = [
        (int(at[use]) + n, e.sram, e.dram, e.y, e.x, e.stride)
        for use, several in loads.items()
        for n, e in enumerate(several)
    ]
    # At once: most of the work is NumPy's overhead.
    table = np.array(rows, dtype=np.int64).reshape(-1, 6)
    load, memory = isa.of_kind("load"), isa.memory(isa.uop_memory).id
    fields = rectangle_fields(load, memory, table[:, 1], table[:, 2], table[:, 3:])
    writer.put(table[:, 0], load, fields, 0)


def _write_computes(
    writer: Columns, isa: Isa, schedule: Schedule, uops: list[int], at: Ints, rows: Ints
) -> None:
    """uops: on-chip position of each one's micro-ops. at: their positions; rows: of the
    schedule."""
    template = schedule.ops[rows, 1]
    where = np.array(uops, dtype=np.int64)
    names = [t.instruction for t in schedule.templates]
    for name in dict.fromkeys(names):
        instruction = isa.instruction(name)
        mine = [n for n, other in enumerate(names) if other == name]
        # Templates of other instructions keep -1 and are written in their own turn.
        place_of = np.full(len(names), -1, dtype=np.int64)
        place_of[mine] = np.arange(len(mine))
        each = [_compute_fields(instruction, schedule.templates[n]) for n in mine]
        here = np.flatnonzero(place_of[template] >= 0)
        which = place_of[template[here]]
        fields: dict[str, Ints | int] = {
            # Few have a reset or an immediate; the others leave these fields 0.
            key: np.array([f.get(key, 0) for f in each], dtype=np.int64)[which]
            for key in dict.fromkeys(k for f in each for k in f)
        }
        # Lists were encoded from position 0; now they have one.
        for role in ("uop_begin", "uop_end"):
            fields[instruction.roles[role]] = fields[instruction.roles[role]] + where[here]
        writer.put(at[here], instruction, fields, schedule.tokens[rows[here]])


def _compute_fields(instruction: Instruction, template: Template) -> dict[str, int]:
    """Those of micro-ops at position 0."""
    r = instruction.roles
    fields = {
        r["uop_begin"]: 0,
        r["uop_end"]: len(template.uops),
        r["iter_out"]: template.iter_out,
        r["iter_in"]: template.iter_in,
    }
    for operand, (outer, inner) in zip(instruction.operands, template.factors, strict=True):
        fields[operand.factor_out] = outer
        fields[operand.factor_in] = inner
    if template.reset:
        fields[r["reset"]] = 1
    if template.op:
        # A spec may give one function two codes, of which only portable ones are used.
        fields[r["op"]] = next(
            o.code for o in instruction.ops if o.function == template.op and o.portable
        )
        if template.imm is not None:
            fields[r["use_imm"]] = 1
            fields[r["imm"]] = template.imm
    return fields


def _uop_uses(schedule: Schedule, isa: Isa) -> tuple[list[NDArray[np.uint32]], list[int]]:
    """Encoded lists, one per distinct content, and the list of each compute row in order."""
    lists: list[NDArray[np.uint32]] = []
    numbers: dict[bytes, int] = {}
    of_template = []
    encoded: dict[int, NDArray[np.uint32]] = {}
    for name in sorted({t.instruction for t in schedule.templates}):
        # All templates of an instruction are encoded in one call; NumPy's overhead counts for
        # thousands of them.
        here = [n for n, t in enumerate(schedule.templates) if t.instruction == name]
        uops = np.concatenate([schedule.templates[n].uops for n in here])
        fields = {o.uop_field: uops[:, k] for k, o in enumerate(isa.instruction(name).operands)}
        words = encode_uops(isa, fields)
        ends = np.cumsum([len(schedule.templates[n].uops) for n in here])[:-1]
        encoded |= dict(zip(here, np.split(words, ends), strict=True))
    for n in range(len(schedule.templates)):
        words = encoded[n]
        key = words.tobytes()
        # Equal lists are one, whatever template they belong to.
        if key not in numbers:
            numbers[key] = len(lists)
            lists.append(words)
        of_template.append(numbers[key])
    compute = schedule.ops[schedule.ops[:, 0] == COMPUTE, 1]
    return lists, [of_template[t] for t in compute.tolist()]


def _addresses(
    schedule: Schedule, isa: Isa, plan: UopPlan
) -> tuple[list[int], list[int], list[tuple[int, ...]], int]:
    """(byte address, size, first element per box) of every region, and the micro-ops' address."""
    page = isa.limits.page_bytes
    word = isa.memory(isa.uop_memory).elem_bytes
    # Page 0 stays free: address 0 is no address.
    uop_address = at = page * word // math.gcd(page, word)
    at = _align(at + 4 * len(plan.words), page)
    address, sizes, starts = [], [], []
    for region in schedule.regions:
        elem = isa.memory(region.memory).elem_bytes
        # Elements and pages both divide it: addresses are whole in either unit.
        unit = page * elem // math.gcd(page, elem)
        at = _align(at, unit)
        # Boxes one behind the other, or the whole grid.
        begin, total = _elements(region)
        address.append(at)
        sizes.append(total * elem)
        starts.append(begin)
        at = _align(at + total * elem, page)
        _reachable(isa, region.memory, (address[-1] + sizes[-1]) // elem)
    if at > 1 << isa.limits.dram_bits:
        raise InputError(
            f"the packed operands need {at} bytes of device memory",
            why=f"{isa.name} addresses {isa.limits.dram_bits} bits",
            hint="split the operator into smaller ones",
        )
    return address, sizes, starts, uop_address


def _elements(region: Region) -> tuple[tuple[int, ...], int]:
    """(first element of each box where it is kept by boxes, elements in all)."""
    if not region.by_box:
        return (), math.prod(region.grid)
    begin, total = [], 0
    for n in range(len(region.boxes)):
        begin.append(total)
        total += region.size(n)
    return tuple(begin), total


def _reachable(isa: Isa, name: str, end: int) -> None:
    """Raises: InputError where an instruction cannot name the elements below `end` in DRAM."""
    memory = isa.memory(name)
    for kind, queue in (("load", memory.load_queue), ("store", memory.store_queue)):
        instruction = isa.of_kind(kind)
        field = instruction.field(instruction.roles["dram"])
        if queue is not None and end - 1 > field.max:
            raise InputError(
                f"the packed operands need element {end - 1} of {name} in DRAM",
                where=isa.where(f"instructions.{instruction.name}.{field.name}"),
                why=f"{isa.name} names it in {field.width} bits, up to {field.max}",
                hint="split the operator into smaller ones",
            )


def _align(value: int, unit: int) -> int:
    return -(-value // unit) * unit
