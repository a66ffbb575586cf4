"""The cycle engine: single effects, what a report adds up to, refusals, memories, machines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cycle_programs import FINISH, alu, gemm, load, program, store

from csp_embed.errors import CspEmbedError, InputError, SimError, SpecError
from csp_embed.ir.stream import Stream
from csp_embed.machine.load import load_isa
from csp_embed.sim.cycles.costs import MemoryInterface, interfaces, parse_memory
from csp_embed.sim.cycles.engine import Engine, simulate_cycles

VTA = load_isa("vta")


def cycles(*instructions: dict[str, int | str], memory: str = "de10") -> int:
    return simulate_cycles(VTA, program(VTA, *instructions, FINISH), memory=memory).total


def step_of(instruction: dict[str, int | str]) -> int:
    """Cycles from start to start where one instruction follows itself, all of them fetched."""
    trace = simulate_cycles(VTA, program(VTA, *[instruction] * 4), trace=True).trace
    assert trace is not None
    return int(trace.start[3] - trace.start[2])


def test_a_step_is_a_cycle_and_two_with_two_tensors() -> None:
    assert cycles(gemm(100)) - cycles(gemm(1)) == 99
    assert cycles(gemm(100, reset=1)) == cycles(gemm(100)) == cycles(alu(100, use_imm=1))
    assert cycles(alu(100)) - cycles(alu(1)) == 2 * 99


def test_a_matrix_instruction_among_others_takes_its_steps_and_seven() -> None:
    assert step_of(gemm(50)) == 57
    assert step_of(alu(50, use_imm=1)) == 57
    assert step_of(alu(50)) == 107


@pytest.mark.parametrize(
    ("memory", "beats", "overhead"), [("INP", 2, 23), ("WGT", 32, 23), ("ACC", 8, 23)]
)
def test_loads_in_a_row_take_their_beats_and_the_memory_s_answer(
    memory: str, beats: int, overhead: int
) -> None:
    """23: three registers out, 16 of the memory's wait, four back."""
    assert step_of(load(memory, 32)) == 32 * beats + overhead


def test_a_load_of_micro_ops_has_one_register_less() -> None:
    assert step_of(load("UOP", 64)) == 32 + 22


def test_a_burst_ends_at_the_interface_s_boundary() -> None:
    aligned, shifted = load("INP", 8), load("INP", 8, dram_base=4097)
    one = simulate_cycles(VTA, program(VTA, aligned, FINISH))
    two = simulate_cycles(VTA, program(VTA, shifted, FINISH))
    assert (one.read_bursts, two.read_bursts) == (1, 2)
    assert simulate_cycles(VTA, program(VTA, shifted, FINISH), memory="pynq").read_bursts == 1


def test_rows_of_a_load_are_free() -> None:
    square, line = load("INP", 8, 8), load("INP", 64)
    assert cycles({**square, "push_next": 1}, _wait()) == cycles({**line, "push_next": 1}, _wait())


def _wait() -> dict[str, int | str]:
    return {"name": "LOAD", "memory": "UOP", "pop_prev": 1}


def test_zeros_are_written_where_no_data_arrives() -> None:
    plain = cycles(load("INP", 8, 8, push_next=1), _wait())
    few = cycles(load("INP", 8, 8, y_pad_1=5, push_next=1), _wait())
    many = cycles(load("INP", 8, 8, y_pad_1=15, push_next=1), _wait())
    assert plain < few < many
    assert many - few == 10 * 8  # below the data: an element a cycle


@pytest.mark.parametrize(("memory", "cycles_each"), [("de10", 27), ("pynq", 24)])
def test_a_store_waits_for_each_burst(memory: str, cycles_each: int) -> None:
    """Eight elements: 16 beats, 7 or 8 memory words between, and 4 more where a burst ends."""
    longer, shorter = store(120), store(112)
    stalls = [
        simulate_cycles(VTA, program(VTA, s, gemm(1)), memory=memory).total
        for s in (longer, shorter)
    ]
    assert stalls[0] - stalls[1] == cycles_each


