"""A decoded instruction stream: one NumPy column per field.

`code[n]` is the index of instruction n in `isa.instructions` (-1: unknown opcode);
`fields[name][n]` is its
field value as int64, 0 where the instruction has no such field. `words` are the encoded bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stream:
    """See the module's text."""

    code: NDArray[np.int64]
    fields: Mapping[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.code)

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed. Whether the machine
        accepts it is for `judge.stream.judge` to say."""
        # -1 is an opcode that the machine lacks: a stream may hold it, judges say so.
        wrong = ["an opcode is below -1"] if (self.code < -1).any() else []
        # Columns are as long as the stream, whatever fields an instruction has.
        return wrong + [
            f"field {name} has {column.shape} values for {len(self)} instructions"
            for name, column in self.fields.items()
            if column.shape != self.code.shape
        ]

    def show(self) -> str:
        """How many instructions of each code there are; `disasm` lists them with their names."""
        codes, counts = np.unique(self.code, return_counts=True)
        each = ", ".join(
            f"{n} of code {c}" for c, n in zip(codes.tolist(), counts.tolist(), strict=True)
        )
        return f"{len(self)} instructions with {len(self.fields)} fields: {each or 'none'}"


@dataclass(frozen=True, eq=False)  # by identity: arrays have no one answer to ==
class Program:
    """A program file in memory; arrays as in the file (see docs/program-file.md).

    meta: its JSON. insn: uint64[n, 2]. before / after: DRAM byte ranges as (address, uint8 data).
    tensors: logical tensors by name. expected_acc: nothing, or int32 accumulators for tests.
    """

    meta: Mapping[str, Any]
    insn: NDArray[np.uint64]
    before: tuple[tuple[int, NDArray[np.uint8]], ...]
    after: tuple[tuple[int, NDArray[np.uint8]], ...]
    tensors: Mapping[str, NDArray[Any]]

    def __repr__(self) -> str:
        names = ", ".join(self.tensors) or "none"
        return f"<Program: {len(self.insn)} instructions, tensors {names}>"

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed: docs/program-file.md.
        Whether it computes its formula is for `csp-embed check` to say."""
        wrong: list[str] = []
        if self.insn.ndim != 2 or self.insn.shape[1] != 2:
            wrong.append(f"instruction words have shape {self.insn.shape}")
        for name, ranges in (("before", self.before), ("after", self.after)):
            spans = sorted((at, at + len(data)) for at, data in ranges)
            # Address 0 is no address: programs may be moved by adding to those that are one.
            if any(at < 1 or end > 1 << 32 for at, end in spans):
                wrong.append(f"a range of `{name}` does not lie between 1 and 2^32")
            # Neighbours in order of address are the only ones that can overlap first.
            if any(b[0] < a[1] for a, b in itertools.pairwise(spans)):
                wrong.append(f"two ranges of `{name}` overlap")
        return wrong

    def show(self) -> str:
        """Sizes: instructions, bytes before and after, tensors."""
        lines = [f"{len(self.insn)} instructions for {self.meta.get('isa', 'an unnamed machine')}"]
        for name, ranges in (("before", self.before), ("after", self.after)):
            total = sum(len(data) for _, data in ranges)
            lines.append(f"  {name}: {total} bytes in {len(ranges)} ranges")
        lines += [
            f"  {name}: {array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'}"
            for name, array in self.tensors.items()
        ]
        return "\n".join(lines)
