"""What the search picks: figures known from counting, and the optimum against enumeration."""

from __future__ import annotations

import itertools
import math

import pytest

from csp_embed import ops
from csp_embed.embed import embed
from csp_embed.embed.model.greedy import cost_of
from csp_embed.embed.model.lifted import search
from csp_embed.embed.problem import EmbedProblem, Pins
from csp_embed.embed.space.candidates import Candidates, candidates
from csp_embed.errors import Infeasible, InputError
from csp_embed.machine.load import load_isa
from csp_embed.ops.deepbench import layer
from csp_embed.solver.params import Params

VTA = load_isa("vta")


def per_vector(embedding) -> float:
    return embedding.cost["steps"] / embedding.cost["vectors"]


def test_filter_of_100_taps_on_one_channel_takes_7_steps() -> None:
    (embedding,) = embed(layer("conv000"), VTA)
    assert per_vector(embedding) == 7
    assert embedding.kind == "im2col"
    assert embedding.proof["status"] == "OPTIMAL"


def test_7x7_filter_on_three_channels_takes_10_steps() -> None:
    op = ops.conv2d(n=1, c=3, h=224, w=224, k=64, r=7, s=7, stride=2)
    (embedding,) = embed(op, VTA)
    assert per_vector(embedding) == 10  # ceil(147 / 16)


def test_depthwise_is_at_least_as_good_as_14_outputs_in_3_steps() -> None:
    op = ops.depthwise_conv2d(n=1, c=32, h=58, w=58, r=3, s=3)
    (embedding,) = embed(op, VTA)
    assert embedding.cost["utilisation"] >= 14 * 9 / (3 * 256)
    assert embedding.kind in ("toeplitz", "mixed")


def test_35_outputs_by_many_rows_are_commuted() -> None:
    (embedding,) = embed(ops.matmul(m=35, n=700, k=2048, shift=8, clip=(0, 127)), VTA)
    assert embedding.commuted
    assert embedding.cost["utilisation"] > 0.99  # aligned: 35 of 48 lanes


def test_one_row_is_not_commuted() -> None:
    (embedding,) = embed(ops.matmul(m=64, n=1, k=512), VTA)
    assert not embedding.commuted
    assert embedding.cost["rhs_bytes"] == 64 * 512


def test_strided_1x1_packs_only_pixels_that_are_read() -> None:
    (embedding,) = embed(ops.conv2d(n=1, c=16, h=15, w=15, k=16, r=1, s=1, stride=2), VTA)
    assert embedding.layouts["lhs"].elements == 8 * 8


def test_padding_is_not_stored_and_its_steps_are_left_out() -> None:
    (embedding,) = embed(ops.conv2d(n=1, c=16, h=7, w=7, k=16, r=3, s=3, pad=1), VTA)
    assert embedding.layouts["lhs"].elements == 7 * 7
    assert embedding.cost["steps"] == (7 * 3 - 2) ** 2


def test_alternatives_differ_in_structure_and_cost_no_less() -> None:
    found = embed(layer("conv010"), VTA, top=4)
    costs = [e.cost["objective"] for e in found]
    assert len(found) == 4
    assert costs == sorted(costs)
    assert len({(e.commuted, e.formula()) for e in found}) == 4


def test_same_input_same_answer() -> None:
    one, two = (embed(layer("conv010"), VTA, top=2) for _ in range(2))
    assert one == two


def test_pins_hold() -> None:
    pins = {"straight": lambda option: not option.commuted}
    (embedding,) = embed(ops.matmul(m=35, n=700, k=64), VTA, pins=Pins(pins))
    assert not embedding.commuted


def test_pins_that_leave_few_answers() -> None:
    """Two reduced axes must share the lanes of i, evenly."""
    op = ops.parse_formula("y[a] += x[k,c] * w[a,k,c]", {"x": (8, 8), "w": (5, 8, 8)})
    pins = {"even": lambda option: option.lanes.get("i", 1) in (1, 4) and not option.given}
    pins["both"] = lambda option: option.lanes.get("i", 1) == 4 or option.block in (0, 3)
    (embedding,) = embed(op, VTA, pins=Pins(pins))
    assert sorted(d.extent for d in embedding.digits if d.dim == "i") == [4, 4]