def test_the_queues_parts_add_up_to_the_total() -> None:
    report = simulate_cycles(
        VTA,
        program(
            VTA,
            load("UOP", 4),
            load("WGT", 8, push_next=1),
            load("INP", 64, push_next=1),
            gemm(64, pop_prev=1, push_next=1),
            store(16, pop_prev=1, push_prev=1),
            gemm(16, pop_prev=1, pop_next=1, push_next=1),
            store(16, pop_prev=1, push_prev=1),
            {**FINISH, "pop_next": 1},
        ),
    )
    for queue in report.queues.values():
        parts = queue.busy + queue.port + queue.fetch + sum(queue.tokens.values()) + queue.done
        assert parts == report.total
    assert report.steps == {"contract": 80, "reset": 0, "map": 0}
    assert report.utilisation == pytest.approx(80 / report.total)
    assert report.read_bytes == 16 + 8 * 256 + 64 * 16
    assert report.written_bytes == 2 * 16 * 16
    assert report.fetch_bytes == 8 * 16
    assert report.queues["store"].tokens["compute"] > 0
    assert "de10" in report.show()


def test_loads_of_two_queues_share_the_port() -> None:
    both = program(VTA, load("INP", 512), load("ACC", 128), FINISH)
    report = simulate_cycles(VTA, both)
    assert report.queues["compute"].port > 500  # INP comes first in the arbiter
    assert report.queues["load"].port < 200  # the bursts that ACC had asked for first
    alone = simulate_cycles(VTA, program(VTA, load("ACC", 128), FINISH))
    assert alone.queues["compute"].port == 0
    assert report.total > alone.total + 900


def test_a_trace_has_every_instruction_in_order() -> None:
    stream = program(VTA, *[load("INP", 16, push_next=1), gemm(9, pop_prev=1)] * 9, FINISH)
    trace = simulate_cycles(VTA, stream, trace=True).trace
    assert trace is not None
    for queue in range(3):
        mine = trace.queue == queue
        assert (trace.dispatch[mine] < trace.start[mine]).all()
        assert (trace.start[mine] < trace.end[mine]).all()
        assert (trace.end[mine][:-1] < trace.start[mine][1:]).all()
    port = trace.port
    assert (port[:-1, 2] <= port[1:, 1]).all()
    moved = int((port[:, 2] - port[:, 1]).sum())
    assert moved == 9 * 32 + 19 * 2


def test_a_long_stream_s_port_uses_are_all_kept() -> None:
    rows = [load("INP", 1, 9, x_stride=50)] * 900
    trace = simulate_cycles(VTA, program(VTA, *rows), trace=True).trace
    assert trace is not None
    assert int((trace.port[:, 2] - trace.port[:, 1]).sum()) == 900 * 18 + 900 * 2


def test_finish_ends_the_counting() -> None:
    """A load of 10^11 beats goes on after FINISH, and costs the engine no time either."""
    endless = load("WGT", 65535, 65535, y_pad_0=1, y_pad_1=1)
    report = simulate_cycles(VTA, program(VTA, endless, gemm(500), FINISH), trace=True)
    # The third instruction takes two beats of the fetch, and a cycle to be sent on its way.
    assert report.total == cycles(gemm(500)) + 3
    assert report.trace is not None
    assert report.trace.end[0] == report.total
    assert report.trace.port[-1, 2] == report.total
    for queue in report.queues.values():
        parts = queue.busy + queue.port + queue.fetch + sum(queue.tokens.values()) + queue.done
        assert parts == report.total


def test_a_huge_load_is_skipped_through() -> None:
    """Periods of the port are passed at once, with rows to pass for zeros below as well."""
    stream = program(VTA, load("WGT", 65535, 64, y_pad_0=1, y_pad_1=1))
    report = simulate_cycles(VTA, stream)
    assert 0 < report.total - 64 * 65535 * 32 < 2 * 65535 + 100
    assert report.read_bursts == 64 * 65535 * 2


