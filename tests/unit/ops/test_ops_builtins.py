"""Each built-in operator against an independent formulation: convolve, einsum, loops."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate


def run(op: Any, seed: int = 7) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random tensors widened to int64, and the result."""
    tensors = random_tensors(op, seed)
    result = evaluate(op, tensors)
    assert result["acc"].dtype == np.int32
    assert result["y"].dtype == np.int8
    return {n: t.astype(np.int64) for n, t in tensors.items()}, result


def int8(values: Any) -> Any:
    return values.astype(np.int64).astype(np.int8)


def test_matmul_with_epilogue() -> None:
    t, got = run(ops.matmul(m=5, n=7, k=40, shift=5, bias=True, clip=(-20, 30)))
    sums = t["x"] @ t["w"].T
    assert np.array_equal(got["acc"], sums)
    assert np.array_equal(got["y"], int8(np.clip((sums >> 5) + t["b"], -20, 30)))


def test_bias_before_the_shift() -> None:
    t, got = run(ops.dense(n=3, c=40, k=5, shift=4, bias_before_shift=True, clip=(0, None)))
    want = np.maximum((t["x"] @ t["w"].T + t["b"]) >> 4, 0)
    assert np.array_equal(got["y"], int8(want))


def test_batch_matmul() -> None:
    t, got = run(ops.batch_matmul(batch=3, m=4, n=5, k=6, bias=True))
    sums = np.einsum("znk,zmk->znm", t["x"], t["w"])
    assert np.array_equal(got["acc"], sums)
    assert np.array_equal(got["y"], int8(sums + t["b"]))


def test_conv1d_is_numpys_correlation() -> None:
    t, got = run(ops.conv1d(n=1, c=1, w=50, k=1, r=7))
    want = np.convolve(t["x"][0, 0], t["w"][0, 0, ::-1], "valid")
    assert np.array_equal(got["acc"][0, 0], want)


