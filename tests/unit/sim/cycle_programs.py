"""Streams for the tests of the cycle engine: short ones written by hand, and the measured ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csp_embed.ir.stream import Stream
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import decode

DATA = Path(__file__).parents[2] / "data" / "cycles"


@dataclass(frozen=True)
class Measured:
    """A program and its cycles on the RTL by memory interface; request_wait: the memory's delay."""

    group: str
    name: str
    stream: Stream
    cycles: dict[str, int]
    request_wait: int = 16


def measured(isa: Isa, folder: Path = DATA) -> Iterator[Measured]:
    """All recorded programs of `folder`: groups micro, tvm, and rtl where there is such a file."""
    for text in (folder / "micro.jsonl").read_text().splitlines():
        record = json.loads(text)
        words = [[int(h[16:], 16), int(h[:16], 16)] for h in record["insn"]]
        cycles = {memory: record[memory] for memory in ("de10", "pynq")}
        yield Measured("micro", record["name"], decode(isa, np.array(words, np.uint64)), cycles)
    for group, file, suffix in (("tvm", "tvm_streams", "_insn"), ("rtl", "rtl_streams", "")):
        if not (folder / f"{file}.npz").exists():
            continue
        with np.load(folder / f"{file}.npz") as archive:
            for record in json.loads(str(archive["meta"])):
                stream = decode(isa, archive[record["id"] + suffix])
                cycles = {
                    memory: record[f"cycles_{memory}"]
                    for memory in ("de10", "pynq")
                    if record[f"cycles_{memory}"] is not None
                }
                wait = record.get("request_wait", 16)
                yield Measured(group, record["id"], stream, cycles, wait)


def program(isa: Isa, *instructions: dict[str, int | str]) -> Stream:
    """A stream from one dictionary an instruction: `name`, then fields; a memory by its name."""
    fields = {f.name for i in isa.instructions for f in i.fields} - {"opcode"}
    columns = {name: np.zeros(len(instructions), np.int64) for name in fields}
    code = np.zeros(len(instructions), np.int64)
    for n, given in enumerate(instructions):
        values = dict(given)
        kind = isa.instruction(str(values.pop("name")))
        code[n] = isa.instructions.index(kind)
        for field, value in values.items():
            if isinstance(value, str):
                value = isa.memory(value).id
            columns[field][n] = value
    return Stream(code, columns)


FINISH: dict[str, int | str] = {"name": "FINISH"}


def load(memory: str, x: int, y: int = 1, **more: int) -> dict[str, int | str]:
    """A VTA load of y rows of x elements, at address 4096 * element bytes unless told."""
    base = {"name": "LOAD", "memory": memory, "y_size": y, "x_size": x, "x_stride": x}
    return {**base, "dram_base": 4096, **more}


def store(x: int, y: int = 1, **more: int) -> dict[str, int | str]:
    """A VTA store of y rows of x elements."""
    base = {"name": "STORE", "memory": "OUT", "y_size": y, "x_size": x, "x_stride": x}
    return {**base, "dram_base": 4096, **more}


def gemm(steps: int, **more: int) -> dict[str, int | str]:
    """A VTA matrix instruction of that many micro-op steps."""
    return {"name": "GEMM", "uop_end": 1, "iter_out": 1, "iter_in": steps, **more}


def alu(steps: int, **more: int) -> dict[str, int | str]:
    """A VTA elementwise instruction of that many micro-op steps."""
    return {"name": "ALU", "uop_end": 1, "iter_out": 1, "iter_in": steps, **more}