def test_contradicting_pins_are_infeasible() -> None:
    with pytest.raises(Infeasible, match="impossible"):
        embed(ops.matmul(m=4, n=4, k=4), VTA, pins=Pins({"impossible": lambda option: False}))


def test_a_product_on_the_accumulator_is_refused() -> None:
    with pytest.raises(Infeasible, match="mul"):
        embed(ops.elementwise((4, 16), [("mul", 3)]), VTA)


def test_unknown_layout_mode() -> None:
    with pytest.raises(InputError, match="NHWC"):
        embed(ops.matmul(m=4, n=4, k=4), VTA, layout="NHWC")


def enumerate_all(space: Candidates) -> int:
    """The least cost over all combinations of options: no pruning, no solver."""
    problem = space.problem
    count, best = len(problem.blocks), None
    for commuted in (False, True):
        per_block = [
            [o for o in space.options if o.block == b and o.commuted == commuted]
            for b in range(count + 1)
        ]
        for picked in itertools.product(*per_block):
            given = frozenset().union(*(o.given for o in picked[:-1]))
            if given != picked[-1].given:
                continue
            used = [math.prod(o.lanes.get(d, 1) for o in picked) for d in problem.unit.size]
            if all(u <= n for u, n in zip(used, problem.unit.size.values(), strict=True)):
                cost = cost_of(problem, picked)
                best = cost if best is None else min(best, cost)
    assert best is not None
    return best


CASES = {
    "conv1d": lambda: ops.conv1d(n=2, c=3, w=11, k=5, r=3, pad=1),
    "depthwise": lambda: ops.depthwise_conv2d(n=1, c=3, h=5, w=1, r=3, s=1),
    "matmul": lambda: ops.matmul(m=9, n=5, k=7),
    "strided": lambda: ops.conv1d(n=1, c=2, w=17, k=3, r=5, stride=2),
}


@pytest.mark.parametrize("machine", ["1x4x4_small", "2x16x16"])
@pytest.mark.parametrize("case", CASES)
def test_optimum_equals_enumeration(case: str, machine: str) -> None:
    space = candidates(EmbedProblem.of(CASES[case](), load_isa("vta", machine)))
    found = search(space, Params(deterministic_limit=20.0))[0]
    assert found.status == "OPTIMAL"
    assert found.objective == enumerate_all(space)


def test_a_pin_never_finds_a_smaller_cost_than_the_least() -> None:
    """What pins add to the space must be in the space without them, or OPTIMAL says too much."""
    op = ops.conv2d(n=1, c=3, h=7, w=29, k=1, r=3, s=3, stride=2, pad=1)
    (best,) = embed(op, VTA)
    (pinned,) = embed(op, VTA, pins=Pins({"commuted": lambda option: option.commuted}))
    assert best.proof["status"] == "OPTIMAL"
    assert best.cost["objective"] <= pinned.cost["objective"]


# Every strict layout is a relaxed one too. In the first padding cuts windows, so that the input
# whole in a block is less than windows of their own; in the second blocks as wide as the outputs'
# lanes move the window are shared by windows.
@pytest.mark.parametrize(
    "op",
    [
        ops.conv_transpose2d(n=1, c=20, h=9, w=3, k=1, r=4, s=4, stride=2, pad=0),
        ops.conv_transpose2d(n=1, c=20, h=9, w=3, k=1, r=3, s=3, stride=2),
        ops.depthwise_conv2d(n=1, c=38, h=23, w=24, r=3, s=3),
        ops.conv2d(n=1, c=20, h=5, w=5, k=16, r=3, s=3, pad=1),
    ],
    ids=lambda op: op.name,
)
def test_relaxed_layouts_cost_no_more_than_strict_ones(op) -> None:
    (relaxed,), (strict,) = embed(op, VTA), embed(op, VTA, layout="strict")
    assert relaxed.cost["objective"] <= strict.cost["objective"]
