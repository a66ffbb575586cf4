"""The layers of bench_native in other libraries: onnxruntime, and FBGEMM and oneDNN through torch.

Each `call` is a function without arguments that runs the layer once, its weights packed before;
None where the library is absent or has no such layer. Activations are uint8, their fast way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from csp_embed.ir.operator import Operator

Call = Callable[[], Any]


def onnxruntime_call(op: Operator, tensors: dict[str, Any], threads: int) -> Call | None:
    """MatMulInteger (int32 results: it has less to do), QLinearConv."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    session = onnxruntime.SessionOptions()
    session.log_severity_level = 3  # warnings about constants that a node does not use
    session.intra_op_num_threads, session.inter_op_num_threads = threads, 1
    x = _unsigned(op, tensors)
    known = [numpy_helper.from_array(np.array(v, t), n) for n, v, t in (
        ("one", 1.0, np.float32), ("zx", 128, np.uint8), ("zw", 0, np.int8), ("zy", 128, np.uint8),
        ("scale", 64.0, np.float32))]  # fmt: skip
    if op.name in ("matmul", "batch_matmul"):
        # Transposed beforehand, activations too: less to do than we have.
        w = np.ascontiguousarray(tensors[op.rhs.tensor].swapaxes(-1, -2))
        known.append(numpy_helper.from_array(w, "w"))
        node = helper.make_node("MatMulInteger", ["x", "w", "zx", "zw"], ["y"])
        kind = TensorProto.INT32
    elif (found := _window(op)) is not None:
        known.append(numpy_helper.from_array(_weights(op, tensors, found), "w"))
        node = helper.make_node(
            "QLinearConv", ["x", "one", "zx", "w", "one", "zw", "scale", "zy"], ["y"],
            strides=found.stride, pads=found.pads, dilations=found.dilation, group=found.groups,
        )  # fmt: skip
        kind = TensorProto.UINT8
    else:
        return None
    graph = helper.make_graph(
        [node], "layer", [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)], known,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    run = onnxruntime.InferenceSession(
        model.SerializeToString(), session, providers=["CPUExecutionProvider"]
    )
    return lambda: run.run(None, {"x": x})


def torch_call(op: Operator, tensors: dict[str, Any], threads: int, engine: str) -> Call | None:
    """quantized.linear or quantized.conv2d with its bias, requantised to uint8. engine: as torch
    names it, "fbgemm" or "onednn"."""
    try:
        import torch
    except ImportError:
        return None
    warnings.simplefilter("ignore", UserWarning)  # torch says that these types will go
    torch.set_num_threads(threads)
    torch.backends.quantized.engine = engine
    # With a zero point oneDNN's product falls back to its reference, a thousand times slower: torch
    # packs the weights without the sums that it would need. Without one it has less to do than we.
    zero = 0 if (engine, op.name) == ("onednn", "matmul") else 128
    x = torch.from_numpy(_unsigned(op, tensors))
    x = torch._make_per_tensor_quantized_tensor(x, 1.0, zero)

    def quantized(weights: Any) -> Any:
        weights = torch.from_numpy(np.ascontiguousarray(weights))
        return torch._make_per_tensor_quantized_tensor(weights, 1.0, 0)

    if op.name == "matmul":
        w = quantized(tensors[op.rhs.tensor])
        packed = torch.ops.quantized.linear_prepack(w, torch.zeros(w.shape[0]))
        function = torch.ops.quantized.linear
    elif (found := _window(op)) is not None and found.even:
        w = quantized(_weights(op, tensors, found))
        packed = torch.ops.quantized.conv2d_prepack(
            w, torch.zeros(w.shape[0]), found.stride, found.pads[:2], found.dilation, found.groups
        )
        function = torch.ops.quantized.conv2d
    else:
        return None

    def call() -> None:
        with torch.inference_mode():
            function(x, packed, 64.0, 128)

    return call


PEERS = {
    "onnxruntime": onnxruntime_call,
    "FBGEMM": lambda op, t, n: torch_call(op, t, n, "fbgemm"),
    "oneDNN": lambda op, t, n: torch_call(op, t, n, "onednn"),
}


def _unsigned(op: Operator, tensors: dict[str, Any]) -> Any:
    return (tensors[op.lhs.tensor].astype(np.int16) + 128).astype(np.uint8)


@dataclass(frozen=True)
class _Window:
    """stride, dilation: by rows and columns. pads: rows and columns in front, then behind."""

    stride: list[int]
    dilation: list[int]
    pads: list[int]
    groups: int

    @property
    def even(self) -> bool:
        return self.pads[:2] == self.pads[2:]


def _window(op: Operator) -> _Window | None:
    """Of a two-dimensional convolution whose channels come before rows and columns."""
    if op.name not in ("conv2d", "depthwise_conv2d") or op.notes.get("layout", "NCHW") != "NCHW":
        return None
    stride, dilation, before, behind = [], [], [], []
    x = op.tensors[op.lhs.tensor]
    assert op.rhs is not None
    for index, out, tap, size in zip(
        op.lhs.index[2:], op.out.index[2:], op.rhs.index[-2:], x.shape[2:], strict=True
    ):
        (o, _), (t, _) = *out.terms, *tap.terms
        stride.append(index.coef(o))
        dilation.append(index.coef(t))
        before.append(-index.const)
        span = index.coef(t) * (op.axes[t] - 1) + 1
        # Rows that no window meets belong to no result: the same padding behind does as well.
        if (size - 2 * index.const - span) // index.coef(o) + 1 == op.axes[o]:
            behind.append(-index.const)
        else:
            behind.append(max(0, index.coef(o) * (op.axes[o] - 1) + span + index.const - size))
    return _Window(stride, dilation, before + behind, op.notes.get("groups", 1))


def _weights(op: Operator, tensors: dict[str, Any], window: _Window) -> Any:
    """With a dimension for the channels of a group, which a depthwise filter leaves out."""
    assert op.rhs is not None
    w = tensors[op.rhs.tensor]
    return w[:, None] if w.ndim == 3 and window.groups > 1 else w
