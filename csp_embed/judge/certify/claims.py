"""What a program file says about its DRAM: which lane holds which element of which tensor.

A claim is a box of loops: the lane at addr + sum(stride * counter) holds the element whose index
is affine in the counters, where every `within` value lies in its range and the index in the
tensor. All other bytes of `before` are constants, as the file has them. docs/program-file.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any, cast

import numpy as np

from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator
from csp_embed.judge.certify.field import Ints
from csp_embed.machine.spec import Memory

FORM = "docs/program-file.md has the form"
# Lanes that are looked at together: few enough for the cache, enough to hide NumPy's calls.
SIDE, PORTION = 1 << 12, 1 << 16


@dataclass(frozen=True)
class Claim:
    """extents: of the loops. rows: int64[1 + dims + limits + 1, 1 + loops], constant first: affine
    functions of the counters: the address in bytes, the index, what the limits bound, the part.
    radix[n]: extents into which limited value n unravels, row-major; moves[n]: int64[len(radix[n]),
    dims], what each adds to the index. weights: a value of the tensor, times scale, is the sum of
    weights * parts; without weights the element stands whole, and the part means nothing."""

    tensor: str
    item_bytes: int
    extents: tuple[int, ...]
    rows: Ints
    radix: tuple[tuple[int, ...], ...]
    moves: tuple[Ints, ...]
    weights: tuple[int, ...]
    scale: int = 1

    @property
    def addr(self) -> int:
        return int(self.rows[0, 0])

    @property
    def end(self) -> int:
        return self.addr + int(self.rows[0, 1:] @ np.array(self.extents)) - int(
            self.rows[0, 1:].sum()) + self.item_bytes  # fmt: skip

    def holds(self, low: int, high: int) -> bool:
        """Whether every value of low..high can be split into these parts."""
        if not self.weights:
            return True
        unit = gcd(*self.weights)
        if not unit or self.scale % unit:
            return low == high == 0
        most = 1 << 8 * self.item_bytes - 1
        reach = 0, 0
        for w in sorted(abs(w) // unit for w in self.weights if w):
            # All integers between, as long as no part's step leaps over what smaller ones reach.
            if w > reach[1] - reach[0] + 1:
                break
            reach = reach[0] - w * most, reach[1] + w * (most - 1)
        scale = self.scale // unit
        # Which way a weight points is not looked at: the shorter side counts for both.
        return max(-low, high) * scale <= min(-reach[0], reach[1])

    def lanes(self, shape: Sequence[int]) -> Iterator[tuple[Ints, Ints]]:
        """(address, flat index * parts + part) of every lane that holds an element, in portions.
        shape: of the tensor."""
        inner = next(k for k in range(len(self.extents) + 1) if prod(self.extents[k:]) <= SIDE)
        outer, side = self.extents[:inner], self.extents[inner:]
        # An affine function is a sum of one of the inner loops, made once, and one of the outer
        # ones: a lane costs an addition for each row.
        near = self.rows[:, 1 + inner :] @ np.indices(side).reshape(len(side), prod(side))
        step = max(1, PORTION // near.shape[1])
        for first in range(0, prod(outer), step):
            points = np.arange(first, min(first + step, prod(outer)))
            far = (
                self.rows[:, 1 : 1 + inner]
                @ np.array(np.unravel_index(points, outer or (1,)))[: len(outer)]
            )
            values = (far + self.rows[:, :1])[:, :, None] + near[:, None, :]
            yield self._held(values.reshape(len(self.rows), -1), shape)

    def _held(self, values: Ints, shape: Sequence[int]) -> tuple[Ints, Ints]:
        """Of points, by the values of all rows: those that hold an element."""
        dims = len(shape)
        index, limited, part = values[1 : 1 + dims], values[1 + dims : -1], values[-1]
        inside = np.ones(values.shape[1], np.bool_)
        for z, radix, moves in zip(limited, self.radix, self.moves, strict=True):
            # Ragged ends: loop values outside are padding, which nobody claims.
            inside &= (z >= 0) & (z < prod(radix))
            rest = np.where(inside, z, 0)
            for size, move in zip(radix[::-1], moves[::-1], strict=True):
                rest, digit = np.divmod(rest, size)
                for t in np.flatnonzero(move):
                    index[t] += move[t] * digit
        parts = len(self.weights)
        if parts:
            inside &= (part >= 0) & (part < parts)
        flat = np.zeros(values.shape[1], np.int64)
        for at, size in zip(index, shape, strict=True):
            inside &= (at >= 0) & (at < size)
            flat = flat * size + at
        number = flat * parts + part if parts else flat
        return values[0][inside], number[inside]


def owners(
    claims: Sequence[Claim], op: Operator, first: Mapping[str, int], span: tuple[int, int],
    unit: int, memory: Memory,
) -> Ints:  # fmt: skip
    """Who lies in each lane of `unit` bytes from address span[0] to span[1]: number within its
    tensor + first[tensor], or -1 where nobody claims it.

    Raises: InputError for claims that name a lane twice, or what is no lane of the span.
    """
    who, taken = np.full((span[1] - span[0]) // unit, -1, np.int64), 0
    for c in claims:
        for byte, number in c.lanes(op.tensors[c.tensor].shape):
            place, across = np.divmod(byte - span[0], unit)
            outside = (across != 0) | (place < 0) | (place >= len(who))
            if outside.any() or (len(byte) and c.item_bytes != unit):
                raise _misfit(c, f"its values do not lie in lanes of {memory.name}, or leave the"
                                 " file's `before`")  # fmt: skip
            who[place] = first[c.tensor] + number
            taken += len(place)
    # Two claims of one lane would make its value ambiguous.
    if taken > np.count_nonzero(who >= 0):
        raise _misfit(claims[0], f"{taken - np.count_nonzero(who >= 0)} lanes are named twice")
    return who


def _misfit(claim: Claim, why: str) -> InputError:
    return InputError(
        f"the claim of {claim.tensor} at {claim.addr:#x} does not fit", where="meta.claims",
        why=why, hint=FORM,
    )  # fmt: skip


def read_claims(document: Any, op: Operator, where: str = "meta.claims") -> list[Claim]:
    """The claims as typed values. Raises: InputError for one that cannot be understood."""
    if not isinstance(document, list) or not document:
        raise InputError(
            "the file does not say where its tensors lie",
            where=where,
            why="it has no claims",
            hint="compile it again, or give --layout for each tensor",
        )
    found: list[Claim] = []
    for n, entry in enumerate(cast(list[Any], document)):
        try:
            found.append(_claim(entry, op))
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(
                f"claim {n} cannot be understood", where=f"{where}[{n}]",
                why=f"{type(error).__name__}: {error}", hint=FORM,
            ) from error  # fmt: skip
    for tensor in {c.tensor for c in found}:
        # One value of an element, in whatever copies it stands: a split means the same in all.
        if len({(c.weights, c.scale) for c in found if c.tensor == tensor}) > 1:
            raise InputError(
                f"the claims of {tensor} split its elements in different ways", where=where,
                why="their weights or scales differ", hint=FORM,
            )  # fmt: skip
    return found


def _claim(entry: Mapping[str, Any], op: Operator) -> Claim:
    tensor = entry["tensor"]
    # Values that the formula states are constants of the file, not inputs: nobody may rename them.
    if tensor not in op.tensors or tensor in op.values:
        raise ValueError(f"{tensor!r} is no operand or result of {op.formula()}")
    loops = np.array(entry["loops"], np.int64).reshape(-1, 2)
    rank = len(op.tensors[tensor].shape)

    def row(line: Any) -> list[int]:
        const, coef = line
        if len(coef) != len(loops):
            raise ValueError(f"{len(coef)} coefficients for {len(loops)} loops")
        return [const, *coef]

    def rows(lines: Sequence[Any]) -> Ints:
        return np.array([row(line) for line in lines], np.int64).reshape(-1, 1 + len(loops))

    index = rows(entry["index"])
    if len(index) != rank or (loops < 1).any() or entry["addr"] < 1 or entry["item_bytes"] < 1:
        raise ValueError("an index, extent, stride or address is missing or out of range")
    limits = entry.get("within", [])
    if any(n < 1 for w in limits for n in w["extents"]):
        raise ValueError("a limited value has an extent below 1")
    parts = entry.get("parts", {"weights": [], "index": [0, [0] * len(loops)]})
    scale = int(parts.get("scale", 1))
    if not 1 <= scale < 1 << 32:
        raise ValueError(f"a scale of {scale} is out of range")
    lines = [[int(entry["addr"]), *loops[:, 1]], *index, *rows([w["value"] for w in limits]),
             row(parts["index"])]  # fmt: skip
    return Claim(
        tensor, int(entry["item_bytes"]), tuple(loops[:, 0].tolist()), np.array(lines, np.int64),
        tuple(tuple(int(n) for n in w["extents"]) for w in limits),
        tuple(np.array(w["index"], np.int64).reshape(len(w["extents"]), rank) for w in limits),
        tuple(int(w) for w in parts["weights"]), scale,
    )  # fmt: skip