@pytest.mark.parametrize("work", [load("WGT", 64), store(64), load("INP", 3, 20)])
def test_latency_and_narrow_ports_cost_more(work: dict[str, int | str]) -> None:
    stream = program(VTA, work)
    by_latency = [simulate_cycles(VTA, stream, latency=n).total for n in (0, 1, 10, 100, 1000)]
    assert by_latency == sorted(set(by_latency))
    rates = (64, 8, 4, 2.5, 1)
    by_rate = [simulate_cycles(VTA, stream, bytes_per_cycle=r).total for r in rates]
    assert by_rate == sorted(by_rate)
    assert by_rate[-1] > by_rate[1]


def test_latency_delays_a_load_alone_by_itself() -> None:
    stream = program(VTA, load("WGT", 64))
    base = simulate_cycles(VTA, stream).total
    # Once for the instructions, once for the load: its bursts are asked for in advance.
    assert simulate_cycles(VTA, stream, latency=50).total == base + 100
    half = simulate_cycles(VTA, stream, bytes_per_cycle=4).total
    assert half == base + 64 * 32 + 2


def test_the_fast_path_gives_the_report_s_total() -> None:
    engine = Engine(VTA, "pynq,latency=7")
    stream = program(VTA, load("UOP", 4), gemm(9), FINISH)
    assert engine.total(stream) == engine.report(stream).total
    assert engine.total_of(engine.table(stream).rows) == engine.total(stream)


def test_without_finish_the_last_end_counts() -> None:
    made = simulate_cycles(VTA, program(VTA, store(8), gemm(2)), trace=True)
    assert made.trace is not None
    assert made.total == made.trace.end.max()
    assert simulate_cycles(VTA, program(VTA)).total == 0


# Refusals ------------------------------------------------------------------------------------


def test_a_deadlock_names_the_heads_of_the_queues() -> None:
    waits = load("INP", 4, pop_next=1, push_next=1)
    stream = program(VTA, waits, gemm(4, pop_prev=1), store(4, pop_prev=1), FINISH)
    with pytest.raises(SimError) as caught:
        simulate_cycles(VTA, stream)
    text = str(caught.value)
    assert "deadlock after 0 of 4" in text
    assert "load: waits at 0 LOAD INP" in text
    assert "compute: waits at 1 GEMM" in text
    assert "store: waits at 2 STORE" in text
    with pytest.raises(SimError):
        Engine(VTA).total(stream)


def test_a_full_queue_before_a_deadlock_is_told() -> None:
    stuck = [load("INP", 1, pop_next=1)] * 600
    with pytest.raises(SimError, match="not fetched"):
        simulate_cycles(VTA, program(VTA, *stuck, gemm(1), FINISH))


def test_the_256th_waiting_token_is_lost() -> None:
    pushes = [load("INP", 1, push_next=1)] * 256
    pops = [{**_wait()}] * 256
    slow = gemm(200_000)
    with pytest.raises(SimError, match="more than 255 tokens wait from load to compute"):
        simulate_cycles(VTA, program(VTA, slow, *pushes, *pops, FINISH))
    assert simulate_cycles(VTA, program(VTA, slow, *pushes[:255], *pops[:255], FINISH)).total


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (gemm(0), "count of 0"),
        ({**gemm(4), "uop_end": 0}, "count of 0"),
        (load("INP", 4, 0), "0 rows"),
        (load("ACC_8BIT", 4), "cannot load ACC_8BIT"),
        (alu(4, alu_opcode=4), "no such operation"),
        (alu(4, alu_opcode=7), "no such operation"),
        (load("OUT", 4), "does not reach"),
        (load("OUT", 0), "does not reach"),
        ({**store(4), "memory": "ACC"}, "does not reach"),
        ({**load("INP", 4), "memory": 7}, "does not reach"),
    ],
)
def test_what_never_ends_is_refused(instruction: dict[str, int | str], text: str) -> None:
    with pytest.raises(SimError, match=text) as caught:
        cycles(gemm(1), instruction)
    assert "instruction 1" in str(caught.value)


