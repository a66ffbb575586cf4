"""The listing: recorded programs as text, exact lines, machines without tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csp_embed.ir.stream import Stream
from csp_embed.machine.load import load_isa
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.machine.words import bits
from csp_embed.machine.words.listing import line, listing

GOLDEN = Path(__file__).parents[2] / "golden" / "reference"

DENSE = """\
   0 LOAD UOP sram=0x0 dram=0x1000 1x1/1
   1 GEMM reset 1x1 uops 0..1 ACC[dst +0 +0] | push prev
   2 LOAD INP sram=0x0 dram=0x100 1x1/1 | pop next
   3 LOAD WGT sram=0x0 dram=0x20 1x1/1 | push next
   4 LOAD UOP sram=0x1 dram=0x1001 1x1/1 | pop prev
   5 GEMM 1x1 uops 1..2 ACC[dst +0 +0] INP[src +0 +0] WGT[wgt +0 +0]
   6 LOAD UOP sram=0x2 dram=0x1002 1x1/1
   7 ALU SHR 1x1 uops 2..3 ACC[dst +0 +0] imm=8
   8 LOAD UOP sram=0x3 dram=0x1003 1x1/1
   9 ALU MIN 1x1 uops 3..4 ACC[dst +0 +0] imm=127
  10 LOAD UOP sram=0x4 dram=0x1004 1x1/1
  11 ALU MAX 1x1 uops 4..5 ACC[dst +0 +0] imm=0 | push next
  12 STORE OUT sram=0x0 dram=0x300 1x1/1 | pop prev, push prev
  13 LOAD INP nothing | push next
  14 LOAD UOP nothing | pop prev, pop next
  15 FINISH
"""


def test_a_whole_recorded_program() -> None:
    program = read_program(GOLDEN / "dense_1x16x16.npz")
    isa = isa_of(program)
    assert "\n".join(listing(isa, bits.decode(isa, program.insn))) + "\n" == DENSE


def test_every_recorded_instruction_is_one_line() -> None:
    for path in sorted(GOLDEN.glob("*.npz")):
        program = read_program(path)
        isa = isa_of(program)
        lines = listing(isa, bits.decode(isa, program.insn))
        assert len(lines) == len(program.insn)
        assert all("\n" not in text and "?" not in text for text in lines)


def one(spec: str, name: str, **values: int) -> str:
    isa = load_isa(spec)
    index = [i.name for i in isa.instructions].index(name)
    return line(isa, Stream(np.array([index]), {k: np.array([v]) for k, v in values.items()}), 0)


@pytest.mark.parametrize(
    ("spec", "name", "values", "text"),
    [
        ("vta", "LOAD", {"memory": 2, "dram_base": 0x1A0, "y_size": 4, "x_size": 16, "x_stride": 64,
                         "y_pad_0": 1, "y_pad_1": 1, "pop_next": 1, "push_next": 1},
         "   0 LOAD INP sram=0x0 dram=0x1a0 4x16/64 pad 1,1,0,0 | pop next, push next"),
        ("vta", "LOAD", {"memory": 7, "y_size": 1, "x_size": 1},
         "   0 LOAD memory 7? sram=0x0 dram=0x0 1x1/0"),
        ("vta", "ALU", {"alu_opcode": 7, "iter_out": 2, "src_factor_in": 3},
         "   0 ALU op 7? 2x0 uops 0..0 ACC[dst +0 +0] ACC[src +0 +3]"),
        ("vta", "ALU", {"alu_opcode": 2, "use_imm": 1, "imm": -9, "src_factor_in": 3},
         "   0 ALU ADD 0x0 uops 0..0 ACC[dst +0 +0] ACC[src +0 +3] imm=-9"),
        ("vta", "FINISH", {"unused_64": 0xAB}, "   0 FINISH unused_64=0xab"),
        ("toy_dot", "EACH", {"what": 6, "slow": 2, "fast": 3, "last": 4, "sum_slow": 5,
                             "by_amount": 1, "amount": -1, "other_slow": 5, "tell_right": 1},
         "   0 EACH SHIFT 2x3 uops 0..4 SUM[sum +5 +0] imm=-1 | push next"),
        ("toy_outer", "OUTER", {"outer": 1, "inner": 2, "end": 3, "row_inner": 4},
         "   0 OUTER 1x2 uops 0..3 TILE[tile +0 +0] COL[col +0 +0] ROW[row +0 +4]"),
    ],
)  # fmt: skip
def test_lines(spec: str, name: str, values: dict[str, int], text: str) -> None:
    assert one(spec, name, **values) == text


def test_unknown_opcode() -> None:
    isa = load_isa()
    stream = bits.decode(isa, np.array([[6, 0]], np.uint64))
    assert line(isa, stream, 0) == "   0 ??? unknown opcode 6"
