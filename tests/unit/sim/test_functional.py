"""The functional engine against recorded programs, hand-made sums, and its own refusals."""

from pathlib import Path

import numpy as np
import pytest

from csp_embed.errors import SimError
from csp_embed.judge.stream.table import STORE
from csp_embed.machine.load import load_isa
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.sim.functional.run import run
from tests.oracles.stream_sample import Assembler

GOLDEN = Path(__file__).parents[2] / "golden" / "reference"
HANGING = {"dense_4x128x64", "dense_vthread_8x256x64"}
NAMES = sorted(p.stem for p in GOLDEN.glob("*.npz"))
VTA = load_isa("vta")


def test_all_recorded_programs_are_here():
    assert len(NAMES) == 9
    assert set(NAMES) >= HANGING


@pytest.mark.parametrize("name", NAMES)
def test_recorded_bytes_are_reproduced(name):
    program = read_program(GOLDEN / f"{name}.npz")
    done = run(isa_of(program), program, tokens=name not in HANGING)
    for (address, got), (where, want) in zip(done.outputs, program.after, strict=True):
        assert address == where
        np.testing.assert_array_equal(got, want)
    assert done.values_equal is True
    assert done.counters["contract_steps"] == program.meta["stats"]["gemm_uops"]
    assert done.counters["reset_steps"] == program.meta["stats"]["reset_uops"]
    assert done.counters["map_steps"] == program.meta["stats"]["alu_uops"]


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("dense_4x128x64", "load 4, compute 2, store 71"),
        ("dense_vthread_8x256x64", "load 4, compute 2, store 56"),
    ],
)
def test_deadlock_names_the_queue_heads(name, heads):
    program = read_program(GOLDEN / f"{name}.npz")
    with pytest.raises(SimError) as caught:
        run(isa_of(program), program)
    assert heads in caught.value.what
    assert "waits for token 2 from store, which has pushed 1" in caught.value.where


def test_strict_mode_accepts_the_recorded_programs():
    for name in set(NAMES) - HANGING:
        program = read_program(GOLDEN / f"{name}.npz")
        assert run(isa_of(program), program, strict=True).values_equal


def _one_vector(values, steps, *, store=True):
    """A VTA program that loads ACC[0:len] with int32 rows, runs map steps, and stores all of it."""
    a = Assembler(VTA)
    acc = np.asarray(values, np.int32)
    uop = a.uops(dst=[0, 1, 0], src=[0, 1, 1], wgt=[0, 0, 0])
    a.add("load", memory="UOP", dram=uop, y_size=1, x_size=3)
    a.add("load", memory="ACC", dram=a.place(acc, "ACC"), y_size=1, x_size=len(acc))
    for step in steps:
        a.add("map", **{"uop_begin": 0, "uop_end": 1, "iter_out": 1, "iter_in": 1} | step)
    if store:
        room = a.room(len(acc), "OUT")
        a.add("store", memory="OUT", dram=room, y_size=1, x_size=len(acc))
    a.add("finish")
    a.serialise()
    return a.program()


@pytest.mark.parametrize(
    ("op", "imm", "expected"),
    [
        ("shr", 3, lambda v: v >> 3),
        ("shr", -3, lambda v: v << 3),
        ("shr", 35, lambda v: v >> 3),
        ("shr", -35, lambda v: v << 3),
        ("add", -32768, lambda v: v - 32768),
        ("max", -5, lambda v: np.maximum(v, -5)),
        ("min", -5, lambda v: np.minimum(v, -5)),
        ("mul", -7, lambda v: v * -7),
    ],
)
def test_immediates_wrap_around_at_32_bits(op, imm, expected):
    rng = np.random.default_rng(1)
    values = rng.integers(-(2**31), 2**31, (1, 16))
    done = run(VTA, _one_vector(values, [{"op": op, "use_imm": 1, "imm": imm}]))
    want = expected(values).astype(np.int64).astype(np.uint32).astype(np.int32)
    np.testing.assert_array_equal(done.memory("ACC", 0, 1)[0], want)
    np.testing.assert_array_equal(done.outputs[0][1].view(np.int8), want[0].astype(np.int8))


