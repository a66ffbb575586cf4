"""Writes a stream block of sums by block: sums begin, are added to, are stored.

Takes: the order of steps, what stays on the chip, where operands lie.  Leaves: calls of a
`Planner`, and how many bytes copies move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.machine.commands.spec import Command
from csp_embed.machine.commands.transfers import Transfer, Wants
from csp_embed.targets.commands.extents import Extents, Sizes
from csp_embed.targets.commands.order import Steps, Table
from csp_embed.targets.commands.planner import Factor, Planner, at_row, bounds
from csp_embed.targets.commands.regions import Region
from csp_embed.targets.commands.residence import Residence

Array = NDArray[Any]
CONSTANT = "constant"


class Writer:
    """Writes one block of sums after the other."""

    def __init__(
        self, regions: Mapping[str, Region], moves: Mapping[str, Transfer], settings: Wants,
        planner: Planner, steps: Steps, residence: Residence, tables: Mapping[str, Table],
        slot_rows: Mapping[str, int], extents: Extents, drain: Command | None,
        reset: Transfer | None,
    ) -> None:  # fmt: skip
        """settings: parameters of the store. slot_rows: role of a factor -> rows of its slots.
        extents: how much of tiles takes part. drain: brings sums to the rows that they are stored
        from. reset: by which sums begin."""
        self.regions, self.moves, self.settings = regions, moves, settings
        self.planner, self.tables, self.slot_rows = planner, tables, slot_rows
        self.loaded = self.stored = 0
        self.drain, self.reset = drain, reset
        self.sizes = extents.sizes
        self.counts = [extents.kinds[k] for k in extents.of_step.tolist()]
        # Known before the first command: all steps are.
        self.loads = residence.loads()
        self.sums: list[int] = steps.dst.tolist()
        self.factors = {r: self._factors(r, getattr(steps, r), residence) for r in slot_rows}

    def _factors(self, role: str, elements: Array, residence: Residence) -> list[Factor]:
        """What the role's factor of every step is, and where it lies."""
        # The element within its group tells the row below the group's first.
        r = self.regions[role]
        within = elements % r.blocks % r.group
        rows = residence.slots(role) * self.slot_rows[role] + within * r.height
        # A few factors at a few places: equal ones are one object.
        key = elements * (int(rows.max(initial=0)) + 1) + rows
        _, first, number = np.unique(key, return_index=True, return_inverse=True)
        sizes = self.sizes[role]
        made = [Factor(row, (role, element), sizes.of(element)) for row, element in
                zip(rows[first].tolist(), elements[first].tolist(), strict=True)]  # fmt: skip
        return [made[n] for n in number.tolist()]

    def block(self, begin: int, end: int, at: Mapping[str, Array]) -> None:
        """All steps of a block: sums begin, are added to, are stored. at: of all its steps, those
        that multiply nothing among them."""
        dst = self.regions["dst"]
        # Tiles in the order of their first step: sums lie in the order in which they are used.
        tiles, first = np.unique(self.tables["dst"].of(at), return_index=True)
        order = np.argsort(first)
        rows = {int(tiles[k]): n * dst.height for n, k in enumerate(order)}
        # Sums that are loaded count as begun: the first step adds to them.
        begun: set[int] = set()
        for role, lying in self.regions.items():
            if role == CONSTANT or role.startswith("add"):
                # The constant is one element for all tiles.
                found = np.zeros(len(tiles), np.int64)
                if role != CONSTANT:
                    found = self.tables[role].of({p: x[first] for p, x in at.items()})
                for k in order:
                    tile = int(tiles[k])
                    outer, within = divmod(int(found[k]), lying.blocks)
                    # What sums begin with is as much as steps touch of them.
                    self._load(role, outer, within, rows[tile], 1, self.sizes["dst"], tile)
                    begun.add(tile)
        if self.reset is not None:
            for k in order:
                tile, t = int(tiles[k]), self.reset
                size = self.sizes["dst"]
                high = t.cut(int(size.rows[tile]), dst.height)
                wide = t.across(int(size.lanes[tile]), dst.width, 1)
                self._moved(t, rows[tile], 0, high, wide, replace(dst, rows=1), 1)
                begun.add(tile)
        lhs, rhs = self.factors["lhs"], self.factors["rhs"]
        contract = self.planner.contract
        for n in range(begin, end):
            # Factors are brought in front of the step that first needs them.
            for role, group, slot in self.loads.get(n, ()):
                self._group(role, group, slot)
            tile = self.sums[n]
            contract(rows[tile], lhs[n], rhs[n], tile in begun, self.counts[n])
            begun.add(tile)
        # In the same order: what was finished first leaves first.
        for k in order:
            self._store(int(tiles[k]), rows[int(tiles[k])])

    def _group(self, role: str, group: int, slot: int) -> None:
        r = self.regions[role]
        outer, part = divmod(group, -(-r.blocks // r.group))
        begin = part * r.group
        blocks = min(r.group, r.blocks - begin)
        self._load(role, outer, begin, slot * self.slot_rows[role], blocks, self.sizes[role],
                   outer * r.blocks + begin)  # fmt: skip

    def _load(
        self, role: str, outer: int, within: int, row: int, blocks: int, sizes: Sizes, first: int
    ) -> None:
        """first: number of the first element in `sizes`."""
        r, t = self.regions[role], self.moves[role]
        heights = sizes.rows[first : first + blocks]
        # Elements that no step meets are not brought where they stand at the end.
        blocks = max(1, int(np.flatnonzero(heights)[-1]) + 1 if heights.any() else 1)
        heights, widths = heights[:blocks], sizes.lanes[first : first + blocks]
        # Elements one after the other are more rows of one.
        if r.beside:
            rows = t.cut(max(1, int(heights.max())), r.height)
            lanes = t.across(max(1, int(widths[-1])), r.width, blocks)
        else:
            rows = r.height * (blocks - 1) + t.cut(max(1, int(heights[-1])), r.height)
            lanes = t.across(max(1, int(widths.max())), r.width, 1)
            blocks = 1
        self._moved(t, row, r.at(outer, within), rows, lanes, r, blocks)
        # A repeated row is read once from HOST, whatever it fills.
        self.loaded += (1 if r.rows < r.height else rows) * lanes * r.item

    def _store(self, tile: int, row: int) -> None:
        r, t, sizes = self.regions["dst"], self.moves["dst"], self.sizes["stored"]
        rows = t.cut(int(sizes.rows[tile]), r.height)
        lanes = t.across(int(sizes.lanes[tile]), r.width, 1)
        if self.drain is not None:
            row = self._drained(self.drain)
        self._moved(t, row, r.at(*divmod(tile, r.blocks)), rows, lanes, r, 1, self.settings)
        self.stored += rows * lanes * r.item

    def _drained(self, c: Command) -> int:
        """Brings the sums in state to rows, and returns the first of these."""
        a = c.acts
        state = self.planner.machine.state[a.dst.memory]
        sizes = dict(zip(a.at, state.sizes, strict=True))
        self.planner.copy(c, bounds(a.loops, a.limits, sizes, sizes) + at_row(a.to, 0))
        return 0

    def _moved(
        self, t: Transfer, row: int, host: int, rows: int, lanes: int, r: Region, blocks: int,
        settings: Wants | None = None,
    ) -> None:  # fmt: skip
        """lanes: of all blocks."""
        # Copies that move a fixed number of rows move these; others as many as they can.
        each = t.rows or min(rows, t.most_rows)
        # Rows on the chip may be counted in units as well.
        each = max(each - each % t.local.times, t.local.times) if each < rows else each
        for done in range(0, rows, each):
            n = each if t.rows else min(each, rows - done)
            wants = t.wants(row + done, host + done * r.stride, n, lanes, r.stride, blocks,
                            r.height)  # fmt: skip
            idle = t.idle(n, r.stride, blocks, r.height)
            self.planner.copy(t.command, wants + (settings or []), idle)