def test_unknown_instructions_are_refused() -> None:
    good = program(VTA, gemm(1), FINISH)
    bad = Stream(np.array([3, -1]), good.fields)
    with pytest.raises(SimError, match="instruction 1 is unknown"):
        simulate_cycles(VTA, bad)


def test_token_only_stores_may_name_any_memory() -> None:
    assert cycles({"name": "STORE", "memory": 0}) == cycles({"name": "STORE", "memory": "OUT"})


# Memories and machines -----------------------------------------------------------------------


def test_memories_are_parsed() -> None:
    assert parse_memory("de10") == MemoryInterface("de10")
    assert parse_memory("pynq, latency=40, bytes_per_cycle=4.2") == MemoryInterface("pynq", 40, 4.2)


@pytest.mark.parametrize(
    "text",
    [
        "", ",latency=3", "latency=3", "de10,latency", "de10,latency=x", "de10,latency=1.5",
        "de10,latency=-1", "de10,speed=2", "de10,latency=1,latency=2", "de10,bytes_per_cycle=0",
        "de10,bytes_per_cycle=nan", "de10,bytes_per_cycle=inf", "de10,latency=9999999999",
    ],
)  # fmt: skip
def test_bad_memories_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--memory"):
        parse_memory(text)


def test_an_unknown_interface_is_named_with_those_there_are() -> None:
    with pytest.raises(SpecError, match="de10, pynq"):
        Engine(VTA, "zcu104")
    with pytest.raises(SpecError, match="none"):
        Engine(replace(VTA, costs={}))


@pytest.mark.parametrize("section", ["read", "fetch", "load", "map", "instruction"])
def test_missing_and_senseless_costs_are_named(section: str) -> None:
    without = {k: v for k, v in VTA.costs.items() if k != section}
    with pytest.raises(SpecError, match=rf"vta.yaml:\d+\n  why: {section}: the section"):
        Engine(replace(VTA, costs=without))
    key = next(iter(VTA.costs[section]))
    for wrong in (-1.0, 0.5):
        broken = {**VTA.costs, section: {**VTA.costs[section], key: wrong}}
        with pytest.raises(SpecError, match=rf"vta.yaml:\d+\n  why: {section}\.{key}: "):
            Engine(replace(VTA, costs=broken))


def test_a_memory_without_priority_is_the_spec_s_fault() -> None:
    less = {k: v for k, v in VTA.costs["read_priority"].items() if k != "WGT"}
    machine = replace(VTA, costs={**VTA.costs, "read_priority": less})
    with pytest.raises(SpecError, match=r"costs\.read_priority\.WGT"):
        simulate_cycles(machine, program(VTA, load("WGT", 1), FINISH))


@pytest.mark.parametrize("config", ["1x16x16", "1x32x32", "2x16x16", "1x8x8", "1x4x4_small"])
def test_every_configuration_runs(config: str) -> None:
    isa = load_isa("vta", config)
    stream = program(isa, load("INP", 3, 2), load("ACC", 2), gemm(5), store(3, 2), FINISH)
    report = simulate_cycles(isa, stream)
    assert report.read_bytes >= 6 * isa.memory("INP").elem_bytes
    assert report.written_bytes == 6 * isa.memory("OUT").elem_bytes


@pytest.mark.parametrize("name", ["toy_dot", "toy_outer"])
def test_the_toy_machines_have_costs(name: str) -> None:
    isa = load_isa(name)
    (interface,) = interfaces(isa)
    contract = isa.of_kind("contract")

    def run(steps: int) -> int:
        row = {"name": contract.name, contract.roles["uop_end"]: 1}
        row |= {contract.roles["iter_out"]: 1, contract.roles["iter_in"]: steps}
        stream = program(isa, row, {"name": isa.of_kind("finish").name})
        return simulate_cycles(isa, stream, memory=interface).total

    assert run(9) == run(1) + 8


def test_errors_are_for_users() -> None:
    with pytest.raises(CspEmbedError):
        simulate_cycles(VTA, program(VTA, gemm(0)), memory="pynq")
