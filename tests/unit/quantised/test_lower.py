"""Lowered layers, evaluated by NumPy from their formulas, equal the quantised reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shift_layers import Net

from csp_embed.network.lower.layer import Lowered, lower
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.reference import run
from csp_embed.network.quantised.tflite_graph import read_tflite
from csp_embed.ops.reference import evaluate


def nets() -> dict[str, Net]:
    image = (1, 9, 7, 5)
    return {
        "relu": Net.begin(1, image).conv(20, 3, [7, 8, 6]),
        "one shift": Net.begin(2, image).conv(16, 3, 7, stride=2),
        "both signs": Net.begin(3, image).conv(18, 3, [7, 9, 8], relu=False, zero=-4),
        "no relu at the end of the type": Net.begin(4, image).conv(8, 1, 5, relu=False),
        "even filter": Net.begin(5, image, zero=83).conv(8, 4, [8, 9], stride=2),
        "depthwise": Net.begin(6, image).conv(5, 3, [5, 6, 7], depthwise=True),
        "depthwise, both signs": Net.begin(7, image).conv(
            5, 3, 6, depthwise=True, relu=False, zero=9
        ),
        "dead channels": Net.begin(8, image).conv(12, 3, [7, 8], dead=5),
        "dense": Net.begin(9, (1, 40)).dense(17, 8),
        "dense, relu": Net.begin(10, (1, 40)).dense(17, 7, relu=True, zero=-128),
        "shift by one": Net.begin(11, (1, 3)).dense(6, 1, zero=2, largest=1),
        "no shift": Net.begin(12, (1, 2)).dense(6, 0, zero=-3, largest=1),
    }


def evaluated(graph: g.Graph, op: g.Operator, made: Lowered, x: Any) -> Any:
    result: Any = None
    for one in made.passes:
        operands = {"x": made.operand(x), **one.constants}
        if one.added is not None:
            operands["z"] = result.astype(np.int32) - one.added
        result = evaluate(one.op, operands)[one.op.out.tensor]
    return result.reshape(graph.tensors[op.output].shape)


@pytest.mark.parametrize("name", nets())
def test_layers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(nets()[name].content())
    graph = read_tflite(path)
    (op,) = graph.operators
    made = lower(graph, op)
    assert isinstance(made, Lowered), made
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(20):
        x = rng.integers(-128, 128, graph.tensors["x"].shape).astype(np.int8)
        expected = run(graph, {"x": x})[op.output]
        assert np.array_equal(evaluated(graph, op, made, x), expected)
        inside += int(((expected > op.clamp[0]) & (expected < op.clamp[1])).sum())
    assert inside > 20


def test_results_of_both_signs_take_two_passes(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    counts = {}
    for name in ("relu", "both signs"):
        path.write_bytes(nets()[name].content())
        graph = read_tflite(path)
        made = lower(graph, graph.operators[0])
        assert isinstance(made, Lowered)
        counts[name] = len(made.passes)
    assert counts == {"relu": 1, "both signs": 2}


def test_other_multipliers_are_the_hosts_with_the_reason(tmp_path: Path) -> None:
    """A shift of 7.3 bits in one channel of many."""
    path = tmp_path / "m.tflite"
    path.write_bytes(Net.begin(1, (1, 9, 7, 5)).conv(20, 3, [7.3, *[7] * 19]).content())
    graph = read_tflite(path)
    assert lower(graph, graph.operators[0]) == (
        "the multipliers of 1 of 20 channels are no powers of two"
    )
