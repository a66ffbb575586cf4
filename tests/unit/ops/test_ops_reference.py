"""The NumPy reference at its edges: wrap-around, shifts, blocks, far reads."""

from __future__ import annotations

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.ir.operator import Operator
from csp_embed.ops import reference
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.ops.scalar import evaluate_slowly


def test_sums_wrap_around_at_32_bits() -> None:
    k = 140_000  # 140000 * 2^14 > 2^31
    op = ops.matmul(m=1, n=1, k=k)
    full = {"x": np.full((1, k), -128, np.int8), "w": np.full((1, k), -128, np.int8)}
    assert evaluate(op, full)["acc"][0, 0] == k * 2**14 - 2**32


def test_sums_stay_exact_where_float32_would_round() -> None:
    k = 4099
    op = ops.matmul(m=1, n=1, k=k)
    x, w = np.full((1, k), 127, np.int8), np.full((1, k), 127, np.int8)
    x[0, 0], w[0, 0] = 1, 1
    assert evaluate(op, {"x": x, "w": w})["acc"][0, 0] == (k - 1) * 127**2 + 1


def test_steps_wrap_around_and_shift_arithmetically() -> None:
    x = np.array([2**31 - 1, -(2**31), -5, 5], np.int32)
    op = ops.elementwise((4,), [("add", 1), ("shr", 1), ("mul", 3), ("shl", 2)])
    want = []
    for v in x.tolist():
        for act in (lambda a: a + 1, lambda a: a >> 1, lambda a: a * 3, lambda a: a << 2):
            v = (act(v) + 2**31) % 2**32 - 2**31
        want.append((v + 128) % 256 - 128)
    assert evaluate(op, {"x": x})["y"].tolist() == want


def test_results_keep_the_low_8_bits() -> None:
    op = ops.elementwise((3,), [])
    assert evaluate(op, {"x": np.array([127, 128, -129])})["y"].tolist() == [127, -128, 127]


OPERATORS = [
    ops.parse_formula("y[0] += x[i] * w[i]; add 3", {"x": (7,)}),
    ops.parse_formula("y[0] min= x[i,j]", {"x": (3, 5)}),
    ops.conv2d(n=2, c=4, h=6, w=7, k=6, r=3, s=3, groups=2, pad=1, stride=2, bias=True, shift=3),
    ops.batch_matmul(batch=3, m=5, n=4, k=11),
    ops.max_pool2d(n=1, c=2, h=7, w=5, r=3, s=3, stride=2, pad=1),
    ops.parse_formula("y[n] += x[n,a-3] * w[n,2*b]", {"x": (4, 2), "w": (4, 7), "y": (4,)},
                      extents={"a": 6}),
    ops.parse_formula("y[3*p+f] += x[p-t] * w[f+2*t]", {"x": (5,), "w": (7,), "y": (16,)},
                      extents={"t": 3}),
    ops.parse_formula("y[p] += x[2*p-3*r+4] * w[9-r]", {"x": (6,), "w": (10,), "y": (5,)},
                      extents={"r": 6}),
]  # fmt: skip


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.text()[:40])
@pytest.mark.parametrize("block", [1, 7, 64, 1 << 22])
def test_any_block_size_gives_the_definitions_answer(
    op: Operator, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "BLOCK", block)
    tensors = random_tensors(op, 5)
    got, want = evaluate(op, tensors), evaluate_slowly(op, tensors)
    assert np.array_equal(got["acc"], want["acc"])
    assert np.array_equal(got["y"], want["y"])


def test_axes_of_one_operand_alone_wrap_around_too() -> None:
    op = ops.parse_formula("y[0] += x[a] * w[b]", {"x": (70_000,), "w": (70_001,)})
    tensors = {"x": np.full(70_000, 127, np.int8), "w": np.full(70_001, -128, np.int8)}
    sum_ = 70_000 * 127 * 70_001 * -128
    assert evaluate(op, tensors)["acc"][0] == (sum_ + 2**31) % 2**32 - 2**31


def test_far_reads_need_no_padded_copy() -> None:
    far = 10**9
    op = ops.parse_formula(
        f"y[p] += x[{far}*p-{far}*r+1] * w[r]", {"x": (3,), "y": (4,), "w": (4,)}
    )
    tensors = random_tensors(op, 1)
    assert np.array_equal(evaluate(op, tensors)["y"], evaluate_slowly(op, tensors)["y"])


def test_a_hundred_million_macs_take_no_python_loop() -> None:
    op = ops.conv2d(n=1, c=64, h=56, w=56, k=32, r=3, s=3, pad=1)
    tensors = random_tensors(op, 2)
    acc = evaluate(op, tensors)["acc"]
    x = np.pad(tensors["x"].astype(np.int64), [(0, 0), (0, 0), (1, 1), (1, 1)])
    for k, p, q in ((0, 0, 0), (31, 55, 55), (7, 20, 33)):
        want = (x[0, :, p : p + 3, q : q + 3] * tensors["w"][k]).sum()
        assert acc[0, k, p, q] == want


def test_wider_integers_are_taken_if_they_fit() -> None:
    op = ops.matmul(m=2, n=2, k=3)
    x, w = np.ones((2, 3), np.int64), [[1, 2, 3], [4, 5, 6]]
    assert evaluate(op, {"x": x, "w": w})["y"].tolist() == [[6, 15], [6, 15]]
