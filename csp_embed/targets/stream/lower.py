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
    LOAD,
    POP_NEXT,
    POP_PREV,
    PUSH_NEXT,
    PUSH_PREV,
    STORE,
    Schedule,
    Template,
)
from csp_embed.ir.stream import Stream
from csp_embed.machine.bits import encode_uops
from csp_embed.machine.reach import reach
from csp_embed.machine.spec import Instruction, Isa
from csp_embed.targets.stream.rectangles import DmaLimits, Rectangle, rectangles, runs
from csp_embed.targets.stream.uops import UopPlan, place

TOKEN_ROLES = (
    (POP_PREV, "pop_prev"),
    (POP_NEXT, "pop_next"),
    (PUSH_PREV, "push_prev"),
    (PUSH_NEXT, "push_next"),
)


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
    ends: NDArray[np.int64]


class _Writer:
    """Collects instructions: a template number and a DRAM address each."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.kinds: list[tuple[int, dict[str, int]]] = []
        self.memo: dict[object, int] = {}
        self.rows: list[int] = []
        self.dram: list[int] = []
        self.bits: list[int] = []
        self.index = {i.name: n for n, i in enumerate(isa.instructions)}

    def add(
        self,
        key: object,
        instruction: Instruction,
        fields: dict[str, int] | None,
        dram: int,
        bits: int,
    ) -> None:
        """fields is read only when the key is new."""
        number = self.memo.get(key)
        if number is None:
            assert fields is not None
            number = self.memo[key] = len(self.kinds)
            self.kinds.append((self.index[instruction.name], fields))
        self.rows.append(number)
        self.dram.append(dram)
        self.bits.append(bits)

    def stream(self) -> Stream:
        rows = np.array(self.rows, dtype=np.int64)
        bits = np.array(self.bits, dtype=np.int64)
        code = np.array([k for k, _ in self.kinds], dtype=np.int64)[rows]
        names = sorted({f.name for i in self.isa.instructions for f in i.fields})
        place = {name: n for n, name in enumerate(names)}
        # An instruction has few of all machine's fields: only those that are there are visited.
        at = [(place[name], k) for k, (_, f) in enumerate(self.kinds) for name in f]
        table = np.zeros((len(names), len(self.kinds)), dtype=np.int64)
        table[tuple(np.array(at, dtype=np.int64).reshape(-1, 2).T)] = [
            value for _, f in self.kinds for value in f.values()
        ]
        columns = dict(zip(names, table[:, rows], strict=True))
        dram = np.array(self.dram, dtype=np.int64)
        for n, instruction in enumerate(self.isa.instructions):
            here = code == n
            if "dram" in instruction.roles:
                column = columns[instruction.roles["dram"]]
                column[here] = dram[here]
            for bit, role in TOKEN_ROLES:
                if role in instruction.roles:
                    column = columns[instruction.roles[role]]
                    column[here] = (bits[here] & bit) != 0
                else:
                    assert not (bits[here] & bit).any(), (instruction.name, role)
        return Stream(code, columns)


def lower(schedule: Schedule, isa: Isa, placed: tuple[Sequence[int], int] | None = None) -> Lowered:
    """placed: byte address of every region, and of the micro-ops, where they are decided already; a
    region of which only a part is used may begin before its memory does.

    Raises: InputError where the image does not fit below the machine's address limit.
    """
    uop_lists, uses = _uop_uses(schedule, isa)
    plan = place(uop_lists, uses, reach(isa, isa.uop_memory))
    address, sizes, starts, uop_address = _addresses(schedule, isa, plan)
    if placed is not None:
        address, uop_address = list(placed[0]), placed[1]
    writer = _Writer(isa)
    load, store, finish = isa.of_kind("load"), isa.of_kind("store"), isa.of_kind("finish")
    limits = {
        i.name: DmaLimits(*(i.field(i.roles[r]).max for r in ("y_size", "x_size", "x_stride")))
        for i in (load, store)
    }
    base = [
        a // isa.memory(r.memory).elem_bytes for a, r in zip(address, schedule.regions, strict=True)
    ]
    memory_of = [isa.memory(r.memory) for r in schedule.regions]
    uop_memory = isa.memory(isa.uop_memory)
    rects: dict[tuple[int, int], list[Rectangle]] = {}
    use, ends = 0, []
    ops, tokens = schedule.ops.tolist(), schedule.tokens.tolist()
    for (kind, a, b, sram), bits in zip(ops, tokens, strict=True):
        if kind == COMPUTE:
            template = schedule.templates[a]
            if use in plan.before:
                word, at, length = plan.before[use]
                first = uop_address // uop_memory.elem_bytes + word
                for rect in runs(first, at, length, limits[load.name]):
                    _dma(writer, load, uop_memory.id, rect.sram, rect.dram, rect, 0)
            where = plan.at[use]
            use += 1
            instruction = isa.instruction(template.instruction)
            key = (COMPUTE, a, where)
            fields = None if key in writer.memo else _compute_fields(instruction, template, where)
            writer.add(key, instruction, fields, 0, bits)
        elif kind in (LOAD, STORE):
            instruction = load if kind == LOAD else store
            key = (a, b)
            found = rects.get(key)
            if found is None:
                start = starts[a][b] if schedule.regions[a].by_box else 0
                found = rects[key] = rectangles(
                    schedule.regions[a], b, start, limits[instruction.name]
                )
            for n, rect in enumerate(found):
                here = 0
                if n == 0:
                    here |= bits & (POP_PREV | POP_NEXT)
                if n == len(found) - 1:
                    here |= bits & (PUSH_PREV | PUSH_NEXT)
                _dma(
                    writer,
                    instruction,
                    memory_of[a].id,
                    sram + rect.sram,
                    base[a] + rect.dram,
                    rect,
                    here,
                )
        else:
            assert kind == FINISH
            writer.add(FINISH, finish, {_opcode(finish): finish.opcode}, 0, bits)
        ends.append(len(writer.rows))
    return Lowered(
        writer.stream(), plan.words, uop_address, tuple(address), tuple(sizes), tuple(starts),
        np.array(ends, np.int64),
    )  # fmt: skip


def _opcode(instruction: Instruction) -> str:
    return instruction.roles.get("opcode", "opcode")


def _dma(
    writer: _Writer,
    instruction: Instruction,
    memory_id: int,
    sram: int,
    dram: int,
    rect: Rectangle,
    bits: int,
) -> None:
    key = (instruction.opcode, memory_id, sram, rect.y, rect.x, rect.stride)
    fields = None
    if key not in writer.memo:
        r = instruction.roles
        fields = {
            _opcode(instruction): instruction.opcode,
            r["memory"]: memory_id,
            r["sram"]: sram,
            r["y_size"]: rect.y,
            r["x_size"]: rect.x,
            r["x_stride"]: rect.stride,
        }
    writer.add(key, instruction, fields, dram, bits)


def _compute_fields(instruction: Instruction, template: Template, where: int) -> dict[str, int]:
    r = instruction.roles
    fields = {
        _opcode(instruction): instruction.opcode,
        r["uop_begin"]: where,
        r["uop_end"]: where + len(template.uops),
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
        here = [n for n, t in enumerate(schedule.templates) if t.instruction == name]
        uops = np.concatenate([schedule.templates[n].uops for n in here])
        fields = {o.uop_field: uops[:, k] for k, o in enumerate(isa.instruction(name).operands)}
        words = encode_uops(isa, fields)
        ends = np.cumsum([len(schedule.templates[n].uops) for n in here])[:-1]
        encoded |= dict(zip(here, np.split(words, ends), strict=True))
    for n in range(len(schedule.templates)):
        words = encoded[n]
        key = words.tobytes()
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
    uop_address = at = page * word // math.gcd(page, word)
    at = _align(at + 4 * len(plan.words), page)
    address, sizes, starts = [], [], []
    for region in schedule.regions:
        elem = isa.memory(region.memory).elem_bytes
        unit = page * elem // math.gcd(page, elem)
        at = _align(at, unit)
        if region.by_box:
            begin, total = [], 0
            for box in region.boxes:
                begin.append(total)
                total += math.prod(b - a for a, b in box)
        else:
            begin, total = [], math.prod(region.grid)
        address.append(at)
        sizes.append(total * elem)
        starts.append(tuple(begin))
        at = _align(at + total * elem, page)
        _reachable(isa, region.memory, (address[-1] + sizes[-1]) // elem)
    if at > 1 << isa.limits.dram_bits:
        raise InputError(
            f"the packed operands need {at} bytes of device memory",
            why=f"{isa.name} addresses {isa.limits.dram_bits} bits",
            hint="split the operator into smaller ones",
        )
    return address, sizes, starts, uop_address


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
