"""Quantised ONNX model (QOperator or QDQ form) -> quantised graph of profile onnxruntime.

Takes: what `network/onnx` makes of a file: nodes in order, shapes, constants.  Leaves: a verified
`Graph`. Float ends are the host's: QuantizeLinear of an input, and what follows the last
DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import Net
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.onnx.floats import FLOAT
from csp_embed.network.quantised.onnx.outside import part_behind, put_part
from csp_embed.network.quantised.onnx.qlinear import QLINEAR, RESULT
from csp_embed.network.quantised.onnx.values import (
    DTYPES,
    QUANTISE_HINT,
    Host,
    NoIntegerForm,
    Pending,
    Reading,
    Real,
    Stored,
    clamp_of,
)
from csp_embed.network.quantised.verify import verified


def read_onnx(path: str | Path, dims: Mapping[str, int] | None = None) -> g.Graph:
    """dims: extents of named dimensions.

    Raises: InputError for a file that cannot be read, a float model, dynamic shapes, an operator
    without integer meaning between quantised ones; MissingLibrary without onnx.
    """
    return read_net(read_model(path, dims))[0]


def read_net(net: Net) -> tuple[g.Graph, Mapping[str, Stored | Real]]:
    """The graph of a model that has been read, and what tensors of the model are there: stored
    ones, which may have another name, and the real values behind them. Raises: as `read_onnx`."""
    reading, path = Reading(net), net.path
    for name in net.read_inputs():
        # Inputs that are integers already begin the graph as they are.
        if net.tensors[name].dtype in DTYPES:
            reading.inputs.append(name)
    for node in net.nodes:
        # In order: a value is known before it is read.
        _node(reading, node)
    _outputs(reading)
    if not reading.operators:
        raise InputError(
            "the model has no quantised operator",
            where=str(path),
            why="an integer machine needs int8 activations and weights",
            hint=QUANTISE_HINT,
        )
    # Folded branches leave tensors behind that nothing reads.
    used = {n for o in reading.operators for n in (*o.inputs, o.output)} | {*reading.inputs}
    graph = g.Graph(
        Path(path).stem, "onnxruntime", {n: t for n, t in reading.tensors.items() if n in used},
        tuple(reading.operators), tuple(n for n in reading.inputs if n in used),
        tuple(reading.outputs), str(path), (*net.notes, *reading.notes),
    )  # fmt: skip
    known = {n: v for n, v in reading.values.items() if isinstance(v, Stored | Real)}
    known |= {n: Stored(n) for n in reading.inputs}
    return verified(graph, "export it again, or quantise it with onnxruntime.quantization"), known


def _node(r: Reading, node: Any) -> None:
    try:
        if node.op_type == "QuantizeLinear":
            _quantise(r, node)
        elif node.op_type == "DequantizeLinear":
            _dequantise(r, node)
        elif node.op_type in QLINEAR or node.op_type.startswith("QLinear"):
            _qlinear(r, node)
        else:
            _float(r, node)
    except NoIntegerForm as error:
        # Whatever waits for it waits for a float result now.
        why = error.why or error.what
        # A quantised operator that cannot even be cut out is an error, not the host's.
        if node.op_type.startswith("Q"):
            raise
        host(r, node, why)


def _qlinear(r: Reading, node: Any) -> None:
    """A node that takes and leaves stored values: by its rule, else by the runtime's."""
    try:
        if node.op_type not in QLINEAR:
            r.refuse(node, "no rule is known for it")
        QLINEAR[node.op_type](r, node)
    except NoIntegerForm as error:
        last = len(node.input)
        # Scale and zero point of the result; by default the last two operands.
        scale, zero = RESULT.get(node.op_type, (last - 2, last - 1))
        y = r.declare(node, node.output[0], node.input[scale], r.optional(node, zero))
        r.values[y.name] = Stored(y.name)
        put_part(r, node, y, error.why or error.what)


def _float(r: Reading, node: Any) -> None:
    """A node that QDQ form writes in floating point, or that works on stored values as they are."""
    values = [r.values.get(n) for n in node.input if n and n not in r.net.constants]
    # One operand that stands for stored values makes the others' constants meaningful.
    known = any(isinstance(v, Stored | Real | Pending) for v in values)
    if node.op_type in FLOAT and known and not any(isinstance(v, Host) for v in values):
        FLOAT[node.op_type](r, node)
    else:
        host(r, node, f"{node.op_type} computes in floating point")


