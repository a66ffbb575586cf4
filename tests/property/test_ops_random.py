"""Random operators: NumPy reference against the scalar definition; any text is read or refused."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed import ops
from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ops.data import random_tensors
from csp_embed.ops.document import from_document, to_document
from csp_embed.ops.reference import evaluate
from csp_embed.ops.scalar import evaluate_slowly

small = st.integers(1, 4)
pads = st.tuples(st.integers(0, 2), st.integers(0, 2))


@st.composite
def epilogues(draw: st.DrawFn) -> dict[str, object]:
    options: dict[str, object] = {"shift": draw(st.integers(-3, 9))}
    options[draw(st.sampled_from(["bias", "bias_before_shift", "channel"]))] = True
    if options.pop("channel", None):
        options["bias"] = False
    if draw(st.booleans()):
        lo = draw(st.one_of(st.none(), st.integers(-130, 20)))
        options["clip"] = (lo, draw(st.one_of(st.none(), st.integers(20, 300))))
    return options


@st.composite
def operators(draw: st.DrawFn) -> Operator:
    kind = draw(
        st.sampled_from(["matmul", "bmm", "conv1d", "conv2d", "dw", "deconv", "max", "avg"])
    )
    options = draw(epilogues())
    stride, dilation = draw(st.tuples(small, small)), draw(st.tuples(st.integers(1, 2), small))
    r, s = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    image = dict(n=draw(st.integers(1, 2)), h=draw(st.integers(9, 11)), w=draw(st.integers(9, 12)))
    image["layout"] = draw(st.sampled_from(["NCHW", "NHWC"]))
    groups, per_in, per_out = draw(small), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pad = (draw(pads), draw(pads))
    if kind == "matmul":
        return ops.matmul(m=draw(small), n=draw(small), k=draw(st.integers(1, 20)), **options)
    if kind == "bmm":
        return ops.batch_matmul(batch=draw(small), m=draw(small), n=2, k=draw(small), **options)
    if kind == "conv1d":
        return ops.conv1d(
            n=1, c=groups * per_in, w=draw(st.integers(7, 20)), k=groups * per_out, r=r,
            groups=groups, stride=stride[0], dilation=dilation[0], pad=(pad[0],), **options,
        )  # fmt: skip
    if kind == "conv2d":
        return ops.conv2d(
            **image, c=groups * per_in, k=groups * per_out, r=r, s=s, groups=groups,
            stride=stride, dilation=dilation, pad=pad, **options,
        )  # fmt: skip
    if kind == "dw":
        return ops.depthwise_conv2d(
            **image, c=groups, multiplier=per_out, r=r, s=s, stride=stride, dilation=dilation,
            pad=pad, **options,
        )  # fmt: skip
    if kind == "deconv":
        image |= {"h": draw(small), "w": 4}
        more = tuple(draw(st.integers(0, n - 1)) for n in stride)
        pad = draw(st.sampled_from([0, 0, ((0, 0), (1, 2))]))
        return ops.conv_transpose2d(
            **image, c=per_in, k=per_out, r=r, s=s, stride=stride, pad=pad, output_pad=more,
            **options,
        )  # fmt: skip
    window = dict(r=r, s=s, stride=stride)
    if kind == "max":
        options = {k: v for k, v in options.items() if k in ("clip", "shift")}
        return ops.max_pool2d(**image, c=groups, **window, **options)
    return ops.avg_pool2d(**image, c=groups, **window, **options, m=draw(st.integers(-300, 300)))


@settings(max_examples=60, deadline=None)
@given(operators(), st.integers(0, 9))
def test_reference_agrees_with_the_definition(op: Operator, seed: int) -> None:
    tensors = random_tensors(op, seed)
    got, want = evaluate(op, tensors), evaluate_slowly(op, tensors)
    assert np.array_equal(got["acc"], want["acc"])
    assert np.array_equal(got["y"], want["y"])


@settings(max_examples=150, deadline=None)
@given(operators())
def test_every_operator_prints_and_reads_back(op: Operator) -> None:
    again = from_document(to_document(op), op.values)
    assert (again.axes, again.out, again.lhs, again.rhs) == (op.axes, op.out, op.lhs, op.rhs)
    assert (again.tensors, again.epilogue) == (op.tensors, op.epilogue)


@st.composite
def affine_formulas(draw: st.DrawFn) -> Operator | None:
    """Contractions with arbitrary affine reads: negative coefficients, far offsets, lone axes.

    None where the shapes cannot be meant (most of an output axis would read nothing).
    """
    extents = {a: draw(st.integers(1, 4)) for a in "ijkl"}
    read: set[str] = set()

    def index() -> str:
        coefs = {a: draw(st.integers(-3, 3)) for a in "ijkl"}
        read.update(a for a, c in coefs.items() if c)
        return "+".join(f"{c}*{a}" for a, c in coefs.items()) + f"+{draw(st.integers(-4, 6))}"

    text = f"y[i,j] += x[i,{index()},{index()}] * w[j,{index()}]"
    shapes = {
        "y": (extents["i"], extents["j"]),
        "x": (extents["i"], draw(st.integers(1, 6)), draw(st.integers(1, 6))),
        "w": (extents["j"], draw(st.integers(1, 6))),
    }
    try:
        return ops.parse_formula(text, shapes, extents={a: extents[a] for a in read & {"k", "l"}})
    except OperatorError as error:
        if "most of axis" in error.what:
            return None
        raise


@settings(max_examples=80, deadline=None)
@given(affine_formulas().filter(lambda op: op is not None))
def test_any_affine_formula_agrees_with_the_definition(op: Operator) -> None:
    tensors = random_tensors(op, 0)
    got, want = evaluate(op, tensors), evaluate_slowly(op, tensors)
    assert np.array_equal(got["acc"], want["acc"])


PIECES = st.sampled_from(
    ["y", "x", "w", "[", "]", "(", ")", "n", "k", "+=", "*", "max=", "=", "+", "-", "2", "1.5", ",",
     ";", "shr", "add", "clip", "relu(", ">>", "within", "/", "99999999999", "y[n,m]", "x[n,k]",
     "w[m,k]", " ", "é", "\n", "_"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=14).map("".join), st.text(max_size=30)))
def test_any_text_is_an_operator_or_an_operator_error(text: str) -> None:
    shapes = {"x": (4, 8), "w": (3, 8)} if "m" in text else {}
    said = "an operator"
    try:
        ops.parse_formula(text, shapes)
    except OperatorError as error:
        said = error.render()
    assert said.startswith(("an operator", "error[operator]: "))
