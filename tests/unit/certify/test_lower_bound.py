"""The proved bound is below every program there is, and below optima of tiny operators."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import csp_embed as ce
from csp_embed import ops
from csp_embed.judge.embedding.carried import Carried, least_distance
from csp_embed.judge.embedding.compute_work import compute_work
from csp_embed.judge.embedding.fewest_passes import fewest_passes
from csp_embed.judge.embedding.lower_bound import lower_bound, needed_steps, readers
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from csp_embed.ops.counting import elements_met, points_of_outputs
from tests.cases import MACHINES, STREAM_CASES
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
        work = compute_work(ground.op, machine, costs_of(machine))
        need = max(needed_steps(ground.op, machine), work.steps)
        if 1 < need <= ground.steps:
            assert not brute_irregular(replace(ground, steps=need - 1)), row.name
            tried += 1
    assert tried > 10


@pytest.mark.parametrize("case", STREAM_CASES)
def test_no_compiled_program_is_below(case):
    for machine in ("vta", "vta small", "vta batch"):
        kernel = ce.compile(STREAM_CASES[case](), isa=MACHINES[machine]())
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


def brute_points(op):
    """Points of each output, and elements of each factor, by walking all of them."""
    outputs, met = Counter(), {access: set() for access in (op.lhs, op.rhs)}
    for p in itertools.product(*(range(n) for n in op.axes.values())):
        at = dict(zip(op.axes, p, strict=True))
        places = {}
        for access in (op.out, op.lhs, op.rhs):
            place = tuple(ix.const + sum(c * at[a] for a, c in ix.terms) for ix in access.index)
            shape = op.tensors[access.tensor].shape
            if all(0 <= v < n for v, n in zip(place, shape, strict=True)):
                places[access] = place
        output = tuple(at[a] for a in op.out_axes)
        outputs[output] += len(places) == 3
        for access in (op.lhs, op.rhs) if len(places) == 3 else ():
            met[access].add(places[access])
    return Counter(outputs.values()), [len(v) for v in met.values()]


@pytest.mark.parametrize("op", [
    ops.conv2d(n=2, c=3, h=5, w=4, k=2, r=3, s=2, pad=(2, 1), stride=(2, 1), dilation=(1, 2)),
    ops.conv2d(n=1, c=2, h=3, w=3, k=2, r=1, s=1, pad=3, stride=2),
    ops.conv2d(n=1, c=4, h=2, w=6, k=4, r=5, s=3, pad=2, groups=2),
    ops.conv_transpose2d(n=1, c=2, h=3, w=4, k=3, r=2, s=3, stride=(3, 2), pad=(1, 1)),
    ops.matmul(m=5, n=3, k=7),
])  # fmt: skip
def test_points_and_elements_are_counted_exactly(op):
    outputs, (left, right) = brute_points(op)
    assert Counter(points_of_outputs(op)) == outputs
    assert (elements_met(op, op.lhs), elements_met(op, op.rhs)) == (left, right)


@pytest.mark.parametrize(("q", "reach", "low", "high", "most"), [
    (2, 9, 0, 1, 99), (2, 9, -1, 1, 99), (3, 14, 0, 2, 99), (2, 10, 0, 3, 2), (1, 6, 0, 1, 99),
    (4, 17, 0, 1, 99), (2, 8, 1, 2, 99),
])  # fmt: skip
def test_a_carried_tensor_is_that_far_apart(q, reach, low, high, most):
    """All ways to place the values of the tensor in a smaller range contradict each other."""
    t = q * (low + 1)
    claimed = least_distance(reach, q, t, most)
    count = min(most, (reach - abs(t) - 1) // q)
    wanted = [[min(max((u + b * q) // q, low), high) for u in range(-reach, reach + 1)]
              for b in range(-count, count + 1)]  # fmt: skip

    def agree(a, b, shift):
        """Whether one function of S + c gives both bytes, with c of b so much above that of a."""
        if shift < 0:
            a, b, shift = b, a, -shift
        return wanted[a][shift:] == wanted[b][: len(wanted[b]) - shift]

    def placed(chosen, width):
        k = len(chosen)
        if k == len(wanted):
            return True
        return any(placed([*chosen, c], width) for c in range(width + 1)
                   if all(agree(n, k, c - other) for n, other in enumerate(chosen)))  # fmt: skip

    assert not placed([], claimed - 1)
    assert placed([], 2 * count * q)


def test_products_that_carry_a_bias():
    """9 products leave 7 lanes of 16 idle: enough for a bias within 20, not for any."""

    def op(most, clip=(0, 127), **more):
        return ops.conv2d(n=1, c=1, h=9, w=9, k=16, r=3, s=3, shift=8, bias=True, bias_range=most,
                          clip=clip, **more)  # fmt: skip

    # 20 * 2^8 either way is less than one product; all that a sum of 9 products tells apart is 8.
    assert Carried(op(20), 16).least_products(9) == 1
    assert Carried(op(32768), 16).least_products(9) == 8
    assert Carried(op(0), 16).step is None
    # Without a clip a change comes again: no more than one product is proved.
    assert Carried(op(32768, clip=None), 16).least_products(9) == 1
    isa = load_isa("vta")
    costs, outputs = costs_of(isa), 49
    few, any_ = (compute_work(op(most), isa, costs) for most in (20, 32768))
    # Reset, step, three passes; and one for the bias.
    assert (few.cycles, any_.cycles) == (5 * outputs, 6 * outputs)
    assert ce.compile(op(20), isa=isa).schedule.bias_lanes is not None
    # A bias that is known may be as small as it is.
    known = {"b": np.full(16, -20, np.int32)}
    narrow, wide = (lower_bound(op(32768), isa, costs, k).cycles for k in (known, {}))
    assert narrow == lower_bound(op(20), isa, costs).cycles < wide


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
