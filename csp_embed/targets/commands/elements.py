"""Which elements each step of a walk names, in numbers of the operands' regions.

Takes: an embedding, where its operands lie, an order of steps.  Leaves: `Steps`: sums, factors and
the groups that one copy brings, without the steps in which nothing is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.embedding import Embedding
from csp_embed.targets.commands.order import PARTS, Order, Steps, Table, Walk, joint_values
from csp_embed.targets.commands.regions import Region

Array = NDArray[Any]


@dataclass(frozen=True)
class Elements:
    """regions: operand -> where it lies; of all operands that the embedding lays out."""

    embedding: Embedding
    regions: Mapping[str, Region]

    def _index(self, role: str, at: Mapping[str, Array], n: int) -> Array:
        """Indices in the region's box, [n, rank]. at: counter -> n values."""
        layout, low = self.embedding.layouts[role], self.regions[role].place.low
        # From the box's corner, as regions hold the box alone.
        out = np.tile(np.array(layout.origin, np.int64) - np.array(low, np.int64), (n, 1))
        for name, step in layout.step.items():
            if any(step):
                out += at[name][:, None] * np.array(step, np.int64)
        return out.reshape(n, len(low))

    def tables(self, walk: Walk) -> tuple[dict[str, Table], tuple[Table, ...]]:
        """(role -> number of its element, whether each factor has one there), by joint values of
        the loops that move it."""
        found: dict[str, Table] = {}
        live: list[Table] = []
        for role in self.embedding.layouts:
            step = self.embedding.layouts[role].step
            # Only loops that move an operand decide which element it is.
            parts = tuple(
                p for p in PARTS if any(any(step.get(c.name, ())) for c in walk.counters(p))
            )
            extents = tuple(walk.count(p) for p in parts)
            index = self._index(role, joint_values(walk, parts), math.prod(extents))
            r = self.regions[role]
            outer, within = r.element(index)
            entries = np.zeros(len(index), np.int64)
            entries[:] = outer * r.blocks + within
            found[role] = Table(parts, extents, entries)
            if role in ("lhs", "rhs"):
                shape = np.array(r.place.shape, np.int64)
                # Outside of the grid nothing is multiplied: such steps are left out.
                inside = ((index >= 0) & (index < shape)).all(axis=1)
                live.append(Table(parts, extents, np.asarray(inside, np.int64)))
        return found, tuple(live)

    def steps(self, order: Order, tables: Mapping[str, Table], live: Sequence[Table]) -> Steps:
        # A sum of nothing is made by the constant that it begins with.
        taken = np.ones(int(order.ends[-1]), bool)
        for t in live:
            taken &= t.of(order.at) > 0
        at = {p: x[taken] for p, x in order.at.items()}
        ends = np.concatenate([[0], np.cumsum(taken)])[order.ends]
        flat = {r: tables[r].of(at) for r in ("dst", "lhs", "rhs")}
        # A group is what one copy brings: factors of one group are loaded together.
        groups = {}
        for r in ("lhs", "rhs"):
            reg = self.regions[r]
            outer, within = np.divmod(flat[r], reg.blocks)
            groups[r] = outer * -(-reg.blocks // reg.group) + within // reg.group
        return Steps(flat["dst"], flat["lhs"], flat["rhs"], groups, tuple(ends.tolist()))