def test_negative_tensor_shift_is_counted_and_refused_when_strict():
    values = [[-64] * 16, [-2] * 16]
    step = {"op": "shr", "uop_begin": 2, "uop_end": 3}
    done = run(VTA, _one_vector(values, [step], store=False))
    np.testing.assert_array_equal(done.memory("ACC", 0, 1)[0, 0], [-256] * 16)
    assert any("1 steps with negative tensor shift" in w for w in done.warnings)
    with pytest.raises(SimError, match="instruction 2: shifts by a negative amount"):
        run(VTA, _one_vector(values, [step], store=False), strict=True)


def test_stale_store_is_counted_and_refused_when_strict():
    program = _one_vector(np.full((1, 16), 300), [])
    done = run(VTA, program)
    assert (done.outputs[0][1] == 300 - 256).all()
    assert any("no compute step wrote last" in w for w in done.warnings)
    with pytest.raises(SimError, match=r"instruction \d+: stores element 0"):
        run(VTA, program, strict=True)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"op": "mul", "use_imm": 1}, "MUL is not portable"),
        ({"op": "add", "use_imm": 1, "iter_in": 0}, "a count of 0"),
        ({"op": "add", "use_imm": 1, "iter_in": 2}, "read 1 steps after it is written"),
        ({"op": "add", "use_imm": 1, "uop_begin": 2, "uop_end": 3}, "dst 0 and src 1"),
    ],
)
def test_strict_mode_refuses_what_implementations_run_differently(step, text):
    program = _one_vector(np.ones((2, 16)), [step], store=False)
    assert run(VTA, program).values_equal is None
    with pytest.raises(SimError) as caught:
        run(VTA, program, strict=True)
    assert text in caught.value.what
    assert "instruction 2:" in caught.value.what


def test_strict_mode_refuses_256_tokens_in_flight():
    a = Assembler(VTA)
    for _ in range(256):
        a.add("load", memory="INP", push_next=1)
    for _ in range(256):
        a.add("load", memory="ACC", pop_prev=1)
    a.add("finish")
    assert len(run(VTA, a.program()).executed) == 513
    with pytest.raises(SimError, match="instruction 255: its token may be lost"):
        run(VTA, a.program(), strict=True)


def test_sums_wrap_around_like_int32():
    a = Assembler(VTA)
    x = np.full((1, 16), -128, np.int8)
    w = np.full((1, 16, 16), -128, np.int8)
    start = np.full((1, 16), 2**31 - 1, np.int32)
    uop = a.uops(dst=[0], src=[0], wgt=[0])
    a.add("load", memory="UOP", dram=uop, y_size=1, x_size=1)
    a.add("load", memory="ACC", dram=a.place(start, "ACC"), y_size=1, x_size=1)
    a.add("load", memory="INP", dram=a.place(x, "INP"), y_size=1, x_size=1)
    a.add("load", memory="WGT", dram=a.place(w, "WGT"), y_size=1, x_size=1)
    a.add("contract", uop_end=1, iter_out=5, iter_in=7)
    a.add("finish")
    a.serialise()
    got = run(VTA, a.program()).memory("ACC", 0, 1)[0, 0]
    want = (2**31 - 1 + 35 * 16 * 128 * 128 + 2**31) % 2**32 - 2**31
    assert (got == want).all()


def test_a_load_sees_what_an_earlier_store_wrote():
    a = Assembler(VTA)
    uop = a.uops(dst=[0], src=[0], wgt=[0])
    a.add("load", memory="UOP", dram=uop, y_size=1, x_size=1)
    a.add(
        "load", memory="ACC", dram=a.place(np.full((1, 16), 5, np.int32), "ACC"), y_size=1, x_size=1
    )
    a.add("map", op="add", use_imm=1, imm=2, uop_end=1, iter_out=1, iter_in=1)
    room = a.room(1, "OUT")
    a.add("store", memory="OUT", dram=room, y_size=1, x_size=1)
    a.add("load", memory="INP", sram=9, dram=room, y_size=1, x_size=1)
    a.add("finish")
    a.serialise()
    assert (run(VTA, a.program()).memory("INP", 9, 10) == 7).all()


