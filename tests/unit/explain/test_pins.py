"""Pins: the best completion, judged on finished embeddings; conflicts minimal, relaxations true."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.compiler.driver import Options, embeddings_of
from csp_embed.compiler.driver import compile as compile_operator
from csp_embed.compiler.program.verify import judge as judge_kernel
from csp_embed.embed.algebra.packing import pack
from csp_embed.embed.explain.reasons import none, padded, possible
from csp_embed.embed.pins.text import read_pins
from csp_embed.embed.problem import EmbedProblem
from csp_embed.errors import Infeasible, InputError
from csp_embed.judge.embedding.judge import judge
from csp_embed.machine.load import load_isa
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate

SMALL = Path(__file__).parents[2] / "data/configs/1x4x4_small.json"


def conv(c: int = 18, k: int = 20):
    return ops.conv2d(n=1, c=c, h=10, w=10, k=k, r=3, s=3, pad=1)


def axes_on(embedding, dim: str) -> dict[str, int]:
    """Axis -> lanes, from the digits' coefficients alone."""
    digits = {d.name: d for d in embedding.digits}
    partner = dict(embedding.equal)
    out: dict[str, int] = {}
    for c in embedding.coordinates:
        for name, coef in c.digits.items():
            # A digit that another coordinate owns only shifts this one (a skewed window).
            owner = name.split(".")[0].removeprefix("u(").removesuffix(")")
            if owner != "*".join(c.axes):
                continue
            for digit in (name, partner.get(name)):
                if digit is not None and digits[digit].dim == dim and coef:
                    out[owner] = out.get(owner, 1) * digits[digit].extent
    return out


HELD = [
    (["fix i=c"], lambda e: set(axes_on(e, "i")) == {"c"}),
    (["fix i=c,r"], lambda e: set(axes_on(e, "i")) in ({"c", "r"}, {"c*r"})),
    (["fix i=c:7"], lambda e: axes_on(e, "i") == {"c": 7}),
    (["fix i=r*s:9"], lambda e: axes_on(e, "i") == {"r*s": 9}),
    (["fix o="], lambda e: not axes_on(e, "o")),
    (["fix q=o"], lambda e: "q" in axes_on(e, "o")),
    (["fix c=", "fix straight"], lambda e: "c" not in str(axes_on(e, "i")) and not e.commuted),
    (["fix commuted", "forbid o=p"], lambda e: e.commuted and "p" not in axes_on(e, "o")),
    (["forbid commuted", "fix o=q,k"], lambda e: {"q", "k"} == set(axes_on(e, "o"))),
    (["forbid fuse", "forbid outer", "forbid c"], lambda e: "c" not in axes_on(e, "i")),
    (["forbid skew", "fix q=o,i", "forbid commuted"], lambda e: e.kind == "diagonal"),
]


@pytest.mark.parametrize(("pins", "holds"), HELD)
def test_pins_hold_and_the_embedding_is_right(pins, holds):
    isa = load_isa("vta")
    embedding = embeddings_of(conv(), isa, Options(pins=tuple(pins), top=1))[0]
    assert holds(embedding), embedding.formula()
    assert not judge(embedding, isa).breaches
    assert embedding.proof["status"] == "OPTIMAL"
    assert embedding.proof["pins"] == pins


def test_pinned_optimum_is_no_better_and_free_pins_cost_nothing():
    isa = load_isa("vta")
    free = embeddings_of(conv(), isa, Options(top=1))[0]
    for pins, _ in HELD:
        pinned = embeddings_of(conv(), isa, Options(pins=tuple(pins), top=1))[0]
        assert pinned.cost["objective"] >= free.cost["objective"]
    own = [f"fix {d}={','.join(axes_on(free, d))}" for d in ("o", "i")]
    again = embeddings_of(conv(), isa, Options(pins=tuple(own), top=1))[0]
    assert again.cost["objective"] == free.cost["objective"]


