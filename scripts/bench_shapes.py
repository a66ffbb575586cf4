"""Networks of published shape with seeded weights, quantised by onnxruntime's tool and built.

    scripts/bench_shapes resnet18 mobilenet_v2 resnet50 [--rounding exact|shift]
        [--form QDQ|QOperator] [--size 224] [--lower]

Weights are drawn (He), biases too, as batch normalisation folded into convolutions leaves them;
activations are calibrated on drawn images. Each row: products on the machine, differing elements,
cycles over the bound, seconds of processor time. `--lower` stops before programs are made, and says
how each layer is requantised.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from csp_embed.compiler.network import build
from csp_embed.machine.load import load_isa
from csp_embed.network.lower.layer import lower
from csp_embed.network.lower.signed import signed
from csp_embed.network.quantised.onnx.shifts import with_shifts
from csp_embed.network.quantised.read import read_quantised


class Net:
    """A float network that grows; `at` is its last tensor, with so many channels."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.at, self.channels = "x", 3

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        self.at = f"t{len(self.nodes)}"
        name = f"{op}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [self.at], name=name, **attributes))
        return self.at

    def conv(self, k: int, r: int, stride: int = 1, groups: int = 1, act: str = "Relu") -> None:
        per = self.channels // groups
        # Two convolutions of a residual block would double its sums each time: the last is small.
        gain = 2.0 if act else 0.5
        weights = self.rng.normal(0, (gain / (per * r * r)) ** 0.5, (k, per, r, r))
        bias = self.rng.normal(0, 0.1, k)
        self.node("Conv", [self.at, self.constant(weights), self.constant(bias)],
                  kernel_shape=[r, r], strides=[stride] * 2, pads=[r // 2] * 4,
                  group=groups)  # fmt: skip
        self.channels = k
        if act == "Relu":
            self.node("Relu", [self.at])
        elif act:
            self.node("Clip", [self.at, self.constant(0.0), self.constant(6.0)])

    def add(self, other: str) -> None:
        self.node("Add", [self.at, other])

    def model(self, size: int) -> Any:
        """With a pool over all places and a classifier of 1,000."""
        self.node("GlobalAveragePool", [self.at])
        self.node("Flatten", [self.at])
        weights = self.rng.normal(0, self.channels**-0.5, (self.channels, 1000))
        bias = self.rng.normal(0, 0.1, 1000)
        self.node("Gemm", [self.at, self.constant(weights), self.constant(bias)])
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes, "net", [value("x", 1, [1, 3, size, size])],
            [value(self.at, 1, [1, 1000])], self.constants,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _resnet(net: Net, blocks: tuple[int, ...], deep: bool) -> None:
    net.conv(64, 7, 2)
    net.node("MaxPool", [net.at], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for n in range(count):
            stride = 2 if stage and not n else 1
            before, channels = net.at, net.channels
            if deep:
                net.conv(width, 1)
                net.conv(width, 3, stride)
                net.conv(4 * width, 1, act="")
            else:
                net.conv(width, 3, stride)
                net.conv(width, 3, act="")
            left, wide = net.at, net.channels
            if stride > 1 or channels != wide:
                net.at, net.channels = before, channels
                net.conv(wide, 1, stride, act="")
                before = net.at
            net.at = left
            net.add(before)
            net.node("Relu", [net.at])


def _mobilenet(net: Net) -> None:
    net.conv(32, 3, 2, act="Clip")
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
    for expand, channels, count, first in rows:
        for n in range(count):
            before, had = net.at, net.channels
            if expand > 1:
                net.conv(expand * had, 1, act="Clip")
            net.conv(net.channels, 3, first if not n else 1, net.channels, act="Clip")
            net.conv(channels, 1, act="")
            if n:
                net.add(before)
    net.conv(1280, 1, act="Clip")


NETWORKS: dict[str, Callable[[Net], None]] = {
    "resnet18": lambda net: _resnet(net, (2, 2, 2, 2), False),
    "resnet50": lambda net: _resnet(net, (3, 4, 6, 3), True),
    "mobilenet_v2": _mobilenet,
}


class _Images(CalibrationDataReader):
    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(11)
        shape = (1, 3, size, size)
        self.rest = [{"x": rng.normal(0, 1, shape).astype(np.float32)} for _ in range(2)]

    def get_next(self) -> Any:
        return self.rest.pop() if self.rest else None


def quantised(name: str, form: str, size: int, seed: int, folder: Path) -> Path:
    """The file that onnxruntime's tool makes."""
    net = Net(seed)
    NETWORKS[name](net)
    plain, path = folder / "float.onnx", folder / f"{name}.onnx"
    onnx.save(net.model(size), plain)
    quantize_static(plain, path, _Images(size), quant_format=QuantFormat[form],
                    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                    per_channel=True)  # fmt: skip
    return path


def _recipes(graph: Any) -> None:
    """How each layer is requantised, and the share of products that the machine would have."""
    began = time.process_time()
    kinds: collections.Counter[str] = collections.Counter()
    graph = signed(graph)
    for op in graph.operators:
        made = lower(graph, op)
        if isinstance(made, str):
            print(f"    {op.name} ({op.kind}): {made[:400]}", flush=True)
            kinds[f"{op.kind} host"] += 1
        else:
            kinds[f"{op.kind} {made.recipe.name} of {made.recipe.rounds}"] += 1
    print(f"    {time.process_time() - began:.1f} s; {dict(kinds)}", flush=True)


def main() -> int:
    """Reads the arguments; 1 where an element differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", choices=sorted(NETWORKS))
    parser.add_argument("--rounding", choices=("exact", "shift"), default="exact")
    parser.add_argument("--form", choices=("QDQ", "QOperator"), default="QDQ")
    parser.add_argument("--size", type=int, default=224, help="rows and columns of the image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lower", action="store_true", help="requantisation alone")
    args = parser.parse_args()
    wrong = 0
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            path = quantised(name, args.form, args.size, args.seed, Path(folder))
            began = time.process_time()
            if args.rounding == "shift":
                graph = with_shifts(path, Path(folder) / "shift.onnx")
            else:
                graph = read_quantised(path)
        print(f"{name} {args.form} {args.rounding} {args.size}", flush=True)
        if args.lower:
            _recipes(graph)
            continue
        x = graph.tensors[graph.inputs[0]]
        low, high = x.range
        feed = np.random.default_rng(5).integers(low, high + 1, x.shape)
        built = build(graph, load_isa("vta"), [{graph.inputs[0]: feed.astype(x.dtype)}])
        d = built.document()
        wrong += d["differences"]
        print(
            f"    {d['macs_on_accelerator'] / d['macs']:.2%} of {d['macs']:,} products, "
            f"{d['segments']} programs, {d['differences']} of {d['elements']:,} elements, "
            f"{d['cycles']:,} cycles (bound {d['bound_cycles']:,}), {d['dram_bytes']:,} bytes, "
            f"{time.process_time() - began:.0f} s", flush=True,
        )  # fmt: skip
        for layer in built.layers:
            if layer.where == "host":
                print(f"    host: {layer.name}: {layer.why[:300]}", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
