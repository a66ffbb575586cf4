"""Packed tensors hold what their layouts say, and come back whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from embed_executor import draw

from csp_embed import ops
from csp_embed.embed import embed
from csp_embed.embed.algebra.packing import neutral, pack, unpack
from csp_embed.errors import InputError
from csp_embed.judge.embedding.certificate_count import count
from csp_embed.judge.embedding.points import held, lanes_of, operand_dims
from csp_embed.machine.load import load_isa

VTA = load_isa("vta", "2x16x16")
OPERATORS = {
    "im2col": lambda: ops.conv2d(n=1, c=3, h=9, w=8, k=5, r=3, s=3, stride=2, pad=1, bias=True),
    "toeplitz": lambda: ops.depthwise_conv2d(n=1, c=5, h=6, w=7, r=3, s=3, pad=1),
    "groups": lambda: ops.conv2d(n=2, c=48, h=3, w=3, k=96, r=1, s=1, groups=2),
    "max": lambda: ops.max_pool2d(n=1, c=5, h=7, w=8, r=3, s=2, stride=2, pad=1),
    "transposed": lambda: ops.conv_transpose2d(n=1, c=3, h=4, w=4, k=5, r=3, s=3, stride=2, pad=1),
}


def by_definition(layout, embedding, array):
    """Each lane looked up by the checker's reading of the layout: shares nothing with pack."""
    memory = VTA.memory(layout.memory)
    dims = operand_dims(embedding, VTA)[layout.operand]
    lanes = lanes_of(embedding, {d: VTA.dims[d] for d in memory.lanes})
    grid = np.indices(layout.grid).reshape(len(layout.grid), layout.elements).T
    content = held(layout, embedding, dims, lanes, grid)
    flat = np.append(array.ravel(), neutral(layout, embedding))
    shape = (*layout.grid, *VTA.lane_shape(layout.memory))
    return flat[content].reshape(shape).astype(memory.dram_dtype)


@pytest.mark.parametrize("name", OPERATORS)
def test_pack_holds_what_the_layout_says(name: str) -> None:
    op = OPERATORS[name]()
    tensors = draw(op) | dict(op.values)
    kinds = set()
    for embedding in embed(op, VTA, top=6):
        kinds.add(embedding.kind)
        for role, layout in embedding.layouts.items():
            if role == "dst":
                continue
            packed = pack(layout, embedding, VTA, tensors[layout.tensor])
            assert np.array_equal(packed, by_definition(layout, embedding, tensors[layout.tensor]))
    assert len(kinds) >= 1


@pytest.mark.parametrize("name", OPERATORS)
def test_results_come_back(name: str) -> None:
    op = OPERATORS[name]()
    shape = op.tensors[op.out.tensor].shape
    y = np.arange(1, math.prod(shape) + 1, dtype=np.int32).reshape(shape)
    for embedding in embed(op, VTA, top=4):
        layout = embedding.layouts["dst"]
        assert np.array_equal(unpack(layout, embedding, VTA, pack(layout, embedding, VTA, y)), y)


@pytest.mark.parametrize(("machine", "narrower"), [("vta", 4), ("toy_outer", 1)])
def test_widening_is_the_host_s_work(machine: str, narrower: int) -> None:
    """Accumulators are loaded as wide as sums; where an identity can bring the operand in, it is
    priced as narrow as it lies."""
    op, isa = OPERATORS["max"](), load_isa(machine)
    (embedding,) = embed(op, isa)
    packed = pack(embedding.layouts["lhs"], embedding, isa, draw(op)["x"])
    assert packed.dtype == np.int32
    assert op.tensors["x"].dtype == "int8"
    assert embedding.cost["host_bytes"] * narrower == packed.nbytes
    assert (embedding.cost["widened_bytes"] == 0) == (narrower > 1)
    # The judge counts by code of its own.
    counted = count(embedding, isa)
    assert {k: embedding.cost[k] for k in counted if k in embedding.cost} == pytest.approx(counted)


def test_a_wrong_shape_is_refused() -> None:
    op = OPERATORS["max"]()
    (embedding,) = embed(op, VTA)
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        pack(embedding.layouts["lhs"], embedding, VTA, np.zeros((3, 3), np.int8))
    with pytest.raises(InputError, match="packed y"):
        unpack(embedding.layouts["dst"], embedding, VTA, np.zeros((3, 3), np.int32))
