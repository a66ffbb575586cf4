"""A TFLite file as Python values: tensors, operators by name, options; nothing is interpreted here.

The package `tflite` has the generated readers of the schema. Flatbuffers are not checked on
opening: a damaged file shows itself as a bad offset somewhere; every access is under `reading`.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.files import readable
from csp_embed.narrow import is_array
from csp_embed.network.quantised.graph import Tensor

# File identifier of the schema, behind the root offset.
_MARK = b"TFL3"
# Numbers of the schema's TensorType.
DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16",
    9: "int8", 10: "float64", 15: "uint32", 16: "uint16", 17: "int4",
}  # fmt: skip
# What a read of a flatbuffer with wrong offsets raises.
_DAMAGE = (
    struct.error, LookupError, ValueError, TypeError, AttributeError, ArithmeticError,
)  # fmt: skip


@dataclass(frozen=True)
class FileOperator:
    """kind: the builtin operator's name, CONV_2D; inputs, outputs: tensor indices, -1 for none.
    options: the reader of the operator's option table, None where the file has none."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any

    def where(self, path: str) -> str:
        return f"{path}, operator {self.index} ({self.kind})"


@dataclass(frozen=True)
class TfliteFile:
    """tensors: in the file's order, names made unique; float ones too. inputs, outputs: indices.
    first: what the variables of a streaming model begin with, by name."""

    path: str
    tensors: tuple[Tensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    first: Mapping[str, Any] = field(default_factory=dict[str, Any])


def import_tflite() -> Any:
    """The package of schema readers, or one error that says how to get it."""
    try:
        import tflite  # pyright: ignore[reportMissingTypeStubs] (it has none)
    except ImportError as error:
        raise MissingLibrary(
            "reading TFLite models needs the package tflite",
            why=str(error),
            hint="pip install 'csp-embed[tflite]'",
        ) from error
    return tflite


@contextmanager
def reading(path: str) -> Generator[None, None, None]:
    """Turns what a damaged file raises into one clear error."""
    try:
        yield
    except _DAMAGE as error:
        raise InputError(
            "not a whole TFLite model",
            where=path,
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            hint="copy or export it again",
        ) from error


def read_file(path: str | Path) -> TfliteFile:
    """Raises: InputError for a file that is missing, damaged, or has several subgraphs;
    MissingLibrary without the package tflite."""
    where = str(path)
    with readable(path, "check the path"):
        content = Path(path).read_bytes()
    if content[4:8] != _MARK:
        raise InputError(
            "not a TFLite model",
            where=where,
            why="the file is empty" if not content else "its bytes 4 to 7 are not TFL3",
            hint="a .tflite file as TensorFlow's converter writes it",
        )
    api = import_tflite()
    with reading(where):
        # Flatbuffers read lazily: everything is read here, under `reading`.
        model = api.Model.GetRootAs(content, 0)
        graph = model.Subgraphs(0)
        tensors, operators = _subgraph(api, model, graph, where)
        others = model.SubgraphsLength() - 1
        # One more subgraph that runs once sets the variables of a streaming model.
        if others and (others > 1 or all(o.kind != "CALL_ONCE" for o in operators)):
            raise InputError(
                f"the model has {others + 1} subgraphs",
                where=where,
                why="loops and branches at run time have no place in one program",
                hint="export the model without control flow",
            )
        first = _first_values(api, model, where) if others else {}
        inputs, outputs = (
            tuple(map(int, _array(v))) for v in (graph.InputsAsNumpy(), graph.OutputsAsNumpy())
        )
        _check_indices(operators, inputs, outputs, len(tensors))
    return TfliteFile(where, tensors, operators, inputs, outputs, first)


def _subgraph(
    api: Any, model: Any, graph: Any, where: str
) -> tuple[tuple[Tensor, ...], tuple[FileOperator, ...]]:
    names: set[str] = set()
    tensors = tuple(
        _tensor(api, model, graph.Tensors(i), i, names, where) for i in range(graph.TensorsLength())
    )
    operators = tuple(_operator(api, model, graph, i) for i in range(graph.OperatorsLength()))
    return tensors, operators


def _first_values(api: Any, model: Any, where: str) -> dict[str, Any]:
    """What the subgraph that runs once assigns to the variables: constants, by their names."""
    tensors, operators = _subgraph(api, model, model.Subgraphs(1), where)
    names: dict[int, str] = {}
    first: dict[str, Any] = {}
    for op in operators:
        if op.kind == "VAR_HANDLE":
            names[op.outputs[0]] = variable_name(op)
        elif op.kind == "ASSIGN_VARIABLE" and tensors[op.inputs[1]].data is not None:
            first[names[op.inputs[0]]] = tensors[op.inputs[1]].data
        else:
            raise ValueError(f"{op.kind} in the subgraph that runs once")
    return first


def variable_name(op: FileOperator) -> str:
    """The name that a VAR_HANDLE shares with others."""
    return (op.options.SharedName() or b"").decode("utf-8", "replace")


def _check_indices(
    operators: tuple[FileOperator, ...],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    count: int,
) -> None:
    """Every tensor that is named is there. Raises: ValueError."""
    for group in (inputs, outputs, *(o.outputs for o in operators)):
        # Outputs and graph ends name real tensors; only inputs may be -1.
        if any(not 0 <= i < count for i in group):
            raise ValueError(f"tensor {group} of {count}")
    for op in operators:
        idle = op.kind in ("CALL_ONCE", "ASSIGN_VARIABLE")  # they make no tensor
        if any(not -1 <= i < count for i in op.inputs) or not (op.outputs or idle):
            raise ValueError(f"operator {op.index} reads {op.inputs} of {count} tensors")


def _array(value: Any) -> Any:
    """A vector as an array; absent ones read as the number 0 or as nothing."""
    return value if is_array(value) else np.zeros(0, np.int64)


def _tensor(api: Any, model: Any, t: Any, index: int, names: set[str], where: str) -> Tensor:
    name = (t.Name() or b"").decode("utf-8", "replace") or f"t{index}"
    # Later stages know tensors by name; the file need not have unique ones.
    while name in names:
        name += "_"
    names.add(name)
    dtype = DTYPES.get(t.Type(), f"type {t.Type()}")
    shape = tuple(int(e) for e in _array(t.ShapeAsNumpy()))
    signature = _array(t.ShapeSignatureAsNumpy())
    # A signature has -1 where the exporter left an extent open.
    if any(e < 0 for e in shape) or (dtype == "int8" and any(e < 0 for e in signature[1:])):
        raise InputError(
            f"tensor {name!r} has an open extent: {[int(e) for e in signature]}",
            where=where,
            why="a program has fixed sizes",
            hint="export the model with fixed input shapes (only the batch may stay open)",
        )
    quant = t.Quantization()
    scales: tuple[float, ...] = ()
    zeros: tuple[int, ...] = ()
    axis = None
    # Per-channel scales lie along one axis; a single one lies along none.
    if quant is not None and quant.ScaleLength():
        scales = tuple(float(s) for s in _array(quant.ScaleAsNumpy()))
        zeros = tuple(int(z) for z in _array(quant.ZeroPointAsNumpy()))
        axis = int(quant.QuantizedDimension()) if len(scales) > 1 else None
        if not all(np.isfinite(s) and s > 0 for s in scales):
            if dtype == "int8":
                raise ValueError(f"tensor {name!r} has the scale {scales[:4]}")
            scales, zeros, axis = (), (), None  # of sizes and biases, nobody reads it
    return Tensor(name, shape, dtype, scales, zeros, axis, _data(model, t, dtype, shape))


def _data(model: Any, t: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    """The constant's value; None for an activation, whose buffer is empty."""
    buffer = model.Buffers(t.Buffer())
    if buffer is None or not buffer.DataLength() or dtype not in (*DTYPES.values(),):
        return None
    if dtype == "int4":
        return None  # packed; whoever uses it refuses the type
    # Little-endian in the file, whatever this computer is.
    raw = np.frombuffer(buffer.DataAsNumpy().tobytes(), np.dtype(dtype).newbyteorder("<"))
    return raw.astype(dtype).reshape(shape)


def _operator(api: Any, model: Any, graph: Any, index: int) -> FileOperator:
    op = graph.Operators(index)
    code = model.OperatorCodes(op.OpcodeIndex())
    # Old files have the number in a byte, new ones in a word beside it.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    kind = api.BUILTIN_OPCODE2NAME.get(number, f"operator code {number}")
    if kind == "CUSTOM":
        kind = f"CUSTOM {(code.CustomCode() or b'?').decode('utf-8', 'replace')}"
    inputs, outputs = (
        tuple(map(int, _array(v))) for v in (op.InputsAsNumpy(), op.OutputsAsNumpy())
    )
    table = op.BuiltinOptions()
    options = None
    name = _option_names(api).get(op.BuiltinOptionsType())
    if table is not None and name is not None:
        # Option tables are unions: the type number says which reader fits.
        options = getattr(api, name)()
        options.Init(table.Bytes, table.Pos)
    return FileOperator(index, kind, inputs, outputs, options)


def _option_names(api: Any) -> dict[int, str]:
    """Number of each option table -> the name of its reader."""
    kinds: dict[str, Any] = dict(api.BuiltinOptions.__dict__)
    return {n: name for name, n in kinds.items() if isinstance(n, int) and n > 0}
