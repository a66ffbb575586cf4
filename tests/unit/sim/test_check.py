"""The checker: recorded programs, and for each rule a minimal program and its legal neighbour."""

from pathlib import Path

import numpy as np
import pytest

from csp_embed.ir.stream import Program
from csp_embed.machine.load import load_isa
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.sim.check import check_program, judge
from csp_embed.sim.functional.run import run
from tests.oracles.stream_sample import Assembler, expecting

GOLDEN = Path(__file__).parents[2] / "golden" / "reference"
HANGING = {"dense_4x128x64": (4, 2, 71), "dense_vthread_8x256x64": (4, 2, 56)}
VTA = load_isa("vta")


@pytest.mark.parametrize("name", sorted(p.stem for p in GOLDEN.glob("*.npz")))
def test_recorded_programs(name):
    program = read_program(GOLDEN / f"{name}.npz")
    problems, remarks = judge(isa_of(program), program)
    if name not in HANGING:
        assert problems == []
        assert remarks == []
        return
    (problem,) = problems
    load, compute, store = HANGING[name]
    assert problem.kind == "deadlock"
    assert f"load: instruction {load} LOAD INP" in problem.text
    assert f"compute: instruction {compute} LOAD UOP" in problem.text
    assert f"store: instruction {store} STORE OUT" in problem.text


def _base(dst=(0, 1, 2, 3), src=(0, 1, 2, 3)):
    """Micro-ops, ACC and INP data on chip; the caller adds what it tries."""
    a = Assembler(VTA)
    uop = a.uops(dst=dst, src=src, wgt=[0] * len(dst))
    a.add("load", memory="UOP", dram=uop, y_size=1, x_size=len(dst))
    acc = a.place(np.ones((8, 16), np.int32), "ACC")
    a.add("load", memory="ACC", dram=acc, y_size=1, x_size=8)
    return a


def _end(a, *, store=True):
    if store:
        a.add("store", memory="OUT", dram=a.room(4, "OUT"), y_size=1, x_size=4)
    a.add("finish")
    a.serialise()
    program = a.program()
    return expecting(program, run(VTA, program).outputs)


def _kinds(program, **options):
    return [(p.kind, p.insn) for p in check_program(VTA, program, **options)]


def _map(a, **roles):
    common = {"op": "add", "uop_end": 4, "iter_out": 1, "iter_in": 1, "use_imm": 1}
    return a.add("map", **(common | roles))


def test_a_good_program_has_no_problem():
    a = _base()
    _map(a)
    assert _kinds(_end(a)) == []


def test_stale_store_after_load_and_after_reset():
    a = _base()
    program = _end(a)
    store = int(np.flatnonzero(program.insn[:, 0] & np.uint64(7) == 1)[0])
    assert _kinds(program) == [("stale", store)]
    a = _base()
    _map(a)
    a.add("contract", reset=1, uop_end=4, iter_out=1, iter_in=1)
    assert "stale" in [k for k, _ in _kinds(_end(a))]


@pytest.mark.parametrize(
    ("dst", "src", "roles", "distance"),
    [
        ((0, 0), (0, 0), {}, 1),
        ((0, 1, 0), (0, 1, 0), {}, 2),
        ((0, 1, 2, 0), (0, 1, 2, 0), {}, None),
        ((0, 1), (5, 0), {"use_imm": 0}, 1),
        ((0, 1, 2), (5, 5, 0), {"use_imm": 0}, 2),
        ((0, 1, 2, 3), (5, 5, 5, 0), {"use_imm": 0}, None),
        ((0, 0), (5, 6), {"use_imm": 0}, None),
        ((0,), (0,), {"iter_in": 2}, 1),
        ((0,), (0,), {"iter_in": 3, "dst": (0, 1), "lhs": (0, 1)}, None),
        ((0,), (0,), {"iter_out": 2, "iter_in": 2, "dst": (0, 1), "lhs": (0, 1)}, 2),
        ((0,), (0,), {"iter_out": 2, "iter_in": 3, "dst": (0, 1), "lhs": (0, 1)}, None),
    ],
)
def test_read_after_write_distances(dst, src, roles, distance):
    a = _base(dst, src)
    n = _map(a, uop_end=len(dst), **roles)
    hazards = [p for p in check_program(VTA, _end(a, store=False)) if p.kind == "hazard"]
    if distance is None:
        assert hazards == []
    else:
        (hazard,) = hazards
        assert hazard.insn == n
        assert f"{distance} steps after" in hazard.text


