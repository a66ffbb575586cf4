"""Lowered layers, evaluated by NumPy from their formulas, equal the quantised reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_operator import Model
from shift_layers import Net

from csp_embed.ir.operator import Step
from csp_embed.network.lower.layer import lower
from csp_embed.network.lower.lowered import Lowered
from csp_embed.network.quantised.onnx.graph import read_onnx
from csp_embed.network.quantised.reference.run import run
from csp_embed.network.quantised.tflite.graph import read_tflite
from csp_embed.ops.reference import evaluate
from tests.oracles.tflite_writer import Written


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
        "many products, both signs": Net.begin(17, (1, 7, 7, 16)).conv(
            18, 3, [7, 9, 8], relu=False, zero=-4
        ),
        "arbitrary": Net.begin(13, image).conv(9, 3, [7.3, 6.8, 7.9]),
        "arbitrary, both signs": Net.begin(14, image).conv(9, 3, [7.3, 8.1], relu=False, zero=-4),
        "arbitrary, depthwise": Net.begin(15, image).conv(5, 3, [5.4, 6.6], depthwise=True),
        "arbitrary, dense": Net.begin(16, (1, 40)).dense(17, 8.2),
        "no shift": Net.begin(12, (1, 2)).dense(6, 0, zero=-3, largest=1),
    }


def evaluated(made: Lowered, arrays: tuple[Any, ...]) -> Any:
    """The rounds by NumPy: the plain formula's sums, then each step on int32."""
    op, acc = made.op, np.int64(0)
    result = op.tensors[op.out.tensor]
    last = tuple(s for i, s in enumerate(op.epilogue) if i not in made.dropped)
    kept: Any = None
    for turn, (held, steps) in enumerate(zip(made.constants, [*made.rounds, last], strict=True)):
        if 0 < turn <= made.copies:  # instead of products
            sums = kept
        else:
            names = [n for n in op.tensors if n not in ("b", "s", "d", "e")]
            tensors = {n: op.tensors[n] for n in names} | {
                op.out.tensor: replace(result, dtype="int32")
            }
            plain = replace(op, epilogue=(), out_dtype="int32", tensors=tensors)
            operands = {n: held[n] for n in held if n in names}
            found = evaluate(plain, {"x": made.operand(arrays, made.fill), **operands})
            sums = found[op.out.tensor].astype(np.int64)
        acc = wrapped(acc + sums)
        for done in range(len(steps) + 1):
            kept = acc if (turn, done) in made.kept else kept
            if done < len(steps):
                step = steps[done]
                acc = wrapped(stepped(step.op, acc, value_of(step, held)))
    return acc.astype(np.int8)


def value_of(step: Step, held: Any) -> Any:
    if step.access is None:
        return np.asarray(step.imm)
    return held[step.access.tensor].astype(np.int64)


def wrapped(values: Any) -> Any:
    return values.astype(np.int32).astype(np.int64)


def stepped(op: str, acc: Any, value: Any) -> Any:
    if op == "shr":
        return np.where(value < 0, acc << np.maximum(-value, 0), acc >> np.maximum(value, 0))
    return {"add": np.add, "max": np.maximum, "min": np.minimum}[op](acc, value)


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
        assert np.array_equal(evaluated(made, (x,)), made.arrange(expected))
        inside += int(((expected > op.clamp[0]) & (expected < op.clamp[1])).sum())
    assert inside > 20


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("relu", "shift"), ("both signs", "sign"), ("arbitrary", "digits"),
        ("arbitrary, both signs", "signed"),
    ],
)  # fmt: skip
def test_the_cheapest_recipe_is_taken(name: str, recipe: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(nets()[name].content())
    graph = read_tflite(path)
    made = lower(graph, graph.operators[0])
    assert isinstance(made, Lowered), made
    assert made.recipe.name == recipe
    assert made.proof.startswith(recipe)


def test_residual_additions_of_two_scales(tmp_path: Path) -> None:
    """All pairs of stored values, in both orders of the operands, with and without Relu."""
    for scales, zeros, relu in (
        ((0.05137, 0.03161, 0.07239), (-128, -4, -128), 1),
        ((0.02213, 0.25871, 0.31337), (3, -7, 11), 0),
    ):  # fmt: skip
        file = Written()
        a, b = (file.tensor(n, (256, 256), scales=s, zeros=z)
                for n, s, z in zip("ab", scales, zeros, strict=False))  # fmt: skip
        y = file.tensor("y", (256, 256), scales=scales[2], zeros=zeros[2])
        file.operator("ADD", [a, b], y, "AddOptions", FusedActivationFunction=relu)
        path = tmp_path / "m.tflite"
        path.write_bytes(file.content([a, b], [y]))
        graph = read_tflite(path)
        made = lower(graph, graph.operators[0])
        assert isinstance(made, Lowered), made
        left, right = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij")
        feeds = {"a": left.astype(np.int8), "b": right.astype(np.int8)}
        expected = run(graph, feeds)["y"]
        assert np.array_equal(evaluated(made, tuple(feeds[n] for n in made.reads)), expected)
        assert len(np.unique(expected)) > 50


def test_pools_and_their_borders(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    for shape, window in (((1, 4, 6, 5), (4, 6)), ((1, 5, 5, 3), (5, 5)), ((1, 1, 7, 2), (1, 7))):
        net = Net.begin(4, shape)
        path.write_bytes(net.pool().content())
        graph = read_tflite(path)
        made = lower(graph, graph.operators[0])
        assert isinstance(made, Lowered), (window, made)
        rng = np.random.default_rng(1)
        for _ in range(20):
            x = rng.integers(-128, 128, shape).astype(np.int8)
            expected = made.arrange(run(graph, {"x": x})[graph.operators[0].output])
            assert np.array_equal(evaluated(made, (x,)), expected)


def test_what_the_host_keeps_says_why(tmp_path: Path) -> None:
    m = Model()
    x = m.input("x", "int8", (1, 2, 4, 4))
    names = [x, *m.scale(0.25, 0), *m.scale(0.25, 0)]
    fields = {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}
    node = m.node("QLinearAveragePool", names, "y", **fields)
    graph = read_onnx(m.save(tmp_path / "m.onnx", node))
    assert lower(graph, graph.operators[0]) == "its windows at the border have other counts"
