"""Factors of an epilogue tensor for the bias trick: see `ir.schedule.BiasTrick`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def factor(tensor: NDArray[np.int64], values: tuple[int, ...]) -> NDArray[np.int8]:
    """Factors [..., lanes] with sum(values * factors) == tensor.

    Raises: ValueError where an element is out of reach.
    """
    rest = np.asarray(tensor, dtype=np.int64)
    out = np.zeros((*rest.shape, len(values)), dtype=np.int64)
    if len(values) > 1:
        # Rounded to the nearest multiple: what is left fits the unit lane with either sign.
        step = values[0]
        units = np.floor_divide(rest + step // 2, step)
        rest = rest - units * step
        for i in range(len(values) - 1):
            # -128 is left out, so that both signs reach equally far.
            share = np.clip(units, -127, 127)
            out[..., i] = share
            units = units - share
        # What the last multiple could not carry stays with the unit lane.
        rest = rest + units * step
    out[..., -1] = rest
    # The last lane holds what is left; beyond 127 no choice of the others helps.
    if len(out) and (np.abs(out) > 127).any():
        raise ValueError("a value is out of reach of the factors")
    return out.astype(np.int8)
