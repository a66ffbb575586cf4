"""Instruction words and micro-ops to columns of field values and back, vectorised.

Words are uint64[n, 2]: bit p of an instruction is bit p % 64 of word p // 64. Decoding and encoding
lose nothing: bits without a meaning come back as `unused_<lo>` columns (only where one is set).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csp_embed.errors import EncodeError
from csp_embed.ir.stream import Stream
from csp_embed.machine.spec import Field, Isa


def decode(isa: Isa, words: ArrayLike) -> Stream:
    """The columns of `words` (uint64[n, 2]).

    An unknown opcode gives code -1 and only its "opcode" column. Columns that are 0 everywhere
    are there for every field but the unused ones.
    """
    words = np.asarray(words, dtype=np.uint64)
    if words.ndim != 2 or words.shape[1] != 2:
        raise EncodeError(
            f"instruction words have shape {words.shape}",
            why="[n, 2] is expected",
            hint="two uint64 words an instruction, as `encode` makes them",
        )
    n = len(words)
    columns: dict[str, NDArray[np.int64]] = {}
    code = np.full(n, -1, dtype=np.int64)
    # Instruction kinds, of which there are five: each pass over the words is vectorised.
    for index, instruction in enumerate(isa.instructions):
        opcode = instruction.field("opcode")
        opcodes = columns.get("opcode")
        if opcodes is None:
            # One opcode field for all of them; it is taken out once.
            opcodes = columns["opcode"] = _extract(words, opcode)
        rows = np.flatnonzero(opcodes == instruction.opcode)
        code[rows] = index
        part = words[rows]
        for field in instruction.fields:
            if field.name == "opcode":
                continue
            values = _extract(part, field)
            # Unused bits that are all 0 have no column: the encoder writes 0 for a missing one.
            if field.unused and not values.any():
                continue
            # A column spans all kinds; instructions without the field hold 0 there.
            if field.name not in columns:
                columns[field.name] = np.zeros(n, dtype=np.int64)
            columns[field.name][rows] = values
    return Stream(code, columns)


def encode(isa: Isa, stream: Stream) -> NDArray[np.uint64]:
    """The words of `stream`, uint64[n, 2]. Missing columns count as 0; "opcode" is not read.

    Raises: EncodeError naming instruction number, field, value and range where a value does not fit
        or its instruction lacks the field; or an unknown instruction (code -1) or column.
    """
    code = np.asarray(stream.code)
    n = len(code)
    # "opcode" is the instruction's own; decoded streams have it as a column.
    columns = {name: _column(name, v, n) for name, v in stream.fields.items() if name != "opcode"}
    known = {f.name for i in isa.instructions for f in i.fields}
    for name in columns:
        if name not in known:
            raise EncodeError(
                f"no instruction of {isa.name} has a field '{name}'",
                hint="csp-embed isa show prints the fields",
            )
    strange = np.flatnonzero((code < 0) | (code >= len(isa.instructions)))
    if len(strange):
        first = int(strange[0])
        raise EncodeError(
            f"instruction {first} is unknown",
            why=f"code {int(code[first])}; {isa.name} has 0..{len(isa.instructions) - 1}",
            hint="csp-embed isa show prints the codes",
        )
    words = np.zeros((n, 2), dtype=np.uint64)
    for index, instruction in enumerate(isa.instructions):
        rows = np.flatnonzero(code == index)
        if not len(rows):
            continue
        fields = {f.name: f for f in instruction.fields}
        part = np.zeros((len(rows), 2), dtype=np.uint64)
        opcode = np.full(len(rows), instruction.opcode, dtype=np.int64)
        _insert(part, fields["opcode"], opcode)
        for name, column in columns.items():
            values = column[rows]
            field = fields.get(name)
            # A field that the instruction lacks may be 0, so that one column serves all kinds.
            bad = values != 0 if field is None else (values < field.min) | (values > field.max)
            if bad.any():
                first = int(np.flatnonzero(bad)[0])
                raise _misfit(instruction.name, int(rows[first]), name, int(values[first]), field)
            if field is not None:
                _insert(part, field, values)
        words[rows] = part
    return words


def encode_uops(isa: Isa, fields: Mapping[str, ArrayLike]) -> NDArray[np.uint32]:
    """Packed micro-ops, uint32[n], from one array (or number) per micro-op field.

    Missing fields count as 0. Raises: EncodeError naming micro-op number, field, value and range.
    """
    known = {f.name: f for f in isa.uop_fields}
    for name in fields:
        if name not in known:
            raise EncodeError(
                f"micro-ops of {isa.name} have no field '{name}'",
                why=f"they have {', '.join(known)}",
                hint=f"one of {', '.join(known)}",
            )
    columns = [np.atleast_1d(np.asarray(v)) for v in fields.values()]
    try:
        # Numbers stand for every micro-op.
        columns = np.broadcast_arrays(*columns)
    except ValueError as error:
        sizes = ", ".join(f"{name}: {len(c)}" for name, c in zip(fields, columns, strict=True))
        raise EncodeError(
            "micro-op fields differ in length",
            why=sizes,
            hint="pass one value a micro-op in every field",
        ) from error
    # No field at all: there is nothing that says how many.
    n = columns[0].size if columns else 0
    packed = np.zeros(n, dtype=np.uint32)
    for name, column in zip(fields, columns, strict=True):
        values = _column(name, column, n)
        field = known[name]
        bad = np.flatnonzero((values < field.min) | (values > field.max))
        if len(bad):
            first = int(bad[0])
            raise EncodeError(
                f"micro-op {first}: {name} = {int(values[first])} does not fit",
                why=f"{field.width} bits hold {field.min}..{field.max}",
                hint="a smaller tile, or a wider field in the specification",
            )
        # Masked in int64: negative values of signed fields lose their upper bits.
        mask = (1 << field.width) - 1
        packed |= ((values & mask) << field.lo).astype(np.uint32)
    return packed


def decode_uops(isa: Isa, packed: ArrayLike) -> dict[str, NDArray[np.int64]]:
    """Field -> int64[n] of packed micro-ops (uint32[n])."""
    # Widened before shifting: a field at the top bit of a uint32 must not become negative.
    wide = np.asarray(packed, dtype=np.uint32).astype(np.int64)
    return {f.name: _sign((wide >> f.lo) & ((1 << f.width) - 1), f) for f in isa.uop_fields}


def _column(name: str, values: Any, n: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.shape != (n,) or (n and array.dtype.kind not in "iub"):
        raise EncodeError(
            f"column '{name}' is {array.dtype}{list(array.shape)}",
            why=f"integers [{n}] are expected",
            hint="pass one integer an instruction",
        )
    # Values above int64 would turn negative without a word.
    if array.dtype == np.uint64 and n and int(array.max()) > np.iinfo(np.int64).max:
        first = int(np.argmax(array))
        raise EncodeError(
            f"instruction {first}: {name} = {int(array[first])} does not fit",
            hint="csp-embed isa show prints the width of every field",
        )
    return array.astype(np.int64)


def _misfit(
    instruction: str, number: int, name: str, value: int, field: Field | None
) -> EncodeError:
    if field is None:
        return EncodeError(
            f"instruction {number} ({instruction}): {name} = {value}",
            why=f"{instruction} has no field '{name}'",
        )
    return EncodeError(
        f"instruction {number} ({instruction}): {name} = {value} does not fit",
        why=f"its {field.width} bits hold {field.min}..{field.max}",
    )


def _extract(words: NDArray[np.uint64], field: Field) -> NDArray[np.int64]:
    half, shift = divmod(field.lo, 64)
    value = words[:, half] >> np.uint64(shift)
    # A field may lie across the two words.
    if shift + field.width > 64:
        value = value | words[:, half + 1] << np.uint64(64 - shift)
    return _sign((value & np.uint64((1 << field.width) - 1)).astype(np.int64), field)


def _sign(values: NDArray[np.int64], field: Field) -> NDArray[np.int64]:
    if not field.signed:
        return values
    return np.where(values > field.max, values - (1 << field.width), values)


# Checked before: here values are cut to their bits without asking.
def _insert(words: NDArray[np.uint64], field: Field, values: NDArray[np.int64]) -> None:
    bits = values.astype(np.uint64) & np.uint64((1 << field.width) - 1)
    half, shift = divmod(field.lo, 64)
    words[:, half] |= bits << np.uint64(shift)
    if shift + field.width > 64:
        words[:, half + 1] |= bits >> np.uint64(64 - shift)
