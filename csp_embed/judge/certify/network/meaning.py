"""What each layer has to compute: which elements each result depends on, and how.

Takes: an operator of the stated graph.  Leaves: a `Meaning`: windows of element numbers, and one of
    sum     clamp(rule(bias + sum of weights * x)): convolutions, dense layers, means
    values  a function of each stored value, or of each pair of them
    most    the largest value of a window
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.judge.certify.network import rules
from csp_embed.judge.certify.network.elements import Elements, constant
from csp_embed.judge.certify.network.rules import Rule, Undecided
from csp_embed.judge.certify.network.statement import Layer, Operator, Statement, Tensor

Ints = NDArray[np.int64]
Value = Callable[[Ints, tuple[Ints, ...]], Ints]
"""(channels, stored values of each operand) -> stored results, clamped."""


@dataclass(frozen=True, eq=False)
class Meaning:
    """windows: [groups, pixels, products] element numbers. out: [groups, pixels, channels of a
    group] flat index into y; channels count group by group. weights, bias: of the sums of stored
    values, [channels, products] and [channels]. border: constants under windows that may not win
    ("most")."""

    kind: str
    windows: Ints
    out: Ints
    clamp: tuple[int, int]
    weights: Ints | None = None
    bias: Ints | None = None
    rule: Rule | None = None
    value: Value | None = None
    border: int | None = None

    @property
    def channels(self) -> int:
        return self.out.shape[0] * self.out.shape[2]

    def by_element(self, channel_values: Ints) -> Ints:
        """One number per channel, at every element of y, flat."""
        groups, _, each = self.out.shape
        flat = np.empty(self.out.size, channel_values.dtype)
        flat[self.out] = channel_values.reshape(groups, 1, each)
        return flat


def meaning(s: Statement, e: Elements, layer: Layer, op: Operator) -> Meaning:
    """Raises: Undecided for an operator that this judge has no form for."""
    make = KINDS.get(op.kind)
    if make is None:
        raise Undecided(f"{op.kind} has no form in this judge")
    missing = [n for n in op.inputs if n and s.tensors[n].data is None and n not in e.ids]
    if missing:
        raise Undecided(f"{missing[0]} is made by nothing that the file states")
    found = make(s, e, layer, op)
    # Each result once: two windows for one result, or none, would leave bytes unproved.
    if sorted(found.out.reshape(-1).tolist()) != list(range(s.tensors[op.output].elements)):
        raise Undecided("its windows are not as many as its results")
    return found


def _clamp(op: Operator) -> tuple[int, int]:
    low, high = (int(v) for v in op.values["clamp"])
    if not -128 <= low <= high <= 127:
        raise Undecided(f"a clamp to {low} .. {high}")
    return low, high


def _last(array: Ints, axis: int) -> Ints:
    return np.moveaxis(array, axis, -1)


def _channels_last(array: Ints, op: Operator) -> Ints:
    return _last(array, 1) if op.values.get("layout") == "NCHW" else array


def _windows(ids: Ints, op: Operator, size: tuple[int, int], border: int) -> Ints:
    """[n, p, q, r, s, c] under a window that moves over rows and columns, borders included."""
    (top, bottom), (left, right) = ((int(a), int(b)) for a, b in op.values["pads"])
    # Numbers are padded, not values: a border is an element with a known constant.
    x = np.pad(ids, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=border)
    at: list[Ints] = []
    for d in range(2):
        extent = int(x.shape[1 + d])
        step = int(op.values["stride"][d])
        apart = int(op.values.get("dilation", (1, 1))[d])
        count = (extent - apart * (size[d] - 1) - 1) // step + 1
        at.append(np.arange(count)[:, None] * step + np.arange(size[d])[None, :] * apart)
    rows, columns = at
    found = x[:, rows[:, :, None, None], columns[None, None, :, :], :]
    return found.transpose(0, 1, 3, 2, 4, 5)


def _of_groups(values: Ints, groups: int) -> Ints:
    """[n, p, q, r, s, c] -> [groups, pixels, r s c / groups]."""
    n, p, q, r, s, c = values.shape
    split = values.reshape(n * p * q, r * s, groups, c // groups)
    return split.transpose(2, 0, 1, 3).reshape(groups, n * p * q, -1)


def _numbers(t: Tensor) -> Ints:
    return np.arange(t.elements).reshape(t.shape)


def _sum(
    s: Statement, op: Operator, windows: Ints, out: Ints, weights: Ints, bias: Ints, zero: int
) -> Meaning:
    """As a sum of stored values: the zero point of x goes into the bias."""
    y = s.tensors[op.output]
    return Meaning(
        "sum", windows, out, _clamp(op), weights, bias - zero * weights.sum(axis=1),
        rules.rescale(op.values["rescale"], y.zero_point),
    )  # fmt: skip


def _conv(s: Statement, e: Elements, layer: Layer, op: Operator) -> Meaning:
    x, w, y = (s.tensors[n] for n in (op.inputs[0], op.inputs[1], op.output))
    flat, bias = _constants(s, op, w)
    k, r, columns, per = w.shape
    groups = int(op.values["groups"])
    # Joined groups have factors of 0 for what belongs to others.
    wide = layer.weights[0].shape[1] // (r * columns)
    count = wide // per if per else 0
    if wide % max(per, 1) or count < 1 or groups % count or k % groups:
        raise Undecided("its rounds have another number of products")
    each = k // groups
    # Groups that the program joined are compared in the joined form, zeros included.
    data = np.zeros((k, r, columns, wide), np.int64)
    for g in range(groups):
        at = g % count * per
        data[g * each : (g + 1) * each, ..., at : at + per] = flat.reshape(k, r, columns, per)[
            g * each : (g + 1) * each
        ]
    groups //= count
    ids = _channels_last(e.ids[op.inputs[0]], op)
    windows = _of_groups(_windows(ids, op, (r, columns), constant(x.zero_point)), groups)
    out = _channels_last(_numbers(y), op).reshape(-1, groups, k // groups).transpose(1, 0, 2)
    return _sum(s, op, windows, out, data.reshape(k, -1), bias, x.zero_point)


def _constants(s: Statement, op: Operator, w: Tensor) -> tuple[Ints, Ints]:
    """Weights without their zero point, [channels, products], and the bias."""
    if w.data is None:
        raise Undecided("its weights are no constants")
    zero = np.array(w.zero or (0,), np.int64).reshape(-1, 1)
    # Over integers of any size: a zero point of int8 may carry a weight beyond int8.
    flat = w.data.reshape(w.shape[0], -1).astype(np.int64) - zero
    held = s.tensors[op.inputs[2]].data if len(op.inputs) > 2 and op.inputs[2] else None
    bias: Ints = np.zeros(len(flat), np.int64)
    if held is not None:
        bias = bias + held.reshape(-1)
    return flat, bias


def _dense(s: Statement, e: Elements, layer: Layer, op: Operator) -> Meaning:
    x, w, y = (s.tensors[n] for n in (op.inputs[0], op.inputs[1], op.output))
    flat, bias = _constants(s, op, w)
    windows = e.ids[op.inputs[0]].reshape(1, -1, w.shape[1])
    out = _numbers(y).reshape(1, -1, w.shape[0])
    return _sum(s, op, windows, out, flat, bias, x.zero_point)


def _mean(s: Statement, e: Elements, layer: Layer, op: Operator) -> Meaning:
    x, y = s.tensors[op.inputs[0]], s.tensors[op.output]
    rank = len(x.shape)
    axes = sorted(int(a) % rank for a in op.values["axes"])
    if rank != 4 or axes != [1, 2]:
        raise Undecided("a mean over other axes than rows and columns")
    n, h, w, c = x.shape
    # A mean is a sum with weights of 1; each channel is a group of its own.
    windows = e.ids[op.inputs[0]].transpose(3, 0, 1, 2).reshape(c, n, h * w)
    out = _numbers(y).reshape(n, c).T.reshape(c, n, 1)
    ones, none = np.ones((c, h * w), np.int64), np.zeros(c, np.int64)
    return _sum(s, op, windows, out, ones, none, x.zero_point)


def _average(s: Statement, e: Elements, layer: Layer, op: Operator) -> Meaning:
    x, y = s.tensors[op.inputs[0]], s.tensors[op.output]
    size = int(op.values["window"][0]), int(op.values["window"][1])
    scales = op.values["scales"]
    # There the rule divides by another number from place to place.
    if any(any(side) for side in op.values["pads"]) and not op.values["count_pads"]:
        raise Undecided("windows at the border that have other counts")
    ids = _channels_last(e.ids[op.inputs[0]], op)
    c = ids.shape[3]
    zero = 0 if scales is None else x.zero_point
    windows = _of_groups(_windows(ids, op, size, constant(x.zero_point)), c)
    out = _channels_last(_numbers(y), op).reshape(-1, c, 1).transpose(1, 0, 2)
    count = size[0] * size[1]
    if scales is None:
        rule = rules.mean_of_stored(count)
    else:
        before, after = (np.float32(v) for v in scales)
        # In the order in which the runtime rounds: another order has other halves.
        factor = np.float32(before / np.float32(after * np.float32(count)))
        rule = rules.float_rule(np.array([factor], np.float32), y.zero_point)
    ones = np.ones((c, count), np.int64)
    bias = np.zeros(c, np.int64) - zero * count
    return Meaning("sum", windows, out, _clamp(op), ones, bias, rule)


def _most(s: Statement, e: Elements, layer: Layer, op: Operator) -> Meaning:
    y = s.tensors[op.output]
    size = int(op.values["window"][0]), int(op.values["window"][1])
    ids = _channels_last(e.ids[op.inputs[0]], op)
    c = ids.shape[3]
    windows = _of_groups(_windows(ids, op, size, constant(layer.fill)), c)
    out = _channels_last(_numbers(y), op).reshape(-1, c, 1).transpose(1, 0, 2)
    padded = any(any(side) for side in op.values["pads"])
    return Meaning("most", windows, out, _clamp(op), border=layer.fill if padded else None)


def _elementwise(s: Statement, e: Elements, layer: Layer, op: Operator) -> Meaning:
    """One tensor, or two of one shape; what differs by channel lies along the layer's axis."""
    y = s.tensors[op.output]
    # A tensor added to itself is one operand; constants are no operands here.
    names = [n for n in dict.fromkeys(op.inputs) if n and s.tensors[n].data is None]
    axis = layer.axis
    out = _last(_numbers(y), axis) if y.shape else _numbers(y).reshape(1)
    c = out.shape[-1]
    columns = [
        (_last(e.ids[n], axis) if y.shape else e.ids[n].reshape(1)).reshape(-1, c).T for n in names
    ]
    if any(s.tensors[n].shape != y.shape for n in names) or not 1 <= len(names) <= 2:
        raise Undecided("operands of other shapes than its result")
    value, clamp = _function(s, op, names, axis)
    windows = np.stack(columns, axis=2)
    return Meaning("values", windows, out.reshape(-1, c).T[:, :, None], clamp, value=value)


