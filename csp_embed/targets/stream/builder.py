"""Schedules of one problem for machines that read a stream."""

from __future__ import annotations

from csp_embed.ir.schedule import BiasTrick, Schedule
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Problem
from csp_embed.targets.stream import build, map_build
from csp_embed.targets.stream.nests import Covers


class StreamBuilder:
    """Keeps what the schedules of a problem share: how loops are covered by instructions."""

    def __init__(self, problem: Problem, bias: BiasTrick | None) -> None:
        self._problem, self._bias = problem, bias
        self._covers: Covers = {}

    def build(self, config: Config | None) -> Schedule:
        """See `schedule.attempts.Builder`."""
        if config is None:
            return map_build.build(self._problem)
        return build.build(self._problem, config, self._bias, self._covers)
