"""What a program file says about its DRAM: which lane holds which element of which tensor.

A claim is a box of loops: the lane at addr + sum(stride * counter) holds the element whose index
is affine in the counters, where every `within` value lies in its range and the index in the
tensor. All other bytes of `before` are constants, as the file has them. docs/program-file.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator
from csp_embed.jit import njit
from csp_embed.judge.certify.field import Ints, Values, plus, times

# To `visit`: only who lies where is asked, no element has a value.
NO_VALUES = (
    np.zeros(0, np.uint64), np.zeros(1, np.int64), np.uint64(0), np.zeros(1, np.int64),
    np.zeros(1, np.uint64), 1, np.zeros(0, np.uint64),
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """extents, strides: of the loops, strides in bytes. index: int64[dims, 1 + loops], constant
    first; within: int64[n, 1 + loops] likewise. radix[n]: extents into which value n unravels,
    row-major; moves[n]: int64[len(radix[n]), dims], what each adds to the index. weights: a value
    of the tensor, times scale, is the sum of weights * parts, and part: int64[1 + loops] says which
    is here."""

    tensor: str
    addr: int
    item_bytes: int
    extents: Ints
    strides: Ints
    index: Ints
    within: Ints
    radix: tuple[tuple[int, ...], ...]
    moves: tuple[Ints, ...]
    weights: tuple[int, ...]
    part: Ints
    scale: int = 1

    @property
    def end(self) -> int:
        return self.addr + int(((self.extents - 1) * self.strides).sum()) + self.item_bytes

    def arguments(
        self, shape: Sequence[int]
    ) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, int]:
        """What `visit` takes."""
        first = np.cumsum([0, *(len(r) for r in self.radix)]).astype(np.int64)
        radix = np.array([n for r in self.radix for n in r], np.int64)
        moves = np.concatenate([np.zeros((0, len(shape)), np.int64), *self.moves])
        sizes = np.array(shape, np.int64)
        return (self.extents, self.strides, self.index, self.within, first, radix, moves, sizes,
                self.part, len(self.weights))  # fmt: skip


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
                why=f"{type(error).__name__}: {error}", hint="docs/program-file.md has the form",
            ) from error  # fmt: skip
    for tensor in {c.tensor for c in found}:
        # One value of an element, in whatever copies it stands: a split means the same in all.
        if len({(c.weights, c.scale) for c in found if c.tensor == tensor}) > 1:
            raise InputError(
                f"the claims of {tensor} split its elements in different ways", where=where,
                why="their weights or scales differ", hint="docs/program-file.md has the form",
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
    moves = [np.array(w["index"], np.int64).reshape(len(w["extents"]), rank) for w in limits]
    # No weights: an element stands whole, and `part` is not looked at.
    parts = entry.get("parts", {"weights": [], "index": [0, [0] * len(loops)]})
    scale = int(parts.get("scale", 1))
    if not 1 <= scale < 1 << 32:
        raise ValueError(f"a scale of {scale} is out of range")
    return Claim(
        tensor, int(entry["addr"]), int(entry["item_bytes"]),
        np.ascontiguousarray(loops[:, 0]), np.ascontiguousarray(loops[:, 1]),
        index, rows([w["value"] for w in limits]),
        tuple(tuple(int(n) for n in w["extents"]) for w in limits), tuple(moves),
        tuple(int(w) for w in parts["weights"]), np.array(row(parts["index"]), np.int64), scale,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def visit(
    extents: Ints, strides: Ints, index: Ints, within: Ints, first: Ints, radix: Ints, moves: Ints,
    shape: Ints, part: Ints, parts: int, addr: int, item: int, who: Ints, lane_bytes: int,
    tables: Values, table_at: Ints, scale: np.uint64, lane_slot: Ints, lane_weight: Values,
    slots: int, image: Values,
) -> int:  # fmt: skip
    """Walks one claim over the lanes of a range of DRAM; addr counts from where the range begins.

    who: int64[lanes of the range], -1 where nobody claims a lane; gets flat index * parts + part.
    With tables (one value per index of each dimension, then one per part) the element's value,
    the product of its tables' entries and `scale`, is added into `image`. Returns 0; 1 where a
    lane is claimed twice, 2 where a lane lies outside or across lanes.
    """
    n_loops, dims, limits = len(extents), len(shape), len(within)
    # An odometer: each index is kept and moved by one coefficient, so a lane costs no product.
    counter = np.zeros(n_loops, np.int64)
    at = np.zeros(dims, np.int64)
    z = np.zeros(limits, np.int64)
    moved = np.zeros(dims, np.int64)
    at[:] = index[:, 0]
    z[:] = within[:, 0]
    piece = part[0]
    byte = addr
    lanes = len(lane_slot)
    while True:
        inside = True
        moved[:] = at
        for m in range(limits):
            rest = z[m]
            size = 1
            for k in range(first[m], first[m + 1]):
                size *= radix[k]
            # Ragged ends: loop values outside are padding, which nobody claims.
            if rest < 0 or rest >= size:
                inside = False
                break
            for k in range(first[m + 1] - 1, first[m] - 1, -1):
                digit = rest % radix[k]
                rest //= radix[k]
                for t in range(dims):
                    moved[t] += moves[k, t] * digit
        if inside:
            for t in range(dims):
                inside = inside and 0 <= moved[t] < shape[t]
        if inside and (parts == 0 or 0 <= piece < parts):
            place = byte // lane_bytes
            # A smaller item in a wider lane is fine (int8 loaded as int32 by an alias), a
            # straddling one is not.
            if byte % lane_bytes or item > lane_bytes or not 0 <= place < len(who):
                return 2
            if who[place] >= 0:
                return 1
            flat = np.int64(0)
            for t in range(dims):
                flat = flat * shape[t] + moved[t]
            # Two claims of one lane would make its value ambiguous; who came first stands here.
            who[place] = flat * max(parts, 1) + (piece if parts else 0)
            if len(image):
                value = scale
                for t in range(dims):
                    value = times(value, tables[table_at[t] + moved[t]])
                if parts:
                    value = times(value, tables[table_at[dims] + piece])
                lane = place % lanes
                spot = place // lanes * slots + lane_slot[lane]
                image[spot] = plus(image[spot], times(lane_weight[lane], value))
        j = n_loops - 1
        while j >= 0:
            counter[j] += 1
            byte += strides[j]
            piece += part[1 + j]
            for t in range(dims):
                at[t] += index[t, 1 + j]
            for m in range(limits):
                z[m] += within[m, 1 + j]
            if counter[j] < extents[j]:
                break
            byte -= strides[j] * extents[j]
            piece -= part[1 + j] * extents[j]
            for t in range(dims):
                at[t] -= index[t, 1 + j] * extents[j]
            for m in range(limits):
                z[m] -= within[m, 1 + j] * extents[j]
            counter[j] = 0
            j -= 1
        if j < 0:
            return 0
