"""Variables of the ground model: where each instruction point of each step lies in the operator.

Takes: Ground, Box.  Leaves: `Vars`. A *place* is one instruction point of one step. It is pad or
holds the operator point whose axis values are its variables; that the point is an effective one
(every factor in range) is part of what the variables mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from csp_embed.embed.ground.numerations import Box
from csp_embed.ir.ground import Ground, Ints
from csp_embed.ir.operator import Role


@dataclass
class Vars:
    """places: (step, lanes) of each place. placed: Boolean, not pad. value: axis values.

    gates: family -> assumption literal, where explanations are asked; else constraints hold
    outright. columns / const: of the affine map, filled by the regularity family: [coordinate][n].
    home / element: filled by families (see there).
    """

    model: Any
    ground: Ground
    box: Box
    places: list[tuple[int, tuple[int, ...]]]
    placed: list[Any]
    value: list[list[Any]]
    explain: bool = False
    gates: dict[str, Any] = field(default_factory=dict[str, Any])
    columns: list[list[Any]] = field(default_factory=list[list[Any]])
    const: list[Any] = field(default_factory=list[Any])
    home: dict[Role, list[Any]] = field(default_factory=dict[Role, list[Any]])
    element: dict[Role, list[Any]] = field(default_factory=dict[Role, list[Any]])

    def gate(self, family: str) -> list[Any]:
        """The literals under which a family's constraints hold: none, or its assumption."""
        if not self.explain:
            # Without explanations constraints hold outright: no literal, a smaller model.
            return []
        if family not in self.gates:
            self.gates[family] = self.model.new_bool_var(f"family {family}")
        return [self.gates[family]]

    def post(self, family: str, constraint: Any, *more: Any) -> None:
        """Makes a constraint hold where the family and all of `more` do."""
        literals = [*self.gate(family), *more]
        if literals:
            constraint.only_enforce_if(literals)

    def axis_values(self, place: int) -> Mapping[str, Any]:
        """Axis name -> its value at a place."""
        return dict(zip(self.ground.op.axes, self.value[place], strict=True))

    def touched(self, role: Role, place: int) -> Any:
        """Flat tensor element that an operand's access names at a place (linear)."""
        access, at = self.ground.accesses[role], self.axis_values(place)
        shape = self.ground.op.tensors[access.tensor].shape
        out: Any = 0
        for ix, size in zip(access.index, shape, strict=True):
            # Row-major, as tensors lie.
            out = out * size + ix.const + sum(c * at[a] for a, c in ix.terms)
        return out

    def lane(self, role: Role, place: int) -> int:
        """Lane of the operand's memory element at a place (in the box's numeration)."""
        out = 0
        for (dim, size), lane in zip(self.box.sizes.items(), self.places[place][1], strict=True):
            # Dimensions that the operand does not have do not count: lanes are shared over them.
            if dim in self.ground.dims[role]:
                out = out * size + lane
        return out

    def lane_count(self, role: Role) -> int:
        """Lanes of an operand's memory element in the box."""
        return math.prod(n for d, n in self.box.sizes.items() if d in self.ground.dims[role])


def make(model: Any, ground: Ground, box: Box, explain: bool = False) -> Vars:
    """Variables of all places; a placed one is an effective operator point."""
    axes = list(ground.op.axes.items())
    placed: list[Any] = []
    value: list[list[Any]] = []
    for n in range(len(box.places)):
        placed.append(model.new_bool_var(f"placed{n}"))
        value.append([model.new_int_var(0, e - 1, f"{a}{n}") for a, e in axes])
    vars = Vars(model, ground, box, list(box.places), placed, value, explain)
    for n in range(len(box.places)):
        at = vars.axis_values(n)
        # Pad has one value: 0, so that solutions count once.
        for v in value[n]:
            model.add(v == 0).only_enforce_if(~placed[n])
        # A placed point has every factor in range.
        for low, high, terms, const in overhangs(ground):
            index = const + sum(c * at[a] for a, c in terms)
            model.add_linear_constraint(index, low, high).only_enforce_if(placed[n])
    return vars


def overhangs(ground: Ground) -> list[tuple[int, int, tuple[tuple[str, int], ...], int]]:
    """Tensor indices that can leave their tensor: (least, greatest legal, terms, constant)."""
    out: list[tuple[int, int, tuple[tuple[str, int], ...], int]] = []
    for access in ground.accesses.values():
        shape = ground.op.tensors[access.tensor].shape
        for ix, size in zip(access.index, shape, strict=True):
            low, high = ix.reach(ground.op.axes)
            # Indices that cannot leave their tensor need no constraint.
            if low < 0 or high >= size:
                out.append((0, size - 1, ix.terms, ix.const))
    # Operands may share an index: each bound once.
    return list(dict.fromkeys(out))


def read_places(vars: Vars, values: Mapping[int, tuple[int, ...]]) -> Ints:
    """Step and lanes of every effective point. values: place -> axis values, placed ones only."""
    index = {tuple(p): q for q, p in enumerate(vars.ground.points.tolist())}
    at = np.full((len(index), 1 + len(vars.box.sizes)), -1, np.int64)
    # Places in the order of the box, points by their axis values.
    for n, point in values.items():
        step, lanes = vars.places[n]
        at[index[point]] = (step, *lanes)
    return at
