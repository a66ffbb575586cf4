"""Rounds that are tried on all values, and maxima: see `rounds`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.judge.certify.epilogue import HIGH, LOW
from csp_embed.judge.certify.network.meaning import Meaning
from csp_embed.judge.certify.network.rules import Undecided
from csp_embed.judge.certify.network.statement import Layer, Steps, follow, steps_of

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Proof:
    """problem: why the rounds are wrong, or ""; said: what was shown."""

    problem: str
    said: str


def tried(layer: Layer, m: Meaning, reach: tuple[int, int]) -> Proof:
    """All stored values of one operand, or all pairs of two."""
    assert m.value is not None
    products = m.windows.shape[2]
    line = np.arange(reach[0], reach[1] + 1)
    values = tuple(v.reshape(-1) for v in np.meshgrid(*[line] * products, indexing="ij"))
    keys = np.concatenate(
        [*layer.weights, *(x[:, None] for x in (*layer.bias, *layer.shift) if x is not None)],
        axis=1,
    )
    # Channels with the same constants need the same proof, where their meaning is the same.
    if products > 1:
        _, kinds = np.unique(keys, axis=0, return_index=True)
    else:
        kinds = np.arange(m.channels)
    for c in kinds.tolist():
        machine = _Channel(layer, c, values)
        follow(layer, machine)
        found = machine.v
        wanted = m.value(np.full(1, c), values)
        bad = np.flatnonzero(found != wanted)
        if len(bad):
            at = [int(v[bad[0]]) for v in values]
            return Proof(
                f"{at} becomes {int(found[bad[0]])} in channel {c}, the operator makes"
                f" {int(wanted[bad[0]])} of it", "",
            )  # fmt: skip
    return Proof("", f"equal at all {len(values[0]):,} values, {m.channels} channels")


class _Channel:
    """What the machine does with stored values in one channel, step by step in int32: v."""

    def __init__(self, layer: Layer, c: int, values: tuple[Ints, ...]) -> None:
        self.layer, self.c, self.values = layer, c, values
        self.v = self.kept = np.zeros(len(values[0]), np.int64)

    def contract(self, n: int) -> None:
        row = self.layer.weights[n][self.c]
        self.v = self.v + sum(w * x for w, x in zip(row, self.values, strict=True))

    def run(self, steps: Steps, n: int) -> None:
        self.v = _stepped(self.layer, self.c, n, steps, self.v)

    def copy(self) -> None:
        self.kept = self.v

    def add_copy(self) -> None:
        self.v = _wrapped(self.kept + self.v)


def _stepped(layer: Layer, c: int, n: int, steps: Steps, v: Ints) -> Ints:
    for function, amount in steps:
        v = _wrapped(v)
        if function == "add":
            v = v + layer.bias[n][c]
        elif function == "shr":
            found = layer.shift[n]
            by = amount if isinstance(amount, int) else int(found[c]) if found is not None else -1
            if not -31 <= by <= 31 or (by < 0 and not isinstance(amount, int)):
                raise Undecided("shifts by channel that are not 0 to 31")
            v = v >> by if by >= 0 else v << -by
        else:
            limit = layer.lanes[function][n]
            if isinstance(amount, str):
                if limit is None:
                    raise Undecided("a limit by channel that no round has")
                amount = int(limit[c])
            v = np.maximum(v, amount) if function == "max" else np.minimum(v, amount)
    return _wrapped(v)


def _wrapped(v: Ints) -> Ints:
    return v.astype(np.int32).astype(np.int64)


def most(layer: Layer, m: Meaning, reach: tuple[int, int]) -> Proof:
    """The accumulators hold a maximum of linear forms; in the end of each element under the
    window."""
    if layer.copies or any(b.any() for b in layer.bias) or any(s is not None for s in layer.shift):
        raise Undecided("a maximum with constants")
    # A border that could be the largest value would be taken for an element.
    if m.border is not None and m.border > reach[0]:
        return Proof(f"its border holds {m.border}, which may win: values begin at {reach[0]}", "")
    products = m.windows.shape[2]
    _, kinds = np.unique(np.concatenate(layer.weights, axis=1), axis=0, return_index=True)
    for c in kinds.tolist():
        forms = {(0,) * products}
        largest = 0
        for n, steps in steps_of(layer):
            w = layer.weights[n][c]
            forms = {tuple(int(x) for x in np.add(f, w)) for f in forms}
            for function, amount in steps:
                largest = max(largest, *(sum(map(abs, f)) for f in forms))
                if function == "max" and amount == 0 and n < len(layer.between):
                    forms.add((0,) * products)
                elif n < len(layer.between) and function != "add":
                    raise Undecided(f"a maximum between whose rounds stands {function} {amount}")
        # Over integers a maximum of forms is one; wrapped around it is not.
        if largest * 128 > HIGH:
            raise Undecided("a maximum of forms that may leave int32")
        # Sets, since a maximum does not know how often or in which order.
        wanted = {tuple(int(k == j) for k in range(products)) for j in range(products)}
        if forms != wanted:
            return Proof(f"channel {c} is no maximum of the {products} values of its window", "")
    clips = [s for s in layer.after if s[0] != "add"]
    low, high = LOW, HIGH
    for function, amount in clips:
        if function not in ("max", "min") or not isinstance(amount, int):
            raise Undecided(f"a maximum after which stands {function} {amount}")
        low, high = (
            (max(low, amount), max(high, amount))
            if function == "max"
            else (min(low, amount), min(high, amount))
        )
    # Clips that the range of values makes idle may differ.
    given = max(low, reach[0]), min(high, reach[1])
    if given != (max(m.clamp[0], reach[0]), min(m.clamp[1], reach[1])):
        return Proof(f"it is clipped to {low} .. {high}, the operator clamps to {m.clamp}", "")
    return Proof("", f"the maximum of all {products} values of each window, {m.channels} channels")