def host(r: Reading, node: Any, why: str) -> None:
    """Leaves a node to a runtime, until a result behind it is quantised."""
    # The first reason on the way is the one that a user can act on.
    before = [v for n in r.net.reads(node) if isinstance(v := r.values.get(n), Host)]
    for name in node.output:
        r.values[name] = Host(node, before[0].why if before else why)


def _output(r: Reading, name: str) -> None:
    if name not in r.outputs and r.tensors[name].data is None:
        r.outputs.append(name)


def _quantise(r: Reading, node: Any) -> None:
    x, y = node.input[0], node.output[0]
    out = r.declare(node, y, node.input[1], r.optional(node, 2))
    value = r.values.get(x)
    r.values[y] = Stored(y)
    # The caller quantises: scale and zero point are in the note.
    if value is None and x in r.net.inputs:
        r.inputs.append(y)
        r.notes.append(
            f"input {x} is quantised outside: scale {out.scales[0]:.9g}, zero {out.zero}"
        )
    # The float operators behind it are known now, with the scale of their result.
    elif isinstance(value, Pending):
        try:
            r.put(value.build(out, clamp_of(out, value.low, value.high)))
        except NoIntegerForm as error:
            put_part(r, node, out, error.why or error.what)
    elif isinstance(value, Real):
        _again(r, node, r.tensors[value.tensor], out)
    elif isinstance(value, Host):
        put_part(r, node, out, value.why)
    else:
        r.refuse(node, f"{x!r} is a constant or of unknown origin")


def _again(r: Reading, node: Any, x: g.Tensor, y: g.Tensor) -> None:
    """Stored values quantised again: the same at one scale; exact where both are powers of two."""
    if (x.dtype, x.scales, x.zero_points) == (y.dtype, y.scales, y.zero_points):
        # No operator: a requantisation at one scale changes nothing.
        # Another name of the same tensor.
        r.values[y.name] = Stored(x.name)
        del r.tensors[y.name]
        return
    # A ratio of powers of two is exact in float32.
    if not all(np.frexp(t.scales[0])[0] == 0.5 for t in (x, y)):
        put_part(r, node, y, f"{x.name!r} changes its scale")
        return
    rescale = g.FloatScale((x.scales[0] / y.scales[0],))
    r.put(g.Requantise(node.name, (x.name,), y.name, rescale, y.range))


def _dequantise(r: Reading, node: Any) -> None:
    x, y = node.input[0], node.output[0]
    axis = r.attributes(node).get("axis", 1)
    if r.attributes(node).get("block_size", 0):
        r.refuse(node, "its scale differs by block")
    value = r.values.get(x)
    source = value.tensor if isinstance(value, Stored) else x
    if isinstance(value, Host):
        host(r, node, value.why)
        return
    # Two readers may dequantise one tensor; both must say the same.
    if source != x:
        # Renamed by `_again`: the scale must be the one that it has.
        scales = r.scales(node, node.input[1], r.optional(node, 2), r.tensors[source].dtype)
        if scales != (r.tensors[source].scales, r.tensors[source].zero_points):
            r.refuse(node, f"{x!r} has two scales")
    else:
        r.declare(node, x, node.input[1], r.optional(node, 2), axis)
        r.values.setdefault(x, Stored(x))
    r.values[y] = Real(source)


def _outputs(r: Reading) -> None:
    for name in r.net.outputs:
        value = r.values.get(name)
        if isinstance(value, Stored | Real):
            # A real output ends with the integers it stands for; the note has the scale.
            _output(r, value.tensor)
            if isinstance(value, Real):
                t = r.tensors[value.tensor]
                r.notes.append(
                    f"output {name} is {t.name} dequantised outside: scale {t.scales[0]:.9g}, "
                    f"zero {t.zero}"
                )
        elif isinstance(value, Host | Pending):
            # Float to the end: the host's, from the stored tensors behind it.
            part = part_behind(r, [value.node])
            for stored in part.stored:
                _output(r, stored)
            r.notes.append(f"output {name} is the host's: {part.what}")
