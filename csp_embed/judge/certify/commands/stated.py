"""What a program of commands states: words, HOST before the run, claims, the result's places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator
from csp_embed.judge.certify.commands.points import Broken
from csp_embed.judge.certify.compare import tensor_range

Array = NDArray[Any]


@dataclass(frozen=True)
class Claim:
    """Items of HOST from `address` on: item k is scale * tensor[which[k]] + offset, flat; where
    which[k] is -1 it is the file's own bytes."""

    tensor: str
    address: int
    dtype: str
    which: NDArray[np.int64]
    scale: int = 1
    offset: int = 0

    def check_fits(self, op: Operator) -> None:
        """Every value that the formula allows lies whole in an item. int32 ones may wrap around, as
        sums do: shifts in front of which they could are not decided."""
        if self.dtype == "int32":
            return
        ends = [v * self.scale + self.offset for v in tensor_range(op, self.tensor)]
        info = np.iinfo(self.dtype)
        if min(ends) < info.min or max(ends) > info.max:
            raise Broken(f"{self.dtype} does not hold {self.tensor} as it is claimed")


@dataclass(frozen=True)
class Stated:
    """What a program of commands states. places: address of each element of the result. offset:
    what its stores are told to get beside the sums. tensors: the file's own values."""

    words: NDArray[np.uint64]
    before: Sequence[tuple[int, NDArray[np.uint8]]]
    places: NDArray[np.int64]
    claims: Sequence[Claim]
    offset: int
    tensors: Mapping[str, Array]

    def digest(self, op: Operator) -> str:
        """SHA-256 of all that is judged."""
        found = hashlib.sha256(np.ascontiguousarray(self.words).tobytes())
        for address, data in self.before:
            found.update(f"{address} {len(data)};".encode())
            found.update(np.ascontiguousarray(data).data)
        found.update(np.ascontiguousarray(self.places).data)
        for c in self.claims:
            said = [c.tensor, c.address, c.dtype, c.scale, c.offset, len(c.which)]
            found.update(json.dumps(said).encode())
            found.update(np.ascontiguousarray(c.which).data)
        found.update(f"{self.offset};{op.text()}".encode())
        return found.hexdigest()

    def example_problems(self, op: Operator) -> tuple[str, ...]:
        """The file's own values lie in HOST as its claims say."""
        bad: list[str] = []
        for c in self.claims:
            known = op.values.get(c.tensor, self.tensors.get(c.tensor))
            data = next((d[c.address - a :] for a, d in self.before
                         if a <= c.address < a + len(d)), None)  # fmt: skip
            if known is None or data is None:
                bad.append(f"{c.tensor} is claimed at {c.address:#x}, and the file lacks it")
                continue
            item = np.dtype(c.dtype).itemsize
            raw = np.ascontiguousarray(data[: len(c.which) * item])
            if len(raw) < len(c.which) * item:
                bad.append(f"{c.tensor} is claimed at {c.address:#x} beyond the file's bytes")
                continue
            held = raw.view(np.dtype(c.dtype).newbyteorder("<")).astype(np.int64)
            inside = c.which >= 0
            flat = np.asarray(known).reshape(-1).astype(np.int64)
            if not np.array_equal(held[inside], flat[c.which[inside]] * c.scale + c.offset):
                bad.append(f"{c.tensor} at {c.address:#x} does not lie as the claims say")
        return tuple(bad)

    @property
    def named(self) -> str:
        """What the example shows, where it does."""
        names = ", ".join(dict.fromkeys(c.tensor for c in self.claims))
        return f"tensors {names} lie in HOST as the claims say"
