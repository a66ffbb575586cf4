"""Slots of one operand's share of a memory: what they hold, who brought it, who read it last."""

from __future__ import annotations

from csp_embed.errors import Infeasible
from csp_embed.schedule.buffers import Frame, Frames
from csp_embed.targets.stream.building.rows import Rows
from csp_embed.targets.stream.building.slots import allocate, has_reuse


class Ring:
    """Slots of one operand's memory share."""

    def __init__(self, frames: Frames, steps: list[Frame], base: int, room: int, most: int) -> None:
        self.frames, self.base = frames, base
        # An operand that is all padding still has an address.
        self.size = max(1, frames.largest)
        fit = room // self.size
        if fit < 1:
            raise Infeasible(
                f"a tile of {frames.map.operand} needs {self.size} elements of {frames.map.memory}",
                why=f"only {room} are free",
                hint="use a configuration with larger buffers",
            )
        keys = [f.key for f in steps]
        # -1 stands for padding alone: no box.
        distinct = len({k for k in keys if k >= 0})
        self.useful = max(1, min(fit, distinct))  # More slots would change nothing.
        # Without a second use a box leaves as soon as it was read: two slots let the next load
        # overlap.
        if distinct > fit and not has_reuse(keys):
            self.useful = min(self.useful, 3 if fit >= 3 and fit % 2 else 2)
        self.slots = max(1, min(self.useful, most))
        # All steps are known, so what leaves can be chosen by when it is needed next.
        self.plan = allocate(keys, self.slots)
        self.loaded = [-1] * self.slots
        self.read = [-1] * self.slots

    def address(self, step: int) -> int:
        return self.base + self.plan[step][0] * self.size

    def bring(self, rows: Rows, region: int, step: int, frame: Frame) -> int:
        """Loads what the step misses; returns the row that brought its box."""
        slot, fresh = self.plan[step]
        if fresh:
            self.loaded[slot] = rows.load(
                self.frames.map.memory,
                region,
                frame.number,
                self.address(step) + frame.shape.shift,
                # What the slot held must have been read before it is overwritten.
                self.read[slot],
            )
        return self.loaded[slot]

    def touch(self, step: int, row: int) -> None:
        self.read[self.plan[step][0]] = row
