"""Schedules of one problem for machines that read a stream."""

from __future__ import annotations

from csp_embed.ir.schedule import BiasTrick, Identity, Schedule
from csp_embed.machine.costs import Costs
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Problem
from csp_embed.targets.stream.building import contraction
from csp_embed.targets.stream.building.nests import Covers
from csp_embed.targets.stream.building.plan import Shared
from csp_embed.targets.stream.building.pools import accumulators, by_identity


class StreamBuilder:
    """Keeps what the schedules of a problem share: boxes, and how instructions cover loops."""

    def __init__(self, problem: Problem, bias: BiasTrick | None, costs: Costs) -> None:
        self._shared = Shared(problem, bias)
        self._covers: Covers = {}
        self._costs = costs

    def build(self, config: Config | Identity | None) -> Schedule:
        """See `schedule.attempts.Builder`."""
        if config is None:
            return accumulators.build(self._shared, self._costs)
        if isinstance(config, Identity):
            return by_identity.build(self._shared.problem, config, self._costs)
        return contraction.build(self._shared, config, self._covers)
