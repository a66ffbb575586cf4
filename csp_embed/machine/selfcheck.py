"""First part of `csp-embed isa check`: the parts of a machine must agree with one another.

Round trips of random field values through encoder and decoder, and the scalar dataflow of each
compute instruction (read off its operands) against the interpreter (which walks the meaning).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from csp_embed.errors import SpecError
from csp_embed.ir.dfg import Expanded
from csp_embed.ir.stream import Stream
from csp_embed.machine.costs import costs_of
from csp_embed.machine.expand import expand
from csp_embed.machine.interface import interfaces
from csp_embed.machine.interpreter import FUNCTIONS, Image, Interpreter, wrap
from csp_embed.machine.spec import Instruction, Isa
from csp_embed.machine.words import bits

# Random words for each kind: every bit is 0 and 1 many times, and all takes milliseconds.
_ROUNDS = 64


@dataclass(frozen=True)
class Finding:
    """One check: its name, whether it holds, and what was compared or found."""

    name: str
    ok: bool
    text: str


def check(isa: Isa, seed: int = 0) -> list[Finding]:
    """All checks, in a fixed order."""
    # Seeded: a check that fails once fails again.
    rng = np.random.default_rng(seed)
    findings = [_round_trip(isa, index, rng) for index in range(len(isa.instructions))]
    findings.append(_uop_round_trip(isa, rng))
    for instruction in isa.instructions:
        if instruction.kind == "contract":
            findings.append(_dataflow(isa, instruction, None, rng))
        elif instruction.kind == "map":
            findings += [_dataflow(isa, instruction, op.name, rng) for op in instruction.ops]
    return [*findings, *_costs(isa)]


def _costs(isa: Isa) -> Iterator[Finding]:
    """What compilation weighs is there, behind every memory interface."""
    # A machine without interfaces may state no costs at all; then nothing is weighed.
    for memory in interfaces(isa) or ("",):
        name = f"costs {memory}".rstrip()
        try:
            costs_of(isa, memory)
        except SpecError as error:
            yield Finding(name, False, f"{error.where}: {error.why or error.what}")
        else:
            yield Finding(name, True, "every number that compilation weighs")


def _round_trip(isa: Isa, index: int, rng: np.random.Generator) -> Finding:
    instruction = isa.instructions[index]
    fields = {
        # The ends too: signs and overlaps show there first.
        f.name: rng.integers(f.min, f.max, _ROUNDS, endpoint=True)
        for f in instruction.fields
        if f.name != "opcode"
    }
    code = np.full(_ROUNDS, index, dtype=np.int64)
    back = bits.decode(isa, bits.encode(isa, Stream(code, fields)))
    wrong = [n for n, v in fields.items() if not np.array_equal(v, back.fields[n])]
    ok = not wrong and bool((back.code == code).all())
    text = f"differs in {', '.join(wrong) or 'opcode'}" if not ok else f"{_ROUNDS} random words"
    return Finding(f"encode/decode {instruction.name}", ok, text)


def _uop_round_trip(isa: Isa, rng: np.random.Generator) -> Finding:
    fields = {f.name: rng.integers(f.min, f.max, _ROUNDS, endpoint=True) for f in isa.uop_fields}
    back = bits.decode_uops(isa, bits.encode_uops(isa, fields))
    wrong = [n for n, v in fields.items() if not np.array_equal(v, back[n])]
    text = f"differs in {', '.join(wrong)}" if wrong else f"{_ROUNDS} random micro-ops"
    return Finding("encode/decode micro-ops", not wrong, text)


def _dataflow(
    isa: Isa, instruction: Instruction, op: str | None, rng: np.random.Generator
) -> Finding:
    """One micro-operation on random contents: interpreted, and evaluated point by point."""
    flow = expand(isa, instruction.name, op)
    machine = Interpreter(isa, Image())
    for operand in instruction.operands:
        array = machine.memories[operand.memory]
        # Full range: differences in how results wrap are part of the meaning.
        low, high = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
        array[:2] = rng.integers(low, high, array[:2].shape, endpoint=True)
    dst, lhs = instruction.operands[:2]
    # A map's two operands lie in one memory: elements 0 and 1 keep them apart, where it has two.
    two = lhs.memory == dst.memory and len(machine.memories[dst.memory]) > 1
    sources = {lhs.uop_field: int(two), dst.uop_field: 0}
    # One micro-op at index 0; its addresses are all that the step reads.
    machine.memories[isa.uop_memory][0] = bits.encode_uops(isa, sources)[0]
    # Copied, as the step overwrites its own operand.
    before = {o.role: machine.memories[o.memory][sources.get(o.uop_field, 0)].copy()
              for o in instruction.operands}  # fmt: skip
    expected = _evaluate(flow.expand(), before, instruction, op, str(before["dst"].dtype))
    roles = instruction.roles
    # One step: the loops around it are the interpreter's own matter.
    one = {roles[part]: np.ones(1, np.int64) for part in ("iter_out", "iter_in", "uop_end")}
    if op is not None:
        code = next(o.code for o in instruction.ops if o.name == op)
        one[roles["op"]] = np.array([code])
    # Fields that are not named are 0: no tokens, no reset, no immediate.
    machine.step(Stream(np.array([isa.instructions.index(instruction)]), one), 0)
    ok = np.array_equal(machine.memories[dst.memory][0].reshape(-1), expected)
    text = f"{flow.points} points of {flow.statement()}"
    return Finding(f"meaning of {flow.name}", ok, text if ok else f"differs: {text}")


def _evaluate(
    graph: Expanded,
    contents: dict[str, np.ndarray],
    instruction: Instruction,
    op: str | None,
    dtype: str,
) -> np.ndarray:
    """The result element of one micro-operation, from the expanded points alone."""
    # Python integers: exact until they are wrapped, as in the interpreter.
    values = [int(v) for v in contents["dst"].reshape(-1)]
    flat = {role: contents[role].reshape(-1) for role in graph.reads}
    function = next((FUNCTIONS[o.function] for o in instruction.ops if o.name == op), None)
    for point, out in enumerate(graph.write):
        read = [int(flat[role][index[point]]) for role, index in graph.reads.items()]
        values[out] = function(*read) if function else values[out] + read[0] * read[1]
    return np.array([wrap(v, dtype) for v in values])
