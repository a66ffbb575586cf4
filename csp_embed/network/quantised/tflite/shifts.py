"""As onnx/shifts.py, of a TFLite file: other bytes of weights, biases and scales alone.

Takes: a TFLite file.  Leaves: a TFLite file of the same length: weights of convolutions and dense
layers at scales with which xs * ws / ys is a power of two, as near as float32 has it. Everything
else is copied, so that it is an ordinary model for the same runtimes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.files import atomic
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.shift_scales import shift_of
from csp_embed.network.quantised.tflite.file import (
    FileOperator,
    TfliteFile,
    import_tflite,
    read_file,
)
from csp_embed.network.quantised.tflite.graph import graph_of, read_tflite

Array = NDArray[Any]
MOST_SHIFT = 30  # the machine shifts by at most 31
MOST_BIAS = 1 << 28  # leaves room for the products of a sum in int32
# Axis of the output channels in the file's weights.
LAYERS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


@dataclass(frozen=True)
class _Layer:
    """New constants of one operator, in the file's form: w int8, scale float32 of w (one, or one
    per channel), bias int32 or None, unit: the scale of the bias, likewise."""

    w: Array
    scale: Array
    bias: Array | None
    unit: Array


def with_tflite_shifts(path: Path, output: Path) -> g.Graph:
    """Writes the requantised model to `output` and reads it back.

    Layers whose constants another operator reads, too, stay as they are. Raises: as `read_tflite`.
    """
    file = read_file(path)
    # Refused before anything is written, where it cannot be read as a network.
    graph_of(file)
    api, content = import_tflite(), bytearray(path.read_bytes())
    model = api.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    buffers = [int(graph.Tensors(i).Buffer()) for i in range(len(file.tensors))]
    for op in file.operators:
        if op.kind not in LAYERS or not _alone(file, op, buffers):
            continue
        made = _layer(file, op)
        if made is None:
            continue
        _write(model, graph.Tensors(op.inputs[1]), made.w, made.scale)
        if made.bias is not None:
            _write(model, graph.Tensors(op.inputs[2]), made.bias, made.unit)
    with atomic(output, "wb") as out:
        out.write(bytes(content))
    return read_tflite(output)


def _alone(file: TfliteFile, op: FileOperator, buffers: list[int]) -> bool:
    """Whether no other operator reads its constants' bytes."""
    mine = {buffers[i] for i in op.inputs[1:3] if i >= 0}
    others = [i for o in file.operators if o.index != op.index for i in o.inputs if i >= 0]
    return mine.isdisjoint(buffers[i] for i in others)


def _layer(file: TfliteFile, op: FileOperator) -> _Layer | None:
    """None where its operands have no scales to choose from."""
    x, w, y = file.tensors[op.inputs[0]], file.tensors[op.inputs[1]], file.tensors[op.outputs[0]]
    b = file.tensors[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    if w.data is None or w.dtype != "int8" or len(x.scales) != 1 or len(y.scales) != 1:
        return None
    if b is not None and (b.data is None or b.dtype != "int32"):
        return None
    axis = LAYERS[op.kind]
    rows = np.moveaxis(w.data, axis, 0).reshape(w.shape[axis], -1).astype(np.float64)
    old = np.broadcast_to(np.array(w.scales, np.float64), len(rows))
    real = rows * old[:, None]
    bias = np.zeros(len(rows)) if b is None or b.data is None else (
        b.data.reshape(-1).astype(np.float64) * old * x.scales[0])  # fmt: skip
    unit = y.scales[0] / x.scales[0]
    # One scale for all channels, where the file has one: they are one row.
    groups = [real] if len(w.scales) == 1 else [row[None] for row in real]
    parts = np.split(bias, len(groups))
    shifts = [
        shift_of(row.reshape(-1), float(np.abs(part).max(initial=0.0)), unit, x.scales[0],
                 (MOST_SHIFT, MOST_BIAS))
        for row, part in zip(groups, parts, strict=True)
    ]  # fmt: skip
    scale = np.array([unit * 2.0**-n for n in shifts], np.float32)
    each = np.broadcast_to(scale.astype(np.float64), len(rows))
    stored = np.clip(np.rint(real / each[:, None]), -127, 127).astype(np.int8)
    shape = (w.shape[axis], *(e for n, e in enumerate(w.shape) if n != axis))
    steps = np.clip(np.rint(bias / (each * x.scales[0])), -(2.0**31), 2.0**31 - 1)
    return _Layer(
        np.moveaxis(stored.reshape(shape), 0, axis), scale,
        None if b is None else steps.astype(np.int32),
        (scale.astype(np.float64) * x.scales[0]).astype(np.float32),
    )  # fmt: skip


def _write(model: Any, tensor: Any, values: Array, scale: Array) -> None:
    """Over the bytes of a constant and of its scales; both keep their lengths."""
    held = model.Buffers(tensor.Buffer()).DataAsNumpy()
    held[:] = np.frombuffer(values.astype(values.dtype.newbyteorder("<")).tobytes(), np.uint8)
    quantisation = tensor.Quantization()
    # A bias without scales of its own is counted in its layer's.
    if quantisation is not None and quantisation.ScaleLength():
        old = quantisation.ScaleAsNumpy()
        old[:] = np.broadcast_to(scale, old.shape)