LAYOUTS = [
    (32, 32, "x=NHWC", (0, 2, 3, 1)),
    (8, 32, "x=NHWC", (0, 2, 3, 1)),
    (4, 32, "x=NHWC", (0, 2, 3, 1)),
    (16, 48, "y=NHWC", (0, 2, 3, 1)),
    (4, 32, "x=n,h,w,c", (0, 2, 3, 1)),
]


@pytest.mark.parametrize(("c", "k", "text", "order"), LAYOUTS)
def test_layouts_put_consecutive_elements_side_by_side(c, k, text, order):
    isa = load_isa("vta")
    pad = 0 if c < 16 else 1  # lanes of several pixels begin at multiples of their number
    op = ops.conv2d(n=1, c=c, h=8, w=8, k=k, r=3, s=3, pad=pad)
    embedding = embeddings_of(op, isa, Options(pins=(f"layout {text}",), top=1))[0]
    assert not judge(embedding, isa).breaches
    layout = next(v for v in embedding.layouts.values() if v.tensor == text[0])
    shape = op.tensors[text[0]].shape
    flat = np.arange(1, math.prod(shape) + 1).reshape([shape[t] for t in order])
    flat = flat.transpose(np.argsort(order))
    # Packing is by bytes: two runs give each lane's number.
    low, high = (pack(layout, embedding, isa, (v % 100).astype(np.int8)).astype(int)
                 for v in (flat, flat // 100))  # fmt: skip
    lanes = (low + 100 * high).reshape(-1, math.prod(isa.lane_shape(layout.memory)))
    assert sorted(lanes.ravel()) == list(range(1, flat.size + 1))
    assert (np.diff(lanes, axis=1) == 1).all()


def test_blocked_layout_pads_and_keeps_whole_blocks():
    isa = load_isa("vta")
    pins = ("layout x=NCHW16c", "layout w=KCRS16k16c")
    embedding = embeddings_of(conv(), isa, Options(pins=pins, top=1))[0]
    assert axes_on(embedding, "i") == {"c": 16}
    assert axes_on(embedding, "o") == {"k": 16}


def test_a_pinned_kernel_computes_the_same():
    op = ops.conv2d(n=1, c=8, h=8, w=8, k=16, r=3, s=3, shift=6)
    options = Options(pins=("layout x=NHWC", "fix i=c,s"))
    kernel = compile_operator(op, load_isa("vta"), options=options)
    assert judge_kernel(kernel, random_tensors(op, 0)).verified == "simulated"


@pytest.mark.parametrize(("c", "k", "pad"), [(32, 48, 1), (8, 8, 0), (16, 16, 1)])
def test_nhwc_lies_in_memory_as_the_tensor_does(c, k, pad):
    op = ops.conv2d(n=1, c=c, h=8, w=8, k=k, r=3, s=3, pad=pad, shift=8)
    pins = ("layout x=NHWC",) + (("layout y=NHWC",) if k >= 16 else ())
    kernel = compile_operator(op, load_isa("vta"), options=Options(pins=pins))
    tensors = random_tensors(op, 0)
    program = kernel.program(tensors)
    np.testing.assert_array_equal(program.tensors["y"], evaluate(op, tensors)["y"])
    memory = b"".join(bytes(data) for _, data in program.before)
    assert tensors["x"].transpose(0, 2, 3, 1).tobytes() in memory
    if k >= 16:
        assert bytes(program.after[0][1]) == program.tensors["y"].transpose(0, 2, 3, 1).tobytes()


@pytest.mark.parametrize(
    ("op", "pins"),
    [
        # Two pixels in an element, shared by output pixels that an inner counter tells apart; with
        # padding the elements begin early.
        (ops.conv2d(n=1, c=8, h=8, w=8, k=32, r=3, s=3), ("layout x=NHWC", "layout y=NHWC")),
        (ops.conv2d(n=1, c=8, h=8, w=8, k=32, r=3, s=3, pad=1), ("layout x=NHWC",)),
        (ops.conv2d(n=1, c=1, h=8, w=32, k=4, r=3, s=3, pad=1), ("layout x=NCHW",)),
        (conv(), ("layout strict", "fix i=c,s", "forbid q")),
    ],
)
def test_blocks_that_windows_share_are_kept(op, pins):
    strict = "layout strict" in pins
    rest = tuple(p for p in pins if p != "layout strict")
    options = Options(pins=rest, layout="strict" if strict else "relaxed")
    kernel = compile_operator(op, load_isa("vta"), options=options)
    assert not kernel.embedding.layouts["lhs"].duplicates
    assert judge_kernel(kernel, random_tensors(op, 0)).verified == "simulated"


CONFLICTS = [
    (conv(3, 16), "relaxed", ["layout x=NHWC"], {"layout x=NHWC"}, "pad c from 3 to 16"),
    (conv(), "relaxed", ["fix p=i"], {"fix p=i", "one home per output"}, "drop --fix 'p=i'"),
    (conv(), "relaxed", ["fix o=k:16,q:2"], {"fix o=k:16,q:2", "lanes"}, "drop"),
    (conv(), "relaxed", ["fix o=q", "forbid diagonal", "fix straight", "forbid skew"],
     {"fix o=q", "fix straight", "forbid skew", "forbid diagonal", "operand agreement"},
     "drop --fix 'straight'"),
    (conv(), "strict", ["fix i=c,s", "forbid skew"],
     {"fix i=c,s", "forbid skew", "strict layout"}, "allow the relaxed layout"),
    (ops.conv2d(n=1, c=8, h=8, w=8, k=24, r=3, s=3), "relaxed", ["layout x=NHWC", "layout y=NHWC"],
     {"layout y=NHWC"}, "pad k from 24 to 32"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "mode", "pins", "expected", "helps"), CONFLICTS)
def test_conflicts_are_minimal(op, mode, pins, expected, helps):
    isa = load_isa("vta")
    found = none(op, isa, mode, pins)
    assert set(found.conflict) - {"cover", "roles"} == expected
    assert found.proved
    assert any(helps in text for text in found.relaxations), found.relaxations
    # Without any one of the wishes the others can be kept; with all of them nothing can.
    wishes = [p for p in pins if p in expected]
    strict = "strict" if "strict layout" in expected else "relaxed"
    assert not possible(op, isa, strict, wishes)
    for dropped in wishes:
        assert possible(op, isa, strict, [p for p in wishes if p != dropped])
    with pytest.raises(Infeasible) as error:
        embeddings_of(op, isa, Options(layout=mode, pins=tuple(pins)))
    assert error.value.exit_code == 3


def test_padding_as_told_makes_it_feasible():
    isa = load_isa("vta")
    larger = padded(conv(3, 16), "c", 16)
    assert larger is not None
    assert larger.tensors["x"].shape == (1, 16, 10, 10)
    assert possible(larger, isa, "relaxed", ["layout x=NHWC"])
    assert padded(conv(), "p", 16) is None


def test_missing_operation():
    op = ops.parse_formula("y[n,k] += x[n,c] * w[k,c]; mul 3", {"x": (4, 8), "w": (5, 8)})
    found = none(op, load_isa("vta"), "relaxed", [])
    assert found.conflict == ("operation kind",)
    assert found.relaxations == ("leave out the step `mul 3`",)


def test_small_machine():
    isa = load_isa("vta", SMALL)
    embedding = embeddings_of(conv(8, 8), isa, Options(pins=("layout x=NHWC",), top=1))[0]
    assert axes_on(embedding, "i") == {"c": 4}


@pytest.mark.parametrize(
    "text",
    ["skew", "fix i", "fix z=c", "fix i=z", "fix q=z", "fix i=c:17", "fix i=c:0", "forbid z",
     "forbid z=c", "layout z=NHWC", "layout x=NHW", "layout x=NHWCC", "layout x=NHWZ", "layout x"],
)  # fmt: skip
def test_wrong_texts_are_refused(text):
    with pytest.raises(InputError):
        read_pins(EmbedProblem.of(conv(), load_isa("vta")), [text])
