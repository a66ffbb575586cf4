"""The layers of bench_native in other libraries: onnxruntime, and FBGEMM and oneDNN through torch.

Each `call` is a function without arguments that runs the layer once, its weights packed before;
None where the library is absent or has no such layer. Activations are uint8, their fast way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
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
    w, x = tensors[op.rhs.tensor] if op.rhs else None, _unsigned(op, tensors)
    known = [numpy_helper.from_array(np.array(v, t), n) for n, v, t in (
        ("one", 1.0, np.float32), ("zx", 128, np.uint8), ("zw", 0, np.int8), ("zy", 128, np.uint8),
        ("scale", 64.0, np.float32))]  # fmt: skip
    if op.name == "matmul":
        known.append(numpy_helper.from_array(np.ascontiguousarray(w.T), "w"))
        node = helper.make_node("MatMulInteger", ["x", "w", "zx", "zw"], ["y"])
        kind = TensorProto.INT32
    elif (found := _convolution(op)) is not None:
        stride, pad = found
        known.append(numpy_helper.from_array(w, "w"))
        node = helper.make_node(
            "QLinearConv", ["x", "one", "zx", "w", "one", "zw", "scale", "zy"], ["y"],
            strides=stride, pads=[*pad, *pad],
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
    weights = np.ascontiguousarray(tensors[op.rhs.tensor]) if op.rhs else None
    w = torch._make_per_tensor_quantized_tensor(torch.from_numpy(weights), 1.0, 0)
    if op.name == "matmul":
        packed = torch.ops.quantized.linear_prepack(w, torch.zeros(w.shape[0]))
        function = torch.ops.quantized.linear
    elif (found := _convolution(op)) is not None:
        stride, pad = found
        bias = torch.zeros(w.shape[0])
        packed = torch.ops.quantized.conv2d_prepack(w, bias, stride, pad, [1, 1], 1)
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


def _convolution(op: Operator) -> tuple[list[int], list[int]] | None:
    """(strides, pads), of a convolution with one group."""
    if op.name != "conv2d" or op.notes.get("groups", 1) != 1:
        return None
    rows, columns = op.lhs.index[2], op.lhs.index[3]
    axes = dict(zip(("n", "k", "p", "q"), op.out_axes, strict=True))
    stride = [rows.coef(axes["p"]), columns.coef(axes["q"])]
    return stride, [-rows.const, -columns.const]
