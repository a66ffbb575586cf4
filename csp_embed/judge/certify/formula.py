"""The operator in the field: random values for its tensors, and what they make of its formula.

An element's value is the product of one random number for each of its indices (x[n,c,h,w] =
N[n] C[c] H[h] W[w]). Different elements are different monomials, so a form that is linear in each
tensor is zero as a polynomial in these numbers only if all its coefficients are: Schwartz and
Zippel's lemma holds with the number of indices as degree, and sums over independent axes factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import CheckError
from csp_embed.ir.operator import Access, Operator
from csp_embed.judge.certify.field import P, Values, inverse, mul, number, total

Factor = tuple[tuple[str, ...], Values]
LARGEST = 1 << 27  # values of an intermediate sum: a gigabyte


class Symbols:
    """Random values of every tensor whose values the formula does not state.

    tables[tensor]: one array per dimension, then one of the parts into which the host splits a
    value. scale[tensor]: a factor of its own, so that tensors without dimensions have one.
    """

    def __init__(
        self, op: Operator, parts: Mapping[str, tuple[tuple[int, ...], int]], seed: Sequence[int]
    ):
        rng = np.random.Generator(np.random.PCG64DXSM(list(seed)))

        # 0 is left out: an element with value 0 would be invisible.
        def draw(n: int) -> Values:
            return rng.integers(1, P, n, dtype=np.uint64)

        self.op = op
        self.tables: dict[str, list[Values]] = {}
        self.scale: dict[str, np.uint64] = {}
        self.whole: dict[str, Values] = {}
        for name, tensor in sorted(op.tensors.items()):
            # A value that the host splits is what its weighted parts sum to; each part is random.
            weights, scale = parts.get(name, ((), 1))
            self.tables[name] = [*(draw(n) for n in tensor.shape), draw(len(weights))]
            self.scale[name] = draw(1)[0]
            terms = mul(self.tables[name][-1], np.array([number(w) for w in weights], np.uint64))
            whole = total(terms, 0) if weights else np.uint64(1)
            whole = mul(whole, inverse(scale))
            self.whole[name] = mul(self.scale[name], whole)

    @property
    def degree(self) -> int:
        """Of what is compared, in the random numbers: indices of both operands, a factor and a
        part of each, and the two weights of a lane."""
        ranks = sorted(len(t.shape) + 2 for t in self.op.tensors.values())
        return sum(ranks[-2:]) + 2

    def elements(self, tensor: str, split: bool) -> Values:
        """The value of every element, flat; split: of each of its parts, part by part."""
        tables = self.tables[tensor]
        out = np.array([self.scale[tensor] if split else self.whole[tensor]], np.uint64)
        for table in tables if split and len(tables[-1]) else tables[:-1]:
            out = mul(out[:, None], table[None, :]).reshape(-1)
        return out

    def factors(self, access: Access) -> list[Factor]:
        """The access as a product of arrays over axes; 0 where it reads out of range."""
        shape = self.op.tensors[access.tensor].shape
        known = self.op.values.get(access.tensor)
        if known is not None:
            return _known(self.op, access, np.asarray(known))
        # Out-of-range taps are 0 by the formula's meaning: the mask is part of the factor.
        found: list[Factor] = [((), self.whole[access.tensor])]
        for ix, size, table in zip(access.index, shape, self.tables[access.tensor], strict=False):
            axes, at = _grid(self.op, [a for a, _ in ix.terms], [(ix.const, dict(ix.terms))])
            inside = (at[0] >= 0) & (at[0] < size)
            found.append((axes, np.where(inside, table[np.clip(at[0], 0, size - 1)], 0)))
        return found


def _grid(
    op: Operator, axes: Sequence[str], rows: Sequence[tuple[int, Mapping[str, int]]]
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Axes in the operator's order, and each affine row over their box."""
    order = tuple(a for a in op.axes if a in axes)
    counters = np.ogrid[tuple(slice(op.axes[a]) for a in order)] if order else ()
    shape = tuple(op.axes[a] for a in order)
    out: list[NDArray[np.int64]] = []
    for const, coef in rows:
        at: Any = np.int64(const)
        for a, counter in zip(order, counters, strict=True):
            at = at + coef.get(a, 0) * counter
        out.append(np.broadcast_to(at, shape))
    return order, out


