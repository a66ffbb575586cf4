"""Where a run went wrong: the first byte that differs, the tensor element it belongs to, and the
instruction that stored it; and the contents of memories as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.judge.stream.table import STORE
from csp_embed.machine.words.listing import line
from csp_embed.sim.functional.run import Run


@dataclass(frozen=True)
class Difference:
    """address: of the first byte that differs; got / expected: the value there (of the tensor's
    type where the byte belongs to a tensor, else the byte). tensor, index: the logical element, or
    None. insn: the instruction that last stored it, or None. count: bytes that differ."""

    address: int
    got: int
    expected: int
    tensor: str | None
    index: tuple[int, ...] | None
    insn: int | None
    count: int
    text: str

    def as_json(self) -> dict[str, Any]:
        """The difference as a JSON object."""
        return {
            "address": self.address, "got": self.got, "expected": self.expected,
            "tensor": self.tensor, "index": list(self.index) if self.index is not None else None,
            "insn": self.insn, "bytes_different": self.count, "text": self.text,
        }  # fmt: skip


def first_difference(run: Run) -> Difference | None:
    """The first byte in address order where DRAM differs from what the program expects."""
    expected = [(a, d) for a, d in run.program.after if len(d)]
    count, first = 0, None
    # Ranges stand in the order of the file; people look for the lowest address.
    pairs = sorted(zip(run.outputs, expected, strict=True), key=lambda pair: pair[0][0])
    for (address, got), (_, want) in pairs:
        unequal = np.flatnonzero(got != want)
        count += len(unequal)
        if len(unequal) and first is None:
            k = int(unequal[0])
            first = (address + k, got, want, k)
    if first is None:
        return None
    address, got, want, k = first
    place = find_element(run.program.meta, address)
    insn = last_writer(run, address)
    # A byte of an int32 says little: the whole element is told where there is one.
    value, target = int(got[k]), int(want[k])
    tensor = index = None
    where = f"DRAM {address:#x}"
    if place is not None:
        tensor, index, offset, dtype = place
        size = dtype.itemsize
        if k - offset >= 0 and k - offset + size <= len(got):
            value = int(got[k - offset : k - offset + size].view(dtype)[0])
            target = int(want[k - offset : k - offset + size].view(dtype)[0])
        where = f"{tensor}[{','.join(map(str, index))}] (DRAM {address:#x})"
    writer = "nothing stored it"
    if insn is not None:
        writer = "stored by instruction " + " ".join(line(run.isa, run.stream, insn).split())
    text = f"{where}: got {value}, expected {target}; {writer}; {count} bytes differ in all"
    return Difference(address, value, target, tensor, index, insn, count, text)


def last_writer(run: Run, address: int) -> int | None:
    """The executed store that last wrote the DRAM byte at `address`."""
    c = run.table.rows[run.executed].view(np.recarray)
    moved = run.table.dram_elements[run.executed] > 0
    elem = np.array([m.elem_bytes for m in run.isa.memories])[np.maximum(c.named, 0)]
    offset = address - c.dram * elem
    row_bytes, pitch = c.x_size * elem, c.x_stride * elem
    inside = np.zeros(len(c), dtype=bool)
    candidates = np.flatnonzero(
        moved & (c.kind == STORE) & (offset >= 0) & (offset < (c.y_size - 1) * pitch + row_bytes)
    )
    # Rows with gaps between them: the span alone is no proof that a byte was stored.
    for t in candidates:
        rows = np.arange(c.y_size[t]) * pitch[t]
        inside[t] = bool(((rows <= offset[t]) & (offset[t] < rows + row_bytes[t])).any())
    hits = np.flatnonzero(inside)
    return int(run.executed[hits[-1]]) if len(hits) else None


def find_element(meta: Any, address: int) -> tuple[str, tuple[int, ...], int, np.dtype[Any]] | None:
    """The tensor element at a DRAM address by the digits in the program's meta:
    (tensor, index, byte within the element, dtype), or None for pad lanes and other bytes."""
    tensors = meta.get("tensors")
    if not isinstance(tensors, dict):
        return None
    for name, info in tensors.items():
        try:
            dtype, shape = np.dtype(info["dtype"]), [int(s) for s in info["shape"]]
            base, digits = int(info["addr"]), info["digits"]
            # Address of every element along each axis; they add up.
            axes = [np.zeros(s, dtype=np.int64) for s in shape]
            for d in digits:
                if "offset_bytes" in d:
                    axes[d["axis"]] += np.array(d["offset_bytes"], dtype=np.int64)
                    continue
                i = np.arange(shape[d["axis"]])
                axes[d["axis"]] += (i // d["div"]) % d["mod"] * d["stride_bytes"]
        # Foreign files may describe tensors in any way, or not at all.
        except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
            continue
        found = _search(axes, address - base, dtype.itemsize)
        if found is not None:
            return name, found[0], found[1], dtype
    return None


def _search(axes: list[np.ndarray], offset: int, item: int) -> tuple[tuple[int, ...], int] | None:
    """The index whose per-axis addresses sum to offset - byte with 0 <= byte < item."""
    if not axes:
        return ((), offset) if 0 <= offset < item else None
    # Sums of the first axes are few compared with the tensor: meet in the middle.
    half = max(1, len(axes) // 2)
    left, right = _sums(axes[:half]), _sums(axes[half:])
    order = np.argsort(right, kind="stable")
    ranked = right[order]
    for k in range(len(left)):
        rest = offset - int(left[k])
        at = int(np.searchsorted(ranked, rest, side="right")) - 1
        if at >= 0 and rest - int(ranked[at]) < item:
            a = np.unravel_index(k, [len(x) for x in axes[:half]])
            b = np.unravel_index(int(order[at]), [len(x) for x in axes[half:]])
            return tuple(int(v) for v in (*a, *b)), rest - int(ranked[at])
    return None


def _sums(axes: list[np.ndarray]) -> np.ndarray:
    total = np.zeros(1, dtype=np.int64)
    for axis in axes:
        total = (total[:, None] + axis[None, :]).reshape(-1)
    return total


_RANGE = re.compile(r"^\s*(\w+)\s*\[\s*(\w+)\s*(?::\s*(\w+)\s*)?\]\s*$")


def dump(run: Run, what: str) -> tuple[str, np.ndarray]:
    """Contents for `acc[0:4]`, `inp[7]`, `uop[0:3]` or `dram[0x1000:0x1040]` (bytes).

    Returns: (name of the memory, array).

    Raises: InputError for an unknown memory or a range outside it.
    """
    match = _RANGE.match(what)
    names = {m.name.lower(): m.name for m in run.isa.memories}
    known = ", ".join([*names.values(), "DRAM"])
    hint = "for example acc[0:4] or dram[0x1000:0x1040]"
    if match is None:
        raise InputError(f"cannot read the range '{what}'", where="--dump", hint=hint)
    name = match[1].lower()
    try:
        first = int(match[2], 0)
        last = int(match[3], 0) if match[3] else first + 1
    except ValueError as error:
        raise InputError(f"'{what}' has no numbers", where="--dump", hint=hint) from error
    if name == "dram":
        return "DRAM", run.dram(first, max(last - first, 0))
    if name not in names:
        raise InputError(
            f"unknown memory '{match[1]}'",
            where="--dump",
            why=f"known: {known}",
            hint=f"one of {known}",
        )
    depth = run.isa.memory(names[name]).depth
    if not 0 <= first < last <= depth:
        raise InputError(
            f"'{what}' is no range of {names[name]}",
            where="--dump",
            why=f"0 to {depth}",
            hint=f"{names[name]}[0:{min(4, depth)}]",
        )
    return names[name], run.memory(names[name], first, last)
