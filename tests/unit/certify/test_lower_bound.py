"""The proved bound is below every program there is, and below optima of tiny operators."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import csp_embed as ce
from csp_embed import ops
from csp_embed.judge.embedding.fewest_passes import fewest_passes
from csp_embed.judge.embedding.lower_bound import lower_bound, needed_steps, readers
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from tests.cases import CASES, MACHINES
from tests.command_line import run
from tests.oracles.brute import brute_irregular
from tests.oracles.corpus import corpus, posed


def test_no_irregular_covering_has_fewer_steps():
    """Brute force over all coverings: with one step less than the bound there is none."""
    tried = 0
    for row in corpus():
        ground = posed(row)
        if ground is None or ground.op.kind != "contract" or len(ground.points) > 8:
            continue
        machine = row.isa
        need = needed_steps(ground.op, machine)
        if 1 < need <= ground.steps:
            assert not brute_irregular(replace(ground, steps=need - 1)), row.name
            tried += 1
    assert tried > 10


@pytest.mark.parametrize("case", CASES)
def test_no_compiled_program_is_below(case):
    for machine in ("vta", "vta small", "vta batch"):
        kernel = ce.compile(CASES[case](), isa=MACHINES[machine]())
        bound = lower_bound(kernel.operator, kernel.isa, costs_of(kernel.isa))
        assert bound.cycles <= kernel.cycles
        steps = sum(t.steps * int((kernel.schedule.ops[:, 1][kernel.schedule.ops[:, 0] == 1] == n)
                                  .sum()) for n, t in enumerate(kernel.schedule.templates)
                    if not t.op and not t.reset)  # fmt: skip
        assert bound.steps <= steps


def programs(length, low, high):
    """All programs of passes with few immediates: (name, constant) each."""
    single = [("shr", k) for k in range(-4, 9)]
    single += [(f, k) for f in ("add", "max", "min") for k in range(low, high)]
    return itertools.product(single, repeat=length)


def applied(program, values):
    for name, k in program:
        if name == "shr":
            values = values >> np.int32(k) if k >= 0 else values << np.int32(-k)
        else:
            f = {"add": np.add, "max": np.maximum, "min": np.minimum}[name]
            values = f(values, np.int32(k), dtype=np.int32)
    return values.astype(np.int8)


def test_no_shorter_program_of_passes_computes_the_epilogue():
    """Every program of one and two passes over small immediates, with start values."""
    values = np.arange(-1200, 1201, dtype=np.int32)
    for clip, need in (((0, 20), 3), ((None, 20), 2), ((0, None), 2), (None, 1)):
        op = ops.matmul(m=4, n=4, k=64, shift=4, clip=clip)
        assert fewest_passes(op) == need
        wanted = values >> 4
        if clip:
            wanted = np.clip(wanted, *clip)
        for start in (0, 16, -40, 2**31 - 500):
            begun = np.add(values, np.int32(start), dtype=np.int32)
            for length in range(need):
                for program in programs(length, -3, 24):
                    assert not np.array_equal(applied(program, begun), wanted.astype(np.int8))


def test_readers_count_what_one_element_serves():
    op = ops.conv2d(n=1, c=2, h=5, w=5, k=3, r=3, s=2, pad=1)
    most = {}
    for p in itertools.product(*(range(n) for n in op.axes.values())):
        at = dict(zip(op.axes, p, strict=True))
        for access in (op.lhs, op.rhs, op.out):
            key = (access.tensor, *(ix.const + sum(c * at[a] for a, c in ix.terms)
                                    for ix in access.index))  # fmt: skip
            most[key] = most.get(key, 0) + 1
    for access in (op.lhs, op.rhs, op.out):
        worst = max(v for k, v in most.items() if k[0] == access.tensor)
        assert readers(op, access) >= worst
    assert readers(op, op.rhs) == worst or readers(op, op.out) == 12


def test_command_prints_the_bound(capsys):
    args = ("compile", "matmul", "--m", 32, "--n", 8, "--k", 64, "--shift", 8, "--clip", 0, 127)
    done = run(capsys, *args, "--bound")
    assert done.code == 0, done.err
    assert "for any covering" in done.out
    document = run(capsys, *args, "--bound", "--json").document
    isa = load_isa("vta")
    # 16,384 products, 256 a step; 16 elements of the result, 3 passes each.
    assert document["lower_bound"]["steps"] == 64
    assert document["lower_bound"]["passes"] == 3
    assert document["lower_bound"]["cycles"] >= 64 + 3 * 16
    assert isa.dims["o"] == 16
