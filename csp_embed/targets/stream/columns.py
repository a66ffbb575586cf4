"""Columns of a stream that is written in any order, many instructions at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.schedule import POP_NEXT, POP_PREV, PUSH_NEXT, PUSH_PREV
from csp_embed.machine.spec import Instruction, Isa

Ints = NDArray[np.int64]

TOKEN_ROLES = (
    (POP_PREV, "pop_prev"),
    (POP_NEXT, "pop_next"),
    (PUSH_PREV, "push_prev"),
    (PUSH_NEXT, "push_next"),
)


class Columns:
    """Of `count` instructions."""

    def __init__(self, isa: Isa, count: int) -> None:
        # Columns of all fields: an instruction leaves those of others 0.
        names = sorted({f.name for i in isa.instructions for f in i.fields})
        self.code = np.zeros(count, dtype=np.int64)
        self.fields = {name: np.zeros(count, dtype=np.int64) for name in names}
        self._index = {i.name: n for n, i in enumerate(isa.instructions)}

    def put(
        self, at: Ints, instruction: Instruction, fields: Mapping[str, Ints | int], bits: Ints | int
    ) -> None:
        """Instructions at the positions `at`, with their token bits."""
        self.code[at] = self._index[instruction.name]
        # The opcode is a field like others.
        self.fields[instruction.roles.get("opcode", "opcode")][at] = instruction.opcode
        for name, values in fields.items():
            self.fields[name][at] = values
        for bit, role in TOKEN_ROLES:
            if role in instruction.roles:
                self.fields[instruction.roles[role]][at] = (bits & bit) != 0
            else:
                # A token of a module that lacks the bit would be lost, and the device hang.
                assert not np.any(bits & bit), (instruction.name, role)
