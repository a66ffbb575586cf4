"""Does a layer's sequence of rounds compute its operator, whatever the input?

The stream is compared with the stated rounds elsewhere (`sums`); here the rounds are compared with
what the operator means, over integers, channel by channel. Three proofs:

    sum     Between two steps that are no shift to the right, what rounds and shifts leave is
            floor((c + L) / 2^t) of one linear form L with known coefficients (rounding down after
            each shift is rounding down once). L has to be m * sum + o, with the operator's sum.
            So all is a function of that sum, and its whole range is halved until on each part
            both that function and the operator's rule have one value, by intervals.
    values  All stored values, or all pairs of them, are tried.
    most    A maximum of linear forms: the set of forms has to be the window's elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.judge.certify.epilogue import HIGH, LOW
from csp_embed.judge.certify.network.meaning import Meaning, sum_ends
from csp_embed.judge.certify.network.rules import Undecided
from csp_embed.judge.certify.network.statement import Layer, Steps, follow
from csp_embed.judge.certify.network.trials import Proof, most, tried

Ints = NDArray[np.int64]
PARTS = 1 << 26  # of ranges that are looked at before a proof is given up


def proof(layer: Layer, m: Meaning, reach: tuple[int, int]) -> Proof:
    """reach: of the stored values that the layer reads, borders included.

    Raises: Undecided where this judge has no argument.
    """
    if layer.weights[0].shape != (m.channels, m.windows.shape[2]):
        raise Undecided("its rounds have another number of channels or products")
    if m.kind == "most":
        return most(layer, m, reach)
    return tried(layer, m, reach) if m.kind == "values" else _by_sums(layer, m, reach)


@dataclass(frozen=True, eq=False)
class _Op:
    """kind: linear: floor((v + factor * sum + offset) / 2^shift); shl, max, min by `shift`; save
    and restore: v is kept, and added later."""

    kind: str
    shift: Ints
    factor: Ints | None = None
    offset: Ints | None = None


class _Builder:
    """Turns rounds into a function of the operator's sum. low, high: bounds of what accumulators
    hold, by channel: nothing may leave int32 where a step is no addition."""

    def __init__(self, layer: Layer, m: Meaning, reach: tuple[int, int]) -> None:
        assert m.weights is not None
        assert m.bias is not None
        self.layer, self.m, self.reach = layer, m, reach
        self.weights, self.bias = m.weights, m.bias
        self.ops: list[_Op] = []
        zero = np.zeros(m.channels, np.int64)
        self.low, self.high, self.shift, self.offset = zero, zero, zero, zero
        # Coefficients of the linear form since the last step that was no shift to the right.
        self.rows = np.zeros_like(m.weights)
        self.scale = np.abs(m.weights).max(axis=1, initial=0)
        self.saved = (zero, zero)

    def contract(self, n: int) -> None:
        self._settled()
        w = self.layer.weights[n]
        least, largest = sum_ends(w, self.reach)
        self.low, self.high = self.low + least, self.high + largest
        # Summed behind a shift by t, a product counts 2^t times in the form before it.
        self.rows = self.rows + (w << self.shift[:, None])

    def run(self, steps: Steps, n: int) -> None:
        for function, amount in steps:
            if function == "add":
                self._settled()
                b = self.layer.bias[n]
                self.low, self.high = self.low + b, self.high + b
                self.offset = self.offset + (b << self.shift)
                continue
            # Additions wrap around harmlessly as long as the sum is back in range
            # before another step.
            self._inside()
            if function == "shr":
                self._shift(self._amounts(amount, n))
                continue
            self.resolve()
            own = self.layer.lanes[function][n]
            limit = np.full(self.m.channels, amount) if isinstance(amount, int) else own
            if limit is None:
                raise Undecided("a limit by channel that no round has")
            self.ops.append(_Op(function, limit))
            # A clip bounds what later rounds can reach.
            clip = np.maximum if function == "max" else np.minimum
            self.low, self.high = clip(self.low, limit), clip(self.high, limit)

    def _amounts(self, amount: int | str, n: int) -> Ints:
        found = self.layer.shift[n]
        if isinstance(amount, int):
            return np.full(self.m.channels, amount)
        if found is None or (found < 0).any() or (found > 31).any():
            raise Undecided("shifts by channel that are not 0 to 31")
        return found

    def _shift(self, by: Ints) -> None:
        if (by >= 0).all():
            if (by > 31).any() or (self.shift + by > 62).any():
                raise Undecided("shifts of more bits than this judge counts with")
            self.shift = self.shift + by
            self.low, self.high = self.low >> by, self.high >> by
            return
        self.resolve()
        self.ops.append(_Op("shl", -by))
        low, high = self.low << -by, self.high << -by
        # What wraps around may be anything: the interval proof looks at it page by page.
        wraps = (low < LOW) | (high > HIGH)
        # Of a shift by 31 one bit is left, which is the sign.
        most = np.where(by == -31, 0, HIGH)
        self.low, self.high = np.where(wraps, LOW, low), np.where(wraps, most, high)

    def _settled(self) -> None:
        """Before something is added: a shift of what was not summed stands by itself, and sums are
        counted in no more bits than numbers have."""
        if not (self.rows.any() or self.offset.any()):
            self.resolve()
        if (self.shift > 40).any():
            raise Undecided("shifts of more bits than this judge counts with")

    def resolve(self) -> None:
        """What was summed and shifted since the last step that was neither, as one step."""
        if not (self.rows.any() or self.offset.any() or self.shift.any()):
            return
        factor = self._factor()
        # The operator's sum has its bias inside, the form has not.
        offset = self.offset - factor * self.bias
        self.ops.append(_Op("linear", self.shift, factor, offset))
        zero = np.zeros(self.m.channels, np.int64)
        self.rows, self.offset, self.shift = np.zeros_like(self.rows), zero, zero

    def _factor(self) -> Ints:
        """m with rows = m * weights, by channel; one that is not there is wrong sums, or a form
        that this judge does not know."""
        # The largest weight of a channel: it is 0 only where all are.
        most = np.abs(self.weights).argmax(axis=1)[:, None]
        one = np.take_along_axis(self.weights, most, axis=1)[:, 0]
        mine = np.take_along_axis(self.rows, most, axis=1)[:, 0]
        factor = np.where(one == 0, 0, mine // np.where(one == 0, 1, one))
        bad = np.flatnonzero((self.rows != factor[:, None] * self.weights).any(axis=1))
        if len(bad):
            raise _Wrong(
                f"the rounds of channel {int(bad[0])} sum other products than the operator,"
                f" {len(bad)} of {len(factor)} channels do"
            )
        return factor

    def _inside(self) -> None:
        bad = np.flatnonzero((self.low < LOW) | (self.high > HIGH))
        if len(bad):
            raise Undecided(f"sums of channel {int(bad[0])} that may leave int32 before a step")

    def finish(self) -> None:
        """The end: what is stored."""
        self._inside()
        self.resolve()

    def copy(self) -> None:
        self._inside()
        self.resolve()
        self.saved = self.low, self.high
        self.ops.append(_Op("save", np.zeros(1, np.int64)))

    def add_copy(self) -> None:
        self._inside()
        self.resolve()
        self.low, self.high = self.low + self.saved[0], self.high + self.saved[1]
        self.ops.append(_Op("restore", np.zeros(1, np.int64)))


class _Wrong(Exception):
    """The rounds are not the operator's."""


