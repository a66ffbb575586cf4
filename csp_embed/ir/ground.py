"""The ground problem as data: an operator's points, one by one, and an instruction's points.

Built by `embed.ground.points`; read by the models there and by the judge of coverings, who share
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Access, Operator, Role

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ground:
    """One problem; operands are named by the instruction's roles.

    op, machine: what is embedded where. commuted: the operator's lhs plays the instruction's rhs.
    sizes: instruction dimension -> lanes, in order. dims: operand -> its dimensions.
    accesses: operand -> access. points: int64[N, axes], effective points, row-major order.
    elements: operand -> int64[N], flat tensor element that each point touches.
    counts: operand -> elements of its tensor. steps: how many there are.
    same_kind: the instruction does what the operator needs (rule 1). strict: operands whose packed
    tensor holds every element once, its memory elements in the order in which steps first meet
    them. rectangles: R, of a tile of `tile` consecutive steps (None: all steps, always one).
    """

    op: Operator
    machine: str
    instruction: str
    commuted: bool
    sizes: Mapping[str, int]
    dims: Mapping[Role, tuple[str, ...]]
    accesses: Mapping[Role, Access]
    points: Ints
    elements: Mapping[Role, Ints]
    counts: Mapping[Role, int]
    steps: int
    same_kind: bool = True
    strict: frozenset[Role] = frozenset()
    rectangles: int = 4
    tile: int | None = None

    @property
    def lanes(self) -> int:
        """Instruction points of one step."""
        return math.prod(self.sizes.values())

    @property
    def ordered(self) -> bool:
        """Whether the memory interface can refuse an order of steps."""
        # Without a tile all steps are one rectangle, which nothing refuses.
        return bool(self.strict) and self.tile is not None

    def lane_of(self, role: Role, lanes: Sequence[int]) -> int:
        """Row-major lane of an operand's memory element that the instruction point meets."""
        out = 0
        # Dimensions that the operand lacks do not select a lane of it.
        for (dim, size), lane in zip(self.sizes.items(), lanes, strict=True):
            if dim in self.dims[role]:
                out = out * size + lane
        return out

    def lane_count(self, role: Role) -> int:
        """Lanes of an operand's memory element."""
        return math.prod(n for d, n in self.sizes.items() if d in self.dims[role])

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed."""
        wrong = self.op.verify()
        roles = set(self.accesses)
        # One loop over operands below relies on it.
        if not {*self.dims} == {*self.elements} == {*self.counts} == roles:
            wrong.append("dimensions, elements, counts and accesses are of different operands")
        if not self.strict <= roles:
            wrong.append(f"{', '.join(sorted(self.strict - roles))} is strict, but no operand")
        named = {d for dims in self.dims.values() for d in dims}
        wrong += [f"dimension {d} has no size" for d in sorted(named - {*self.sizes})]
        if self.points.shape[1:] != (len(self.op.axes),):
            wrong.append(f"points have shape {self.points.shape}, {len(self.op.axes)} axes")
        for role in sorted(roles & {*self.elements} & {*self.counts}):
            flat = self.elements[role]
            if flat.shape != self.points.shape[:1]:
                wrong.append(f"{role} has {flat.shape} elements for {len(self.points)} points")
            elif flat.size and not 0 <= flat.min() <= flat.max() < self.counts[role]:
                wrong.append(f"{role} names an element beyond its tensor")
        # Bounds of zero rectangles or tiles would forbid every answer.
        if self.steps < 0 or self.rectangles < 1 or (self.tile is not None and self.tile < 1):
            wrong.append(f"{self.steps} steps, {self.rectangles} rectangles, tiles of {self.tile}")
        return wrong

    def show(self) -> str:
        """The operator, the instruction and the numbers that make the problem large."""
        sizes = " ".join(f"{d}={n}" for d, n in self.sizes.items())
        lines = [
            f"{self.op.formula()} by {self.steps} steps of {self.machine}.{self.instruction}"
            f" ({sizes}){', commuted' if self.commuted else ''}",
            f"  {len(self.points)} points on {self.lanes} lanes",
        ]
        for role, access in self.accesses.items():
            note = ", every element once" if role in self.strict else ""
            lines.append(f"  {role}: {access}, {self.counts[role]} elements{note}")
        return "\n".join(lines)
