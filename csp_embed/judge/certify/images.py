"""What loads bring: DRAM in the field, lanes summed with their weights, for each role.

Takes: who lies in each lane, and everybody's random value.  Leaves: images for `walk`, in which a
lane is the value of its element, a constant, or a random number where nobody knows what lies there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit
from csp_embed.judge.certify.field import Ints, P, Values, plus, times
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.certify.walk import IMAGE, LEFT, RIGHT, SUM, Dram
from csp_embed.judge.stream.table import LOAD, Table
from csp_embed.machine.spec import Memory

CONSTANT, UNKNOWN = -1, -2
Held = Callable[[Memory, int, tuple[int, int]], tuple[Ints, Ints]]
"""(memory, number of a range of `before`, elements of the memory in it) -> who lies in each of its
lanes, CONSTANT or UNKNOWN; marks of each element: bits of the tensors that may lie in it."""
PORTION = 1 << 18  # Lanes whose values are made together.


def images(
    machine: Machine, before: Sequence[tuple[int, NDArray[np.uint8]]], table: Table,
    sequence: Ints, held: Held, x: Values, seed: Sequence[int], weights: dict[str, Values],
) -> Dram:  # fmt: skip
    """(IMAGE records, numbers, marks) of what these instructions load as operands.

    x: the value of everybody; seed: of what is unknown.
    """
    isa, rows = machine.isa, table.rows[sequence]
    loads = rows[(rows["kind"] == LOAD) & (table.dram_elements[sequence] > 0)]
    records: list[tuple[int, ...]] = []
    parts, marks, at, mark = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0, 0
    for k, memory in enumerate(isa.memories):
        mine = loads[loads["named"] == k]
        # An alias is loaded into what it stands for, and is there what that memory is.
        real = int(machine.shadow[k]) if memory.alias_of else k
        roles = [role for role in (LEFT, RIGHT, SUM) if machine.roles[real] & role]
        elem, low = memory.elem_bytes, mine["dram"]
        high = low + (mine["y_size"] - 1) * mine["x_stride"] + mine["x_size"]
        for n, (address, data) in enumerate(before) if roles else ():
            # Only whole elements of the range, and of these what is loaded: the rest is not looked
            # at. No load may leave its range (see `walk`).
            first, end = -(-address // elem), (address + len(data)) // elem
            near = (low < end) & (high > first)
            if not near.any():
                continue
            first, end = max(first, int(low[near].min())), min(end, int(high[near].max()))
            who, own = held(memory, n, (first, end))
            rng = np.random.Generator(np.random.PCG64DXSM([*seed, n, k]))
            begin = first * elem - address
            bare = data[begin : begin + (end - first) * elem]
            values = np.ascontiguousarray(bare).view(memory.dram_dtype)
            for role in roles:
                # Accumulators are one number; factors have one for each lane that is summed over.
                slots = 1 if role == SUM else machine.slots()
                image = np.zeros((end - first) * slots, np.uint64)
                _weigh(who, values, x, rng, machine.lanes(memory, role, weights), slots, image)
                records.append((k, role, first, end, at, mark))
                parts.append(image)
                marks.append(own)
                at, mark = at + len(image), mark + len(own)
    return np.array(records, IMAGE), np.concatenate(parts), np.concatenate(marks)


def _weigh(
    who: Ints, bare: NDArray[Any], x: Values, rng: np.random.Generator,
    lanes: tuple[Ints, Values], slots: int, image: Values,
) -> None:  # fmt: skip
    """Adds every lane of every element into its slot, with its weight."""
    step = max(1, PORTION // len(lanes[0])) * len(lanes[0])
    for at in range(0, len(who), step):
        own = who[at : at + step]
        numbers = (bare[at : at + step].astype(np.int64) % P).astype(np.uint64)
        numbers[own >= 0] = x[own[own >= 0]]
        # Random, so that whatever depends on it differs from what is wanted.
        lost = own == UNKNOWN
        numbers[lost] = rng.integers(1, P, np.count_nonzero(lost), dtype=np.uint64)
        _add_up(numbers, *lanes, slots, image[at // len(lanes[0]) * slots :])


@njit(cache=True, nogil=True)
def _add_up(numbers: Values, slot: Ints, weight: Values, slots: int, image: Values) -> None:
    lanes = len(slot)
    for k in range(len(numbers)):
        if numbers[k]:
            spot = k // lanes * slots + slot[k % lanes]
            image[spot] = plus(image[spot], times(numbers[k], weight[k % lanes]))
