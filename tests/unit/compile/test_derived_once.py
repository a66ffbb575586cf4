"""A compilation derives what it needs once: the unit, the costs, the weights, the options."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest

import csp_embed as ce
from csp_embed.embed.algebra.cost import weights
from csp_embed.embed.problem import blocks_of
from csp_embed.embed.space.candidates import candidates
from csp_embed.embed.space.unit import unit_for
from csp_embed.machine.costs import costs_of

ONCE = {f.__code__: f.__name__ for f in (unit_for, costs_of, weights, blocks_of, candidates)}
MATMUL = ce.matmul(m=20, n=3, k=24, shift=4, bias=True, bias_range=4000)


def entered(options: ce.Options) -> tuple[Counter[str], ce.Kernel]:
    """How often each of ONCE is entered by one `compile`: the interpreter's own count, which no
    import under another name escapes."""
    counts: Counter[str] = Counter(dict.fromkeys(ONCE.values(), 0))

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in ONCE:
            counts[ONCE[frame.f_code]] += 1

    isa = ce.load_isa("vta")
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        kernel = ce.compile(MATMUL, isa, options=options)
    finally:
        sys.setprofile(before)
    return counts, kernel


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layout": "strict"},
        {"pins": ("fix i=k", "forbid commuted")},
        {"memory": "pynq"},
    ],
    ids=str,
)
def test_a_compilation_derives_each_once(options: dict[str, Any]) -> None:
    counts, _ = entered(ce.Options(top=1, schedules=1, refine=1, **options))
    assert counts == dict.fromkeys(ONCE.values(), 1)


def test_reuse_derives_each_once_and_lists_no_options() -> None:
    solved = ce.compile(MATMUL, "vta", options=ce.Options(top=1, schedules=1, refine=1))
    counts, _ = entered(ce.Options(schedules=1, refine=1, reuse=solved.embedding, within=1.0))
    assert counts == dict.fromkeys(ONCE.values(), 1) | {"candidates": 0}
