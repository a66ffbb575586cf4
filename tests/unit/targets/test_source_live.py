"""Steps that meet padding alone are left out, and nothing else is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import plain_machines
import pytest
from source_machine import ISA, assert_equal

from csp_embed import ops
from csp_embed.compiler.source.chain import compile_source
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source import lower
from csp_embed.targets.source.live import MOST, Live, Piece, _pieces, live
from csp_embed.targets.source.nest import Call, Keep, Loop, Node

END = {"shift": 5, "bias": True, "bias_range": 1000, "clip": (-128, 127)}
CONVOLUTIONS = {
    "taps of the border rows": dict(h=7, w=7, r=3, s=3, pad=1),
    "rows of padding alone": dict(h=7, w=7, r=1, s=1, stride=2, pad=3),
    "dilated": dict(h=9, w=9, r=3, s=3, pad=4, dilation=4),
    "more windows than pieces": dict(h=5, w=8, r=7, s=2, pad=(3, 0)),
    "padding on one side": dict(h=6, w=6, r=3, s=3, pad=(2, 0, 0, 1)),
    "strided": dict(h=9, w=9, r=5, s=3, stride=2, pad=2),
}


def executed(nodes: tuple[Node, ...], contraction: str, times: int = 1) -> int:
    """Calls of a template while the nests run."""
    total = 0
    for node in nodes:
        if isinstance(node, Call):
            total += times * (node.template == contraction)
        elif isinstance(node, Loop):
            total += executed(node.body, contraction, times * node.count)
        elif not isinstance(node, Keep):
            total += executed(node.body, contraction, times)
    return total


def brute(op: Any, cut: Live | None, total: int) -> int:
    """Steps with the least windows of whole rows: a tap of a row of the result stays where it meets
    a row of the tensor, and between two that stay."""
    assert cut is not None
    rows = op.lhs.index[2]
    size = op.tensors["x"].shape[2]
    left = 0
    for p in range(op.axes["p"]):
        met = [r for r in range(op.axes["r"])
               if 0 <= rows.coef("p") * p + rows.coef("r") * r + rows.const < size]  # fmt: skip
        left += met[-1] - met[0] + 1 if met else 0
    return total * left // (op.axes["p"] * op.axes["r"])


@pytest.mark.parametrize(
    ("machine", "name"),
    [*(("scalar", name) for name in CONVOLUTIONS), ("x86", "dilated"), ("x86", "strided")],
)
def test_values_stay_and_steps_go(machine: str, name: str) -> None:
    isa = ISA if machine == "x86" else plain_machines.machine("scalar")
    op = ops.conv2d(n=1, c=5, k=6, **CONVOLUTIONS[name], **END)
    tensors = random_tensors(op, 3)
    kernel = compile_source(op, isa, {})
    assert_equal(kernel, tensors)
    np.testing.assert_array_equal(kernel.interpret(**tensors), evaluate(op, tensors)["y"])
    # Constants that are data of the file have corrections of their own.
    known = {n: v for n, v in tensors.items() if op.tensors[n].constant}
    assert_equal(compile_source(op, isa, known), tensors)
    assert kernel.verify() == []
    program = kernel.program
    assert program is not None
    assert kernel.embedding is not None
    made = executed(program.main, kernel.embedding.instruction)
    total = math.prod(c.extent for c in kernel.embedding.counters)
    rows = {c.name: c.extent for c in kernel.embedding.counters}.get("p")
    whole = program.cut is not None and (program.cut.output, rows) == ("p", op.axes["p"])
    if not whole:
        assert made <= total
    elif name != "more windows than pieces":
        assert made == brute(op, program.cut, total) < total
    else:
        assert brute(op, program.cut, total) < made < total


def test_rows_of_padding_alone_have_no_steps() -> None:
    """conv058 of DeepBench: three of seven rows meet the tensor."""
    op = ops.conv2d(n=1, c=64, k=48, **CONVOLUTIONS["rows of padding alone"], **END)
    program = compile_source(op, ISA, {}).program
    assert program is not None
    assert program.cut == Live("p", None, (Piece(0, 2, 0, 0), Piece(2, 3, 0, 1), Piece(5, 2, 0, 0)),
                               3 / 7)  # fmt: skip


def test_no_cut_without_padding_or_where_all_is_padding() -> None:
    for shape in (dict(h=8, w=8, r=3, s=3), dict(h=1, w=1, r=1, s=1, stride=9, pad=4)):
        op = ops.conv2d(n=1, c=8, k=16, **shape, **END)
        kernel = compile_source(op, ISA, {})
        assert kernel.program is not None
        assert kernel.program.cut is None
        assert_equal(kernel, random_tensors(op, 1))


def test_pieces_are_few_and_the_best() -> None:
    """Against all ways to cut ten values in at most three."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        windows = [tuple(sorted(map(int, rng.integers(0, 5, 2)))) for _ in range(10)]
        windows = [(a, b) if a < b else (0, 0) for a, b in windows]

        def cost(a: int, b: int, windows: Any = windows) -> int:
            met = [t for w in windows[a:b] for t in range(*w)]
            return (b - a) * (max(met) - min(met) + 1) if met else 0

        least = min(cost(0, a) + cost(a, b) + cost(b, 10)
                    for a in range(11) for b in range(a, 11))  # fmt: skip
        pieces = _pieces(windows)
        assert len(pieces) <= MOST
        assert [p.first for p in pieces] == [sum(q.count for q in pieces[:n])
                                             for n in range(len(pieces))]  # fmt: skip
        assert sum(p.count * p.taps for p in pieces) == least


def test_a_cut_too_far_is_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    isa: Isa = plain_machines.machine("scalar")
    op = ops.conv2d(n=1, c=4, k=5, **CONVOLUTIONS["taps of the border rows"], **END)
    assert compile_source(op, isa, {}).certify().ok

    def shorter(*arguments: Any) -> Live | None:
        found = live(*arguments)
        assert found is not None
        # The middle of the rows loses its last tap.
        first, middle, last = found.pieces
        return replace(found, pieces=(first, replace(middle, taps=middle.taps - 1), last))

    monkeypatch.setattr(lower, "live", shorter)
    found = compile_source(op, isa, {}).certify()
    assert [p.name for p in found.parts if not p.ok] == ["sums"]
