"""Products with constants of 0 are skipped: values by NumPy, steps by counting them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_operator import Model

import csp_embed as ce


def steps(built: Any) -> int:
    """Everything that the machine computes on a vector, resets and the epilogue's steps too."""
    return sum(la.schedule.stats["steps"] for s in built.segments for la in s.layers)


@pytest.mark.parametrize(
    ("window", "strides", "pads", "low"),
    [
        ((3, 3), (2, 2), (1, 1, 1, 1), -128),
        ((2, 3), (1, 2), (0, 0, 0, 0), -3),
        ((1, 4), (1, 1), (0, 2, 0, 1), -128),
    ],
)
def test_a_round_of_a_max_pool_reads_two_values(
    tmp_path: Path, window: tuple[int, int], strides: tuple[int, int], pads: Any, low: int
) -> None:
    rng = np.random.default_rng([2, *window])
    shape = (1, 32, 11, 10)
    x = rng.integers(low, 128, shape).astype(np.int8)
    m = Model()
    real = m.real(m.input("x", "int8", shape), 0.1, -128)
    pool = m.node("MaxPool", [real], "pool", kernel_shape=window, strides=strides, pads=pads)
    built = ce.build(m.save(tmp_path / "m.onnx", m.quantise(pool, 0.1, -128)), inputs=[{"x": x}])
    assert [la.where for la in built.layers] == ["accelerator"]

    around = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    wide = np.pad(x, around, constant_values=-128)
    seen = np.lib.stride_tricks.sliding_window_view(wide, window, (2, 3))
    wanted = seen[:, :, :: strides[0], :: strides[1]].max(axis=(-1, -2))
    (found,) = (built.values[0][n] for n in built.graph.outputs)
    assert np.array_equal(found, wanted)
    # Of each vector of 16 channels: a reset, w - 1 rounds of two products and a clip, the last
    # product, a constant, two clips to the output's range.
    count = math.prod(window)
    assert steps(built) == wanted.size // 16 * (1 + 3 * (count - 1) + 1 + 1 + 2)


@pytest.mark.parametrize("config", ["1x16x16", "1x32x32"])
def test_taps_without_weights_cost_nothing(tmp_path: Path, config: str) -> None:
    """Three by three of which one place is used; in several rounds, behind a halo."""
    rng = np.random.default_rng(3)
    counted = []
    for used in (np.s_[:, :], np.s_[2:, :1]):
        w = np.zeros((32, 32, 3, 3), np.int8)
        w[:, :, *used] = rng.integers(-127, 128, w[:, :, *used].shape)
        x = rng.integers(-128, 128, (1, 32, 7, 6)).astype(np.int8)
        m = Model()
        names = [m.input("x", "int8", x.shape), *m.scale(0.031, -7), m.constant(w)]
        names += [*m.scale(0.0123, 0), *m.scale(0.777, 20)]
        y = m.node("QLinearConv", names, "y", pads=[1, 1, 1, 1])
        path = m.save(tmp_path / "m.onnx", y)
        machine = Path(__file__).parents[3] / "isa_specs" / "configs" / f"{config}.json"
        built = ce.build(path, config=machine, inputs=[{"x": x}])
        assert (built.differences, built.layers[0].where) == (0, "accelerator")
        (layer,) = built.segments[0].layers
        made = layer.site.made
        assert len(made.rounds) > 0
        counted.append((steps(built), len(made.rounds) + 1 - made.copies))
    # Eight places of nine less, for each vector of results and of channels, each time.
    (all_steps, times), (few_steps, again) = counted
    lanes = int(config.split("x")[1])
    assert times == again
    assert all_steps - few_steps == times * 8 * (7 * 6 * 32 // lanes) * (32 // lanes)
