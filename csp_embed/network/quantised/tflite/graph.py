"""TFLite file -> quantised graph of profile tflm.

Takes: an int8 model (its float ends may be QUANTIZE and DEQUANTIZE, which are left out and noted).
Leaves: a verified `Graph`, its first tensors those of the file in the file's order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.network.quantised.graph import Graph, Operator, Tensor
from csp_embed.network.quantised.tflite.file import (
    FileOperator,
    TfliteFile,
    read_file,
    reading,
    variable_name,
)
from csp_embed.network.quantised.tflite.operators import CONVERT, Context
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
    return graph_of(read_file(path))


def graph_of(file: TfliteFile) -> Graph:
    """Raises: InputError, as `read_tflite`."""
    # Before anything is converted: a float model would fail at its first operator.
    _refuse_float(file)
    with reading(file.path):
        tensors, operators, inputs, outputs, notes = _convert(file)
    graph = Graph(
        Path(file.path).stem, "tflm", tensors, tuple(operators), inputs, outputs, file.path, notes
    )
    return verified(graph, "export it again; csp-embed reads what TensorFlow's converter writes")


class _Conversion:
    """The graph as far as the file is read. hosted: float or unknown tensors that the host makes
    from stored ones, by name -> the operator that made the first of them."""

    def __init__(self, file: TfliteFile) -> None:
        self.file = file
        self.tensors = {t.name: t for t in file.tensors}
        self.inputs = [file.tensors[i].name for i in file.inputs]
        self.outputs: list[str] = []
        self.operators: list[Operator] = []
        self.notes: list[str] = []
        self.hosted: dict[str, FileOperator] = {}
        self.reads: dict[str, list[str]] = {}
        self.variables: dict[int, str] = {}
        self.states: dict[str, str] = {}

    def take(self, op: FileOperator) -> None:
        """One operator of the file, in its order."""
        # -1 is an operand that is left out.
        names = [self.file.tensors[i].name for i in op.inputs if i >= 0]
        x = self.tensors[names[0]] if names else None
        # A shape that is computed is in the file as a shape, too.
        data = names[:1] if op.kind in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS") else names
        if op.kind in _VARIABLES:
            self._variable(op)
        # Float input at the very beginning; anywhere else QUANTIZE is a requantisation.
        elif op.kind == "QUANTIZE" and x is not None and x.name in self.inputs and _is_float(x):
            # The host's part: the program begins with integers.
            y = self.file.tensors[op.outputs[0]]
            self.inputs[self.inputs.index(x.name)] = y.name
            self.notes.append(f"input {y.name} is quantised outside: {_scale(y)}")
        # Behind the host's part nothing comes back to the machine.
        elif op.kind in CONVERT and not any(n in self.hosted for n in data) and self._stays(op):
            CONVERT[op.kind](Context(self.file, op, self.tensors, self.operators))
        # A contraction left to the host would be a silent loss of nearly all work.
        elif op.kind in CONTRACTIONS:
            unknown = next((self.hosted[n] for n in names if n in self.hosted), op)
            _unknown(self.file, unknown, None if unknown is op else op)
        else:
            # The host's part: remembered with what it reads, in case it is an output.
            origin = next((self.hosted[n] for n in names if n in self.hosted), op)
            for i in op.outputs:
                self.hosted[self.file.tensors[i].name] = origin
                self.reads[self.file.tensors[i].name] = names

    def _stays(self, op: FileOperator) -> bool:
        """Whether the result is int8: a QUANTIZE to another type at the end is the host's."""
        return op.kind != "QUANTIZE" or self.file.tensors[op.outputs[0]].dtype == "int8"

    def _variable(self, op: FileOperator) -> None:
        """What a streaming model keeps from call to call: read is an input, assigned an output."""
        if op.kind == "VAR_HANDLE":
            self.variables[op.outputs[0]] = variable_name(op)
        elif op.kind == "READ_VARIABLE":
            name = self.file.tensors[op.outputs[0]].name
            self.inputs.append(name)
            # Reading makes the state an input of this call.
            self.states[self.variables[op.inputs[0]]] = name
        elif op.kind == "ASSIGN_VARIABLE":
            variable, value = self.variables[op.inputs[0]], self.file.tensors[op.inputs[1]].name
            state = self.states[variable]  # read before it is assigned, else it were no state
            self.outputs.append(value)
            first = self.file.first.get(variable)
            begin = "" if first is None else f"; it begins with {_few(first)}"
            self.notes.append(f"output {value} is input {state} of the next call{begin}")

    def finish(self) -> None:
        """The outputs: of those that the host makes, the stored tensors behind them."""
        # Outputs of the host are led back to the stored tensors that it starts from.
        for i in self.file.outputs:
            name = self.file.tensors[i].name
            if name not in self.hosted:
                self.outputs.append(name)
                continue
            self.notes.append(f"output {name} is the host's: {self.hosted[name].kind}")
            rest: list[str] = [name]
            while rest:
                behind = rest.pop()
                if behind in self.hosted:
                    rest += self.reads[behind]
                elif self.tensors[behind].data is None and behind not in self.outputs:
                    self.outputs.append(behind)
        # An output may be named twice, or lie behind two others.
        self.outputs = list(dict.fromkeys(self.outputs))
        if not self.operators:
            first = next(iter(self.hosted.values()), None)
            if first is None:
                raise InputError("the model has no operator", where=self.file.path,
                                 hint="give a quantised network")  # fmt: skip
            _unknown(self.file, first)


_VARIABLES = ("CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")
# Layers that must not follow the host's part unseen: their sums are what a machine is for.
CONTRACTIONS = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL",
)  # fmt: skip


def _is_float(t: Tensor) -> bool:
    return t.dtype in ("float32", "float16")


def _scale(t: Tensor) -> str:
    return f"scale {t.scales[0]:.9g}, zero {t.zero}" if t.scales else "no scale"


def _few(values: Any) -> str:
    """The one value of a constant that is the same everywhere, else that it is not."""
    flat = values.reshape(-1)
    return f"{flat[0]} everywhere" if (flat == flat[0]).all() else "values of the file"


def _convert(
    file: TfliteFile,
) -> tuple[dict[str, Tensor], list[Operator], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    c = _Conversion(file)
    for op in file.operators:
        c.take(op)
    c.finish()
    kept = {n for o in c.operators for n in (*o.inputs, o.output)} | {*c.inputs, *c.outputs}
    # Float tensors at the ends and sizes that only the file's operators read have no place.
    known = {n: t for n, t in c.tensors.items() if n in kept}
    return known, c.operators, tuple(c.inputs), tuple(c.outputs), tuple(c.notes)


def _unknown(file: TfliteFile, op: FileOperator, behind: FileOperator | None = None) -> None:
    """behind: a layer that needs what the operator makes."""
    why = "known: " + ", ".join(sorted(CONVERT))
    if behind is not None:
        why = f"operator {behind.index} ({behind.kind}) needs its result; {why}"
    names = [file.tensors[i].name for i in op.inputs if i >= 0 and file.tensors[i].data is None]
    raise InputError(
        f"operator {op.kind} has no integer meaning here",
        where=op.where(file.path),
        why=why,
        hint=f"convert the model in two parts, the first with the outputs {names}, and run"
        f" {op.kind} between them on the host; or export it to ONNX, quantised: of that format the"
        " host computes any operator that onnxruntime has",
    )


def _refuse_float(file: TfliteFile) -> None:
    """A model without int8 activations is told how to become one; one that is quantised in its
    weights alone, too."""
    # Operators whose first operand is an activation; others may work on sizes.
    heavy = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "AVERAGE_POOL_2D", "MUL")
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
