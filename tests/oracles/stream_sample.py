"""Small programs for trying the simulators: an assembler by roles, and random legal programs.

No part of the compiler: tests, fuzzing and benches build their streams here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.stream import Program, Stream
from csp_embed.judge.stream.table import fallback_queue, memory_queue
from csp_embed.machine.program_file import isa_meta
from csp_embed.machine.spec import Instruction, Isa, Memory
from csp_embed.machine.words.bits import encode, encode_uops

PAGE = 4096


class Assembler:
    """Collects instructions by kind and role, and DRAM ranges."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.insns: list[tuple[Instruction, dict[str, int]]] = []
        self.before: list[tuple[int, NDArray[np.uint8]]] = []
        self.after: list[tuple[int, NDArray[np.uint8]]] = []
        self._free = PAGE

    def place(self, data: NDArray[Any], memory: str | None = None) -> int:
        """Puts data into DRAM; returns its address in elements of `memory` (None: in bytes)."""
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        address = self._space(len(raw))
        self.before.append((address, raw))
        return address // self.isa.memory(memory).elem_bytes if memory else address

    def room(self, elements: int, memory: str) -> int:
        """Makes room that the program stores to; returns its address in elements of `memory`."""
        size = elements * self.isa.memory(memory).elem_bytes
        address = self._space(size)
        self.after.append((address, np.zeros(size, np.uint8)))
        return address // self.isa.memory(memory).elem_bytes

    def _space(self, size: int) -> int:
        address = self._free
        self._free += -(-max(size, 1) // PAGE) * PAGE + PAGE
        return address

    def uops(self, **fields: Any) -> int:
        """Puts micro-ops into DRAM, fields by name; returns their address in micro-ops."""
        columns = {name: np.asarray(values) for name, values in fields.items()}
        return self.place(encode_uops(self.isa, columns), self.isa.uop_memory)

    def add(self, kind: str, **roles: Any) -> int:
        """Appends an instruction; dst, lhs, rhs give (factor_out, factor_in), `memory` a name."""
        instruction = self.isa.of_kind(kind)
        fields: dict[str, int] = {}
        for role, value in roles.items():
            if role in ("dst", "lhs", "rhs"):
                operand = next(o for o in instruction.operands if o.role == role)
                fields[operand.factor_out], fields[operand.factor_in] = value
            elif role == "memory":
                fields[instruction.roles[role]] = self.isa.memory(value).id
            elif role == "op":
                op = next(o for o in instruction.ops if o.function == value)
                fields[instruction.roles[role]] = op.code
            else:
                fields[instruction.roles[role]] = int(value)
        self.insns.append((instruction, fields))
        return len(self.insns) - 1

    def queue(self, n: int) -> int:
        """Index of the queue that runs instruction n."""
        instruction, fields = self.insns[n]
        if instruction.queue:
            return self.isa.queues.index(instruction.queue)
        memory = self.isa.memory_by_id(fields.get(instruction.roles["memory"], 0))
        queue = memory_queue(memory, instruction.kind) if memory else None
        return self.isa.queues.index(queue or fallback_queue(self.isa, instruction.kind))

    def serialise(self) -> None:
        """Adds tokens (and token-only loads) so that every instruction waits for the one before."""
        old, self.insns = self.insns, []
        for instruction, fields in old:
            self.insns.append((instruction, dict(fields)))
            if len(self.insns) > 1:
                self._join(len(self.insns) - 2)

    def _join(self, n: int) -> None:
        a, b = self.queue(n), self.queue(n + 1)
        while abs(a - b) > 1:
            a += 1 if b > a else -1
            self.insns.insert(n + 1, self._token_only(self.isa.queues[a]))
            self._link(n)
            n += 1
        if a != b:
            self._link(n)

    def _link(self, n: int) -> None:
        """A token from instruction n to n + 1, whose queues are neighbours."""
        right = self.queue(n + 1) > self.queue(n)
        push, pop = ("push_next", "pop_prev") if right else ("push_prev", "pop_next")
        for k, role in ((n, push), (n + 1, pop)):
            instruction, fields = self.insns[k]
            fields[instruction.roles[role]] = 1

    def _token_only(self, queue: str) -> tuple[Instruction, dict[str, int]]:
        load = self.isa.of_kind("load")
        memory = next(m for m in self.isa.memories if m.load_queue == queue)
        return load, {load.roles["memory"]: memory.id}

    def stream(self) -> Stream:
        """The instructions as columns."""
        n = len(self.insns)
        names = {f.name for i in self.isa.instructions for f in i.fields} - {"opcode"}
        columns = {name: np.zeros(n, np.int64) for name in sorted(names)}
        for k, (_, fields) in enumerate(self.insns):
            for name, value in fields.items():
                columns[name][k] = value
        code = np.array([self.isa.instructions.index(i) for i, _ in self.insns], dtype=np.int64)
        return Stream(code, columns)

    def program(self) -> Program:
        """A program that expects zeros in its `after` ranges; see `expecting`."""
        insn = encode(self.isa, self.stream())
        return Program(isa_meta(self.isa), insn, tuple(self.before), tuple(self.after), {})


def expecting(program: Program, outputs: Any) -> Program:
    """The same program with other expected bytes: (address, data) per range."""
    return Program(program.meta, program.insn, program.before, tuple(outputs), program.tensors)


def random_program(isa: Isa, rng: np.random.Generator, length: int = 12) -> Program:
    """A legal program of random instructions in a serial order. It stores what its compute steps
    left, so that every wrong sum shows; its `after` data are zeros."""
    a = Assembler(isa)
    loadable = [m for m in isa.memories if m.load_queue and m.name != isa.uop_memory]
    data = {m.name: _random_data(a, m, rng) for m in loadable}
    target = isa.of_kind("contract").operands[0].memory
    storable = next(m for m in isa.memories if m.store_queue)
    room = a.room(4 * storable.depth, storable.name)
    uops = isa.memory(isa.uop_memory)
    count = min(uops.depth, 8)
    brought = _random_uops(isa, rng, count)
    a.add("load", memory=uops.name, sram=0, dram=a.uops(**brought), y_size=1, x_size=count)
    for memory in loadable:
        a.add("load", memory=memory.name, **_rectangle(isa, memory, rng, data[memory.name]))
    for _ in range(length):
        kind = rng.choice(["load", "contract", "contract", "map", "map", "store"])
        if kind == "load":
            memory = loadable[rng.integers(len(loadable))]
            a.add("load", memory=memory.name, **_rectangle(isa, memory, rng, data[memory.name]))
        elif kind == "store":
            size = int(rng.integers(1, max(2, storable.depth // 4)))
            a.add(
                "store", memory=storable.name, sram=rng.integers(0, storable.depth - size + 1),
                dram=room + rng.integers(0, 3 * storable.depth), y_size=1, x_size=size,
            )  # fmt: skip
        else:
            a.add(str(kind), **_random_compute(isa, str(kind), rng, count))
    depth = isa.memory(target).depth
    a.add("store", memory=storable.name, sram=0, dram=room, y_size=1, x_size=depth)
    a.add("finish")
    a.serialise()
    return a.program()


def _random_data(a: Assembler, memory: Memory, rng: np.random.Generator) -> int:
    lanes = int(np.prod(a.isa.lane_shape(memory.name), dtype=np.int64))
    info = np.iinfo(memory.dram_dtype)
    shape = (2 * memory.depth, lanes)
    values = rng.integers(info.min, info.max, shape, dtype=memory.dram_dtype, endpoint=True)
    return a.place(values, memory.name)


def _random_uops(isa: Isa, rng: np.random.Generator, count: int) -> dict[str, Any]:
    limit: dict[str, int] = {f.name: f.max for f in isa.uop_fields}
    for instruction in isa.instructions:
        for o in instruction.operands:
            # Half of the depth is left for what the loops add.
            limit[o.uop_field] = min(limit[o.uop_field], isa.memory(o.memory).depth // 2 - 1)
    return {name: rng.integers(0, top + 1, count) for name, top in limit.items()}


def _rectangle(isa: Isa, memory: Memory, rng: np.random.Generator, dram: int) -> dict[str, int]:
    """A load of some elements, with padding where the machine has it."""
    roles = isa.of_kind("load").roles
    pads = {p: 0 for p in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1") if p in roles}
    rows = int(rng.integers(1, 4))
    columns = int(rng.integers(1, max(2, memory.depth // 6)))
    for p in pads:
        pads[p] = int(rng.integers(0, 2))
    height = rows + pads.get("y_pad_0", 0) + pads.get("y_pad_1", 0)
    width = columns + pads.get("x_pad_0", 0) + pads.get("x_pad_1", 0)
    while height * width > memory.depth:
        rows, columns = 1, 1
        pads = dict.fromkeys(pads, 0)
        height = width = 1
    stride = int(rng.integers(0, max(1, memory.depth // 4)))
    return {
        "sram": int(rng.integers(0, memory.depth - height * width + 1)),
        "dram": dram + int(rng.integers(0, memory.depth)),
        "y_size": rows, "x_size": columns, "x_stride": stride, **pads,
    }  # fmt: skip


def _random_compute(isa: Isa, kind: str, rng: np.random.Generator, uops: int) -> dict[str, Any]:
    instruction = isa.of_kind(kind)
    begin = int(rng.integers(0, uops))
    outer, inner = (int(rng.integers(1, 4)) for _ in range(2))
    roles: dict[str, Any] = {
        "uop_begin": begin, "uop_end": int(rng.integers(begin + 1, uops + 1)),
        "iter_out": outer, "iter_in": inner,
    }  # fmt: skip
    for o in instruction.operands:
        half = isa.memory(o.memory).depth // 2
        top = half // (outer + inner)
        fields = (instruction.field(o.factor_out), instruction.field(o.factor_in))
        roles[o.role] = tuple(int(rng.integers(0, min(top, f.max) + 1)) for f in fields)
    if kind == "contract":
        roles["reset"] = rng.random() < 0.15
        return roles
    ops = instruction.ops
    roles["op"] = ops[rng.integers(len(ops))].function
    roles["use_imm"] = rng.random() < 0.5
    imm = instruction.field(instruction.roles["imm"])
    wide = rng.random() < 0.3
    low, high = (imm.min, imm.max) if wide else (max(imm.min, -9), min(imm.max, 9))
    roles["imm"] = int(rng.integers(low, high, endpoint=True))
    return roles
