"""Small quantised layers whose multipliers are shifts, as graphs and as TFLite files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.oracles.tflite_writer import Written


@dataclass
class Net:
    """A TFLite file that grows layer by layer; `at` is the last tensor and its shape."""

    rng: Any
    file: Written
    at: int
    shape: tuple[int, ...]
    scale: float
    zero: int

    @classmethod
    def begin(cls, seed: int, shape: tuple[int, ...], zero: int = -7) -> Net:
        file = Written()
        x = file.tensor("x", shape, scales=0.5, zeros=zero)
        return cls(np.random.default_rng(seed), file, x, shape, 0.5, zero)

    @property
    def first(self) -> int:
        return 0

    def _out(self, shape: tuple[int, ...], zero: int, scale: float) -> int:
        name = f"y{len(self.file.tensors)}"
        self.shape, self.scale, self.zero = shape, scale, zero
        return self.file.tensor(name, shape, scales=scale, zeros=zero)

    def _constants(self, w: Any, channels: int, axis: int, amounts: Any, scale: float) -> list[int]:
        """Weights whose scale makes each multiplier 2^-n, and a bias of the sums' size."""
        scales = scale / self.scale * 2.0 ** -np.asarray(amounts, float)
        reach = int(np.abs(w.astype(int)).sum() // channels * 20)
        bias = self.rng.integers(-reach, reach + 1, channels).astype(np.int32)
        zeros = np.zeros(channels)
        count = len(self.file.tensors)
        return [
            self.file.constant(f"w{count}", w, scales, zeros, axis),
            self.file.constant(f"b{count}", bias, self.scale * scales, zeros),
        ]

    def conv(
        self, k: int, r: int, amounts: Any, *, stride: int = 1, relu: bool = True, zero: int = -128,
        depthwise: bool = False, dead: int = 0,
    ) -> Net:  # fmt: skip
        """dead: so many channels have no weights at all."""
        c = self.shape[3]
        shape = (1, r, r, c) if depthwise else (k, r, r, c)
        w = self.rng.integers(-127, 128, shape).astype(np.int8)
        channel = 3 if depthwise else 0
        np.moveaxis(w, channel, 0)[:dead] = 0
        x, before = self.at, self.shape
        amounts = np.resize(amounts, k)
        constants = self._constants(w, k, channel, amounts, 0.25)
        size = [-(-n // stride) for n in before[1:3]]
        y = self._out((before[0], *size, k), zero, 0.25)
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        fields = {"Padding": 0, "StrideH": stride, "StrideW": stride, "DilationHFactor": 1}
        fields |= {"DilationWFactor": 1, "FusedActivationFunction": int(relu)}
        fields |= {"DepthMultiplier": 1} if depthwise else {}
        table = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
        self.file.operator(kind, [x, *constants], y, table, **fields)
        self.at = y
        return self

    def dense(
        self, k: int, amount: int, *, relu: bool = False, zero: int = 11, largest: int = 127
    ) -> Net:
        c = int(np.prod(self.shape[1:]))
        w = self.rng.integers(-largest, largest + 1, (k, c)).astype(np.int8)
        x, before = self.at, self.shape
        constants = self._constants(w, k, 0, [amount] * k, 1.0)
        y = self._out((before[0], k), zero, 1.0)
        fields = {"FusedActivationFunction": int(relu)}
        self.file.operator("FULLY_CONNECTED", [x, *constants], y, "FullyConnectedOptions", **fields)
        self.at = y
        return self

    def pool(self) -> Net:
        x, (n, h, w, c) = self.at, self.shape
        y = self._out((n, 1, 1, c), self.zero, self.scale)
        fields = {"FilterHeight": h, "FilterWidth": w, "StrideH": 1, "StrideW": 1, "Padding": 1}
        self.file.operator("AVERAGE_POOL_2D", [x], y, "Pool2DOptions", **fields)
        self.at = y
        return self

    def content(self) -> bytes:
        return self.file.content([self.first], [self.at])
