"""A search with a larger budget measures all that a smaller one does, and so never ends worse."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import Any

import pytest
from cases import CONFIGS

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.search.candidates import embeddings_of
from csp_embed.compiler.search.measuring import Measured, Meter
from csp_embed.ir.operator import Operator
from csp_embed.ir.schedule import Schedule
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from csp_embed.ops import conv1d, conv2d, matmul
from csp_embed.schedule.choose import search
from csp_embed.schedule.inputs import build as build_problem

VTA = load_isa("vta", None)
SMALL = load_isa("vta", CONFIGS / "1x4x4_small.json")
OPERATORS: dict[str, tuple[Operator, Any]] = {
    "few results": (conv1d(n=1, c=3, w=81, k=21, r=5), VTA),
    "product": (matmul(m=33, n=17, k=70), SMALL),
}


class Recorder(Meter):
    """A meter that keeps every schedule that it was asked for, and tells cycles that are a third
    off at random: whatever the search hopes for, it is often wrong."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked: set[int] = set()

    def measure(self, schedule: Schedule) -> Measured:
        parts = (schedule.ops.tobytes(), schedule.tokens.tobytes(), str(schedule.regions).encode())
        name = zlib.crc32(b"".join((*parts, str(schedule.templates).encode())))
        self.asked.add(name)
        true = super().measure(schedule)
        return replace(true, cycles=true.cycles * (1 + (name % 1000) / 3000))


def searched(name: str, **budget: int) -> tuple[float, set[int]]:
    op, isa = OPERATORS[name]
    costs = costs_of(isa, "de10")
    meter = Recorder(isa, costs)
    problems = [build_problem(e, isa) for e in embeddings_of(op, isa, Options(), costs)[:4]]
    return search(problems, meter, costs, ranges={}, **budget)[0].cycles, meter.asked


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    "budgets",
    [
        [{"refine": n} for n in (0, 7, 40, 90)],
        [{"count": n} for n in (1, 2, 5, 12)],
        [{"top": n} for n in (1, 2, 4)],
        [{"count": 1, "refine": 9}, {"count": 6, "refine": 9}, {"count": 6, "refine": 40}],
    ],
    ids=["refine", "count", "top", "both"],
)
def test_larger_budgets_measure_a_superset(name: str, budgets: list[dict[str, int]]) -> None:
    least, known = math.inf, set[int]()
    for budget in budgets:
        cycles, asked = searched(name, **budget)
        assert cycles <= least, budget
        assert known <= asked, budget
        least, known = cycles, asked


class Built(Meter):
    """A meter that counts how many schedules it is asked for, and how many of them differ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked = list[tuple[object, ...]]()

    def measure(self, schedule: Schedule) -> Measured:
        lists = tuple((t.uops.tobytes(), t.iter_out, t.iter_in) for t in schedule.templates)
        rows = schedule.ops.tobytes(), schedule.tokens.tobytes(), str(schedule.regions), lists
        self.asked.append(rows)
        return super().measure(schedule)


def test_no_schedule_of_an_embedding_is_built_twice() -> None:
    """Equal ones would use up what may be built: a pointwise convolution lost 1.2 % to that."""
    op = conv2d(n=1, c=3, h=22, w=30, k=8, r=1, s=1)
    costs = costs_of(VTA, "de10")
    meter = Built(VTA, costs)
    problem = build_problem(embeddings_of(op, VTA, Options(), costs)[0], VTA)
    least = search([problem], meter, costs, ranges={})[0].cycles
    assert len(meter.asked) == len(set(meter.asked)) > 100
    more = search([problem], Built(VTA, costs), costs, ranges={}, count=16, refine=400)[0].cycles
    assert more <= least <= 1.01 * more


@pytest.mark.parametrize(
    ("op", "choice", "known"),
    [
        # Two of one covering stood before what improves most.
        (conv2d(n=1, c=3, h=13, w=36, k=1, r=3, s=3, stride=2, pad=1, shift=6, bias=True,
                bias_range=4000, clip=(0, 127)), Options(pins=("fix commuted",)), math.inf),
        # Blocks that are written as loops crowded out the best.
        (conv2d(n=2, c=4, h=11, w=32, k=4, r=2, s=2, stride=2, pad=1),
         Options(pins=("fix commuted",)), math.inf),
        # Long lists of micro-ops wait for the memory's port; found by an earlier search.
        (conv2d(n=1, c=32, h=38, w=19, k=1, r=3, s=3, stride=2, pad=1), Options(top=1), 4728),
    ],
    ids=["least outline", "one covering", "short lists"],
)  # fmt: skip
def test_the_default_comes_near_what_other_choices_find(
    op: Operator, choice: Options, known: float
) -> None:
    costs = costs_of(VTA, "de10")

    def least(options: Options) -> float:
        meter = Meter(VTA, costs)
        found = [build_problem(e, VTA) for e in embeddings_of(op, VTA, options, costs)]
        given = {i: 4000 for i in found[0].adds}
        return search(found, meter, costs, ranges=given, top=options.top)[0].cycles

    assert least(Options()) <= 1.01 * min(known, least(choice))
