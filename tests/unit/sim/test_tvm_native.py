"""Foreign simulators through their C interface.

TVM's libraries are not there in a test run: the tests compile a small stand-in of our own with
the same symbols (tests/data/vta_stub.c, by the system's C compiler) and run recorded programs.
What TVM's own libraries showed is told in docs/tvm-simulators.md.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from csp_embed.errors import InputError, MissingLibrary, SimError
from csp_embed.ir.stream import Program, Stream
from csp_embed.machine.load import load_isa
from csp_embed.machine.program_file import read_program
from csp_embed.machine.words.bits import decode, encode
from csp_embed.sim.tvm import child as tvm_child
from csp_embed.sim.tvm.native import first_difference, run_native

TESTS = Path(__file__).parents[2]
SOURCE = TESTS / "data" / "vta_stub.c"
COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler for the stand-in")
RUNNING = (
    "alu_add_clip",
    "alu_shift_bias",
    "conv_1x1",
    "conv_3x3_same",
    "conv_3x3_stride2",
    "conv_5x5_pad2_batch2",
    "dense_1x16x16",
)
ISA = load_isa("vta")
Make = Callable[..., Path]


def golden(name: str) -> Program:
    return read_program(TESTS / "golden" / "reference" / f"{name}.npz")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """make("STUB_ABORT", ...): a folder with a stand-in for libvta_fsim that has these faults."""
    built: dict[tuple[str, ...], Path] = {}

    def compile_one(folder: Path, name: str, *defines: str) -> None:
        assert COMPILER is not None
        target = folder / f"lib{name}.so"
        flags = [f"-D{d}" for d in defines]
        command = [COMPILER, "-O1", "-shared", "-fPIC", *flags, "-o", str(target), str(SOURCE)]
        subprocess.run(command, check=True, timeout=60)

    def folder_with(*defines: str) -> Path:
        if defines not in built:
            folder = built[defines] = tmp_path_factory.mktemp("tvm")
            if "STUB_TSIM" in defines:
                compile_one(folder, "vta_tsim", *defines)
                compile_one(folder, "vta_fsim", *defines)
                compile_one(folder, "tvm_runtime", "STUB_RUNTIME")
                (folder / "libvta_hw.so").write_bytes(b"the model; the stand-in does not open it")
            else:
                compile_one(folder, "vta_fsim", *defines)
        return built[defines]

    return folder_with


@needs_compiler
@pytest.mark.parametrize("name", RUNNING)
def test_recorded_programs_give_their_bytes(make: Make, name: str) -> None:
    program = golden(name)
    run = run_native(ISA, program, make())
    assert first_difference(program, program.after, run.outputs) is None
    assert [a for a, _ in run.outputs] == [a for a, _ in program.after]
    assert run.cycles is None
    # The stand-in's memory starts elsewhere, and not on a page: the program was really moved.
    assert run.moved_bytes != 0
    assert run.moved_bytes % ISA.limits.page_bytes == 0


@needs_compiler
def test_memory_outside_the_ranges_is_zero(make: Make) -> None:
    program = golden("alu_shift_bias")
    (address, data) = program.after[0]
    wider = replace(program, after=((address, data), (address + len(data), np.zeros(64, np.uint8))))
    run = run_native(ISA, wider, make())
    assert not run.outputs[1][1].any()


@needs_compiler
def test_difference_names_the_logical_element(make: Make) -> None:
    program = golden("alu_add_clip")
    y = program.tensors["y"]
    digits = [
        {"axis": 0, "div": 1, "mod": y.shape[0], "stride_bytes": 16},
        {"axis": 2, "div": 1, "mod": 16, "stride_bytes": 1},
    ]
    place = {"addr": program.after[0][0], "dtype": "int8", "shape": list(y.shape), "digits": digits}
    named = replace(program, meta={**program.meta, "tensors": {"y": place}})
    run = run_native(ISA, named, make("STUB_WRONG"))
    text = first_difference(named, named.after, run.outputs)
    wrong = np.int64(y[0, 0, 0]) + 1
    start = program.after[0][0]
    # The stand-in spoils the first byte of each row of a store; this program stores one row.
    assert text == (
        f"y[0,0,0] (DRAM {start:#x}): ours {y[0, 0, 0]}, theirs {wrong}; 1 bytes differ in all"
    )
    later = [(a, d.copy()) for a, d in named.after]
    later[0][1][16 * 5 + 3] ^= 1
    text = first_difference(named, named.after, later)
    assert text is not None
    assert text.startswith(f"y[5,0,3] (DRAM {start + 83:#x}): ")
    assert first_difference(named, named.after, named.after) is None


def test_difference_outside_every_tensor_names_the_byte() -> None:
    program = golden("alu_add_clip")
    changed = [(a, d.copy()) for a, d in program.after]
    changed[0][1][7] ^= 255
    text = first_difference(program, program.after, changed)
    assert text is not None
    assert text.startswith(f"DRAM {program.after[0][0] + 7:#x}, in no tensor: ours ")


@needs_compiler
def test_an_abort_of_the_library_is_an_error(make: Make) -> None:
    with pytest.raises(SimError, match="SIGABRT") as caught:
        run_native(ISA, golden("dense_1x16x16"), make("STUB_ABORT"))
    assert caught.value.why == "Check failed: the stand-in was told to abort"


@needs_compiler
def test_a_hang_of_the_library_is_an_error(make: Make) -> None:
    with pytest.raises(SimError, match=r"did not end within 1 s"):
        run_native(ISA, golden("dense_1x16x16"), make("STUB_HANG"), timeout=1.0)


@needs_compiler
@pytest.mark.parametrize(
    ("fault", "text"),
    [("STUB_STATUS", "VTADeviceRun returned 1"), ("STUB_ALLOC", "gave no memory")],
)
def test_a_refusal_of_the_library_is_an_error(make: Make, fault: str, text: str) -> None:
    with pytest.raises(SimError, match=text):
        run_native(ISA, golden("dense_1x16x16"), make(fault))


@needs_compiler
def test_a_missing_symbol_is_named(make: Make) -> None:
    with pytest.raises(MissingLibrary, match="no symbol VTADeviceRun") as caught:
        run_native(ISA, golden("dense_1x16x16"), make("STUB_NO_RUN"))
    assert "docs/tvm-simulators.md" in caught.value.hint


@needs_compiler
def test_a_runtime_that_is_not_there_is_named(make: Make, tmp_path: Path) -> None:
    shutil.copy(make("STUB_TSIM") / "libvta_fsim.so", tmp_path)
    with pytest.raises(MissingLibrary, match=r"cannot be used[\s\S]*stub_started"):
        run_native(ISA, golden("dense_1x16x16"), tmp_path)


@needs_compiler
def test_the_cycle_simulator_is_started_and_its_counter_read(make: Make) -> None:
    program = golden("dense_1x16x16")
    run = run_native(ISA, program, make("STUB_TSIM"), "tvm-tsim")
    assert run.cycles == 4711
    assert first_difference(program, program.after, run.outputs) is None


@needs_compiler
def test_a_runtime_without_its_interface_is_named(make: Make, tmp_path: Path) -> None:
    for name in ("libvta_tsim.so", "libvta_hw.so"):
        shutil.copy(make("STUB_TSIM") / name, tmp_path)
    source = "int stub_started;"
    command = [str(COMPILER), "-shared", "-fPIC", "-x", "c", "-", "-o"]
    target = str(tmp_path / "libtvm_runtime.so")
    subprocess.run([*command, target], input=source.encode(), check=True, timeout=60)
    with pytest.raises(MissingLibrary, match="TVM's runtime has no symbol TVMGetLastError"):
        run_native(ISA, golden("dense_1x16x16"), tmp_path, "tvm-tsim")


@pytest.mark.parametrize("engine", ["tvm-fsim", "tvm-tsim"])
def test_without_libraries_the_error_says_what_to_build(tmp_path: Path, engine: str) -> None:
    program = golden("dense_1x16x16")
    wanted = engine.replace("tvm-", "libvta_")
    with pytest.raises(MissingLibrary, match=f"needs TVM's {wanted}"):
        run_native(ISA, program, None, engine)
    with pytest.raises(MissingLibrary, match="no folder"):
        run_native(ISA, program, tmp_path / "nowhere", engine)
    with pytest.raises(MissingLibrary, match=f"holds no {wanted}") as caught:
        run_native(ISA, program, tmp_path, engine)
    assert "docs/tvm-simulators.md" in caught.value.hint
    assert (TESTS.parent / "docs" / "tvm-simulators.md").is_file()


def test_a_file_that_is_no_library_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "libvta_fsim.so").write_text("not a library")
    with pytest.raises(MissingLibrary, match="cannot be used"):
        run_native(ISA, golden("dense_1x16x16"), tmp_path)


def test_an_address_outside_the_ranges_is_refused_before_the_library_sees_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "libvta_fsim.so").touch()
    program = golden("dense_1x16x16")
    stream = decode(ISA, program.insn)
    columns = {name: column.copy() for name, column in stream.fields.items()}
    first = int(np.flatnonzero(columns["x_size"] > 0)[0])
    columns["dram_base"][first] = (1 << 30) // ISA.memory_by_id(columns["memory"][first]).elem_bytes
    insn = encode(ISA, Stream(stream.code, columns))
    with pytest.raises(SimError, match=f"instruction {first} reaches outside"):
        run_native(ISA, replace(program, insn=insn), tmp_path)


@pytest.mark.parametrize("config", sorted((TESTS / "data" / "configs").glob("*.json")))
def test_configurations_that_c_bit_fields_pack_otherwise_are_refused(
    config: Path, tmp_path: Path
) -> None:
    (tmp_path / "libvta_fsim.so").write_text("not a library")
    isa = load_isa("vta", str(config))
    # First word of a GEMM: 8 bits, uop_bgn, uop_end, two counts of 14; then the factors of ACC.
    uop_bits = int(isa.config["LOG_UOP_BUFF_SIZE"]) - 2
    acc_bits = isa.memory("ACC").depth.bit_length() - 1
    fits = 8 + uop_bits + uop_bits + 1 + 28 + acc_bits <= 64
    assert fits == (config.stem == "1x4x4_small")
    expected = (InputError, "at bit 49") if fits else (MissingLibrary, "cannot be used")
    program = Program({}, np.zeros((1, 2), np.uint64), (), (), {})
    with pytest.raises(expected[0], match=expected[1]):
        run_native(isa, program, tmp_path)


@pytest.mark.parametrize("config", sorted((TESTS / "data" / "configs").glob("*.json")))
def test_moving_changes_addresses_by_whole_pages_and_nothing_else(config: Path) -> None:
    isa = load_isa("vta", str(config))
    rng = np.random.default_rng(0)
    instruction = isa.of_kind("load")
    memories = [m for m in isa.memories if m.load_queue is not None]
    chosen = [memories[n] for n in rng.integers(0, len(memories), 200)]
    fields = {
        f.name: rng.integers(f.min, f.max, 200, endpoint=True)
        for f in instruction.fields
        if f.name != "opcode" and not f.unused
    }
    fields[instruction.roles["memory"]] = np.array([m.id for m in chosen])
    fields[instruction.roles["dram"]] = rng.integers(1 << 12, 1 << 18, 200)
    code = np.full(200, isa.instructions.index(instruction))
    words = encode(isa, Stream(code, fields))
    place = instruction.field(instruction.roles["dram"])
    moved = np.arange(0, 200, 2)
    moves = np.array([[n, chosen[n].elem_bytes, place.lo, place.width] for n in moved])
    pages = -1 if isa.dims["o"] > 4 else 5
    tvm_child.move(words, moves, pages * isa.limits.page_bytes)
    after = decode(isa, words)
    step = np.array([pages * isa.limits.page_bytes // m.elem_bytes for m in chosen])
    step[1::2] = 0
    expected = {**fields, place.name: fields[place.name] + step}
    for name, column in expected.items():
        np.testing.assert_array_equal(after.fields[name], column, err_msg=name)
