"""Judges a stream of commands by running it from the spec's meanings; shares no code with builders.

Takes: a machine, words, HOST before the run, where each element of the result lies, what it is.
Leaves: problems. The interpreter refuses every address outside, every row, lane and number that is
read before it was written, and bits that no command names. Beyond that: fields keep to what the
machine accepts, operands stay as they were, every element of the result is written, the machine's
closing command comes last, and values are those that NumPy computes from the formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import CspEmbedError, EncodeError, SimError
from csp_embed.ir.operator import Operator
from csp_embed.machine.commands.interpreter import HostMemory, execute
from csp_embed.machine.commands.words import decode
from csp_embed.machine.spec import Isa
from csp_embed.ops.reference import evaluate

Array = NDArray[Any]


@dataclass(frozen=True)
class Stream:
    """words: uint64[n, words of a command]. before: byte ranges of HOST. places: address of each
    element of the result, in its shape; an element is the low byte or bytes there."""

    words: NDArray[np.uint64]
    before: Sequence[tuple[int, NDArray[np.uint8]]]
    places: NDArray[np.int64]


def problems(
    isa: Isa,
    stream: Stream,
    op: Operator,
    tensors: Mapping[str, Array],
    *,
    values: bool = True,
    whole: bool = True,
) -> list[str]:
    """What is wrong; empty for a good stream. tensors: operands, and the result as it is expected.
    values: also run it and compare. whole: see `machine.commands.interpreter`."""
    machine = isa.commands
    assert machine is not None
    try:
        decoded = decode(machine, stream.words)
    except EncodeError as error:
        return [error.what]
    found: list[str] = []
    for command in machine.commands:
        for name, bits in command.fields.items():
            column = decoded.fields[command.name][name]
            if (column > bits.most).any():
                found.append(f"{command.name}: {name} = {int(column.max())}, at most {bits.most}")
    closing = [n for n, c in enumerate(machine.commands) if c.acts.kind == "finish"]
    if closing and (not len(decoded.code) or int(decoded.code[-1]) not in closing):
        found.append(f"the stream does not end in {machine.commands[closing[0]].name}")
    name = op.out.tensor
    if stream.places.shape != op.tensors[name].shape:
        return [*found, f"places of {name} have shape {stream.places.shape}"]
    if len(np.unique(stream.places)) != stream.places.size:
        found.append(f"two elements of {name} lie in one place")
    if not values or found:
        return found
    host = HostMemory(stream.before)
    try:
        execute(machine, isa.dims, stream.words, host, whole=whole)
    except (SimError, CspEmbedError) as error:
        return [f"{error.where}: {error.what}"]
    return [*found, *_overwritten(host, stream), *_after(op, tensors, host, stream.places)]


def _overwritten(host: HostMemory, stream: Stream) -> list[str]:
    """Ranges that hold no part of the result, and are written all the same."""
    found: list[str] = []
    for address, data in stream.before:
        end = address + len(data)
        mine = ((stream.places >= address) & (stream.places < end)).any()
        written = host.written[address - host.low : end - host.low]
        if not mine and written.any():
            first = address + int(np.argmax(written))
            found.append(f"HOST {first:#x} is written, and an operand lies there")
    return found


def _after(
    op: Operator, tensors: Mapping[str, Array], host: HostMemory, places: Array
) -> list[str]:
    name, size = op.out.tensor, np.dtype(op.out_dtype).itemsize
    at = places[..., None] - host.low + np.arange(size)
    if at.min(initial=0) < 0 or at.max(initial=0) >= len(host.bytes):
        return [f"an element of {name} lies outside HOST"]
    found: list[str] = []
    if not host.written[at].all():
        first = tuple(int(n) for n in np.argwhere(~host.written[at].all(axis=-1))[0])
        found.append(f"{name}{list(first)} is never stored")
    operands = {k: v for k, v in tensors.items() if k != name}
    expected = evaluate(op, operands)[name]
    if name in tensors and not np.array_equal(tensors[name], expected):
        found.append(f"formula: the file's {name} is not what NumPy computes")
    raw = np.ascontiguousarray(host.bytes[at])
    got = raw.view(np.dtype(op.out_dtype).newbyteorder("<"))[..., 0]
    if not np.array_equal(got, expected):
        where = tuple(int(n) for n in np.argwhere(got != expected)[0])
        shown = ",".join(map(str, where))
        found.append(
            f"values: {name}[{shown}] is {int(got[where])}, NumPy computes {int(expected[where])}"
        )
    return found
