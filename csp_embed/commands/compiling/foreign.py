"""Programs of other tools: the operator as a formula, and layouts as text or as found in the file.

A layout is a list of digits of the tensor's dimensions, outermost first, as the bytes lie:
`x=0,1/16,2,3,0%1,1%16` is NCHW in blocks of one image and 16 channels; `@0x1000` behind it says
where. Without an address, the tensor's bytes are looked for in DRAM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.machine.spec import Isa

# Dimension, divisor, remainder: each but the first may be missing.
_DIGIT = re.compile(r"(\d+)(?:/(\d+))?(?:%(\d+))?$")
Digit = tuple[int, int, int]
"""Dimension, what its index is divided by, how many values are left."""


def foreign_claims(
    isa: Isa, program: Program, op: Operator, layouts: Sequence[str]
) -> list[dict[str, Any]]:
    """Claims (docs/program-file.md) for each tensor of a program that states none.

    Raises: InputError for a layout that cannot be read, or a tensor that is not found.
    """
    given = dict(_split(op, text) for text in layouts)
    claims: list[dict[str, Any]] = []
    for name in op.tensors:
        # Tensors that the program computes have no bytes to look for.
        if name in op.values:
            continue
        text, address = given.get(name, ("", None))
        # A stated layout alone, or the usual ones in turn.
        tried = [_digits(op, name, text)] if text else list(_usual(isa, op, name))
        # The first that is found: layouts of one tensor hardly ever fit by chance.
        ways = (_claims(op, program, name, d, address) for d in tried)
        found = next(filter(None, ways), None)
        if not found:
            raise InputError(
                f"where {name} lies is not found in the file",
                why=f"no range of DRAM holds its bytes in {'this' if text else 'a usual'} layout"
                if name in program.tensors
                else f"the file carries no tensor {name} to look for",
                hint=f"--layout {name}={','.join(map(str, range(len(op.tensors[name].shape))))}"
                "@0x1000",
            )
        claims += found
    return claims


def _split(op: Operator, text: str) -> tuple[str, tuple[str, int | None]]:
    name, _, rest = text.partition("=")
    digits, _, address = rest.partition("@")
    if name not in op.tensors or not digits:
        raise InputError(
            f"--layout {text} cannot be read", why=f"the tensors are {', '.join(op.tensors)}",
            hint=f"--layout {op.out.tensor}=0,1/16,0%1,1%16@0x1000",
        )  # fmt: skip
    try:
        return name, (digits, int(address, 0) if address else None)
    except ValueError as error:
        raise InputError(
            f"--layout {text} cannot be read", why=str(error), hint="an address is 4096 or 0x1000"
        ) from error


def _digits(op: Operator, name: str, text: str) -> list[Digit]:
    shape = op.tensors[name].shape
    out: list[Digit] = []
    for part in text.split(","):
        match = _DIGIT.match(part.strip())
        # A divisor or remainder of 0 divides by nothing.
        if match is None or int(match[1]) >= len(shape) or "0" in match.groups()[1:]:
            raise InputError(
                f"--layout {name}={text} cannot be read", where=part,
                why=f"{name} has dimensions 0 to {len(shape) - 1}; a digit is 1, 1/16 or 1%16",
                hint=f"--layout {name}={','.join(map(str, range(len(shape))))}",
            )  # fmt: skip
        t, div = int(match[1]), int(match[2] or 1)
        # Without a remainder the digit counts to the end, rounded up.
        out.append((t, div, int(match[3]) if match[3] else -(-shape[t] // div)))
    return out


def _usual(isa: Isa, op: Operator, name: str) -> Iterator[list[Digit]]:
    """Layouts that tools use: the first two dimensions in blocks of the lanes, or none at all."""
    shape = op.tensors[name].shape
    plain = [(t, 1, n) for t, n in enumerate(shape)]
    # By the lanes of the machine's memories: that is how its tools block.
    for memory in isa.memories:
        lanes = isa.lane_shape(memory.name) if memory.lanes else ()
        # Two lanes: batch and channels, the usual blocking.
        if len(lanes) == 2 and len(shape) >= 2:
            outer = [(t, n, -(-shape[t] // n)) for t, n in enumerate(lanes)]
            yield [*outer, *plain[2:], *((t, 1, n) for t, n in enumerate(lanes))]
        # Vectors are padded to the last lane.
        if lanes and len(shape) == 1:
            yield [(0, lanes[-1], -(-shape[0] // lanes[-1])), (0, 1, lanes[-1])]
    # As the tensor is, in row-major order.
    yield plain


def _claims(
    op: Operator, program: Program, name: str, digits: Sequence[Digit], address: int | None
) -> list[dict[str, Any]]:
    """The claim of the tensor's bytes at `address`; or of all its copies, wherever they are."""
    tensor = op.tensors[name]
    item = np.dtype(tensor.dtype).itemsize
    loops: list[list[int]] = []
    pitch = item
    # From the innermost digit: each one's pitch is the size of what is inside.
    for _, _, n in reversed(digits):
        loops.insert(0, [n, pitch])
        pitch *= n
    # Each digit counts for its own dimension only.
    index = [
        [0, [div if own == t else 0 for own, div, _ in digits]] for t in range(len(tensor.shape))
    ]
    # A given address is believed; the proof looks at the bytes.
    hits = [] if address is None else [address]
    packed = _packed(program.tensors, name, tensor.shape, digits)
    if address is None and packed is not None:
        wanted = packed.astype(tensor.dtype).tobytes()
        # A result is looked for in what the program leaves.
        for held in program.after if name == op.out.tensor else program.before:
            for hit in _hits(held, wanted, item):
                # Copies may not overlap: a pattern of zeros would be found at every byte.
                if not hits or hit >= hits[-1] + pitch:
                    hits.append(hit)
    claim = {"tensor": name, "item_bytes": item, "loops": loops, "index": index}
    return [{**claim, "addr": hit} for hit in sorted(hits)]


def _hits(held: tuple[int, NDArray[np.uint8]], wanted: bytes, item: int) -> Iterator[int]:
    """Addresses, multiples of `item`, where a range of DRAM holds these bytes."""
    address, data = held
    raw, at = data.tobytes(), -1
    while (at := raw.find(wanted, at + 1)) >= 0:
        # An element begins at a multiple of its size.
        if (address + at) % item == 0:
            yield address + at


def _packed(
    tensors: Mapping[str, NDArray[Any]], name: str, shape: Sequence[int], digits: Sequence[Digit]
) -> NDArray[Any] | None:
    """The tensor in the order of its digits, zeros where an index is out of range."""
    if name not in tensors or tensors[name].shape != tuple(shape):
        return None
    at = np.ix_(*(np.arange(n) for _, _, n in digits))
    index = [
        sum((div * k for (own, div, _), k in zip(digits, at, strict=True) if own == t), np.int64(0))
        for t in range(len(shape))
    ]
    # All indices in the full grid; the last one only gives the shape.
    full = np.broadcast_arrays(*index, np.zeros([n for _, _, n in digits]))[:-1]
    inside = np.logical_and.reduce([i < n for i, n in zip(full, shape, strict=True)])
    # Clipped first: indexing must not fail where the index is out of range.
    clipped = tuple(np.minimum(i, n - 1) for i, n in zip(full, shape, strict=True))
    return np.where(inside, tensors[name][clipped], 0)