@pytest.mark.parametrize(
    ("roles", "text"),
    [
        ({"dst": (0, 1), "lhs": (0, 0), "iter_in": 4, "uop_end": 1}, "src factors that differ"),
        ({"iter_out": 0}, "a count of 0"),
        ({"uop_begin": 2, "uop_end": 2}, "a count of 0"),
        ({"op": "mul"}, "MUL is not portable"),
    ],
)
def test_forms_that_implementations_do_not_agree_on(roles, text):
    a = _base()
    n = _map(a, **roles)
    problems = check_program(VTA, _end(a, store=False))
    assert [(p.kind, p.insn) for p in problems] == [("portable", n)]
    assert text in problems[0].text


def test_immediate_with_another_source_in_the_micro_op():
    a = _base((0, 1), (0, 5))
    n = _map(a, uop_end=2)
    problems = check_program(VTA, _end(a, store=False))
    assert [(p.kind, p.insn) for p in problems] == [("portable", n)]
    assert "dst 1 and src 5" in problems[0].text


def test_widening_loads_and_deep_micro_ops_are_not_portable():
    a = _base()
    a.add(
        "load",
        memory="ACC_8BIT",
        dram=a.place(np.ones(16, np.int8), "ACC_8BIT"),
        y_size=1,
        x_size=1,
    )
    uop = a.uops(dst=[0], src=[0], wgt=[0])
    a.add("load", memory="UOP", sram=2048, dram=uop, y_size=1, x_size=1)
    problems = check_program(VTA, _end(a, store=False))
    assert [(p.kind, p.insn) for p in problems] == [("portable", 2), ("portable", 3)]


def test_negative_tensor_shift_is_found_by_simulation():
    a = _base((0,), (5,))
    minus = a.place(np.full((1, 16), -1, np.int32), "ACC")
    a.add("load", memory="ACC", sram=5, dram=minus, y_size=1, x_size=1)
    _map(a, op="shr", use_imm=0, uop_end=1)
    assert [k for k, _ in _kinds(_end(a, store=False))] == ["portable"]


def test_wrong_expected_bytes_are_named():
    a = _base()
    n = _map(a)
    program = _end(a)
    (address, data), *_ = program.after
    other = data.copy()
    other[20] ^= 1
    problems = check_program(VTA, expecting(program, [(address, other)]))
    assert [p.kind for p in problems] == ["values"]
    assert f"DRAM {address + 20:#x}: got 1, expected 0; stored by instruction" in problems[0].text
    assert problems[0].insn == n + 1
    assert check_program(VTA, expecting(program, [(address, other)]), values=False) == []


def _double_buffered(gap, *, tokens=2):
    """Load k writes INP[gap*(k%2):][:4] while GEMM k-1 reads its half; `tokens` credits."""
    a = Assembler(VTA)
    x = a.place(np.ones((64, 16), np.int8), "INP")
    w = a.place(np.ones((1, 16, 16), np.int8), "WGT")
    uop = a.uops(dst=[0, 0], src=[0, gap], wgt=[0, 0])
    a.add("load", memory="UOP", dram=uop, y_size=1, x_size=2)
    a.add("load", memory="WGT", dram=w, y_size=1, x_size=1)
    rounds = 6
    for k in range(rounds):
        a.add(
            "load", memory="INP", sram=gap * (k % 2), dram=x + 4 * k, y_size=1, x_size=4,
            push_next=1, pop_next=k >= tokens,
        )  # fmt: skip
        a.add(
            "contract", uop_begin=k % 2, uop_end=k % 2 + 1, iter_out=1, iter_in=4, lhs=(0, 1),
            dst=(0, 1), pop_prev=1, push_prev=k < rounds - tokens,
        )  # fmt: skip
    a.add("finish")
    return a.program()


