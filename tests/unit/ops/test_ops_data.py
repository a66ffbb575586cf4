"""Random tensors show wrong sums; layer lists are whole; the bound is the reference's."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from csp_embed.ops import deepbench
from csp_embed.ops.bound import bound_cycles, natural, vectors
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate

ISA = load_isa("vta")
COSTS = costs_of(ISA)


def inside_share(op: Operator, seed: int = 0) -> float:
    y = evaluate(op, random_tensors(op, seed))["y"]
    return float(((y > 0) & (y < 127)).mean())


SMALL = [r["id"] for r in deepbench.layers() if r["macs"] < 60_000_000]


@pytest.mark.parametrize("id", SMALL[:: max(1, len(SMALL) // 12)])
def test_at_least_30_percent_of_a_layer_lie_inside_the_clip(id: str) -> None:
    assert inside_share(deepbench.layer(id)) >= 0.3


@pytest.mark.parametrize("k", [4, 64, 1000, 20000])
@pytest.mark.parametrize("shift", [0, 4, 8])
def test_any_depth_and_shift_lie_inside_the_clip(k: int, shift: int) -> None:
    assert inside_share(ops.matmul(m=64, n=64, k=k, shift=shift, clip=(0, 127))) >= 0.3


def test_spread_is_about_60_behind_the_shift() -> None:
    for k, shift in ((100, 6), (1000, 8), (5000, 9)):
        op = ops.matmul(m=100, n=100, k=k, shift=shift)
        acc = evaluate(op, random_tensors(op, 1))["acc"]
        assert 45 < (acc >> shift).std() < 80


def test_tensors_have_their_types_ranges_and_seeds() -> None:
    op = ops.matmul(m=8, n=9, k=100, shift=8, bias=True, bias_range=20)
    a, b, c = random_tensors(op, 3), random_tensors(op, 3), random_tensors(op, 4)
    assert set(a) == {"x", "w", "b"}
    assert (a["x"].dtype, a["w"].dtype, a["b"].dtype) == (np.int8, np.int8, np.int32)
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert not np.array_equal(a["x"], c["x"])
    assert np.abs(a["b"]).max() <= 20
    assert a["w"].min() == -a["w"].max()
    wide = random_tensors(ops.matmul(m=999, n=1, k=9, shift=8, bias=True), 3)["b"]
    assert 60 < np.abs(wide).max() <= 64


def test_the_operators_own_constants_are_among_the_tensors() -> None:
    op = ops.avg_pool2d(n=1, c=3, h=4, w=4, r=2, s=2, m=64, shift=8)
    assert np.array_equal(random_tensors(op)["w"], [64])


def test_deepbench_has_its_187_layers_with_their_macs() -> None:
    records = deepbench.layers()
    assert [len(deepbench.layers(s)) for s in ("conv", "gemm", "all")] == [103, 84, 187]
    assert len({r["id"] for r in records}) == 187
    assert all(natural(deepbench.build(r))["macs"] == r["macs"] for r in records)
    assert sum(r["reference"] is not None for r in records) == 149


def test_the_bound_is_the_recorded_one_for_every_layer() -> None:
    wrong = {
        r["id"]: (bound_cycles(deepbench.build(r), ISA, COSTS), r["bound_cycles"])
        for r in deepbench.layers()
        if bound_cycles(deepbench.build(r), ISA, COSTS) != r["bound_cycles"]
    }
    assert wrong == {}


def test_epilogues_of_layers() -> None:
    conv, gemm = deepbench.layer("conv003"), deepbench.layer("gemm005")
    assert [str(s) for s in conv.epilogue] == ["shr 8", "add b[k] within 32768", "max 0", "min 127"]
    assert [str(s) for s in gemm.epilogue] == ["shr 8", "max 0", "min 127"]
    assert conv.notes["layer"] == "conv003"


# Millions of multiply-accumulates of the whole network, as its paper or torchvision states them.
NETWORKS = {
    "resnet18": 1814, "resnet50": 4089, "mobilenet_v1": 569, "mobilenet_v2": 301, "vgg16": 15470,
    "bert_base": 11174,
}  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
def test_network_layers_add_up_to_the_network(network: str) -> None:
    records = [r for r in deepbench.layers("networks") if r["network"] == network]
    total = 0
    for record in records:
        op = deepbench.build(record)
        assert prod(op.axes.values()) == record["macs"] == natural(op)["macs"]
        assert bound_cycles(op, ISA, COSTS) >= record["macs"] / 256
        total += record["count"] * record["macs"]
    assert round(total / 1e6) == NETWORKS[network]
    keys = [str({k: v for k, v in r.items() if k not in ("id", "count")}) for r in records]
    assert len(set(keys)) == len(keys)


def test_bound_of_other_operators() -> None:
    # 3x3 average pooling of 64x64x32: 9*131072/256 MACs, 8192 vectors, reset and shift.
    pool = ops.avg_pool2d(n=1, c=32, h=64, w=64, r=3, s=3, stride=1, pad=1, m=28, shift=8)
    assert vectors(pool, ISA) == 8192
    assert bound_cycles(pool, ISA, COSTS) == max(9 * 131072 // 256 + 2 * 8192, 131072 // 8)
    # Elementwise: reading two int32 tensors of 1600 elements is what binds.
    program = ops.elementwise((1600,), [("add", "z"), ("shr", 1)])
    assert natural(program) == {
        "macs": 0, "read_bytes": 12800, "write_bytes": 1600, "outputs": 1600
    }  # fmt: skip
    assert bound_cycles(program, ISA, COSTS) == 1600
    # A maximum takes one tensor step a vector, which is less than reading the input here.
    assert bound_cycles(ops.max_pool2d(n=1, c=16, h=8, w=8, r=2, s=2), ISA, COSTS) == 128


def test_bound_follows_the_machines_lanes() -> None:
    wide = load_isa("vta", "1x32x32")
    op = ops.matmul(m=512, n=512, k=512)
    costs = costs_of(wide)
    assert bound_cycles(op, wide, costs) == 512**3 // 1024 + 512 * 16
    shallow = ops.matmul(m=64, n=64, k=64)  # reading binds, unless the port is wide
    assert bound_cycles(shallow, wide, costs) == 2 * 64 * 64 // 8
    assert bound_cycles(shallow, wide, costs_of(wide, "pynq,bytes_per_cycle=0.5")) == 2 * 64 * 128
    free = costs_of(wide, "de10,bytes_per_cycle=4096")
    assert bound_cycles(shallow, wide, free) == 64**3 // 1024 + 64 * 2
    assert vectors(ops.matmul(m=35, n=5, k=8), load_isa("vta", "2x16x16")) == 3 * 3
