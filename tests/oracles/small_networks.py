"""Two networks of both profiles, small enough to be changed and judged many times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import csp_embed as ce
from csp_embed.ir.stream import Program
from tests.unit.quantised.one_operator import Model
from tests.unit.quantised.shift_layers import Net


def small_networks(folder: Path) -> Iterator[tuple[str, list[Program]]]:
    """(name, programs): shifts, signs, digits and a mean; then parity, a residual addition, a
    maximum, a concatenation by address, a table."""
    net = Net.begin(1, (1, 8, 6, 5)).conv(16, 3, [7, 8], stride=2)
    net = net.conv(16, 3, 6, depthwise=True).conv(20, 1, [7, 6], relu=False, zero=-9)
    (folder / "small.tflite").write_bytes(net.pool().dense(4, 9).content())
    residual(folder / "residual.onnx")
    for file in ("small.tflite", "residual.onnx"):
        yield Path(file).stem, ce.build(folder / file).programs()


def residual(path: Path) -> None:
    """QDQ, uint8: a convolution added to the one before, the largest of windows, side by side with
    a table of them."""
    m, rng = Model(), np.random.default_rng(2)

    def again(name: str, scale: float, zero: int) -> str:
        return m.real(m.quantise(name, scale, zero, "uint8"), scale, zero, "uint8")

    def conv(x: str, channels: int, scale: float, y: str) -> str:
        weights = rng.integers(-90, 91, (16, channels, 3, 3)).astype(np.int8)
        bias = rng.integers(-2000, 2001, 16).astype(np.int32)
        w = m.real(m.constant(weights), rng.uniform(0.002, 0.004, 16), [0] * 16, axis=0)
        b = m.real(m.constant(bias), 0.003 * scale, 0, "int32")
        return again(m.node("Relu", [m.node("Conv", [x, w, b], y, pads=[1] * 4)], f"{y}r"), 0.03, 0)

    x = m.real(m.input("x", "uint8", (1, 3, 6, 6)), 0.021, 119, "uint8")
    first = conv(x, 3, 0.021, "a")
    total = again(m.node("Add", [conv(first, 16, 0.03, "b"), first], "s"), 0.0457, 3)
    most = again(m.node("MaxPool", [total], "p", kernel_shape=[2, 2], strides=[2, 2]), 0.0457, 3)
    other = again(m.node("Mul", [most, m.constant(np.float32(0.7331))], "t"), 0.0457, 3)
    joined = m.node("Concat", [most, other], "c", axis=1)
    m.save(path, m.quantise(joined, 0.0457, 3, "uint8"), "uint8")
