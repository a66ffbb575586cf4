"""A bias in idle lanes of the reduction: values against NumPy, proved for all inputs, and only
where it is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import csp_embed
from csp_embed import ops
from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator
from csp_embed.ir.schedule import BiasLanes
from csp_embed.machine.load import load_isa
from csp_embed.schedule.bias_in_lanes import find, parts
from csp_embed.schedule.inputs import build as build_problem

VTA = load_isa("vta")
BATCH = load_isa("vta", Path(__file__).parents[2] / "data" / "configs" / "2x16x16.json")


def conv(**more: Any) -> Operator:
    shape = {"n": 1, "c": 3, "h": 12, "w": 13, "k": 21, "r": 3, "s": 3, "pad": 1}
    return ops.conv2d(**shape | {"shift": 8, "bias": True, "bias_range": 250} | more)


OPERATORS: dict[str, Callable[[], Operator]] = {
    "three channels": lambda: conv(clip=(0, 127)),
    "one channel": lambda: conv(c=1, stride=2, clip=(-9, 90)),
    "small shift": lambda: conv(c=1, shift=3, bias_range=500),
    "no shift": lambda: conv(c=1, k=40, shift=0, bias_range=100),
    "bias first": lambda: conv(c=1, bias=False, bias_before_shift=True, bias_range=300),
    "product": lambda: ops.matmul(m=40, n=9, k=13, shift=7, bias=True, bias_range=120),
    # Rows of filters walk their grid backwards, and some results are padding alone.
    "backwards": lambda: ops.conv3d(
        n=1,
        c=3,
        d=1,
        h=3,
        w=4,
        k=4,
        t=3,
        r=2,
        s=1,
        pad=1,
        shift=6,
        bias=True,
        bias_range=90,
        clip=(0, 127),
    ),
    "rows fill the lanes": lambda: ops.matmul(m=3, n=200, k=27, shift=8, bias=True, bias_range=99),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("isa", [VTA, BATCH], ids=["vta", "batch"])
def test_idle_lanes_add_the_bias(name: str, isa: csp_embed.Isa) -> None:
    op = OPERATORS[name]()
    kernel = csp_embed.compile(op, isa)
    lanes = kernel.schedule.bias_lanes
    assert lanes is not None
    assert all(t.op != "add" for t in kernel.schedule.templates)
    assert kernel.check() == []
    assert kernel.certify().ok
    # The same without a promise takes a step for each vector of results.
    bare = replace(op, epilogue=tuple(replace(s, bias_range=None) for s in op.epilogue))
    other = csp_embed.compile(bare, isa)
    assert kernel.cycles is not None
    assert other.cycles is not None
    assert kernel.cycles < other.cycles


def test_ends_of_the_promise_and_beyond() -> None:
    op = conv()
    kernel = csp_embed.compile(op, "vta")
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (1, 3, 12, 13), np.int8)
    w = rng.integers(-128, 128, (21, 3, 3, 3), np.int8)
    b = np.resize(np.array([250, -250, 0, 1, -1, 249], np.int32), 21)
    assert kernel.check(x, w, b) == []
    # 254 is what two lanes in two steps carry: 4 parts of 127 halves.
    assert kernel.schedule.bias_lanes is not None
    b[3] = 255
    with pytest.raises(InputError, match="promised"):
        kernel.run(x, w, b)


@pytest.mark.parametrize(
    "op",
    [
        conv(bias_range=32768),  # more than the lanes reach
        conv(c=16, r=1, s=1, pad=0),  # no lane is idle
        conv(c=1, h=1, w=1, r=3, s=3, pad=1, shift=20, bias_range=4000),  # leaves int32
    ],
    ids=["wide", "full", "int32"],
)
def test_not_where_it_would_not_be_exact(op: Operator) -> None:
    kernel = csp_embed.compile(op, "vta")
    assert kernel.schedule.bias_lanes is None
    assert kernel.check() == []


def test_not_in_layouts_that_are_shared() -> None:
    kernel = csp_embed.compile(conv(), "vta", layout="strict")
    assert kernel.schedule.bias_lanes is None


def test_a_step_of_the_sum_that_some_output_leaves_out_carries_nothing() -> None:
    kernel = csp_embed.compile(conv(c=1), "vta")
    problem = build_problem(kernel.embedding, VTA)
    found = find(problem, {1: 250})
    assert found is not None
    for turn in found.turns:
        for m in (problem.lhs, problem.rhs):
            assert m is not None
            fixed = dict(turn)
            low = tuple(fixed.get(n, 0) for n in problem.names)
            high = tuple(fixed[n] + 1 if n in fixed else e
                         for n, e in zip(problem.names, problem.extents, strict=True))  # fmt: skip
            assert all(
                a >= 0 and b <= g for (a, b), g in zip(m.box(low, high), m.grid, strict=True)
            )


def test_parts_make_the_tensor() -> None:
    lanes = BiasLanes(1, 8, "lhs", "rhs", "i", (14, 15), -128, ((("s", 0),), (("s", 1),)))
    tensor = np.arange(-254, 255)
    made = parts(tensor, lanes)
    assert made.shape == (2, 2, 509)
    assert np.abs(made).max() <= 127
    assert np.array_equal(made.sum(axis=(0, 1)) * -128, tensor << 8)
    assert lanes.scaled == (-1, 2)
