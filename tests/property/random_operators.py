"""Strategies for operators, machines and options, for tests of the whole chain.

Every extent is small and may be odd, prime or below one block; every draw is a legal operator.
"""

from __future__ import annotations

from typing import Any

from cases import CONFIGS
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from csp_embed import ops
from csp_embed.ir.operator import Operator
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa

MACHINES: dict[str, Isa] = {
    **{path.stem: load_isa("vta", path) for path in sorted(CONFIGS.glob("*.json"))},
    "toy_dot": load_isa("toy_dot"),
    "toy_outer": load_isa("toy_outer"),
}
machines = st.sampled_from(sorted(MACHINES))
layouts = st.sampled_from(["relaxed", "relaxed", "strict"])
CLIPS = (None, (0, 127), (-128, 127), (-5, 100))
FAR = 1 << 30
"""A bias range out of the reach of multiply-accumulate steps."""


def one_of(draw: DrawFn, low: int, high: int) -> int:
    return draw(st.integers(low, high))


@st.composite
def epilogues(draw: DrawFn) -> dict[str, Any]:
    """Keyword arguments of a contraction's epilogue."""
    out: dict[str, Any] = {"clip": draw(st.sampled_from(CLIPS))}
    if draw(st.booleans()):
        out["shift"] = one_of(draw, 1, 9)
    bias = draw(st.sampled_from(["no", "after", "promised", "far", "before"]))
    if bias == "before":
        out["bias_before_shift"] = True
    elif bias != "no":
        out["bias"] = True
        out["bias_range"] = {"after": None, "promised": 32768, "far": FAR}[bias]
    return {k: v for k, v in out.items() if v is not None}


def window(draw: DrawFn, taps: int, most: int = 12) -> tuple[int, int, int, int, int]:
    """Extent, filter, stride, padding and dilation of one dimension that fit each other."""
    filter_, stride = one_of(draw, 1, taps), one_of(draw, 1, 3)
    dilation, pad = one_of(draw, 1, 2), one_of(draw, 0, 2)
    least = max(1, (filter_ - 1) * dilation + 1 - 2 * pad)
    return one_of(draw, least, least + most), filter_, stride, pad, dilation


@st.composite
def products(draw: DrawFn) -> Operator:
    """Matrix products: plain, batched, dense."""
    kind = draw(st.sampled_from(["matmul", "batch", "dense"]))
    m, n, k = one_of(draw, 1, 50), one_of(draw, 1, 30), one_of(draw, 1, 70)
    if kind == "matmul":
        return ops.matmul(m=m, n=n, k=k, **draw(epilogues()))
    if kind == "dense":
        return ops.dense(n=n, c=k, k=m, **draw(epilogues()))
    return ops.batch_matmul(batch=one_of(draw, 1, 4), m=m, n=n, k=k, **draw(epilogues()))


@st.composite
def convolutions_1d(draw: DrawFn) -> Operator:
    w, r, stride, pad, dilation = window(draw, 5, 40)
    return ops.conv1d(
        n=one_of(draw, 1, 2), c=one_of(draw, 1, 20), w=w, k=one_of(draw, 1, 30), r=r,
        stride=stride, pad=pad, dilation=dilation, **draw(epilogues()),
    )  # fmt: skip


@st.composite
def convolutions_2d(draw: DrawFn) -> Operator:
    """Two unlike dimensions, channels first or last."""
    h, r, stride_h, pad_h, dilation_h = window(draw, 4)
    w, s, stride_w, pad_w, dilation_w = window(draw, 4)
    return ops.conv2d(
        n=one_of(draw, 1, 3), c=one_of(draw, 1, 24), h=h, w=w, k=one_of(draw, 1, 30), r=r, s=s,
        stride=(stride_h, stride_w), pad=(pad_h, pad_w), dilation=(dilation_h, dilation_w),
        layout=draw(st.sampled_from(["NCHW", "NHWC"])), **draw(epilogues()),
    )  # fmt: skip


