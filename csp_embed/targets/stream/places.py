"""Where each index of a tensor's axes lies, for layouts whose digits are no mixed radix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def offsets(place: NDArray[np.int64]) -> tuple[int, list[list[int]]] | None:
    """(place of index 0, per axis what each index adds), or None where axes do not add up.

    place: of every element of the tensor. Where an axis' parts leave a remainder (7 rows in 3
    phases, two of them in the lanes of one element) no digit of the index says where it lies, but
    one number for each index does.
    """
    # The element of all zeros is the base of every axis.
    base = int(place[(0,) * place.ndim])
    out = []
    total: NDArray[np.int64] = np.full((1,) * place.ndim, base, np.int64)
    for axis in range(place.ndim):
        # Along each axis with the others at 0; the sum must then hold everywhere.
        line = place[tuple(slice(None) if a == axis else 0 for a in range(place.ndim))] - base
        out.append([int(v) for v in line])
        total = total + line.reshape([-1 if a == axis else 1 for a in range(place.ndim)])
    return (base, out) if np.array_equal(total, place) else None