def test_padding_is_zero_and_two_dimensional():
    a = Assembler(VTA)
    x = np.arange(1, 4 * 6 * 16 + 1).astype(np.int8).reshape(24, 16)
    dram = a.place(x, "INP")
    a.add(
        "load", memory="INP", sram=3, dram=dram + 1, y_size=2, x_size=3, x_stride=6,
        y_pad_0=1, y_pad_1=2, x_pad_0=2, x_pad_1=1,
    )  # fmt: skip
    a.add("finish")
    a.serialise()
    got = run(VTA, a.program()).memory("INP", 3, 3 + 5 * 6)[:, 0].reshape(5, 6, 16)
    want = np.zeros((5, 6, 16))
    want[1:3, 2:5] = x.reshape(4, 6, 16)[:2, 1:4]
    np.testing.assert_array_equal(got, want)


def test_break_and_until_store():
    program = read_program(GOLDEN / "conv_1x1.npz")
    isa = isa_of(program)
    stopped = run(isa, program, break_at=30)
    assert stopped.stopped
    assert stopped.values_equal is None
    assert stopped.sequence[len(stopped.executed)] == 30
    first = run(isa, program, until_store=True)
    stores = (first.table.c.kind == STORE) & (first.table.elements > 0)
    assert stores[first.executed].tolist() == [False] * (len(first.executed) - 1) + [True]


def _simple():
    a = Assembler(VTA)
    uop = a.uops(dst=[2047], src=[0], wgt=[0])
    a.add("load", memory="UOP", dram=uop, y_size=1, x_size=1)
    return a


@pytest.mark.parametrize(
    ("kind", "roles", "text"),
    [
        (
            "load",
            {"memory": "INP", "sram": 2040, "dram": 256, "y_size": 1, "x_size": 9},
            "leaves INP",
        ),
        ("load", {"memory": "INP", "dram": 5, "y_size": 1, "x_size": 1}, "DRAM outside"),
        ("load", {"memory": "OUT", "dram": 256, "y_size": 1, "x_size": 1}, "OUT cannot be loaded"),
        ("store", {"memory": "ACC", "dram": 256, "y_size": 1, "x_size": 1}, "ACC cannot be stored"),
        ("store", {"memory": "OUT", "dram": 1 << 20, "y_size": 1, "x_size": 1}, "DRAM outside"),
        (
            "contract",
            {"uop_end": 1, "iter_out": 2, "iter_in": 1, "dst": (1, 0)},
            "micro-ops leave ACC",
        ),
        ("contract", {"uop_end": 8193, "iter_out": 1, "iter_in": 1}, "micro-ops leave UOP"),
        ("contract", {"uop_end": 8192, "iter_out": 16383, "iter_in": 16383}, "micro-op steps"),
    ],
)
def test_bad_instructions_are_named(kind, roles, text):
    a = _simple()
    n = a.add(kind, **roles)
    with pytest.raises(SimError) as caught:
        run(VTA, a.program(), tokens=False)
    assert text in caught.value.what
    assert f"instruction {n}" in caught.value.what
    assert caught.value.where.startswith(f"{n} {VTA.of_kind(kind).name}")


def test_unknown_opcode_is_named():
    a = _simple()
    a.add("finish")
    program = a.program()
    words = program.insn.copy()
    words[1, 0] = 7
    broken = type(program)(program.meta, words, program.before, program.after, {})
    with pytest.raises(SimError, match="instruction 1: unknown opcode"):
        run(VTA, broken)


def test_work_of_the_whole_program_is_bounded():
    a = _simple()
    for _ in range(5):
        a.add("contract", reset=1, uop_end=1, iter_out=100, iter_in=100)
    with pytest.raises(SimError, match="at most 40000 are simulated"):
        run(VTA, a.program(), max_steps=40000)
