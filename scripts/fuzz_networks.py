"""Seeded random float networks, quantised by onnxruntime's own tool, built and compared.

    scripts/fuzz_networks --seeds 0:30

Three comparisons for each: the reference interpreter with onnxruntime on the quantised file; the
simulated machine with the reference (`csp-embed build`); the program's stream with its rules. A row
says what the network has, how it was quantised, differing elements of both, the share of its
products on the machine, programs, cycles, and why layers are the host's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from csp_embed.compiler.network import build
from csp_embed.errors import CspEmbedError
from csp_embed.machine.load import load_isa
from csp_embed.network.quantised.read import read_quantised
from csp_embed.network.quantised.reference import run as reference

Shape = tuple[int, ...]


class Float:
    """A float network that grows; `at` is its last tensor."""

    def __init__(self, seed: int, shape: Shape) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.kinds: list[str] = []
        self.first, self.at, self.shape = shape, "x", shape
        self.opset = 17

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], shape: Shape, **attributes: Any) -> str:
        y = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [y], name=f"{op}.{y}", **attributes))
        self.kinds.append(op)
        self.at, self.shape = y, shape
        return y

    def weights(self, *shape: int) -> str:
        reach = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
        value = self.rng.normal(0, (2.0 / reach) ** 0.5, shape)
        return self.constant(value.astype(np.float32))

    def conv(self, k: int, r: int, *, stride: int = 1, groups: int = 1, dilation: int = 1,
             pads: Shape | None = None) -> None:  # fmt: skip
        n, c, h, w = self.shape
        groups = groups if groups and c % groups == 0 and k % groups == 0 else 1
        side = dilation * (r - 1) // 2
        top, left, bottom, right = pads or (side,) * 4
        size = [
            (e + lo + hi - dilation * (r - 1) - 1) // stride + 1
            for e, lo, hi in ((h, top, bottom), (w, left, right))
        ]
        bias = self.constant(self.rng.normal(0, 0.2, k).astype(np.float32))
        self.node("Conv", [self.at, self.weights(k, c // groups, r, r), bias], (n, k, *size),
                  kernel_shape=[r, r], strides=[stride] * 2, group=groups,
                  dilations=[dilation] * 2, pads=[top, left, bottom, right])  # fmt: skip

    def same(self, op: str, *more: str, **attributes: Any) -> None:
        self.node(op, [self.at, *more], self.shape, **attributes)

    def pool(self, op: str, r: int, stride: int, pad: int = 0, **attributes: Any) -> None:
        n, c, h, w = self.shape
        size = [(e + 2 * pad - r) // stride + 1 for e in (h, w)]
        self.node(op, [self.at], (n, c, *size), kernel_shape=[r, r], strides=[stride] * 2,
                  pads=[pad] * 4, **attributes)  # fmt: skip

    def model(self) -> Any:
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes, "net", [value("x", 1, self.first)], [value(self.at, 1, self.shape)],
            self.constants,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _act(net: Float) -> None:
    pick = net.rng.integers(8)
    if pick < 4:
        net.same("Relu")
    elif pick == 4:
        net.same("Clip", net.constant(np.float32(0)), net.constant(np.float32(6)))
    elif pick == 5:
        net.same("LeakyRelu", alpha=0.1)
    elif pick == 6:
        net.same("HardSigmoid")


def _plain(net: Float) -> None:
    k = int(net.rng.choice([8, 16, 24, 32]))
    net.conv(k, int(net.rng.choice([1, 3, 3, 5])), stride=int(net.rng.choice([1, 1, 2])))
    _act(net)


def _depthwise(net: Float) -> None:
    net.conv(net.shape[1], 3, stride=int(net.rng.choice([1, 2])), groups=net.shape[1])
    _act(net)


def _grouped(net: Float) -> None:
    net.conv(net.shape[1], 3, groups=int(net.rng.choice([2, 4])))
    _act(net)


def _dilated(net: Float) -> None:
    net.conv(16, 3, dilation=2)
    _act(net)


def _max_pool(net: Float) -> None:
    if min(net.shape[2:]) >= 4:
        big = bool(net.rng.integers(2))
        net.pool("MaxPool", 3 if big else 2, 2, int(big))


def _average_pool(net: Float) -> None:
    if min(net.shape[2:]) >= 4:
        pad = int(net.rng.integers(2))
        net.pool("AveragePool", 3, 2, pad, count_include_pad=int(net.rng.integers(2)) if pad else 0)


def _residual(net: Float) -> None:
    before, shape = net.at, net.shape
    net.conv(shape[1], 3)
    if net.rng.integers(2):
        net.same("Relu")
    net.node("Add", [net.at, before], shape)
    if net.rng.integers(2):
        net.same("Relu")


def _concat(net: Float) -> None:
    before, (n, c, h, w) = net.at, net.shape
    net.conv(16, 1)
    net.same("Relu")
    left = net.at
    net.at, net.shape = before, (n, c, h, w)
    k = int(net.rng.choice([16, 32]))
    net.conv(k, 3)
    net.same("Relu")
    parts = [left, net.at]
    total = 16 + k
    if net.rng.integers(2):
        parts.append(before)
        total += c
    net.node("Concat", parts, (n, total, h, w), axis=1)


def _split(net: Float) -> None:
    n, c, h, w = net.shape
    if c % 2:
        return
    a, b = f"{net.at}.a", f"{net.at}.b"
    half = net.constant(np.array([c // 2, c // 2], np.int64))
    net.nodes.append(
        helper.make_node("Split", [net.at, half], [a, b], name=f"Split.{net.at}", axis=1)
    )
    net.kinds.append("Split")
    net.at, net.shape = a, (n, c // 2, h, w)
    net.conv(16, 3)
    net.same("Relu")
    net.node("Concat", [net.at, b], (n, 16 + c // 2, h, w), axis=1)


def _upsample(net: Float) -> None:
    n, c, h, w = net.shape
    if h * w > 200:
        return
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    net.node("Resize", [net.at, "", scales], (n, c, 2 * h, 2 * w), mode="nearest")
    net.conv(16, 3)


def _pad(net: Float) -> None:
    n, c, h, w = net.shape
    sides = net.constant(np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64))
    net.node("Pad", [net.at, sides], (n, c, h + 3, w + 1))
    net.conv(16, 3, pads=(0, 0, 0, 0))
    net.same("Relu")


def _slice(net: Float) -> None:
    n, c, h, w = net.shape
    if min(h, w) < 4:
        return
    consts = [net.constant(np.array(v, np.int64)) for v in ([1, 0], [h, w - 1], [2, 3])]
    net.node("Slice", [net.at, *consts], (n, c, h - 1, w - 1))
    net.conv(16, 1)


def _scaled(net: Float) -> None:
    op = str(net.rng.choice(["Mul", "Add", "Sub", "Div"]))
    shape = (1, net.shape[1], 1, 1) if net.rng.integers(2) else ()
    net.same(op, net.constant(net.rng.uniform(0.5, 1.5, shape).astype(np.float32)))


def _deconv(net: Float) -> None:
    n, c, h, w = net.shape
    if h * w > 200:
        return
    net.node("ConvTranspose", [net.at, net.weights(c, 8, 2, 2)], (n, 8, 2 * h, 2 * w),
             kernel_shape=[2, 2], strides=[2, 2])  # fmt: skip


def _gate(net: Float) -> None:
    """Squeeze and excitation."""
    before, shape = net.at, net.shape
    net.node("GlobalAveragePool", [before], (*shape[:2], 1, 1))
    net.conv(8, 1)
    net.same("Relu")
    net.conv(shape[1], 1)
    net.same("Sigmoid")
    net.node("Mul", [before, net.at], shape)


def _swish(net: Float) -> None:
    net.conv(16, 1)
    before = net.at
    net.same("Sigmoid")
    net.node("Mul", [before, net.at], net.shape)


BLOCKS: dict[str, Callable[[Float], None]] = {
    "conv": _plain, "depthwise": _depthwise, "grouped": _grouped, "dilated": _dilated,
    "maxpool": _max_pool, "avgpool": _average_pool, "residual": _residual, "concat": _concat,
    "split": _split, "upsample": _upsample, "pad": _pad, "slice": _slice, "scaled": _scaled,
    "deconv": _deconv, "gate": _gate, "swish": _swish,
}  # fmt: skip


def network(seed: int, blocks: list[str] | None = None) -> Float:
    """A stem, some blocks, a classifier."""
    rng = np.random.default_rng([seed, 1])
    batch = int(rng.choice([1, 1, 1, 2]))
    net = Float(
        seed, (batch, int(rng.choice([1, 3, 4])), *(int(v) for v in rng.integers(9, 19, 2)))
    )
    net.conv(int(rng.choice([8, 16, 24])), 3, stride=2 if blocks is None else 1)
    net.same("Relu")
    if blocks is None:
        blocks = [str(b) for b in rng.choice(list(BLOCKS), int(rng.integers(2, 5)))]
    for name in blocks:
        BLOCKS[name](net)
    n, c = net.shape[:2]
    net.node("GlobalAveragePool", [net.at], (n, c, 1, 1))
    net.node("Flatten", [net.at], (n, c))
    weights = [net.weights(c, 10), net.constant(net.rng.normal(0, 1, 10).astype(np.float32))]
    net.node("Gemm", [net.at, *weights], (n, 10))
    if rng.integers(2):
        net.same("Softmax")
    return net


class _Reader(CalibrationDataReader):
    def __init__(self, shape: Shape) -> None:
        rng = np.random.default_rng(7)
        self.data = iter([{"x": rng.normal(0, 1, shape).astype(np.float32)} for _ in range(8)])

    def get_next(self) -> Any:
        return next(self.data, None)


def quantised(net: Float, folder: Path, seed: int) -> tuple[Path, str]:
    """The file, and how it was quantised, in words."""
    rng = np.random.default_rng([seed, 2])
    form = [QuantFormat.QDQ, QuantFormat.QOperator][int(rng.integers(2))]
    x = [QuantType.QInt8, QuantType.QUInt8][int(rng.integers(2))]
    w = QuantType.QInt8 if rng.integers(4) or x == QuantType.QInt8 else QuantType.QUInt8
    each = bool(rng.integers(2)) and w == QuantType.QInt8
    plain, path = folder / "float.onnx", folder / "quantised.onnx"
    onnx.save(net.model(), plain)
    quantize_static(plain, path, _Reader(net.first), quant_format=form, activation_type=x,
                    weight_type=w, per_channel=each)  # fmt: skip
    return path, f"{form.name} {x.name} {w.name}{' per channel' if each else ''}"


def against_runtime(path: Path, graph: Any, seed: int) -> tuple[int, int]:
    """(differing, all) stored elements of the graph's outputs, reference against onnxruntime."""
    model = onnx.load(path)
    model = onnx.shape_inference.infer_shapes(model)
    for name in graph.outputs:  # stored tensors of the file that the runtime is asked for
        if name not in {o.name for o in model.graph.output}:
            model.graph.output.append(helper.make_empty_tensor_value_info(name))
    # Off on x86 by default: where a QuantizeLinear of int8 and its DequantizeLinear do not meet (a
    # Resize between them), onnxruntime then convolves floats, and rounds 1 of some 10^5 otherwise.
    how = ort.SessionOptions()
    how.add_session_config_entry("session.qdqisint8allowed", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), how, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng([seed, 3])
    shape = [int(d) for d in session.get_inputs()[0].shape]
    x = rng.normal(0, 1, shape).astype(np.float32)
    stored = graph.tensors[graph.inputs[0]]
    low, high = stored.range
    q = np.clip(np.rint(x / np.float32(stored.scales[0])) + stored.zero, low, high)
    found = reference.run(graph, {graph.inputs[0]: q.astype(stored.dtype)})
    known = {o.name for o in session.get_outputs()}
    wrong = total = 0
    for name in graph.outputs:
        if name in known:
            (value,) = session.run([name], {"x": x})
            wrong += int((value != found[name]).sum())
            total += value.size
    return wrong, total


