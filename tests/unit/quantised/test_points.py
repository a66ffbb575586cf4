"""Scales that only single corrected sums meet: a convolution as the machine computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_operator import Model, differences

from csp_embed.network.lower.layer import lower
from csp_embed.network.lower.lowered import Lowered
from csp_embed.network.quantised.read import read_quantised
from tests.command_line import run

WEIGHTS = np.array([127] * 40 + [1] * 8)
SIZE = (9, 10)


def convolution(path: Path, seed: int) -> Path:
    """Of 20 channels with the same weights, so that any sum is within reach of all."""
    m, rng = Model(), np.random.default_rng(seed)
    w = np.tile(WEIGHTS, (20, 1)).astype(np.int8)[:, :, None, None]
    x = m.real(m.input("x", "int8", (1, 48, *SIZE)), 0.0213, 0)
    weights = m.real(m.constant(w), rng.uniform(0.0005, 0.001, 20), [0] * 20, axis=0)
    y = m.node("Conv", [x, weights], "a")
    return m.save(path, m.quantise(y, 0.0371, -6), "int8")


def addition(path: Path) -> Path:
    """Two tensors with scales that no factors meet at all 65,536 pairs."""
    m = Model()
    a, b, y = 0.01646416075527668, 0.021675750613212585, 0.029914150945842266
    shape = (1, 16, 64, 64)
    first, second = (
        m.real(m.input(n, "int8", shape), scale, zero)
        for n, scale, zero in (("x", a, 17), ("z", b, 21))
    )
    return m.save(path, m.quantise(m.node("Add", [first, second], "s"), y, 5))


def with_sum(total: int) -> list[int]:
    """Stored values whose sum is so."""
    large = round(total / 127)
    parts = [large // 40 + (n < large % 40) for n in range(40)]
    return [*parts, total - 127 * large, *[0] * 7]


@pytest.mark.parametrize(("seed", "told"), [(18, False), (10, True)])
def test_single_sums_take_the_other_constant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int, told: bool
) -> None:
    """Each of them is met by an input, and so are the sums beside it. told: whether a coarse
    product tells odd from even."""
    path, feed, file = (
        convolution(tmp_path / "m.onnx", seed),
        tmp_path / "x.npz",
        tmp_path / "p.npz",
    )
    graph = read_quantised(path)
    made = lower(graph, graph.operators[0])
    assert isinstance(made, Lowered), made
    hits: Any = made.recipe.hits
    assert (made.recipe.name, made.recipe.coarse is not None, len(hits) > 1) == (
        "points",
        told,
        True,
    )
    met = hits[np.abs(hits) < 127 * 40 * 120]
    rng = np.random.default_rng(seed)
    sums = np.resize(np.concatenate([met, met - 1, met + 1]), np.prod(SIZE))
    x = np.array([with_sum(int(s)) for s in rng.permutation(sums)]).T.reshape(1, 48, *SIZE)
    assert differences(path, {"x": x.astype(np.int8)})[0] == 0
    np.savez(feed, x=x.astype(np.int8))
    got = run(capsys, "build", path, "-o", file, "--inputs", feed, "--json")
    assert (got.code, got.document["differences"]) == (0, 0)
    assert got.document["macs_on_accelerator"] == got.document["macs"]
    assert run(capsys, "check", file).code == 0
    assert run(capsys, "certify", file).code == 0


def test_single_pairs_take_the_other_constant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All pairs, against onnxruntime and on the machine."""
    path, feed, file = addition(tmp_path / "m.onnx"), tmp_path / "x.npz", tmp_path / "p.npz"
    graph = read_quantised(path)
    made = lower(graph, graph.operators[0])
    assert isinstance(made, Lowered), made
    assert made.recipe.hits is not None
    assert (made.recipe.name, len(made.recipe.hits)) == ("points", 3)
    every = np.arange(65_536, dtype=np.uint16).reshape(1, 16, 64, 64)
    pairs = {"x": (every >> 8).astype(np.int8), "z": (every & 255).astype(np.int8)}
    assert differences(path, pairs)[0] == 0
    np.savez(feed, x=pairs["x"], z=pairs["z"])
    got = run(capsys, "build", path, "-o", file, "--inputs", feed, "--json")
    assert (got.code, got.document["differences"]) == (0, 0)
    assert got.document["elements"] == 65_536
    assert run(capsys, "certify", file).code == 0
