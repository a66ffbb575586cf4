"""Pools and elementwise programs whose operands come in by a contraction with an identity matrix:
values against NumPy, proved for all inputs, fewer cycles than by loads of accumulators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import csp_embed
from csp_embed import ops
from csp_embed.compiler.search.measuring import Meter
from csp_embed.embed.search import embed
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from csp_embed.schedule import identity
from csp_embed.schedule.inputs import build as build_problem
from csp_embed.targets.stream.building.pools.windows import APART, loops_of, reductions

VTA = load_isa("vta")
COSTS = costs_of(VTA)
BATCH = load_isa("vta", Path(__file__).parents[2] / "data" / "configs" / "2x16x16.json")

OPERATORS: dict[str, Callable[[], Operator]] = {
    "strided": lambda: ops.max_pool2d(n=1, c=40, h=23, w=21, r=3, s=3, stride=2, pad=1),
    # Every class of elements has several taps: results stand apart.
    "overlapping": lambda: ops.max_pool2d(n=2, c=9, h=9, w=12, r=3, s=2, stride=1,
                                          pad=(1, 1, 1, 0)),
    "one tap along rows": lambda: ops.max_pool2d(n=1, c=20, h=6, w=30, r=1, s=5, stride=(1, 2)),
    "whole image": lambda: ops.max_pool2d(n=1, c=33, h=7, w=5, r=7, s=5),
    "dilated": lambda: ops.max_pool2d(n=1, c=5, h=17, w=17, r=3, s=3, stride=2, dilation=3),
    "minimum": lambda: ops.parse_formula(
        "y[c,p] min= x[c,2*p+r-1]; shr 1", {"x": (18, 40), "y": (18, 20)}, extents={"r": 4}
    ),
    "added": lambda: ops.elementwise(
        (9, 40), [("add", "z"), ("shr", 1), "relu"], dtypes={"x": "int8", "z": "int8"}
    ),
    "widened border": lambda: ops.elementwise(
        (5, 21), [("add", "z"), ("max", -5)], pad=1, dtypes={"x": "int8"}
    ),
    "transposed": lambda: ops.parse_formula(
        "y[i,j] = a[j,i] + b[i]", {"a": (7, 19), "b": (19,)}, dtypes={"a": "int8", "b": "int8"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("isa", [VTA, BATCH], ids=["vta", "batch"])
def test_operands_come_in_by_an_identity(name: str, isa: csp_embed.Isa) -> None:
    kernel = csp_embed.compile(OPERATORS[name](), isa)
    assert kernel.schedule.identity is not None
    # By loads alone: what the same embedding takes.
    problem = build_problem(kernel.embedding, isa)
    meter = Meter(isa, costs_of(isa))
    loads = meter.measure(meter.builder(problem, None).build(None))
    assert kernel.cycles is not None
    assert kernel.cycles < loads.cycles
    assert kernel.check() == []
    assert kernel.certify().ok
    assert kernel.schedule.verify() == []


def test_sources_as_wide_as_sums_are_loaded() -> None:
    kernel = csp_embed.compile(ops.elementwise((40, 16), [("add", "z")]), "vta")
    assert kernel.schedule.identity is None
    assert identity.find(build_problem(kernel.embedding, VTA)) is None


def test_classes_of_a_window() -> None:
    problem = build_problem(embed(OPERATORS["strided"](), VTA)[0], VTA)
    loops = loops_of(problem, range(len(problem.dst.grid)))
    assert loops is not None
    rows = [loop for loop in loops if not loop.whole]
    # Taps at -1, 0 and 1 of stride 2: the outer two are one stride apart, the middle is alone.
    for loop in rows:
        assert loop.taps == ((0, 0), (1, 0), (0, 1))
        assert (loop.centre, loop.more) == (1, (1, 0))
    wide = build_problem(embed(OPERATORS["overlapping"](), VTA)[0], VTA)
    loops = loops_of(wide, range(len(wide.dst.grid)))
    assert loops is not None
    assert {loop.centre for loop in loops if not loop.whole} == {APART}


def test_the_order_of_reduction_is_the_one_of_least_work() -> None:
    # 9 taps along rows and 2 along columns: what is shortened most goes first.
    op = ops.max_pool2d(n=1, c=16, h=40, w=42, r=9, s=2, stride=(9, 2))
    problem = build_problem(embed(op, VTA)[0], VTA)
    loops = loops_of(problem, range(len(problem.dst.grid)))
    assert loops is not None
    outputs = [problem.extents[loop.counter] if loop.counter >= 0 else 1 for loop in loops]
    way = reductions(loops, outputs, COSTS)
    assert len(loops[way.order[0]].taps) == 9


def test_equal_weights_of_an_average_are_loaded_once() -> None:
    op = ops.avg_pool2d(n=1, c=256, h=7, w=7, r=7, s=7, m=84, shift=12)
    kernel = csp_embed.compile(op, "vta")
    region = kernel.schedule.regions[kernel.region("rhs")]
    side = region if region.operand == "rhs" else kernel.schedule.regions[kernel.region("lhs")]
    assert np.prod(side.grid) == 1
    assert kernel.check() == []
    assert kernel.certify().ok
