"""What the order of steps costs: a step after another one, by what both have in common.

Takes: steps with their counts.  Leaves: cycles. A factor that the machine holds in state need not
be brought anew, and a short step may hide behind the one before it: both are seen by writing two
steps, one behind the other, and counting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from csp_embed.machine.commands.cycles import overlapped, stream_cycles
from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.targets.commands.extents import Counts, Extents
from csp_embed.targets.commands.order import Steps
from csp_embed.targets.commands.planner import Factor, Planner

# What two steps have in common, as two bits.
LHS, RHS = 1, 2


@dataclass
class Turns:
    """Costs of pairs of steps, each looked at once."""

    machine: CommandMachine
    dims: Mapping[str, int]
    _known: dict[tuple[Counts, Counts, int], float] = field(
        default_factory=dict[tuple[Counts, Counts, int], float]
    )

    def total(self, steps: Steps, extents: Extents) -> float:
        """Cycles of all steps, each behind the one before."""
        kinds = len(extents.kinds)
        same = LHS * (np.diff(steps.lhs) == 0) + RHS * (np.diff(steps.rhs) == 0)
        key = (extents.of_step[:-1] * kinds + extents.of_step[1:]) * 4 + same
        pairs, often = np.unique(key, return_counts=True)
        found = 0.0
        for pair, times in zip(pairs.tolist(), often.tolist(), strict=True):
            ends, common = divmod(pair, 4)
            first, second = divmod(ends, kinds)
            found += times * self.cost(extents.kinds[first], extents.kinds[second], common)
        return found

    def floor(self, extents: Extents) -> float:
        """What no order of these steps goes below."""
        often = np.bincount(extents.of_step, minlength=len(extents.kinds)).tolist()
        # The last step stands behind another one too, the first behind none.
        least = [min(self.cost(other, k, c) for c in range(4) for other in extents.kinds)
                 for k in extents.kinds]  # fmt: skip
        return sum(n * c for n, c in zip(often, least, strict=True)) - max(least, default=0.0)

    def rows_fastest(self, extents: Extents) -> bool:
        """Whether the second factor should stay rather than the first."""
        often = np.bincount(extents.of_step, minlength=len(extents.kinds)).tolist()
        cost = [
            sum(n * self.cost(k, k, kept) for n, k in zip(often, extents.kinds, strict=True))
            for kept in (LHS, RHS)
        ]  # fmt: skip
        return cost[1] <= cost[0]

    def cost(self, first: Counts, second: Counts, common: int) -> float:
        """Cycles that the second step takes behind the first."""
        key = (first, second, common)
        if key not in self._known:
            self._known[key] = self._counted(*key)
        return self._known[key]

    def _counted(self, first: Counts, second: Counts, common: int) -> float:
        trial = Planner(self.machine, self.dims)
        trial.contract(0, Factor(0, ("lhs", 0), first), Factor(0, ("rhs", 0), first), True, first)
        before, begun = len(trial.out), stream_cycles(self.machine, trial.out)
        lhs = Factor(0, ("lhs", 0 if common & LHS else 1), second)
        rhs = Factor(0, ("rhs", 0 if common & RHS else 1), second)
        trial.contract(0, lhs, rhs, True, second)
        spent = stream_cycles(self.machine, trial.out) - begun
        # The array and the host work at the same time.
        return overlapped(spent, self.machine.costs["command"] * (len(trial.out) - before))
