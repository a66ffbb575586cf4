"""Random affine formulas, however odd: right values, and a checker that agrees."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "embed"))
from embed_executor import brute, draw, run

from csp_embed.embed import embed
from csp_embed.errors import Infeasible
from csp_embed.ir.affine import Affine
from csp_embed.ir.operator import Access, Operator, Tensor
from csp_embed.judge.embedding.judge import judge
from csp_embed.machine.load import load_isa

MACHINES = {
    "1x4x4": ("vta", "1x4x4_small"),
    "2x16x16": ("vta", "2x16x16"),
    "dot": ("toy_dot", None),
    "outer": ("toy_outer", None),
}
EVERY = list(HealthCheck)


@st.composite
def formulas(draw) -> Operator:
    """A contraction with one to three output and reduced axes; indices take any two axes."""
    outs, reds = (
        draw(st.sampled_from(["a", "ab", "abc"])),
        draw(st.sampled_from(["r", "rs", "rst"])),
    )
    axes = {a: draw(st.integers(1, 6)) for a in outs + reds}
    tensors = {"y": Tensor("y", tuple(axes[a] for a in outs), "int8", constant=False)}
    accesses = {}
    for name in ("x", "w"):
        index, shape = [], []
        for _ in range(draw(st.integers(1, 3))):
            count = draw(st.integers(0, min(2, len(axes))))
            taken = sorted(draw(st.permutations(list(axes)))[:count])
            coefs = [draw(st.sampled_from([1, 1, 1, 2, -1, 3])) for _ in taken]
            const = draw(st.integers(-1, 2))
            index.append(Affine(tuple(zip(taken, coefs, strict=True)), const))
            high = const + sum(max(0, k * (axes[a] - 1)) for a, k in zip(taken, coefs, strict=True))
            shape.append(max(1, high + 1 + draw(st.integers(-2, 1))))
        accesses[name] = Access(name, tuple(index))
        tensors[name] = Tensor(name, tuple(shape), "int8", constant=name == "w")
    out = Access("y", tuple(Affine(((a, 1),)) for a in outs))
    return Operator("random", "contract", axes, out, accesses["x"], accesses["w"], tensors)


def agree(op: Operator, isa, mode: str) -> None:
    tensors = draw(op)
    expected = brute(op, tensors)
    for embedding in embed(op, isa, layout=mode, top=2):
        assert np.array_equal(run(embedding, isa, tensors), expected), embedding.formula()
        assert judge(embedding, isa).breaches == (), embedding.formula()


def refusal(op: Operator, isa) -> str | None:
    """Why there is no strict embedding; None where there are right ones."""
    try:
        agree(op, isa, "strict")
    except Infeasible as error:
        return str(error)
    return None


@pytest.mark.parametrize("machine", MACHINES)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=EVERY)
@given(op=formulas())
def test_relaxed(machine: str, op: Operator) -> None:
    agree(op, load_isa(*MACHINES[machine]), "relaxed")


@pytest.mark.parametrize("machine", MACHINES)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=EVERY)
@given(op=formulas())
def test_strict(machine: str, op: Operator) -> None:
    why = refusal(op, load_isa(*MACHINES[machine]))
    assert why is None or "layout" in why
