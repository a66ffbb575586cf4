"""A decoded instruction stream: one NumPy column per field.

`code[n]` is the index of instruction n in `isa.instructions` (-1: unknown opcode);
`fields[name][n]` is its
field value as int64, 0 where the instruction has no such field. `words` are the encoded bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stream:
    code: NDArray[np.int64]
    fields: Mapping[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.code)


@dataclass(frozen=True)
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
