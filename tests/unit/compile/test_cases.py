"""Every row of `tests/cases.py` on every machine: checks pass, values equal NumPy."""

from __future__ import annotations

import pytest
from cases import MACHINES, STREAM_CASES

import csp_embed as ce
from csp_embed.compiler.driver import Options
from csp_embed.compiler.program.verify import judge
from csp_embed.ops.data import random_tensors

QUICK = Options(schedules=2, refine=2, top=2)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("case", STREAM_CASES)
def test_case(case: str, machine: str) -> None:
    op, isa = STREAM_CASES[case](), MACHINES[machine]()
    kernel = ce.compile(op, isa, options=QUICK)
    verdict = judge(kernel, random_tensors(op, 1))
    assert [str(p) for p in verdict.problems] == []
    assert verdict.verified == "simulated", verdict.difference


@pytest.mark.parametrize("case", ["conv2d same", "conv2d stem", "matmul ragged", "max pool"])
def test_case_with_strict_layout(case: str) -> None:
    op, isa = STREAM_CASES[case](), MACHINES["vta"]()
    kernel = ce.compile(op, isa, layout="strict", options=Options(layout="strict", schedules=2))
    assert not any(
        layout.duplicates
        for layout in kernel.embedding.layouts.values()
        if not op.tensors[layout.tensor].constant
    )
    assert judge(kernel, random_tensors(op, 1)).verified == "simulated"
