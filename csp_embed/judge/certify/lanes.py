"""Lanes of a machine's elements: where compute instructions add them up, and with which weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import CheckError
from csp_embed.judge.certify.field import P, Values, mul, total
from csp_embed.judge.certify.walk import CODE, LEFT, RIGHT, SUM
from csp_embed.machine.spec import Isa, Memory
from csp_embed.machine.words.arrays import compute_operands

Box = tuple[tuple[bool, ...], ...]
"""A set of accumulator lanes: per dimension, which of its lanes; their product is meant."""


@dataclass(frozen=True)
class Machine:
    """dims: of accumulators; left, right: of the factors. roles, shadow: per memory, what its
    elements are to compute instructions, and whose elements it mirrors (itself: nobody's)."""

    isa: Isa
    dims: tuple[str, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]
    roles: NDArray[np.int64]
    shadow: NDArray[np.int64]

    @staticmethod
    def of(isa: Isa) -> Machine:
        """Raises: CheckError for a machine whose instructions this judge does not know."""
        names = [m.name for m in isa.memories]
        contract, each = (compute_operands(isa, k) for k in ("contract", "map"))
        if len(contract) != 3 or any(o.memory != contract[0].memory for o in each):
            raise CheckError(
                f"{isa.name} cannot be certified",
                why="it needs a contraction, and maps that read accumulators",
                hint="csp-embed check FILE",
            )
        roles = np.zeros(len(names), np.int64)
        for operand, role in zip(contract, (SUM, LEFT, RIGHT), strict=True):
            roles[names.index(operand.memory)] |= role
        roles[names.index(isa.uop_memory)] |= CODE
        shadow = [names.index(m.shadow_of or m.alias_of or m.name) for m in isa.memories]
        dims, left, right = (o.dims for o in contract)
        return Machine(isa, dims, left, right, roles, np.array(shadow, np.int64))

    def slots(self) -> int:
        """Numbers per factor element: one for each value of the dimensions that both have."""
        return int(np.prod([self.isa.dims[d] for d in self.left if d in self.right], dtype=int))

    def weights(self, box: Box, seed: list[int]) -> dict[str, Values]:
        """A random weight for every lane of each accumulator dimension, 0 outside the box."""
        rng = np.random.Generator(np.random.PCG64DXSM(seed))
        # Drawn for all lanes before the box cuts them: a lane's weight does not depend on the box.
        draws = [rng.integers(1, P, self.isa.dims[d], dtype=np.uint64) for d in self.dims]
        return {d: np.where(inside, draw, 0).astype(np.uint64)
                for d, draw, inside in zip(self.dims, draws, box, strict=True)}  # fmt: skip

    def lanes(
        self, memory: Memory, role: int, weights: Mapping[str, Values]
    ) -> tuple[NDArray[np.int64], Values]:
        """(slot, weight) of every lane of an element of `memory` in this role."""
        shape = self.isa.lane_shape(memory.name)
        at = dict(zip(memory.lanes, np.indices(shape), strict=True))
        slot: Any = np.zeros(shape, np.int64)
        weight: Any = np.ones(shape, np.uint64)
        for d in self.left:
            if role != SUM and d in self.right:
                # Products are made along the dimensions that both factors have: one number for each
                # value.
                slot = slot * self.isa.dims[d] + at[d]
        for d in self.dims:
            # Each dimension is weighted once: on the left where both factors have it.
            if role == SUM or (d in at and (d in self.left) == (role == LEFT)):
                weight = mul(weight, weights[d][at[d]])
            elif role == LEFT and d not in self.right:
                # All lanes of this dimension get the same products.
                weight = mul(weight, total(weights[d], 0))
        return slot.reshape(-1), np.broadcast_to(weight, shape).reshape(-1).copy()


def boxes(mask: NDArray[np.bool_]) -> list[Box]:
    """Disjoint boxes whose union is the mask. Shapes: one dimension per lane dimension."""
    if not mask.any():
        return []
    sides = [
        np.logical_or.reduce(mask, axis=tuple(k for k in range(mask.ndim) if k != d))
        for d in range(mask.ndim)
    ]
    # Weights are products over dimensions, so only boxes can be weighted; almost every mask is one.
    if mask.ndim < 2 or mask[np.ix_(*sides)].all():
        return [tuple(tuple(map(bool, side)) for side in sides)]
    out: list[Box] = []
    # Not a box: cut into rows along the first dimension, which always ends, if not with the fewest.
    for row in np.flatnonzero(sides[0]):
        one = tuple(n == row for n in range(len(sides[0])))
        out += [(one, *box) for box in boxes(mask[row])]
    return out
