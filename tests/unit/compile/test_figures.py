"""Figures of a run: counted here by brute force, point by point and step by step."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from cases import CASES, MACHINES
from command_line import run

import csp_embed as ce
from csp_embed import figures
from csp_embed.compiler.driver import Options
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import costs_of
from csp_embed.ops.bound import bound_cycles, natural, useful_products
from csp_embed.report.kernel import figures as document
from csp_embed.sim.cycles.engine import simulate_cycles

Capture = pytest.CaptureFixture[str]
QUICK = Options(schedules=2, refine=2, top=2)
PADDED = {
    "a filter as large as the image": ce.conv2d(n=1, c=4, h=9, w=9, k=8, r=7, s=7, pad=3, shift=7),
    "eight of nine taps dead": ce.conv2d(n=1, c=16, h=1, w=1, k=16, r=3, s=3, pad=1),
    "a row": ce.conv1d(n=1, c=3, w=5, k=4, r=5, pad=4),
    "mostly padding": ce.conv2d(n=1, c=2, h=2, w=3, k=3, r=2, s=2, pad=1, dilation=2),
}


def brute(op: Operator) -> int:
    """Points whose elements all exist, one by one."""
    assert op.rhs is not None
    count = 0
    for values in itertools.product(*map(range, op.axes.values())):
        at = dict(zip(op.axes, values, strict=True))
        count += all(
            0 <= ix.const + sum(c * at[a] for a, c in ix.terms) < size
            for access in (op.out, op.lhs, op.rhs)
            for ix, size in zip(access.index, op.tensors[access.tensor].shape, strict=True)
        )
    return count


@pytest.mark.parametrize("op", [*PADDED.values(), *(CASES[c]() for c in (
    "conv1d dilated", "conv2d padding only", "depthwise strided", "transposed", "formula",
    "matmul ragged"))])  # fmt: skip
def test_useful_products_by_brute_force(op: Operator) -> None:
    assert useful_products(op) == brute(op)


def test_products_of_what_multiplies_nothing() -> None:
    assert useful_products(CASES["max pool"]()) == 0
    assert useful_products(CASES["elementwise"]()) == 0


@pytest.mark.parametrize("machine", ["vta", "vta small", "toy outer"])
@pytest.mark.parametrize("case", PADDED)
def test_no_share_is_above_one_and_all_say_the_same(case: str, machine: str) -> None:
    op, isa = PADDED[case], MACHINES[machine]()
    kernel = ce.compile(op, isa, options=QUICK)
    f = document(kernel)
    # The simulator counts what it executes, lane by lane, with no figure of ours.
    executed = kernel.simulate().counters["macs"]
    peak = executed // f["steps"]["contract"] * f["cycles"]
    assert f["utilisation"] == pytest.approx(executed / peak)
    assert f["lane_utilisation"] == pytest.approx(brute(op) / executed)
    assert f["useful_utilisation"] == pytest.approx(brute(op) / peak)
    assert 0 < f["useful_utilisation"] <= f["utilisation"] <= 1
    assert f["lane_utilisation"] <= 1
    assert kernel.embedding.cost["utilisation"] <= 1
    memory = f"{kernel.memory}"
    report = simulate_cycles(isa, kernel.lowered.stream, memory=memory)
    assert report.utilisation == pytest.approx(f["utilisation"])


def test_commands_print_one_utilisation(tmp_path: Path, capsys: Capture) -> None:
    words = ["conv2d", "--n", 1, "--c", 4, "--h", 9, "--w", 9, "--k", 8, "--r", 7, "--s", 7,
             "--pad", 3, "--shift", 7]  # fmt: skip
    path = tmp_path / "p.npz"
    compiled = run(capsys, "compile", *words, "-o", path, "--json").document
    simulated = run(capsys, "simulate", path, "--json").document
    assert simulated["utilisation"] == pytest.approx(compiled["utilisation"])
    texts = [run(capsys, "compile", *words).out, run(capsys, "simulate", path).out]
    found = [re.findall(r"utilisation ([0-9.]+)%", t)[0] for t in texts]
    assert found[0] == found[1] == f"{100 * compiled['utilisation']:.1f}"
    for row in run(capsys, "explain", *words, "--json").document["alternatives"]:
        assert 0 < row["lane_utilisation"] <= 1


def test_host_work_is_compared_with_what_the_host_is_given() -> None:
    """Both without weights: x has 4 * 9 * 9 bytes."""
    kernel = ce.compile(PADDED["a filter as large as the image"], options=QUICK)
    f = document(kernel)
    assert f["natural_input_bytes"] == 4 * 9 * 9
    assert f["host_bytes"] == f["bytes"]["x"]
    assert natural(kernel.operator)["read_bytes"] == 4 * 9 * 9 + 8 * 4 * 7 * 7


def test_a_step_of_two_cycles_halves_the_peak() -> None:
    assert figures.utilisation(10, 40, 2.0) == 0.5
    assert figures.utilisation(10, None) == 0.0
    assert figures.lane_utilisation(5, 0, 16) is None
    assert figures.lane_utilisation(None, 3, 16) is None
    assert figures.ratio_to_bound(None, 3) is None


def test_the_bound_knows_the_port_that_was_asked_for() -> None:
    """A narrower port: natural bytes over its width, whatever the latency."""
    op, isa = ce.matmul(m=64, n=1, k=640), MACHINES["vta"]()
    read = 640 + 64 * 640
    assert bound_cycles(op, isa, costs_of(isa, "de10,bytes_per_cycle=2")) == read // 2
    assert bound_cycles(op, isa, costs_of(isa, "de10,latency=9")) == bound_cycles(
        op, isa, costs_of(isa)
    )
