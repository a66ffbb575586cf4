"""The dataflow's expanded form against its symbolic one, point by point, and against values."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.errors import OperatorError
from csp_embed.ir.dfg import Dataflow, dataflow
from csp_embed.ir.operator import Operator
from csp_embed.machine.expand import expand
from csp_embed.machine.load import load_isa
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate

ISA = load_isa("vta", "1x4x4_small")
CASES = [
    dataflow(ops.matmul(m=3, n=2, k=4)),
    dataflow(ops.conv1d(n=1, c=2, w=6, k=2, r=3, stride=2, pad=1)),
    dataflow(ops.conv2d(n=1, c=4, h=4, w=3, k=6, r=2, s=2, groups=2, pad=((0, 1), (1, 0)))),
    dataflow(ops.depthwise_conv2d(n=1, c=2, h=4, w=4, r=3, s=3, pad=1)),
    dataflow(ops.conv_transpose2d(n=1, c=1, h=2, w=3, k=1, r=3, s=3, stride=2, pad=1)),
    dataflow(ops.max_pool2d(n=1, c=2, h=5, w=4, r=3, s=2, pad=((1, 1), (0, 0)))),
    dataflow(ops.elementwise((2, 3), [("add", 1)])),
    expand(ISA, "GEMM"),
    expand(ISA, "ALU", "ADD"),
    expand(ISA, "ALU", "SHR", immediate=True),
]


def symbolic_edges(flow: Dataflow) -> set[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """(role, element, point) straight from the affine maps, one point at a time."""
    edges = set()
    for values in product(*(range(n) for n in flow.axes.values())):
        point = dict(zip(flow.axes, values, strict=True))
        touched = []
        for role, access, shape in [
            ("out", flow.out, flow.out_shape),
            *((r.role, r.access, r.shape) for r in flow.reads),
        ]:
            element = tuple(
                ix.const + sum(c * point[a] for a, c in ix.terms) for ix in access.index
            )
            inside = all(0 <= i < n for i, n in zip(element, shape, strict=True))
            touched.append((role, element if inside else None))
        if touched[0][1] is None:
            continue
        edges |= {(role, element, values) for role, element in touched if element is not None}
    return edges


def explicit_edges(flow: Dataflow) -> set[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """The same from the expanded form's node numbers."""
    graph = flow.expand()
    shapes = {"out": flow.out_shape, **{r.role: r.shape for r in flow.reads}}
    where = {}
    for name, (first, count) in graph.nodes.items():
        for i in range(count):
            where[first + i] = (name, i)
    edges = set()
    for source, target in graph.edges().tolist():
        names = {where[source][0]: where[source][1], where[target][0]: where[target][1]}
        point = tuple(graph.points[names.pop("points")].tolist())
        ((role, flat),) = names.items()
        edges.add((role, tuple(int(i) for i in np.unravel_index(flat, shapes[role])), point))
    return edges


@pytest.mark.parametrize("flow", CASES, ids=lambda f: f.name)
def test_both_forms_have_the_same_edges(flow: Dataflow) -> None:
    assert explicit_edges(flow) == symbolic_edges(flow)


@pytest.mark.parametrize(
    "op",
    [
        ops.conv2d(n=2, c=4, h=5, w=6, k=6, r=3, s=2, groups=2, stride=2, pad=1),
        ops.conv_transpose2d(n=1, c=2, h=3, w=3, k=2, r=3, s=3, stride=2, pad=1),
    ],
)
def test_expanded_form_computes_the_operator(op: Operator) -> None:
    tensors = random_tensors(op, 1)
    graph = dataflow(op).expand()
    factors = []
    for role, access in (("lhs", op.lhs), ("rhs", op.rhs)):
        flat = tensors[access.tensor].astype(np.int64).ravel()
        factors.append(np.where(graph.reads[role] >= 0, flat[graph.reads[role]], 0))
    out = op.tensors["y"].shape
    sums = np.zeros(int(np.prod(out)), np.int64)
    alive = graph.write >= 0
    np.add.at(sums, graph.write[alive], (factors[0] * factors[1])[alive])
    assert np.array_equal(sums.reshape(out), evaluate(op, tensors)["acc"])


def test_symbolic_form_reads_well() -> None:
    op = ops.conv2d(n=1, c=3, h=9, w=9, k=4, r=3, s=3, stride=2, pad=1, shift=8, clip=(0, 127))
    assert dataflow(op).show().splitlines() == [
        "dataflow of conv2d: y[n,k,p,q] += x[n,c,2*p+r-1,2*q+s-1] * w[k,c,r,s]",
        "  domain  0 <= n < 1, 0 <= k < 4, 0 <= p < 5, 0 <= q < 5, 0 <= c < 3 (reduced), "
        "0 <= r < 3 (reduced), 0 <= s < 3 (reduced)",
        "  points  1 x 4 x 5 x 5 x 3 x 3 x 3 = 2700",
        "  write   (n,k,p,q,c,r,s) -> y(n, k, p, q) of 1x4x5x5",
        "  lhs     (n,k,p,q,c,r,s) -> x(n, c, 2*p+r-1, 2*q+s-1) of 1x3x9x9; out of range is 0 "
        "(dimension 2 runs over -1..9, dimension 3 runs over -1..9)",
        "  rhs     (n,k,p,q,c,r,s) -> w(k, c, r, s) of 4x3x3x3",
        "  then    shr 8",
        "  then    max 0",
        "  then    min 127",
        "  then    low bits as int8",
    ]


def test_padding_of_a_maximum_is_the_smallest_number() -> None:
    text = dataflow(ops.max_pool2d(n=1, c=1, h=4, w=4, r=3, s=3, pad=1)).show()
    assert "y[n,c,p,q] max= x[n,c,3*p+r-1,3*q+s-1]" in text
    assert "out of range is -128 (" in text


def test_dot_is_whole_or_a_summary() -> None:
    flow = dataflow(ops.conv1d(n=1, c=1, w=4, k=1, r=3, pad=1, shift=1))
    whole = flow.dot()
    assert whole.startswith('digraph "conv1d" {')
    assert whole.count("shape=ellipse") == 12
    # 10 of the 12 points read x in range; every point reads w and writes y.
    assert whole.count(" -> ") == 10 + 12 + 12
    # 12 points, 4 elements of x, 3 of w, 4 of y.
    assert flow.dot(max_nodes=23) == whole
    short = flow.dot(max_nodes=22)
    assert short.count("shape=ellipse") == 1
    assert short.count("shape=box") == 3
    assert short.count(" -> ") == 3
    for words in ("12 points", "x 1 x 1 x 4", "w 1 x 1 x 3", "y 1 x 1 x 4", "r 3 (reduced)"):
        assert words in short
    assert "out of range is 0" in short
    assert 'lhs -> points [label="[n, c, p+r-1]"]' in short


def test_a_dataflow_too_large_to_list_is_refused() -> None:
    flow = dataflow(ops.matmul(m=4096, n=4096, k=4096))
    with pytest.raises(OperatorError) as caught:
        flow.expand()
    assert "matmul has 68719476736 scalar operations, too many to list" in caught.value.what
    assert "68,719,476,736 points" in flow.dot(50)
