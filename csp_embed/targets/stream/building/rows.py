"""Schedule rows and tokens in program order."""

from __future__ import annotations

from csp_embed.ir.schedule import COMPUTE, FINISH, LOAD, STORE, Template
from csp_embed.schedule.inputs import Problem
from csp_embed.targets.stream.building.tokens import Tokens


class Rows:
    """Schedule rows and tokens in program order; templates are shared by content."""

    def __init__(self, problem: Problem) -> None:
        self.isa = problem.isa
        self.tokens = Tokens(problem.isa.queues, problem.isa.limits.max_tokens)
        self.ops: list[tuple[int, int, int, int]] = []
        self.templates: list[Template] = []
        # A machine without queues has one, the empty name.
        self.compute_queue = problem.instruction.queue or ""
        self.last_store = -1
        self.last_compute = -1
        self._memory = {m.name: m for m in problem.isa.memories}

    def load(self, memory: str, region: int, box: int, sram: int, after: int = -1) -> int:
        row = self.tokens.row(self._memory[memory].load_queue or "")
        self.ops.append((LOAD, region, box, sram))
        self.tokens.need(row, after)
        return row

    def compute(self, template: int, after: tuple[int, ...] = (), after_store: int = -1) -> int:
        """A step that starts after the rows `after` have ended, the latest first."""
        row = self.tokens.row(self.compute_queue)
        self.ops.append((COMPUTE, template, 0, 0))
        for producer in after:
            self.tokens.need(row, producer)
        self.tokens.need(row, after_store)
        self.last_compute = row
        return row

    def store(self, memory: str, region: int, box: int, sram: int) -> int:
        row = self.tokens.row(self._memory[memory].store_queue or "")
        self.ops.append((STORE, region, box, sram))
        # All results of a tile are computed in one queue: the last row is later than all of them.
        self.tokens.need(row, self.last_compute)
        self.last_store = row
        return row

    def finish(self) -> None:
        row = self.tokens.row(self.isa.of_kind("finish").queue or self.compute_queue)
        self.ops.append((FINISH, 0, 0, 0))
        # The program ends when everything is stored, not when it is computed.
        self.tokens.need(row, self.last_store)
