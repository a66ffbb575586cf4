"""Which power of two a layer's multiplier becomes when its weights are requantised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def shift_of(
    row: Array, bias: float, unit: float, input_scale: float, most: tuple[int, int]
) -> int:
    """n: the weights `row` (real numbers of one channel) get the scale unit * 2^-n, and with it the
    multiplier 2^-n. unit: scale of the result over that of the input. most: the largest n, and the
    largest stored bias; a bias that would be larger takes a coarser scale.

    Of the two around the scale that just holds the largest weight the one with the smaller error.
    """
    largest = float(np.abs(row).max(initial=0.0))
    if largest == 0:
        n = 0 if bias == 0 else most[0] // 2
    else:
        wide = int(np.floor(np.log2(unit * 127 / largest)))
        n = min((wide, wide + 1), key=lambda k: _error(row, unit * 2.0**-k))
    n = max(0, min(n, most[0]))
    while n > 0 and abs(bias) / (unit * 2.0**-n * input_scale) > most[1]:
        n -= 1
    return n


def _error(row: Array, scale: float) -> float:
    return float(((np.clip(np.rint(row / scale), -127, 127) * scale - row) ** 2).sum())
