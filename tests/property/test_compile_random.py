"""Random operators on random machines: the checks pass and the stream equals NumPy.

8 kinds of 50 operators each, in functions of their own so that workers share them.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_operators import (
    FAR,
    MACHINES,
    convolutions_1d,
    convolutions_2d,
    elementwise,
    formulas,
    grouped,
    layouts,
    machines,
    pools,
    products,
    volumes,
)

import csp_embed as ce
from csp_embed.compiler.driver import Options
from csp_embed.compiler.program.verify import judge
from csp_embed.ir.operator import Operator
from csp_embed.ops.data import random_tensors

some = settings(max_examples=50)


def hold(op: Operator, machine: str, layout: str, seed: int, constants: bool = False) -> None:
    """Compiles, judges, compares. constants: the compiler is given w and b."""
    tensors = random_tensors(op, seed)
    given_ = {}
    if constants:
        given_["w"] = tensors[op.rhs.tensor]
        adds = [s for s in op.epilogue if s.access is not None]
        if adds:
            (step,) = adds
            name = step.access.tensor
            if step.bias_range == FAR:
                top = np.array(FAR, dtype=tensors[name].dtype)
                tensors[name] = tensors[name] * (top // 64)
            given_["b"] = tensors[name]
    options = Options(layout=layout, schedules=2, refine=2, top=2)
    kernel = ce.compile(op, MACHINES[machine], **given_, options=options)
    verdict = judge(kernel, tensors)
    assert [str(p) for p in verdict.problems] == []
    assert verdict.verified == "simulated", verdict.difference


seeds = st.integers(0, 1000)


@some
@given(products(), machines, layouts, seeds)
def test_products(op: Operator, machine: str, layout: str, seed: int) -> None:
    hold(op, machine, layout, seed)


@some
@given(convolutions_1d(), machines, layouts, seeds)
def test_convolutions_1d(op: Operator, machine: str, layout: str, seed: int) -> None:
    hold(op, machine, layout, seed)


@some
@given(convolutions_2d(), machines, layouts, seeds)
def test_convolutions_2d(op: Operator, machine: str, layout: str, seed: int) -> None:
    hold(op, machine, layout, seed)


@some
@given(grouped(), machines, layouts, seeds)
def test_grouped(op: Operator, machine: str, layout: str, seed: int) -> None:
    hold(op, machine, layout, seed)


@some
@given(volumes(), machines, layouts, seeds)
def test_volumes(op: Operator, machine: str, layout: str, seed: int) -> None:
    hold(op, machine, layout, seed)


@some
@given(st.one_of(pools(), elementwise()), machines, layouts, seeds)
def test_pools_and_elementwise(op: Operator, machine: str, layout: str, seed: int) -> None:
    hold(op, machine, layout, seed)


@some
@given(formulas(), machines, layouts, seeds)
def test_formulas(op: Operator, machine: str, layout: str, seed: int) -> None:
    hold(op, machine, layout, seed)


@some
@given(st.one_of(products(), convolutions_2d()), machines, layouts, seeds)
def test_constants(op: Operator, machine: str, layout: str, seed: int) -> None:
    """The compiler sees w and b, and a b beyond the reach of multiply-accumulate steps."""
    hold(op, machine, layout, seed, constants=True)
