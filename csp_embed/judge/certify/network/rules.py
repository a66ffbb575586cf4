"""What becomes of sums: the rounding rules of docs/networks.md, on int64 arrays.

Written from their statement for the judge alone; neither the reference interpreter nor the search
for recipes is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Rule = Callable[[Ints, Ints], Ints]
"""(channels int64[n], sums int64[n]) -> stored values before the clamp; never falls with a sum."""


class Undecided(Exception):
    """This judge has no proof for a form; the text says for which."""


def rescale(document: Mapping[str, Any], zero: int) -> Rule:
    """A multiplication by one number, or one per channel, then the zero point.

    Raises: Undecided for a rule that is not known or falls.
    """
    if document["rule"] == "FixedPoint":
        m, s = (np.array(document[k], np.int64).reshape(-1) for k in ("multiplier", "shift"))
        if (m < 0).any() or (m >= 1 << 31).any():
            raise Undecided("a multiplier that is no Q31 number")

        def twice(channel: Ints, acc: Ints) -> Ints:
            return _double_rounding(acc, _of(m, channel), _of(s, channel)) + zero

        return twice
    if document["rule"] == "FloatScale":
        factor = np.array(document["scale"], np.float32).reshape(-1)
        return float_rule(factor, zero)
    raise Undecided(f"the rule {document['rule']}")


def float_rule(factor: NDArray[np.float32], zero: int) -> Rule:
    """float32(sum) * factor, rounded once and then to even."""
    if not (factor >= 0).all():
        raise Undecided("a negative scale")

    def even(channel: Ints, acc: Ints) -> Ints:
        # float32 of the sum comes first: it rounds sums beyond 2^24, as the runtime does.
        product = acc.astype(np.float32) * _of(factor, channel)
        # Far beyond int8 all that counts is on which side.
        return np.clip(np.rint(product.astype(np.float64)), -(2.0**40), 2.0**40).astype(
            np.int64
        ) + zero  # fmt: skip

    return even


def mean_of_stored(count: int) -> Rule:
    """sum / count, halves away from zero."""

    def mean(channel: Ints, total: Ints) -> Ints:
        size = (2 * np.abs(total) + count) // (2 * count)
        return np.where(total < 0, -size, size)

    return mean


def _of(values: Any, channel: Ints) -> Any:
    """One number for all channels, or one each."""
    return values[0] if len(values) == 1 else values[channel]


def _double_rounding(acc: Ints, multiplier: Any, shift: Any) -> Ints:
    left, right = np.maximum(shift, 0), np.maximum(-np.asarray(shift), 0)
    wide = acc << left
    # The runtime's own arithmetic would wrap around; its result is no rule that one could state.
    if (np.abs(wide) >= 1 << 31).any():
        raise Undecided("a sum that leaves int32 before it is multiplied")
    # To 2^-31 with halves up: (a m + 2^30) / 2^31, rounded down.
    high = (wide * multiplier + (1 << 30)) >> 31
    mask = (np.int64(1) << right) - 1
    # What is cut off is more than half of a unit, or half of it and the number is not negative.
    up = (high & mask) > (mask >> 1) + (high < 0)
    return (high >> right) + up


def added(document: Mapping[str, Any], zeros: tuple[int, int, int], a: Ints, b: Ints) -> Ints:
    """The sum of two stored values, before the clamp. zeros: of a, b and y."""
    if document["rule"] == "AddFixed":
        parts: list[Ints] = []
        for x, zero, key in ((a, zeros[0], "first"), (b, zeros[1], "second")):
            m, s = (int(document[key][k][0]) for k in ("multiplier", "shift"))
            # Both operands are raised by `left` bits first, so that the first
            # rounding loses little.
            parts.append(_double_rounding((x - zero) << int(document["left"]), m, s))
        m, s = (int(document["result"][k][0]) for k in ("multiplier", "shift"))
        return _double_rounding(parts[0] + int(document["sign"]) * parts[1], m, s) + zeros[2]
    if document["rule"] != "AddFloat":
        raise Undecided(f"the rule {document['rule']}")
    first, second, offset = (_exact(document[k]) for k in ("first", "second", "offset"))
    raw = [int(v) for v in document["raw"]]
    # Exact fractions, rounded where float32 rounds: after each fused multiply-add.
    inner = {int(v): _float32(_times(second, int(v) + raw[1]), offset) for v in np.unique(b)}
    whole: dict[tuple[int, int], int] = {}
    pairs = np.unique(np.stack([a.reshape(-1), b.reshape(-1)]), axis=1)
    for p, q in pairs.T.tolist():
        total = _float32(_times(first, p + raw[0]), inner[q])
        whole[p, q] = _to_even(total) - raw[2]
    flat = [
        whole[pair] for pair in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True)
    ]
    return np.array(flat, np.int64).reshape(a.shape)


Binary = tuple[int, int]
"""(m, e): m * 2^e, exactly."""


def _exact(value: float) -> Binary:
    """A float32 number."""
    top, bottom = float(np.float32(value)).as_integer_ratio()
    return top, 1 - bottom.bit_length()


def _times(a: Binary, by: int) -> Binary:
    return a[0] * by, a[1]


def _float32(a: Binary, b: Binary) -> Binary:
    """a + b rounded to 24 bits, halves to even; exponents of float32's ends do not occur."""
    low = min(a[1], b[1])
    total = (a[0] << (a[1] - low)) + (b[0] << (b[1] - low))
    extra = max(0, abs(total).bit_length() - 24)
    return _to_even((total, -extra)), low + extra


def _to_even(a: Binary) -> int:
    """The nearest integer, halves to even."""
    m, e = a
    if e >= 0:
        return m << e
    down, half = m >> -e, 1 << (-e - 1)
    rest = m - (down << -e)
    return down + (rest > half or (rest == half and down % 2 == 1))