def one(seed: int, isa: Any, blocks: list[str] | None = None) -> bool:
    net = network(seed, blocks)
    with tempfile.TemporaryDirectory() as name:
        path, how = quantised(net, Path(name), seed)
        kinds = " ".join(k for k in dict.fromkeys(net.kinds) if k not in ("Flatten", "Gemm"))
        print(f"{seed:5d} {how}, batch {net.first[0]}: {kinds}", flush=True)
        try:
            graph = read_quantised(path)
            wrong, total = against_runtime(path, graph, seed)
            low, high = graph.tensors[graph.inputs[0]].range
            rng = np.random.default_rng([seed, 4])
            feeds = {
                n: rng.integers(low, high + 1, graph.tensors[n].shape).astype(
                    graph.tensors[n].dtype
                )
                for n in graph.inputs
            }
            start = time.perf_counter()
            built = build(graph, isa, [feeds])
        except CspEmbedError as error:
            print(f"      REFUSED {error}", flush=True)
            return False
    d = built.document()
    share = d["macs_on_accelerator"] / max(1, d["macs"])
    print(
        f"      runtime {wrong} of {total}; machine {d['differences']} of {d['elements']}; "
        f"{share:.1%} of MACs, {d['segments']} programs, {d['cycles']:,} cycles "
        f"(bound {d['bound_cycles']:,}), {time.perf_counter() - start:.1f} s", flush=True,
    )  # fmt: skip
    for layer in built.layers:
        if layer.where == "host":
            print(f"      host: {layer.name}: {layer.why[:200]}", flush=True)
    return not wrong and not d["differences"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seeds", default="0:10", metavar="A:B")
    parser.add_argument("--blocks", default="", help=f"of {','.join(BLOCKS)}; else random ones")
    parser.add_argument("--vta-config", type=Path)
    args = parser.parse_args()
    first, last = map(int, args.seeds.split(":"))
    isa = load_isa("vta", args.vta_config)
    blocks = args.blocks.split(",") if args.blocks else None
    bad = [seed for seed in range(first, last) if not one(seed, isa, blocks)]
    print(f"{last - first - len(bad)} of {last - first} equal; not: {bad}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