@st.composite
def grouped(draw: DrawFn) -> Operator:
    """Grouped and depthwise convolutions."""
    h, r, stride, pad, _ = window(draw, 3, 8)
    w = one_of(draw, max(1, r - 2 * pad), 12)
    n = one_of(draw, 1, 2)
    if draw(st.booleans()):
        return ops.depthwise_conv2d(n=n, c=one_of(draw, 1, 20), h=max(h, r), w=max(w, r), r=r, s=r,
                                    stride=stride, pad=pad, multiplier=one_of(draw, 1, 2),
                                    **draw(epilogues()))  # fmt: skip
    g = one_of(draw, 2, 4)
    return ops.conv2d(n=n, c=g * one_of(draw, 1, 6), h=max(h, r), w=max(w, r),
                      k=g * one_of(draw, 1, 8), r=r, s=r, stride=stride, pad=pad, groups=g,
                      **draw(epilogues()))  # fmt: skip


@st.composite
def volumes(draw: DrawFn) -> Operator:
    """Three-dimensional and transposed convolutions."""
    if draw(st.booleans()):
        return ops.conv3d(
            n=1, c=one_of(draw, 1, 6), d=one_of(draw, 3, 6), h=one_of(draw, 3, 8),
            w=one_of(draw, 3, 8), k=one_of(draw, 1, 20), t=one_of(draw, 1, 3),
            r=one_of(draw, 1, 3), s=one_of(draw, 1, 3), stride=one_of(draw, 1, 2),
            pad=one_of(draw, 0, 1), **draw(epilogues()),
        )  # fmt: skip
    return ops.conv_transpose2d(
        n=one_of(draw, 1, 2), c=one_of(draw, 1, 12), h=one_of(draw, 2, 7), w=one_of(draw, 2, 7),
        k=one_of(draw, 1, 20), r=one_of(draw, 2, 4), s=one_of(draw, 2, 4),
        stride=one_of(draw, 1, 2), pad=one_of(draw, 0, 1), **draw(epilogues()),
    )  # fmt: skip


@st.composite
def pools(draw: DrawFn) -> Operator:
    shape = {"n": one_of(draw, 1, 2), "c": one_of(draw, 1, 20), "h": one_of(draw, 3, 13),
             "w": one_of(draw, 3, 13), "r": one_of(draw, 1, 3), "s": one_of(draw, 1, 3),
             "stride": one_of(draw, 1, 3)}  # fmt: skip
    if draw(st.booleans()):
        return ops.max_pool2d(**shape, pad=one_of(draw, 0, min(shape["r"], shape["s"]) // 2))
    return ops.avg_pool2d(**shape, m=one_of(draw, 1, 300), shift=one_of(draw, 4, 9))


STEPS: list[tuple[Any, ...]] = [
    ("add", "z"), ("max", "z"), ("min", "u"), ("bias", "b"), ("add", 5), ("max", -3), ("min", 90),
    ("shr", 3), ("shr", -2), ("relu",), ("clip", -20, 77),
]  # fmt: skip


@st.composite
def elementwise(draw: DrawFn) -> Operator:
    """Chains of steps, each tensor at most once."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    steps = draw(st.lists(st.sampled_from(STEPS), max_size=4, unique=True))
    if sum("z" in s for s in steps) > 1:
        steps.remove(("max", "z"))
    return ops.elementwise(shape, steps)


@st.composite
def formulas(draw: DrawFn) -> Operator:
    """Contractions that no built-in operator is: reversed, transposed, strided accesses."""
    c, k, p, r = (one_of(draw, 1, top) for top in (12, 24, 20, 4))
    a, d = one_of(draw, 1, 3), one_of(draw, 1, 2)
    x = a * (p - 1) + d * (r - 1) + 1
    access = draw(st.sampled_from(["w[k,c,r]", "w[c,r,k]", f"w[r,k,{c - 1}-c]"]))
    sizes = {"k": k, "c": c, "r": r}
    shape = tuple(sizes[i[-1]] for i in access[2:-1].split(","))
    out, size = draw(st.sampled_from([("y[k,p]", (k, p)), ("y[p,k]", (p, k))]))
    text = f"{out} += x[{a}*p+{d}*r,c] * {access}; c < {c}; r < {r}"
    return ops.parse_formula(text, {"x": (x, c), "w": shape, "y": size}, **draw(epilogues()))
