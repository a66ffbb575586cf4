"""Import and reference together, operator by operator, against onnxruntime at arbitrary scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_operator import Model, differences

CONVS: list[dict[str, Any]] = [
    {"c": 5, "k": 7, "window": (3, 2), "pads": [1, 0, 2, 1], "strides": [2, 1]},
    {"c": 8, "k": 8, "window": (3, 3), "group": 8, "pads": [1, 1, 1, 1]},
    {"c": 4, "k": 12, "window": (3, 3), "group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"c": 6, "k": 4, "window": (3, 3), "group": 2, "dilations": [2, 3], "pads": [2, 3, 1, 3]},
    {"c": 6, "k": 4, "window": (2, 4), "auto_pad": "SAME_LOWER", "strides": [1, 2]},
    {"c": 3, "k": 5, "window": (1, 1)},
]


def weights(rng: Any, case: dict[str, Any]) -> tuple[Any, Any, Any]:
    k = case["k"]
    w = rng.integers(-127, 128, (k, case["c"] // case.get("group", 1), *case["window"]))
    scales = rng.uniform(0.001, 0.02, k).astype(np.float32)
    return w.astype(np.int8), scales, rng.integers(-9000, 9000, k).astype(np.int32)


def attributes(case: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in case.items() if k not in ("c", "k", "window")}


@pytest.mark.parametrize("case", range(len(CONVS)))
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_qlinear_conv(tmp_path: Path, case: int, dtype: str) -> None:
    rng = np.random.default_rng([1, case])
    given = CONVS[case]
    w, scales, b = weights(rng, given)
    m = Model()
    x = m.input("x", dtype, (1, given["c"], 11, 9))
    zero = -7 if dtype == "int8" else 131
    names = [x, *m.scale(0.031, zero, dtype), m.constant(w), *m.scale(scales, np.zeros(given["k"]))]
    names += [*m.scale(0.77, zero + 20, dtype), m.constant(b)]
    path = m.save(
        tmp_path / "m.onnx", m.node("QLinearConv", names, "y", **attributes(given)), dtype
    )
    info = np.iinfo(dtype)
    feeds = {"x": rng.integers(info.min, info.max + 1, (1, given["c"], 11, 9)).astype(dtype)}
    wrong, inside = differences(path, feeds)
    assert wrong == 0
    assert inside > 50


@pytest.mark.parametrize("case", range(len(CONVS)))
@pytest.mark.parametrize("activation", ["", "Relu", "Clip"])
def test_qdq_conv(tmp_path: Path, case: int, activation: str) -> None:
    rng = np.random.default_rng([2, case])
    given = CONVS[case]
    w, scales, b = weights(rng, given)
    m = Model()
    zeros = np.zeros(given["k"])
    x = m.real(m.input("x", "int8", (1, given["c"], 11, 9)), 0.031, 5)
    filters = m.real(m.constant(w), scales, zeros, axis=0)
    added = m.real(m.constant(b), np.float32(0.031) * scales, zeros, "int32", axis=0)
    y = m.node("Conv", [x, filters, added], "f", **attributes(given))
    zero = -128 if activation else 11
    if activation == "Relu":
        y = m.node("Relu", [y], "relu")
    elif activation == "Clip":
        y = m.node("Clip", [y, m.constant(np.float32(0)), m.constant(np.float32(6))], "clip")
    path = m.save(tmp_path / "m.onnx", m.quantise(y, 0.037, zero))
    feeds = {"x": rng.integers(-128, 128, (1, given["c"], 11, 9)).astype(np.int8)}
    wrong, inside = differences(path, feeds)
    assert wrong == 0
    assert inside > 15


def test_qgemm_and_qlinear_matmul(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    w = rng.integers(-127, 128, (40, 17)).astype(np.int8)
    b = rng.integers(-9000, 9000, 17).astype(np.int32)
    feeds = {"x": rng.integers(-128, 128, (6, 40)).astype(np.int8)}
    m = Model()
    x = m.input("x", "int8", (6, 40))
    left = [x, *m.scale(0.05, -3), m.constant(w), *m.scale(0.013, 0)]
    out = m.node("QLinearMatMul", [*left, *m.scale(0.91, 4)], "y")
    assert differences(m.save(tmp_path / "matmul.onnx", out), feeds)[0] == 0
    m = Model()
    x = m.input("x", "int8", (6, 40))
    left = [x, *m.scale(0.05, -3), m.constant(w.T.copy()), *m.scale(0.013, 0)]
    out = m.node("QGemm", [*left, m.constant(b), *m.scale(0.91, 4)], "y", transB=1)
    wrong, inside = differences(m.save(tmp_path / "gemm.onnx", out), feeds)
    assert (wrong, inside > 60) == (0, True)


@pytest.mark.parametrize("form", ["QLinearAdd", "QDQ"])
def test_add_of_all_pairs(tmp_path: Path, form: str) -> None:
    pairs = np.mgrid[-128:128, -128:128].astype(np.int8).reshape(2, 1, 256, 256)
    for scales in ((0.11, 0.073, 0.129), (0.25, 0.5, 0.5), (1.7, 0.031, 0.9)):
        m = Model()
        a, b = (m.input(n, "int8", (1, 256, 256)) for n in "ab")
        if form == "QDQ":
            y = m.node("Add", [m.real(a, scales[0], -9), m.real(b, scales[1], 31)], "f")
            y = m.quantise(y, scales[2], 3)
        else:
            left = [a, *m.scale(scales[0], -9), b, *m.scale(scales[1], 31)]
            y = m.node("QLinearAdd", [*left, *m.scale(scales[2], 3)], "y")
        feeds = {"a": pairs[0], "b": pairs[1]}
        wrong, inside = differences(m.save(tmp_path / "m.onnx", y), feeds)
        assert (wrong, inside > 10000) == (0, True)


def test_global_average_pool(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    feeds = {"x": rng.integers(-128, 128, (1, 300, 7, 5)).astype(np.int8)}
    for scale, zero in ((0.02, -5), (0.0371, 17)):
        m = Model()
        x = m.input("x", "int8", (1, 300, 7, 5))
        names = [x, *m.scale(0.31, -20), *m.scale(scale * 5, zero)]
        y = m.node("QLinearGlobalAveragePool", names, "y", channels_last=0)
        wrong, inside = differences(m.save(tmp_path / "m.onnx", y), feeds)
        assert (wrong, inside > 100) == (0, True)


def test_what_moves_and_compares(tmp_path: Path) -> None:
    """MaxPool, Relu, Pad, Concat, Transpose and Reshape between quantised values."""
    rng = np.random.default_rng(5)
    feeds = {"x": rng.integers(-128, 128, (1, 6, 9, 8)).astype(np.int8)}
    m = Model()
    s = {"scale": 0.07, "zero": -11}
    x = m.real(m.input("x", "int8", (1, 6, 9, 8)), **s)
    relu = m.real(m.quantise(m.node("Relu", [x], "relu"), **s), **s)
    pool = m.node("MaxPool", [relu], "pool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    pool = m.real(m.quantise(pool, **s), **s)
    both = m.real(m.quantise(m.node("Concat", [pool, pool], "both", axis=1), **s), **s)
    turned = m.real(m.quantise(m.node("Transpose", [both], "turned", perm=[0, 2, 3, 1]), **s), **s)
    flat = m.node("Flatten", [turned], "flat", axis=2)
    wrong, inside = differences(m.save(tmp_path / "m.onnx", m.quantise(flat, **s)), feeds)
    assert (wrong, inside > 100) == (0, True)
