"""The spec interpreter: recorded programs, toy machines and corner cases computed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from csp_embed.errors import SimError
from csp_embed.ir.stream import Program, Stream
from csp_embed.machine.interpreter import Image, Interpreter, run, shift, wrap
from csp_embed.machine.load import load_isa
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.machine.spec import Isa
from csp_embed.machine.words import bits

GOLDEN = Path(__file__).parents[2] / "golden" / "reference"
SMALL = ("alu_add_clip", "alu_shift_bias", "dense_1x16x16", "dense_4x128x64")


@pytest.mark.parametrize("latched", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_recorded_programs_leave_the_recorded_bytes(name: str, latched: bool) -> None:
    program = read_program(GOLDEN / f"{name}.npz")
    image = run(isa_of(program), program, latched=latched)
    for address, data in program.after:
        assert image.read(address, len(data)) == data.tobytes()


@pytest.mark.slow
def test_a_recorded_convolution_leaves_the_recorded_bytes() -> None:
    program = read_program(GOLDEN / "conv_1x1.npz")
    image = run(isa_of(program), program)
    for address, data in program.after:
        assert image.read(address, len(data)) == data.tobytes()


def stream(isa: Isa, *instructions: tuple[str, Mapping[str, int]]) -> Stream:
    names = [i.name for i in isa.instructions]
    fields = {
        f.name: np.zeros(len(instructions), np.int64) for i in isa.instructions for f in i.fields
    }
    for n, (_, values) in enumerate(instructions):
        for field, value in values.items():
            fields[field][n] = value
    return Stream(np.array([names.index(name) for name, _ in instructions]), fields)


def execute(isa: Isa, ranges: list, *instructions: tuple[str, Mapping[str, int]]) -> Interpreter:
    """Encoded and decoded on the way, so that the words are what runs."""
    machine = Interpreter(isa, Image(ranges))
    machine.run(bits.decode(isa, bits.encode(isa, stream(isa, *instructions))))
    return machine


def test_padded_load_puts_zeros_around() -> None:
    isa = load_isa("vta", "1x4x4_small")
    data = np.arange(1, 49, dtype=np.int8).reshape(12, 4)
    machine = Interpreter(isa, Image([(0x1000, data)]))
    machine.memories["INP"][:] = 77
    load = {"memory": 2, "sram_base": 3, "dram_base": 0x400, "y_size": 2, "x_size": 3,
            "x_stride": 4, "y_pad_0": 1, "y_pad_1": 2, "x_pad_0": 2, "x_pad_1": 1}  # fmt: skip
    machine.run(stream(isa, ("LOAD", load)))
    expected = np.zeros((5, 6, 1, 4), np.int8)
    expected[1, 2:5, 0], expected[2, 2:5, 0] = data[0:3], data[4:7]
    assert np.array_equal(machine.memories["INP"][3:33], expected.reshape(30, 1, 4))
    assert (machine.memories["INP"][:3] == 77).all()
    assert (machine.memories["INP"][33:] == 77).all()


def test_a_load_of_nothing_ignores_its_padding() -> None:
    isa = load_isa("vta", "1x4x4_small")
    machine = Interpreter(isa, Image())
    machine.memories["INP"][:] = 77
    machine.run(stream(isa, ("LOAD", {"memory": 2, "y_size": 1, "y_pad_0": 3, "x_pad_0": 3})))
    assert (machine.memories["INP"] == 77).all()


def test_widening_load_and_truncating_store() -> None:
    isa = load_isa("vta", "1x4x4_small")
    narrow = np.array([[-128, -1, 127, 5]], np.int8)
    wide = np.array([[300, -300, 2**31 - 1, -(2**31)]], "<i4")
    both = {"y_size": 1, "x_size": 1, "x_stride": 1}
    machine = execute(
        isa,
        [(0x1000, narrow), (0x2000, wide), (0x3000, np.zeros(8, np.int8))],
        ("LOAD", {"memory": 5, "sram_base": 0, "dram_base": 0x400, **both}),
        ("LOAD", {"memory": 3, "sram_base": 1, "dram_base": 0x200, **both}),
        ("STORE", {"memory": 4, "sram_base": 0, "dram_base": 0xC00, "y_size": 1, "x_size": 2}),
    )
    assert machine.memories["ACC"][0].tolist() == narrow.tolist()
    stored = np.frombuffer(machine.image.read(0x3000, 8), np.int8)
    assert stored.tolist() == [-128, -1, 127, 5, 44, -44, -1, 0]


def test_latched_stores_do_not_see_loads_and_resets() -> None:
    isa = load_isa("vta", "1x4x4_small")
    machine = Interpreter(isa, Image([(0x3000, np.zeros(4, np.int8))]), latched=True)
    machine.memories["ACC"][0] = 9
    machine.memories["OUT"][0] = 3
    one = {"iter_out": 1, "iter_in": 1, "uop_end": 1}
    store = ("STORE", {"memory": 4, "dram_base": 0xC00, "y_size": 1, "x_size": 1})
    machine.run(stream(isa, ("GEMM", {"reset": 1, **one}), store))
    assert machine.image.read(0x3000, 4) == b"\3" * 4
    machine.run(stream(isa, ("ALU", {"alu_opcode": 2, "use_imm": 1, "imm": 7, **one}), store))
    assert machine.image.read(0x3000, 4) == b"\7" * 4


def test_products_wrap_around() -> None:
    isa = load_isa("vta", "1x4x4_small")
    machine = Interpreter(isa, Image())
    machine.memories["ACC"][0] = 2**31 - 1
    machine.memories["INP"][0] = [1, 0, 0, 0]
    machine.memories["WGT"][0][:, 0] = [1, 0, -1, 127]
    machine.run(stream(isa, ("GEMM", {"iter_out": 1, "iter_in": 1, "uop_end": 1})))
    assert machine.memories["ACC"][0, 0].tolist() == [
        -(2**31), 2**31 - 1, 2**31 - 2, -(2**31) + 126
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "amount", "result"),
    [(-5, 1, -3), (-5, 0, -5), (7, 31, 0), (-7, 31, -1), (3, -2, 12), (1, 33, 0), (5, 32, 5)],
)
def test_shifts(value: int, amount: int, result: int) -> None:
    assert shift(value, amount) == result


@pytest.mark.parametrize(
    ("value", "dtype", "result"),
    [
        (128, "int8", -128),
        (-129, "int8", 127),
        (2**31, "int32", -(2**31)),
        (-1, "uint32", 2**32 - 1),
    ],
)
def test_wrap(value: int, dtype: str, result: int) -> None:
    assert wrap(value, dtype) == result


def test_toy_dot_computes_a_matrix_vector_product() -> None:
    """y[k] = (sum_c x[c] * w[k, c]) >> 2, c in two blocks of eight lanes; 5 outputs."""
    isa = load_isa("toy_dot")
    rng = np.random.default_rng(3)
    x, w = rng.integers(-128, 128, 16), rng.integers(-128, 128, (5, 16))
    code = bits.encode_uops(isa, {"sig": [0, 1, 0], "tap": [0, 1, 0], "sum": 0})
    loops = {"slow": 5, "fast": 1, "first": 0, "last": 2}
    wide = {"rows": 1, "pitch": 0}
    machine = execute(
        isa,
        [(0x1000, x.astype(np.int8)), (0x2000, w.astype(np.int8)), (0x3000, code),
         (0x4000, np.zeros(5, np.int8))],
        ("MOVE_IN", {"which": 7, "far": 0xC00, "columns": 3, **wide}),
        ("MOVE_IN", {"which": 1, "far": 0x200, "columns": 2, **wide}),
        ("MOVE_IN", {"which": 2, "far": 0x400, "columns": 10, **wide}),
        ("DOT", {**loops, "last": 1, "clear": 1, "sum_slow": 1}),
        ("DOT", {**loops, "sum_slow": 1, "tap_slow": 2}),
        ("EACH", {**loops, "last": 1, "sum_slow": 1, "what": 6, "by_amount": 1, "amount": 2}),
        ("MOVE_OUT", {"which": 5, "far": 0x4000, "columns": 5, **wide}),
        ("HALT", {}),
    )  # fmt: skip
    assert machine.memories["SUM"][:5].tolist() == ((w @ x) >> 2).tolist()
    stored = np.frombuffer(machine.image.read(0x4000, 5), np.int8)
    assert stored.tolist() == ((w @ x) >> 2).astype(np.int8).tolist()


def test_toy_outer_computes_a_matrix_product_by_tiles() -> None:
    """y[m, n] = max(x[m, k] . w[k, n], 0) for 8 x 16 in tiles of 4 x 8; k in the micro-op loop."""
    isa = load_isa("toy_outer")
    rng = np.random.default_rng(4)
    x, w = rng.integers(-9, 10, (8, 3)), rng.integers(-9, 10, (3, 16))
    cols = x.reshape(2, 4, 3).transpose(0, 2, 1).astype(np.int8)  # [m/4, k, 4]
    rows = w.reshape(3, 2, 8).transpose(1, 0, 2).astype(np.int8)  # [n/8, k, 8]
    steps = bits.encode_uops(isa, {"col": [0, 1, 2], "row": [0, 1, 2], "tile": 0})
    nest = {"outer": 2, "inner": 2, "tile_outer": 2, "tile_inner": 1}
    block = {"height": 1, "step": 0}
    machine = execute(
        isa,
        [(0x1000, cols), (0x2000, rows), (0x3000, steps), (0x4000, np.zeros(128, np.int8))],
        ("GET", {"bank": 6, "there": 0xC00, "width": 3, **block}),
        ("GET", {"bank": 2, "there": 0x400, "width": 6, **block}),
        ("GET", {"bank": 3, "there": 0x400, "width": 6, **block}),
        ("OUTER", {**nest, "end": 1, "zero": 1}),
        ("OUTER", {**nest, "end": 3, "col_outer": 3, "row_inner": 3}),
        ("LANES", {**nest, "end": 1, "operation": 8, "with_constant": 1}),
        ("PUT", {"bank": 1, "there": 0x200, "width": 4, **block}),
        ("STOP", {}),
    )
    tiles = np.frombuffer(machine.image.read(0x4000, 128), np.int8).reshape(2, 2, 4, 8)
    expected = np.maximum(x @ w, 0).astype(np.int8)
    assert np.array_equal(tiles.transpose(0, 2, 1, 3).reshape(8, 16), expected)


LOOP = {"iter_out": 1, "iter_in": 1, "uop_end": 1}
REFUSED = [
    (("LOAD", {"memory": 2, "y_size": 1, "x_size": 1}), "outside the image", "LOAD INP"),
    (("LOAD", {"memory": 7, "y_size": 1, "x_size": 1}), "there is no memory 7", "LOAD memory 7?"),
    (("LOAD", {"memory": 4, "y_size": 1, "x_size": 1}), "OUT cannot be loaded", "LOAD OUT"),
    (("STORE", {"memory": 3, "y_size": 1, "x_size": 1}), "ACC cannot be stored", "STORE ACC"),
    (("STORE", {"memory": 4, "sram_base": 64, "y_size": 1, "x_size": 1}), "address 64", "STORE"),
    (("STORE", {"memory": 4, "y_size": 1, "x_size": 1}), "outside the image", "STORE OUT"),
    (("GEMM", {**LOOP, "uop_bgn": 0, "uop_end": 65}), "address 64 is outside UOP", "GEMM"),
    (("GEMM", {**LOOP, "iter_out": 3, "wgt_factor_out": 16}), "address 32 is outside WGT", "GEMM"),
    (("ALU", {**LOOP, "alu_opcode": 6}), "ALU has no operation 6", "ALU op 6?"),
]  # fmt: skip


@pytest.mark.parametrize(("instruction", "says", "text"), REFUSED)
def test_what_cannot_run_is_named(instruction: tuple, says: str, text: str) -> None:
    isa = load_isa("vta", "1x4x4_small")
    with pytest.raises(SimError) as error:
        execute(isa, [], ("FINISH", {}), instruction)
    assert says in error.value.what
    assert error.value.where.startswith(f"instruction 1 {text}")


def test_unknown_opcodes_are_named() -> None:
    program = Program({}, np.array([[7, 0]], np.uint64), (), (), {})
    with pytest.raises(SimError, match="0 \\?\\?\\? unknown opcode 7"):
        run(load_isa(), program)


def test_images_across_pages() -> None:
    image = Image([(4090, bytes(range(20)))])
    assert image.read(4094, 4) == bytes([4, 5, 6, 7])
    image.write(4095, b"ab")
    assert image.read(4090, 20) == bytes([0, 1, 2, 3, 4]) + b"ab" + bytes(range(7, 20))
    for address, size in ((4089, 2), (4109, 2), (0, 1)):
        with pytest.raises(SimError, match="outside the image"):
            image.read(address, size)
