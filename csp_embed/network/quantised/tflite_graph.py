"""TFLite file -> quantised graph of profile tflm.

Takes: an int8 model (its float ends may be QUANTIZE and DEQUANTIZE, which are left out and noted).
Leaves: a verified `Graph`, its first tensors those of the file in the file's order.
"""

from __future__ import annotations

from pathlib import Path

from csp_embed.errors import InputError
from csp_embed.network.quantised.graph import Graph, Operator, Tensor
from csp_embed.network.quantised.tflite_file import FileOperator, TfliteFile, read_file, reading
from csp_embed.network.quantised.tflite_operators import CONVERT, Context
from csp_embed.network.quantised.verify import verified

QUANTISE_HINT = (
    "quantise it to int8 with calibration data: tensorflow.lite.TFLiteConverter with "
    "optimizations=[tf.lite.Optimize.DEFAULT], a representative_dataset and "
    "target_spec.supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8]; or, from the .tflite itself, "
    "pip install ai-edge-quantizer"
)


def read_tflite(path: str | Path) -> Graph:
    """Raises: InputError for a damaged file, a float model, an operator or a form that has no
    integer meaning here; MissingLibrary without the package tflite."""
    file = read_file(path)
    _refuse_float(file)
    with reading(file.path):
        tensors, operators, inputs, outputs, notes = _convert(file)
    graph = Graph(
        Path(path).stem, "tflm", tensors, tuple(operators), inputs, outputs, file.path, notes
    )
    return verified(graph, "export it again; csp-embed reads what TensorFlow's converter writes")


def _convert(
    file: TfliteFile,
) -> tuple[dict[str, Tensor], list[Operator], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    tensors = {t.name: t for t in file.tensors}
    inputs = [file.tensors[i].name for i in file.inputs]
    outputs = [file.tensors[i].name for i in file.outputs]
    notes: list[str] = []
    operators: list[Operator] = []
    for op in file.operators:
        x = file.tensors[op.inputs[0]] if op.inputs and op.inputs[0] >= 0 else None
        y = file.tensors[op.outputs[0]]
        if op.kind == "QUANTIZE" and x is not None and x.dtype == "float32" and x.name in inputs:
            # The host's part: the program begins with integers.
            inputs = [y.name if n == x.name else n for n in inputs]
            notes.append(f"input {y.name} is quantised outside: scale {y.scales}, zero {y.zero}")
        elif op.kind == "DEQUANTIZE" and x is not None and y.name in outputs:
            outputs = [x.name if n == y.name else n for n in outputs]
            notes.append(f"output {x.name} is dequantised outside: scale {x.scales}, zero {x.zero}")
        elif op.kind in CONVERT:
            context = Context(file, op, tensors, operators)
            CONVERT[op.kind](context)
        else:
            _unknown(file, op)
    kept = {n for o in operators for n in (*o.inputs, o.output)} | {*inputs, *outputs}
    # Float tensors at the ends and sizes that only the file's operators read have no place.
    known = {n: t for n, t in tensors.items() if n in kept or t.dtype in ("int8", "int32", "int64")}
    return known, operators, tuple(inputs), tuple(outputs), tuple(notes)


def _unknown(file: TfliteFile, op: FileOperator) -> None:
    raise InputError(
        f"operator {op.kind} has no integer meaning here",
        where=op.where(file.path),
        why="known: " + ", ".join(sorted(CONVERT)),
        hint="cut the model before it, or run it on the host",
    )


def _refuse_float(file: TfliteFile) -> None:
    """A model without int8 activations is told how to become one; one that is quantised in its
    weights alone, too."""
    heavy = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "AVERAGE_POOL_2D")
    for op in file.operators:
        if op.kind not in heavy or not op.inputs or op.inputs[0] < 0:
            continue
        x = file.tensors[op.inputs[0]]
        if x.dtype in ("float32", "float16"):
            raise InputError(
                "the model computes in floating point",
                where=op.where(file.path),
                why=f"{x.name!r} is {x.dtype}; an integer machine needs int8 activations",
                hint=QUANTISE_HINT,
            )
        if x.dtype != "int8":
            raise InputError(
                f"activations of type {x.dtype}",
                where=op.where(file.path),
                why="the integer rules here are those of int8 models",
                hint=QUANTISE_HINT,
            )