def _function(
    s: Statement, op: Operator, names: list[str], axis: int
) -> tuple[Value, tuple[int, int]]:  # fmt: skip
    x, y = s.tensors[names[0]], s.tensors[op.output]
    if op.kind == "Lookup":
        table = s.tensors[op.inputs[1]].data
        assert table is not None
        rows = table.reshape(-1, 256).astype(np.int64)
        if len(rows) > 1 and int(op.values["axis"]) % len(y.shape) != axis % len(y.shape):
            raise Undecided("a table that differs along another axis than its rounds")

        def looked_up(channel: Ints, values: tuple[Ints, ...]) -> Ints:
            return rows[channel if len(rows) > 1 else 0, values[0] + 128]

        return looked_up, (-128, 127)
    clamp = _clamp(op)
    if op.kind == "Clamp":
        return lambda channel, values: np.clip(values[0], *clamp), clamp
    if op.kind == "Requantise":
        rule = rules.rescale(op.values["rescale"], y.zero_point)

        def scaled(channel: Ints, values: tuple[Ints, ...]) -> Ints:
            return np.clip(rule(channel, values[0] - x.zero_point), *clamp)

        return scaled, clamp
    a, b = (s.tensors[n] for n in op.inputs)
    document, zeros = op.values["rescale"], (a.zero_point, b.zero_point, y.zero_point)
    held = None
    if a.data is not None or b.data is not None:
        constant_one = a.data if a.data is not None else b.data
        assert constant_one is not None
        whole: Ints = np.broadcast_to(constant_one, y.shape).astype(np.int64)
        rows: Ints = _last(whole, axis).reshape(-1, y.shape[axis])
        held = rows[0]
        # One proof stands for all places of a channel.
        if (rows != held).any():
            raise Undecided("a constant that differs from place to place")

    def total(channel: Ints, values: tuple[Ints, ...]) -> Ints:
        first, second = values[0], values[-1]
        if held is not None:
            other = np.broadcast_to(held[channel], first.shape)
            first, second = (other, first) if a.data is not None else (first, other)
        return np.clip(rules.added(document, zeros, first, second), *clamp)

    return total, clamp


KINDS: dict[str, Callable[[Statement, Elements, Layer, Operator], Meaning]] = {
    "Conv": _conv, "FullyConnected": _dense, "Mean": _mean, "AveragePool": _average,
    "MaxPool": _most, "Add": _elementwise, "Requantise": _elementwise, "Clamp": _elementwise,
    "Lookup": _elementwise,
}  # fmt: skip


def sum_ends(weights: Ints, reach: tuple[int, int]) -> tuple[Ints, Ints]:
    """Least and largest sum of each channel [channels], of values within reach."""
    ends = np.stack([weights * reach[0], weights * reach[1]])
    return ends.min(axis=0).sum(axis=1), ends.max(axis=0).sum(axis=1)


def reach_of(low: Any, high: Any, windows: Ints) -> tuple[int, int]:
    """Least and largest value under any window. low, high: of every element, constants behind."""
    return int(low[windows].min()), int(high[windows].max())
