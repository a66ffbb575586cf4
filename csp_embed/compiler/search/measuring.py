"""What a schedule costs: it is emitted, and the cycle engine counts what the stream takes.

Takes: Schedules, one machine and one memory interface.  Leaves: `Measured`: cycles with the stream
that has them. Who searches keeps what it measured, so that the winner is emitted once and nothing
has to be looked up afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from csp_embed.ir.schedule import COMPUTE, LOAD, STORE, BiasTrick, Schedule
from csp_embed.machine.costs import Costs
from csp_embed.machine.interface import parse_memory
from csp_embed.machine.spec import Isa
from csp_embed.schedule.inputs import Problem
from csp_embed.sim.cycles.engine import Engine
from csp_embed.targets.stream.building.builder import StreamBuilder
from csp_embed.targets.stream.lower import Lowered, lower
from csp_embed.targets.stream.transfers import Rects


@dataclass(frozen=True)
class Measured:
    """cycles: of the engine, or an estimate where `counted` is false: the spec states no costs."""

    cycles: float
    lowered: Lowered
    counted: bool


@dataclass
class Meter:
    """Makes and measures schedules for one machine behind one memory interface.

    schedules: how many it was asked for, for reports. Raises: SpecError for costs that the engine
    cannot use.
    """

    isa: Isa
    costs: Costs
    schedules: int = 0
    engine: Engine | None = field(init=False)
    # Rectangles by box, kept from schedule to schedule: most differ little.
    _known: Rects = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = engine_of(self.isa, self.costs)

    def builder(self, problem: Problem, bias: BiasTrick | None) -> StreamBuilder:
        """What makes the schedules of `problem`, `bias` by multiply-accumulate."""
        return StreamBuilder(problem, bias, self.costs)

    def measure(self, schedule: Schedule) -> Measured:
        """Raises: InputError where the stream leaves the machine's addresses."""
        self.schedules += 1
        # The stream is made in any case: its cycles are those of the real instructions.
        lowered = lower(schedule, self.isa, self._known)
        if self.engine is None:
            return Measured(estimate(schedule, self.isa), lowered, False)
        return Measured(float(self.engine.total(lowered.stream)), lowered, True)


def engine_of(isa: Isa, costs: Costs) -> Engine | None:
    """The cycle engine behind the interface of `costs`; None where the spec states no costs.

    Raises: SpecError where the costs are incomplete.
    """
    # Costs without an interface's name are those of a machine that states none.
    return Engine(isa, parse_memory(costs.memory)) if costs.memory else None


def estimate(schedule: Schedule, isa: Isa) -> float:
    """Without cost parameters: steps, and bytes at eight a cycle, one after the other."""
    sizes = [
        [isa.memory(r.memory).elem_bytes * r.size(n) for n in range(len(r.boxes))]
        for r in schedule.regions
    ]
    total = 0.0
    rows: list[list[int]] = schedule.ops.tolist()
    for kind, a, b, _ in rows:
        total += schedule.templates[a].steps if kind == COMPUTE else 0
        # 16: about what a transfer takes beside its bytes.
        total += sizes[a][b] / 8 + 16 if kind in (LOAD, STORE) else 0
    return total
