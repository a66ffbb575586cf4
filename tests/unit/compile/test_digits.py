"""Averages whose multiplier is wider than int8: a round of products for each digit of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import csp_embed as ce
from csp_embed import ops
from csp_embed.compiler.kernel import Kernel
from csp_embed.compiler.program.claims import claims
from csp_embed.compiler.program.content import bare
from csp_embed.judge.certify.claims import read_claims
from csp_embed.judge.certify.run import certify
from csp_embed.judge.embedding.certificate import check_certificate
from csp_embed.judge.embedding.lower_bound import lower_bound
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from csp_embed.machine.words.bits import encode
from csp_embed.ops.wide import in_passes

WINDOWS = {
    "7x7": dict(c=33, h=7, w=7, r=7, s=7),
    "5x3": dict(c=20, h=12, w=9, r=5, s=3, stride=(2, 1), pad=1),
    "14x14": dict(c=5, h=14, w=14, r=14, s=14),
    "3x3": dict(c=16, h=9, w=9, r=3, s=3, stride=1),
}


@pytest.mark.parametrize("m", [255, 1337, -3000, 32_639, 40_000])
@pytest.mark.parametrize("window", WINDOWS)
def test_values_are_the_mean_and_certified(window: str, m: int) -> None:
    shape = WINDOWS[window]
    shift = max(1, abs(m).bit_length() + 4)
    op = ops.avg_pool2d(n=1, m=m, shift=shift, **shape)
    kernel = ce.compile(op)
    assert isinstance(kernel, Kernel)
    x = np.random.default_rng(abs(m)).integers(-128, 128, op.tensors["x"].shape, np.int8)
    pad, stride = shape.get("pad", 0), shape.get("stride", (shape["r"], shape["s"]))
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    wide = np.pad(x.astype(np.int64), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    sums = sliding_window_view(wide, (shape["r"], shape["s"]), axis=(2, 3)).sum(axis=(4, 5))
    # In the machine's 32 bits, as the formula says.
    wanted = (sums[:, :, ::rows, ::columns] * m).astype(np.int32) >> shift
    assert np.array_equal(kernel.run(x), wanted.astype(np.int8))
    assert kernel.check() == []
    assert kernel.certify().ok
    assert not check_certificate(kernel.certificate()).problems
    costs = costs_of(kernel.isa)
    assert kernel.cycles is not None
    assert lower_bound(op, kernel.isa, costs).cycles <= kernel.cycles


def test_two_digits_take_two_rounds_and_eleven_passes_take_more() -> None:
    wide = ops.avg_pool2d(n=1, c=32, h=16, w=16, r=5, s=3, stride=1, m=1337, shift=15)
    one, two = ce.compile(replace_m(wide, 84)), ce.compile(wide)
    many = ce.compile(in_passes(wide))
    assert two.cycles < 2 * one.cycles + 200
    assert two.cycles < 0.6 * many.cycles


def replace_m(op: ce.Operator, m: int) -> ce.Operator:
    """The same pool with an int8 multiplier."""
    w = replace(op.tensors["w"], dtype="int8")
    return replace(op, tensors={**op.tensors, "w": w}, values={"w": np.array([m], np.int8)})


def test_a_wrong_digit_and_a_wrong_shift_are_not_certified() -> None:
    op = ops.avg_pool2d(n=1, c=16, h=7, w=7, r=7, s=7, m=1337, shift=16)
    kernel = ce.compile(op)
    assert isinstance(kernel, Kernel)
    where = read_claims(claims(kernel), op)

    def certified(m: int, words: np.ndarray) -> bool:
        """Whether a stream over the digits of m is certified for the operator."""
        packed = replace(kernel, operator=replace(op, values={"w": np.array([m], np.int16)}))
        program = replace(bare(packed), insn=words)
        return certify(kernel.isa, program, op, where, example=False).ok

    assert certified(1337, kernel.words)
    # The last digit, the first one, and both exchanged: 57 * 256 + 5.
    for m in (1338, 1337 + 256, 14_597):
        assert not certified(m, kernel.words)
    amounts = kernel.lowered.stream.fields["imm"]
    assert (amounts == -8).sum() == 1
    for wrong in (-7, 0, 8):
        fields = {**kernel.lowered.stream.fields, "imm": np.where(amounts == -8, wrong, amounts)}
        words = encode(kernel.isa, replace(kernel.lowered.stream, fields=fields))
        assert not certified(1337, words)


def test_the_certificate_counts_both_digits() -> None:
    kernel = ce.compile(ops.avg_pool2d(n=1, c=16, h=7, w=7, r=7, s=7, m=1337, shift=16))
    document = kernel.certificate()
    narrow = {**document, "operator": {**document["operator"],
              "dtypes": {**document["operator"]["dtypes"], "w": "int8"}}}  # fmt: skip
    assert not check_certificate(document).problems
    assert any("objective" in p for p in check_certificate(narrow).problems)


def test_a_machine_without_left_shifts_adds_up_int8_factors() -> None:
    op = ops.avg_pool2d(n=1, c=5, h=6, w=6, r=3, s=3, stride=1, m=300, shift=11)
    kernel = ce.compile(op, load_isa("x86_avx512_vnni"))
    assert kernel.operator.tensors["w"].shape == (3,)
