"""Runs nests by the meanings of their templates alone: the oracle of what is written as C.

It reads no template text. Large operators take long: a step is some hundred Python statements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.machine.spec import Isa
from csp_embed.machine.templates.meaning import execute
from csp_embed.targets.source.lower import SourceProgram
from csp_embed.targets.source.nest import Address, Block, Call, Clamp, Loop, Node
from csp_embed.targets.source.output import RESULT

Array = NDArray[Any]


def run(program: SourceProgram, isa: Isa, tensors: Mapping[str, Array]) -> Array:
    """The result of the program on logical tensors."""
    op = program.operator
    out = op.tensors[op.out.tensor]
    # Zeros: buffers are written before they are read, which compilers cannot check either.
    buffers = {b.name: np.zeros(b.elements, b.dtype) for b in program.buffers}
    for role, place in program.places.items():
        if role != "dst":
            buffers[place.buffer] = place.pack(np.asarray(tensors[place.layout.tensor]))
    for name, (value, count) in program.fixed.items():
        # The correction's constant element holds unsigned values.
        buffers[name] = np.full(count, value, np.uint8)
    buffers[RESULT] = np.zeros(int(np.prod(out.shape, dtype=np.int64)), op.out_dtype)
    walk((*program.prepare, *program.run), isa, buffers)
    dst = program.places["dst"]
    # Direct results need no unpacking.
    if dst.buffer in {b.name for b in program.buffers}:
        return dst.unpack(buffers[dst.buffer])
    return buffers[RESULT].reshape(out.shape)


def walk(nodes: tuple[Node, ...], isa: Isa, buffers: dict[str, Array]) -> None:
    """Runs nests on buffers, which they change."""
    _Walker(isa, buffers).walk(nodes, {})


class _Walker:
    """Buffers and registers while a nest runs."""

    def __init__(self, isa: Isa, buffers: dict[str, Array]) -> None:
        self.isa, self.buffers = isa, buffers
        self.registers: dict[str, dict[str, Array]] = {}

    def walk(self, nodes: tuple[Node, ...], values: dict[str, int]) -> None:
        for node in nodes:
            if isinstance(node, Loop):
                for n in range(node.count):
                    # Loop variables are names of this round alone.
                    self.walk(node.body, values | {node.var: n})
            elif isinstance(node, Block):
                for memory, name in node.registers:
                    m = self.isa.memory(memory)
                    lanes = self.isa.lane_shape(memory)
                    # A register holds anything before it is written; 77 shows what reads it.
                    self.registers.setdefault(memory, {})[name] = np.full(lanes, 77, m.dtype)
                self.walk(node.body, values)
            elif isinstance(node, Call):
                self._call(node, values)

    def _call(self, call: Call, values: dict[str, int]) -> None:
        program = self.isa.program
        assert program is not None
        template = program.template(call.template)
        state: dict[str, Any] = dict(self.registers)
        operands: dict[str, Any] = {}
        for name, value in call.operands.items():
            if isinstance(value, Address):
                # One HOST at a time: a template has one address.
                state["HOST"] = self.buffers[value.buffer]
                operands[name] = value.at.at(values)
            elif isinstance(value, Clamp):
                # As lanes_left in the C text.
                operands[name] = max(0, min(value.most, value.at.at(values)))
            else:
                operands[name] = value
        memories = {s.memory for s in template.slots if s.kind == "register"}
        named = {d for m in memories for d in self.isa.memory(m).lanes}
        # Lanes of all registers that it names: the meaning runs once for each.
        lanes = tuple(d for d in self.isa.dims if d in named)
        execute(template.meaning, state, operands, lanes, self.isa.dims)