def convolve(x: Any, w: Any, stride: Any, pad: Any, dilation: Any, groups: int) -> Any:
    """Any number of dimensions, channels first: tap by tap over the padded input."""
    rank = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *pad])
    taps = w.shape[2:]
    spans = [d * (t - 1) + 1 for t, d in zip(taps, dilation, strict=True)]
    outs = [(n - e) // s + 1 for n, e, s in zip(x.shape[2:], spans, stride, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *outs), np.int64)
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for g in range(groups):
        inside = slice(g * per_in, (g + 1) * per_in)
        outside = slice(g * per_out, (g + 1) * per_out)
        for tap in product(*map(range, taps)):
            cut = tuple(
                slice(i * dilation[d], i * dilation[d] + stride[d] * (outs[d] - 1) + 1, stride[d])
                for d, i in enumerate(tap)
            )
            part = np.moveaxis(x[(slice(None), inside, *cut)], 1, -1)
            weights = w[(outside, slice(None), *tap)]
            y[:, outside] += np.moveaxis(part @ weights.T, -1, 1)
    assert rank == len(outs)
    return y


CONVOLUTIONS = [
    dict(n=2, c=3, h=9, w=8, k=4, r=3, s=2),
    dict(n=1, c=3, h=9, w=8, k=4, r=3, s=2, stride=2, pad=1),
    dict(n=1, c=2, h=9, w=10, k=3, r=3, s=3, stride=(1, 3), pad=((0, 2), (1, 3)), dilation=(2, 1)),
    dict(n=1, c=6, h=5, w=5, k=9, r=3, s=3, groups=3, pad=1),
    dict(n=1, c=6, h=5, w=5, k=6, r=3, s=3, groups=6, pad=1),
    dict(n=1, c=4, h=5, w=5, k=8, r=3, s=3, groups=4),
    dict(n=1, c=8, h=5, w=5, k=4, r=2, s=2, groups=4),
    dict(n=1, c=3, h=4, w=4, k=2, r=1, s=1, pad=3, stride=2),
    dict(n=1, c=1, h=20, w=40, k=5, r=5, s=20, stride=2),
    dict(n=1, c=2, h=3, w=3, k=2, r=3, s=3),
]


def pair(value: Any) -> Any:
    return value if isinstance(value, tuple) else (value, value)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", CONVOLUTIONS)
def test_conv2d(shape: dict[str, Any], layout: str) -> None:
    t, got = run(ops.conv2d(**shape, layout=layout, bias=True, shift=2))
    x = t["x"] if layout == "NCHW" else np.moveaxis(t["x"], 3, 1)
    stride, dilation = pair(shape.get("stride", 1)), pair(shape.get("dilation", 1))
    pad = [pair(p) for p in pair(shape.get("pad", 0))]
    want = convolve(x, t["w"], stride, pad, dilation, shape.get("groups", 1))
    acc, y = got["acc"], got["y"]
    if layout == "NHWC":
        acc, y = np.moveaxis(acc, 3, 1), np.moveaxis(y, 3, 1)
    assert np.array_equal(acc, want)
    assert np.array_equal(y, int8((want >> 2) + t["b"][:, None, None]))


def test_conv1d_with_everything() -> None:
    for layout in ("NCW", "NWC"):
        op = ops.conv1d(n=2, c=4, w=30, k=6, r=3, stride=2, pad=((3, 1),), dilation=3, groups=2,
                        layout=layout)  # fmt: skip
        t, got = run(op)
        x = t["x"] if layout == "NCW" else np.moveaxis(t["x"], 2, 1)
        acc = got["acc"] if layout == "NCW" else np.moveaxis(got["acc"], 2, 1)
        assert np.array_equal(acc, convolve(x, t["w"], (2,), [(3, 1)], (3,), 2))


def test_conv3d() -> None:
    op = ops.conv3d(n=1, c=2, d=5, h=6, w=7, k=3, t=2, r=3, s=3, pad=1, stride=(1, 2, 1))
    t, got = run(op)
    want = convolve(t["x"], t["w"], (1, 2, 1), [(1, 1)] * 3, (1, 1, 1), 1)
    assert np.array_equal(got["acc"], want)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_is_the_grouped_convolution(multiplier: int) -> None:
    shape = dict(n=1, c=5, h=7, w=6, r=3, s=3, stride=2, pad=1)
    t, got = run(ops.depthwise_conv2d(**shape, multiplier=multiplier))
    want = convolve(t["x"], t["w"][:, None], (2, 2), [(1, 1)] * 2, (1, 1), 5)
    assert np.array_equal(got["acc"], want)


def test_one_channel_per_group_has_the_depthwise_dataflow() -> None:
    grouped = ops.conv2d(n=1, c=5, h=7, w=6, k=5, r=3, s=3, groups=5)
    assert grouped.formula() == "y[n,g,p,q] += x[n,g,p+r,q+s] * w[g,0,r,s]"


# filter, stride, pad, output_pad: multiples of the stride and ragged ends
TRANSPOSED = [
    (4, 2, 1, 0), (3, 2, 1, 1), (3, 2, 1, 0), (2, 2, 0, 0), (5, 3, 2, 2), (1, 3, 0, 1),
    (3, 1, 1, 0), (2, 4, 1, 3), (7, 3, 5, 0), (3, 2, 0, 0), (2, 3, 2, 0),
]  # fmt: skip


@pytest.mark.parametrize(("size", "stride", "pad", "more"), TRANSPOSED)
def test_transposed_convolution_scatters(size: int, stride: int, pad: int, more: int) -> None:
    op = ops.conv_transpose2d(n=2, c=2, h=4, w=5, k=3, r=size, s=size, stride=stride, pad=pad,
                              output_pad=more, shift=3, bias=True)  # fmt: skip
    t, got = run(op)
    full = np.zeros((2, 3, 60, 60), np.int64)
    for i, j in product(range(4), range(5)):
        part = np.einsum("nc,ckrs->nkrs", t["x"][:, :, i, j], t["w"])
        at = (slice(stride * i, stride * i + size), slice(stride * j, stride * j + size))
        full[(slice(None), slice(None), *at)] += part
    rows, columns = (stride * (n - 1) + size - 2 * pad + more for n in (4, 5))
    want = full[:, :, pad : pad + rows, pad : pad + columns]
    assert got["acc"].shape == (2, 3, rows, columns)
    assert np.array_equal(got["acc"], want)
    assert np.array_equal(got["y"], int8((want >> 3) + t["b"][:, None, None]))
    assert op.notes["macs"] == 2 * 2 * 4 * 5 * 3 * size * size


def windows(x: Any, r: int, s: int, stride: int) -> Any:
    """[n, c, p, q, r, s] views of a channels-first array."""
    views = np.lib.stride_tricks.sliding_window_view(x, (r, s), axis=(2, 3))
    return views[:, :, ::stride, ::stride]


def test_max_pool() -> None:
    t, got = run(ops.max_pool2d(n=2, c=3, h=9, w=8, r=3, s=2, stride=2, pad=((1, 1), (0, 1))))
    x = np.pad(t["x"], [(0, 0), (0, 0), (1, 1), (0, 1)], constant_values=-128)
    assert np.array_equal(got["y"], windows(x, 3, 2, 2).max(axis=(4, 5)))
    op = ops.max_pool2d(n=1, c=2, h=6, w=6, r=2, s=2, layout="NHWC")
    t, got = run(op)
    want = windows(np.moveaxis(t["x"], 3, 1), 2, 2, 2).max(axis=(4, 5))
    assert np.array_equal(np.moveaxis(got["y"], 3, 1), want)


@pytest.mark.parametrize("m", [1, 21, 127, 128, 300, -128, -300, 0])
def test_average_pool(m: int) -> None:
    t, got = run(ops.avg_pool2d(n=1, c=3, h=8, w=8, r=3, s=3, stride=2, pad=1, m=m, shift=5))
    x = np.pad(t["x"], [(0, 0), (0, 0), (1, 1), (1, 1)])
    want = (windows(x, 3, 3, 2).sum(axis=(4, 5)) * m) >> 5
    assert np.array_equal(got["y"], int8(want))


def test_elementwise_program() -> None:
    steps = [("add", "z"), ("bias", "b"), ("mul", 3), ("shr", 2), ("min", "u"), ("clip", -90, 80)]
    t, got = run(ops.elementwise((4, 5, 6), [*steps, "relu", ("shl", 1)]))
    value = np.minimum(((t["x"] + t["z"] + t["b"]) * 3) >> 2, t["u"])
    assert np.array_equal(got["acc"], t["x"])
    assert np.array_equal(got["y"], int8(np.maximum(np.clip(value, -90, 80), 0) << 1))
