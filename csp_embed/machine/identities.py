"""How a contraction with an identity matrix brings a narrow operand into the accumulators.

A factor of a contraction lies as narrow as its own memory has it; multiplied with an identity its
lanes become those of an accumulator, one step an element.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from csp_embed.machine.spec import Isa, Operand


@dataclass(frozen=True)
class Door:
    """role: the factor that the operand is; held: the one that holds the identity; dims: its
    dimension, and the one of the result that it becomes; memory: the factor's."""

    role: str
    held: str
    dims: tuple[str, str]
    memory: str


def door(isa: Isa, memory: str, item_bytes: int) -> Door | None:
    """The way into the accumulators `memory` for elements of so many bytes; None where the machine
    has none."""
    contract = next((i for i in isa.instructions if i.kind == "contract"), None)
    if contract is None:
        return None
    operands = {o.role: o for o in contract.operands}
    if operands["dst"].memory != memory:
        return None
    for role, held in (("lhs", "rhs"), ("rhs", "lhs")):
        dims = _dims(isa, operands["dst"], operands[role], operands[held])
        own = operands[role].memory
        if dims is not None and np.dtype(isa.memory(own).dram_dtype).itemsize >= item_bytes:
            return Door(role, held, dims, own)
    return None


def _dims(isa: Isa, dst: Operand, factor: Operand, held: Operand) -> tuple[str, str] | None:
    """(dimension of the factor, dimension of the result that it becomes), where the factor has the
    result's dimensions but for that one."""
    own = set(factor.dims) - set(dst.dims)
    become = set(dst.dims) - set(factor.dims)
    if len(own) != 1 or len(become) != 1 or set(held.dims) != own | become:
        return None
    (a,), (b,) = own, become
    loaded = all(isa.memory(o.memory).load_queue is not None for o in (factor, held))
    # A result with more lanes than the factor would take several steps an element.
    return (a, b) if loaded and isa.dims[a] >= isa.dims[b] else None
