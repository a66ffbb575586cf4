"""The fast functional simulator against the spec interpreter: random programs on every machine.

Both start from empty memories and the same DRAM; afterwards every on-chip element and every byte
must agree. Programs are made from roles and operands alone, so a new machine joins by its name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.ir.stream import Program, Stream
from csp_embed.machine.interpreter import Image, Interpreter
from csp_embed.machine.load import config_names, load_isa, stream_names
from csp_embed.machine.spec import Instruction, Isa, Memory
from csp_embed.machine.words import bits
from csp_embed.sim.functional import run as functional

START, SIZE = 0x4000, 0x4000
UOPS_AT, UOPS = 0x10000, 24
# Elements that random programs use of a memory: few, so that instructions meet.
SPAN = 24
LARGE = ("1x16x16", "1x16x16_half", "1x32x32", "2x16x16")
MACHINES = [(s, c) for s in stream_names() for c in config_names(s) if c not in LARGE]

Fields = dict[str, int]


def load(isa: Isa, memory: Memory, rng: np.random.Generator) -> tuple[Instruction, Fields]:
    instruction = isa.of_kind("load")
    micro_ops = memory.name == isa.uop_memory
    first = (UOPS_AT if micro_ops else START) // memory.elem_bytes
    total = UOPS if micro_ops else SIZE // memory.elem_bytes
    span = min(SPAN, memory.depth)
    rows, columns = (1, int(rng.integers(1, span + 1))) if micro_ops else rng.integers(1, 4, 2)
    pads = [0, 0, 0, 0]
    if "y_pad_0" in instruction.roles and not micro_ops:
        pads = [int(p) for p in rng.integers(0, 3, 4)]
    while (rows + pads[0] + pads[1]) * (columns + pads[2] + pads[3]) > span:
        rows, columns, pads = 1, max(1, int(columns) // 2), [p // 2 for p in pads]
    used = (rows + pads[0] + pads[1]) * (columns + pads[2] + pads[3])
    stride = int(rng.integers(0, 9))
    dram = first + (0 if micro_ops else int(rng.integers(0, total - stride * rows - columns)))
    parts = {
        "memory": memory.id, "sram": int(rng.integers(0, span - used + 1)) * (not micro_ops),
        "dram": dram, "y_size": rows, "x_size": columns, "x_stride": stride,
        **dict(zip(("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"), pads, strict=True)),
    }  # fmt: skip
    return instruction, named(instruction, parts)


def store(isa: Isa, memory: Memory, rng: np.random.Generator) -> tuple[Instruction, Fields]:
    instruction = isa.of_kind("store")
    span = min(SPAN, memory.depth)
    rows, columns = (int(n) for n in rng.integers(1, 3, 2))
    parts = {
        "memory": memory.id, "sram": int(rng.integers(0, span - rows * columns + 1)),
        "dram": START // memory.elem_bytes + int(rng.integers(0, 64)),
        "y_size": rows, "x_size": columns, "x_stride": int(rng.integers(0, 7)),
    }  # fmt: skip
    return instruction, named(instruction, parts)


def compute(isa: Isa, kind: str, rng: np.random.Generator) -> tuple[Instruction, Fields]:
    instruction = isa.of_kind(kind)
    begin = int(rng.integers(0, 3))
    parts = {
        "iter_out": int(rng.integers(1, 4)), "iter_in": int(rng.integers(1, 4)),
        "uop_begin": begin, "uop_end": begin + int(rng.integers(1, 4)),
    }  # fmt: skip
    if kind == "map":
        field = instruction.field(instruction.roles["imm"])
        near = int(rng.integers(-40, 41))
        parts["op"] = int(rng.choice([op.code for op in instruction.ops]))
        parts["use_imm"] = int(rng.integers(0, 2))
        parts["imm"] = near if rng.integers(0, 2) else int(rng.integers(field.min, field.max + 1))
    elif "reset" in instruction.roles:
        parts["reset"] = int(rng.integers(0, 8) == 0)
    fields = named(instruction, parts)
    for operand in instruction.operands:
        # A micro-op points into the first half; two loops of up to three add at most the other.
        room = max(1, min(SPAN, isa.memory(operand.memory).depth) // 8)
        for factor in (operand.factor_out, operand.factor_in):
            fields[factor] = int(rng.integers(0, room + 1)) if room > 1 else 0
    return instruction, fields


def named(instruction: Instruction, parts: dict[str, Any]) -> Fields:
    return {f: int(parts[role]) for role, f in instruction.roles.items() if role in parts}


def micro_ops(isa: Isa, rng: np.random.Generator) -> np.ndarray:
    spans: dict[str, int] = {}
    for instruction in isa.instructions:
        for operand in instruction.operands:
            half = max(1, min(SPAN, isa.memory(operand.memory).depth) // 2)
            spans[operand.uop_field] = min(half, spans.get(operand.uop_field, half))
    return bits.encode_uops(isa, {f: rng.integers(0, n, UOPS) for f, n in spans.items()})


def random_program(isa: Isa, seed: int, length: int) -> Program:
    rng = np.random.default_rng(seed)
    loadable = [m for m in isa.memories if m.load_queue and m.name != isa.uop_memory]
    storable = [m for m in isa.memories if m.store_queue]
    uop = isa.memory(isa.uop_memory)
    made = [load(isa, uop, rng), *(load(isa, m, rng) for m in loadable)]
    # The first loads of micro-ops must cover those that computing uses.
    made[0][1][isa.of_kind("load").roles["x_size"]] = min(8, uop.depth)
    for _ in range(length):
        match int(rng.integers(0, 5)):
            case 0:
                made.append(load(isa, loadable[int(rng.integers(len(loadable)))], rng))
            case 1:
                made.append(store(isa, storable[int(rng.integers(len(storable)))], rng))
            case 2 | 3:
                made.append(compute(isa, "contract", rng))
            case _:
                made.append(compute(isa, "map", rng))
    made += [(isa.of_kind("finish"), {})]
    columns: dict[str, np.ndarray] = {}
    for n, (_, fields) in enumerate(made):
        for name, value in fields.items():
            columns.setdefault(name, np.zeros(len(made), np.int64))[n] = value
    code = np.array([isa.instructions.index(i) for i, _ in made])
    dram = rng.integers(0, 256, SIZE, dtype=np.uint8)
    # Accumulators near zero and near the ends of int32 both occur.
    dram[: SIZE // 2].view("<i4")[:] %= 1000
    before = ((START, dram), (UOPS_AT, micro_ops(isa, rng).view(np.uint8)))
    return Program({}, bits.encode(isa, Stream(code, columns)), before, (), {})


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 12))
def test_simulator_and_interpreter_agree(machine: tuple[str, str], seed: int, length: int) -> None:
    isa = load_isa(*machine)
    program = random_program(isa, seed, length)
    oracle = Interpreter(isa, Image(program.before))
    oracle.run(bits.decode(isa, program.insn))
    run = functional.run(isa, program, tokens=False)
    for memory in isa.memories:
        if memory.shadow_of or memory.alias_of or memory.name == isa.uop_memory:
            continue
        expected = oracle.memories[memory.name]
        found = np.asarray(run.memory(memory.name)).reshape(expected.shape)
        assert np.array_equal(found, expected), memory.name
    for address, data in program.before:
        assert run.dram(address, len(data)).tobytes() == oracle.image.read(address, len(data))