def test_double_buffering_in_adjacent_regions_is_no_race():
    assert _kinds(_double_buffered(4)) == []


def test_overlapping_buffers_race():
    problems = check_program(VTA, _double_buffered(3))
    assert {p.kind for p in problems} == {"race"}
    assert "no token orders its access to INP[3]" in problems[0].text


def test_too_many_credits_race():
    assert {k for k, _ in _kinds(_double_buffered(4, tokens=3))} == {"race"}
    assert _kinds(_double_buffered(4, tokens=1)) == []


@pytest.mark.parametrize(("count", "kinds"), [(255, []), (256, ["overflow"])])
def test_tokens_in_flight(count, kinds):
    a = Assembler(VTA)
    for _ in range(count):
        a.add("load", memory="INP", push_next=1)
    for _ in range(count):
        a.add("load", memory="ACC", pop_prev=1)
    a.add("finish")
    assert [k for k, _ in _kinds(a.program())] == kinds


def test_tokens_that_are_taken_in_time_do_not_count():
    a = Assembler(VTA)
    for _ in range(1000):
        a.add("load", memory="INP", push_next=1, pop_next=1)
        a.add("load", memory="ACC", pop_prev=1, push_prev=1)
    a.insns[0][1]["pop_next"] = 0
    a.insns[-1][1]["push_prev"] = 0
    a.add("finish")
    assert _kinds(a.program()) == []


def test_finish_must_end_the_program_and_wait_for_stores():
    a = _base()
    _map(a, push_next=1)
    a.add("store", memory="OUT", dram=a.room(4, "OUT"), y_size=1, x_size=4, pop_prev=1, push_prev=1)
    a.add("finish", pop_next=1)
    assert _kinds(a.program(), values=False) == []
    a.insns[-1][1]["pop_next"] = 0
    assert _kinds(a.program(), values=False) == [("finish", 4)]
    a.insns[-1][1]["pop_next"] = 1
    a.add("load", memory="INP")
    assert _kinds(a.program(), values=False) == [("finish", 4)]
    del a.insns[-2:]
    assert _kinds(a.program(), values=False) == [("finish", None)]


def test_left_over_tokens_are_a_remark():
    a = _base()
    _map(a, push_next=1)
    a.add("finish")
    problems, remarks = judge(VTA, a.program())
    assert problems == []
    assert remarks == ["1 tokens from compute to store are left at the end"]


def test_tokens_without_a_neighbour():
    a = Assembler(VTA)
    a.add("load", memory="INP", pop_prev=1)
    a.add("store", memory="OUT", push_next=1)
    a.add("finish")
    assert _kinds(a.program()) == [("token", 0), ("token", 1)]


def test_reads_of_what_a_store_wrote_need_tokens():
    a = _base()
    _map(a, push_next=1)
    room = a.room(4, "OUT")
    a.add("store", memory="OUT", dram=room, y_size=1, x_size=4, pop_prev=1, push_prev=1)
    a.add("load", memory="UOP", pop_next=1, push_prev=1)
    a.add("load", memory="INP", dram=room, y_size=1, x_size=4, pop_next=1, push_next=1)
    a.add("finish", pop_prev=1)
    assert _kinds(a.program(), values=False) == []
    for n, role in ((4, "push_prev"), (5, "pop_next")):
        a.insns[n][1][role] = 0
    assert _kinds(a.program(), values=False) == [("race", 5)]


def test_addresses_outside():
    a = _base((2047,), (0,))
    a.add("load", memory="INP", sram=2047, dram=1, y_size=1, x_size=2)
    _map(a, uop_end=1, iter_in=2, dst=(0, 1), lhs=(0, 1))
    a.add("load", memory="INP", dram=1, y_size=1, x_size=2)
    a.add("finish")
    assert _kinds(a.program()) == [("range", 2)]
    del a.insns[2]
    assert _kinds(a.program()) == [("range", 2), ("dram", 3)]


def test_an_empty_program_has_no_end():
    empty = Program({}, np.zeros((0, 2), np.uint64), (), (), {})
    assert _kinds(empty) == [("finish", None)]