def _by_sums(layer: Layer, m: Meaning, reach: tuple[int, int]) -> Proof:
    b = _Builder(layer, m, reach)
    try:
        follow(layer, b)
        b.finish()
    except _Wrong as error:
        return Proof(str(error), "")
    # Over everything that the inputs can be, not over what a data set showed.
    least, largest = sum_ends(b.weights, reach)
    low, high = b.bias + least, b.bias + largest
    if (low < LOW).any() or (high > HIGH).any():
        raise Undecided("sums of the operator itself that leave int32")
    most = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    for op in b.ops:
        if op.factor is not None and (np.abs(op.factor) * most + np.abs(op.offset) > 2.0**61).any():  # type: ignore[arg-type]
            raise Undecided("factors of more bits than this judge counts with")
    return _halved(b.ops, m, low, high)


def _halved(ops: list[_Op], m: Meaning, low: Ints, high: Ints) -> Proof:
    """Halves the ranges of sums until each has one value on both sides, or differs."""
    assert m.rule is not None
    channel, a, z = np.arange(m.channels), low, high
    parts = 0
    while len(channel):
        parts += len(channel)
        if parts > PARTS:
            raise Undecided("a function of sums that is not settled by intervals")
        least, most = _interval(ops, channel, a, z)
        # The rule never falls, so that its values at both ends bound it between them.
        first, last = (np.clip(m.rule(channel, x), *m.clamp) for x in (a, z))
        if (first > last).any():
            raise Undecided("a rule that falls")
        same = (least == most) & (first == last)
        # A single sum is exact on both sides: there a difference is a counterexample.
        wrong = np.flatnonzero((a == z) & ((least != first) | (least != most)))
        wrong = wrong if len(wrong) else np.flatnonzero(same & (least != first))
        if len(wrong):
            k = int(wrong[0])
            return Proof(
                f"a sum of {int(a[k])} in channel {int(channel[k])} becomes {int(least[k])}, the"
                f" operator makes {int(first[k])} of it", "",
            )  # fmt: skip
        # Where both sides are constant and equal the part is settled.
        channel, a, z = channel[~same], a[~same], z[~same]
        middle = (a + z) >> 1
        channel = np.concatenate([channel, channel])
        a, z = np.concatenate([a, middle + 1]), np.concatenate([middle, z])
    said = f"equal at every sum of {m.channels} channels, by {parts:,} intervals"
    return Proof("", said)


def _interval(ops: list[_Op], channel: Ints, a: Ints, z: Ints) -> tuple[Ints, Ints]:
    """Bounds of what the steps make of sums from a to z; exact where a = z."""
    low, high = np.zeros_like(a), np.zeros_like(a)
    saved = low, high
    for op in ops:
        by = op.shift[channel] if len(op.shift) > 1 else op.shift[0]
        if op.kind == "linear":
            assert op.factor is not None
            assert op.offset is not None
            factor, offset = op.factor[channel], op.offset[channel]
            # A negative factor turns the interval round.
            p, q = factor * a, factor * z
            low = (low + np.minimum(p, q) + offset) >> by
            high = (high + np.maximum(p, q) + offset) >> by
        elif op.kind == "shl":
            low, high = _shifted_left(low, high, by)
        elif op.kind == "save":
            saved = low, high
        elif op.kind == "restore":
            low, high = low + saved[0], high + saved[1]
        else:
            clip = np.maximum if op.kind == "max" else np.minimum
            low, high = clip(low, by), clip(high, by)
    return low, high


def _shifted_left(low: Ints, high: Ints, by: Ints) -> tuple[Ints, Ints]:
    """As int32 does, which wraps around: as an interval where both ends wrap as often."""
    first, last = low << by, high << by
    page, other = (first - LOW) >> 32, (last - LOW) >> 32
    whole = page == other
    most = np.where(by == 31, 0, HIGH)
    return (
        np.where(whole, first - (page << 32), LOW), np.where(whole, last - (other << 32), most)
    )  # fmt: skip
