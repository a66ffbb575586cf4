"""Instructions as text, one a line, by kind and role: no machine's field names are known here.

12 LOAD INP sram=0 dram=0x1a0 4x16/64 pad 1,1,0,0 | pop next, push next
"""

from __future__ import annotations

from csp_embed.ir.stream import Program, Stream
from csp_embed.machine.spec import Instruction, Isa, Operand
from csp_embed.machine.words.bits import decode_uops

# As role names; listings show those that are set.
_TOKENS = ("pop_prev", "pop_next", "push_prev", "push_next")


def listing(isa: Isa, stream: Stream) -> list[str]:
    """All instructions, one line each."""
    return [line(isa, stream, n) for n in range(len(stream))]


def line(isa: Isa, stream: Stream, n: int) -> str:
    """Instruction n of `stream`: number, name, what it does, `|` and its tokens."""
    code = int(stream.code[n])
    if code < 0:
        # An opcode that is no instruction is kept as a number: a listing shows whatever it gets.
        opcode = int(stream.fields["opcode"][n]) if "opcode" in stream.fields else "?"
        return f"{n:4d} ??? unknown opcode {opcode}"
    instruction = isa.instructions[code]
    value = _values(instruction, stream, n)
    match instruction.kind:
        case "load" | "store":
            body = _transfer(isa, instruction, value)
        case "contract" | "map":
            body = _compute(instruction, value)
        case _:
            body = ""
    # Tokens come last, behind `|`, where they line up for a reader who looks for a missing one.
    tokens = [t.replace("_", " ") for t in _TOKENS if value.get(instruction.roles.get(t, ""))]
    # Bits without a meaning are shown only where set: someone put them there.
    unused = [
        f"{f.name}={value[f.name]:#x}" for f in instruction.fields if f.unused and value[f.name]
    ]
    text = " ".join(part for part in (f"{n:4d} {instruction.name}", body, *unused) if part)
    return f"{text} | {', '.join(tokens)}" if tokens else text


def uop_lines(isa: Isa, program: Program, stream: Stream, n: int) -> list[str]:
    """The micro-ops that instruction n loads, one a line; none for any other instruction.

    They are taken from the DRAM image before the run; what is not there is left out.
    """
    code = int(stream.code[n])
    if code < 0 or isa.instructions[code].kind != "load":
        return []
    role = {part: int(stream.fields[f][n]) for part, f in isa.instructions[code].roles.items()}
    memory = isa.memory(isa.uop_memory)
    if role["memory"] != memory.id:
        return []
    lines: list[str] = []
    # Rows of a load lie x_stride apart in DRAM and without gaps on chip.
    for row in range(role["y_size"]):
        at = (role["dram"] + row * role["x_stride"]) * memory.elem_bytes
        size = role["x_size"] * memory.elem_bytes
        for address, data in program.before:
            # Whole rows alone: a row that leaves its range is no list of micro-ops.
            if address <= at and at + size <= address + len(data):
                fields = decode_uops(isa, data[at - address :][:size].view("<u4"))
                first = role["sram"] + row * role["x_size"]
                lines += [
                    f"{'':9} {first + k}: {' '.join(f'{f}={v[k]}' for f, v in fields.items())}"
                    for k in range(role["x_size"])
                ]
    return lines


def _values(instruction: Instruction, stream: Stream, n: int) -> dict[str, int]:
    return {
        f.name: int(stream.fields[f.name][n]) if f.name in stream.fields else 0
        for f in instruction.fields
    }


def _transfer(isa: Isa, instruction: Instruction, value: dict[str, int]) -> str:
    role = {part: value[field] for part, field in instruction.roles.items()}
    memory = isa.memory_by_id(role["memory"])
    name = memory.name if memory else f"memory {role['memory']}?"
    pads = [role.get(f"{axis}_pad_{side}", 0) for axis in "yx" for side in (0, 1)]
    # Width 0 is VTA's instruction that only passes tokens.
    if not role["x_size"] or not role["y_size"] + pads[0] + pads[1]:
        return f"{name} nothing"
    text = (
        f"{name} sram={role['sram']:#x} dram={role['dram']:#x} "
        f"{role['y_size']}x{role['x_size']}/{role['x_stride']}"
    )
    return f"{text} pad {','.join(map(str, pads))}" if any(pads) else text


def _compute(instruction: Instruction, value: dict[str, int]) -> str:
    role = {part: value[field] for part, field in instruction.roles.items()}
    reset, use_imm = role.get("reset", 0), role.get("use_imm", 0)
    shape = f"{role['iter_out']}x{role['iter_in']} uops {role['uop_begin']}..{role['uop_end']}"
    operands = [_operand(o, value) for o in instruction.operands]
    if instruction.kind == "contract":
        return f"reset {shape} {operands[0]}" if reset else f"{shape} {' '.join(operands)}"
    op = next((o.name for o in instruction.ops if o.code == role["op"]), f"op {role['op']}?")
    # With an immediate the source is not read; its factors are shown where they differ.
    sources = [operands[1]] if not use_imm or _factors(instruction.operands, value) else []
    imm = [f"imm={role['imm']}"] if use_imm else []
    return " ".join([op, shape, operands[0], *sources, *imm])


def _operand(operand: Operand, value: dict[str, int]) -> str:
    """`ACC[dst +14 +1]`: micro-op field, and what the outer and the inner loop add."""
    return (
        f"{operand.memory}[{operand.uop_field} "
        f"+{value[operand.factor_out]} +{value[operand.factor_in]}]"
    )


def _factors(operands: tuple[Operand, ...], value: dict[str, int]) -> bool:
    first, second = operands[0], operands[1]
    return (value[first.factor_out], value[first.factor_in]) != (
        value[second.factor_out],
        value[second.factor_in],
    )