def _known(op: Operator, access: Access, values: NDArray[Any]) -> list[Factor]:
    """An operand whose values the formula states."""
    rows = [(ix.const, dict(ix.terms)) for ix in access.index]
    axes, at = _grid(op, [a for ix in access.index for a, _ in ix.terms], rows)
    inside = np.ones([op.axes[a] for a in axes], np.bool_)
    for k, size in zip(at, values.shape, strict=True):
        inside &= (k >= 0) & (k < size)
    picked = values[tuple(np.where(inside, k, 0) for k in at)] if at else values
    return [(axes, np.where(inside, picked.astype(np.int64) % P, 0).astype(np.uint64))]


def summed(op: Operator, factors: Sequence[Factor]) -> Values:
    """The product of the factors, summed over reduced axes, flat over the result's elements."""
    left = list(factors)
    # Axis by axis, and only factors that have it: a convolution over 10^10 points is a handful of
    # small sums.
    for axis in sorted(op.reduced_axes, key=lambda a: op.axes[a]):
        mine = [f for f in left if axis in f[0]]
        left = [f for f in left if axis not in f[0]]
        axes, values = _product(op, mine, {axis})
        at = axes.index(axis)
        left.append((axes[:at] + axes[at + 1 :], total(values, at)))
    axes, values = _product(op, left, set(op.out_axes))
    return _by_element(op, axes, values)


def _product(op: Operator, factors: Sequence[Factor], also: set[str]) -> Factor:
    # `also`: an axis that no factor has still repeats the product as often as it is long.
    wanted = {a for axes, _ in factors for a in axes} | also
    axes = tuple(a for a in op.axes if a in wanted)
    shape = [op.axes[a] for a in axes]
    if prod(shape) > LARGEST:
        raise CheckError(
            f"a sum over {prod(shape):,} points is too large to certify", where=op.formula(),
            why="its indices tie too many axes to each other", hint="csp-embed check FILE",
        )  # fmt: skip
    # Small factors first: what is multiplied over all points is one pass each.
    out = np.ones((1,) * len(axes), np.uint64)
    for own, values in sorted(factors, key=lambda f: f[1].size):
        out = mul(out, values.reshape([op.axes[a] if a in own else 1 for a in axes]))
    return axes, np.broadcast_to(out, shape)


def _by_element(op: Operator, axes: tuple[str, ...], values: Values) -> Values:
    """From points of the output axes to the result's elements, flat; ragged ends are cut."""
    shape = op.tensors[op.out.tensor].shape
    rows = [(ix.const, dict(ix.terms)) for ix in op.out.index]
    _, at = _grid(op, axes, rows)
    flat, inside = np.zeros([op.axes[a] for a in axes], np.int64), np.bool_(True)
    for k, size in zip(at, shape, strict=True):
        # An output index past the tensor's end is a ragged tile's: the formula drops it.
        flat, inside = flat * size + k, inside & (k < size)
    out = np.zeros(prod(shape), np.uint64)
    keep = np.broadcast_to(inside, flat.shape)
    out[flat[keep]] = values[keep]
    return out


def sums(symbols: Symbols) -> Values:
    """What the accumulators hold when the epilogue begins: of a contraction or a map."""
    op = symbols.op
    right = [] if op.rhs is None else symbols.factors(op.rhs)
    return summed(op, [*symbols.factors(op.lhs), *right])


def taps(symbols: Symbols) -> Iterator[tuple[Values, NDArray[np.bool_]]]:
    """Of a maximum or minimum: each element under the window, and where there is one."""
    op = symbols.op
    if op.lhs.tensor in op.values:
        # A value that is 0 would look as if no element were there.
        raise CheckError(
            f"a {op.kind}imum of values that the formula states is not certified",
            where=op.formula(), why=f"{op.lhs.tensor} is no input", hint="csp-embed check FILE",
        )  # fmt: skip
    # A maximum is no sum: each tap stays a number of its own, and they are compared as sets.
    for point in product(*(range(op.axes[a]) for a in op.reduced_axes)):
        fixed = dict(zip(op.reduced_axes, point, strict=True))
        index = tuple(
            replace(
                ix, const=ix.const + sum(c * fixed[a] for a, c in ix.terms if a in fixed),
                terms=tuple((a, c) for a, c in ix.terms if a not in fixed),
            )
            for ix in op.lhs.index
        )  # fmt: skip
        value = step_values(symbols, replace(op.lhs, index=index))
        # No element's value is 0, and neither is a product of values.
        yield value, value != 0


def step_values(symbols: Symbols, access: Access) -> Values:
    """A tensor read at every element of the result, flat over these; 0 out of range."""
    op = symbols.op
    axes, values = _product(op, symbols.factors(access), set(op.out_axes))
    return _by_element(op, axes, values)
