"""Writes small TFLite files: what a converter would, by the schema's own builders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite

TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9, "resource": 13}


@dataclass
class Written:
    """tensors: (name, shape, dtype, scales, zero points, axis, data). operators: (name of the
    builtin operator, inputs, outputs, option table, its fields)."""

    tensors: list[tuple[Any, ...]] = field(default_factory=list)
    operators: list[tuple[Any, ...]] = field(default_factory=list)
    once: Written | None = None

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str = "int8", scales: Any = (),
        zeros: Any = (), axis: int = 0, data: Any = None,
    ) -> int:  # fmt: skip
        scales, zeros = np.atleast_1d(scales), np.atleast_1d(zeros)
        self.tensors.append((name, tuple(shape), dtype, scales, zeros, axis, data))
        return len(self.tensors) - 1

    def constant(
        self, name: str, data: Any, scales: Any = (), zeros: Any = (), axis: int = 0
    ) -> int:
        array = np.asarray(data)
        return self.tensor(name, array.shape, str(array.dtype), scales, zeros, axis, array)

    def operator(
        self, kind: str, inputs: Sequence[int], output: int, table: str = "", **fields: Any
    ) -> int:
        """output: -1 for none."""
        outputs = (output,) if output >= 0 else ()
        self.operators.append((kind, tuple(inputs), outputs, table, fields))
        return output

    def content(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        subgraphs: int = 1,
    ) -> bytes:
        """subgraphs: so many times this one; a second one for CALL_ONCE is `once`."""
        once = self.once
        b = flatbuffers.Builder(1 << 12)
        parts = [self, *([once] if once is not None else [])]
        kinds = list(dict.fromkeys(o[0] for part in parts for o in part.operators))
        codes = [self._code(b, kind) for kind in kinds]
        buffers = [self._buffer(b, None)]  # by rule the first is empty
        borders = [(inputs, outputs), ((), ())]
        made = [
            part._graph(b, kinds, buffers, *ends)
            for part, ends in zip(parts, borders, strict=False)
        ]
        graphs = _offsets(b, made if once is not None else made * subgraphs)
        codes_at, buffers_at = _offsets(b, codes), _offsets(b, buffers)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, codes_at)
        tflite.ModelAddSubgraphs(b, graphs)
        tflite.ModelAddBuffers(b, buffers_at)
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())

    def _graph(
        self, b: Any, kinds: list[str], buffers: list[Any], inputs: Any, outputs: Any
    ) -> Any:
        made = []
        for t in self.tensors:
            if t[6] is not None:
                buffers.append(self._buffer(b, t[6]))
            made.append(self._tensor(b, t, len(buffers) - 1 if t[6] is not None else 0))
        ops = [self._operator(b, o, kinds.index(o[0])) for o in self.operators]
        lists = [_offsets(b, made), _ints(b, inputs), _ints(b, outputs), _offsets(b, ops)]
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, lists[0])
        tflite.SubGraphAddInputs(b, lists[1])
        tflite.SubGraphAddOutputs(b, lists[2])
        tflite.SubGraphAddOperators(b, lists[3])
        return tflite.SubGraphEnd(b)

    def _code(self, b: Any, kind: str) -> Any:
        number = getattr(tflite.BuiltinOperator, kind)
        tflite.OperatorCodeStart(b)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(number, 127))
        tflite.OperatorCodeAddBuiltinCode(b, number)
        return tflite.OperatorCodeEnd(b)

    def _buffer(self, b: Any, data: Any) -> Any:
        at = None if data is None else b.CreateNumpyVector(np.frombuffer(data.tobytes(), np.uint8))
        tflite.BufferStart(b)
        if at is not None:
            tflite.BufferAddData(b, at)
        return tflite.BufferEnd(b)

    def _tensor(self, b: Any, t: tuple[Any, ...], buffer: int) -> Any:
        name, shape, dtype, scales, zeros, axis, _ = t
        at = b.CreateString(name)
        extents = b.CreateNumpyVector(np.array(shape, np.int32))
        quant = None
        if scales.size:
            s = b.CreateNumpyVector(scales.astype(np.float32))
            z = b.CreateNumpyVector(zeros.astype(np.int64))
            tflite.QuantizationParametersStart(b)
            tflite.QuantizationParametersAddScale(b, s)
            tflite.QuantizationParametersAddZeroPoint(b, z)
            tflite.QuantizationParametersAddQuantizedDimension(b, axis)
            quant = tflite.QuantizationParametersEnd(b)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, extents)
        tflite.TensorAddType(b, TYPES[dtype])
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, at)
        if quant is not None:
            tflite.TensorAddQuantization(b, quant)
        return tflite.TensorEnd(b)

    def _operator(self, b: Any, o: tuple[Any, ...], code: int) -> Any:
        _, inputs, outputs, table, fields = o
        options = None
        fields = {n: b.CreateString(v) if isinstance(v, str) else v for n, v in fields.items()}
        if table:
            getattr(tflite, f"{table}Start")(b)
            for name, value in fields.items():
                getattr(tflite, f"{table}Add{name}")(b, value)
            options = getattr(tflite, f"{table}End")(b)
        ins, outs = _ints(b, inputs), _ints(b, outputs)
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, code)
        tflite.OperatorAddInputs(b, ins)
        tflite.OperatorAddOutputs(b, outs)
        if options is not None:
            tflite.OperatorAddBuiltinOptionsType(b, getattr(tflite.BuiltinOptions, table))
            tflite.OperatorAddBuiltinOptions(b, options)
        return tflite.OperatorEnd(b)


def _ints(b: Any, values: Sequence[int]) -> Any:
    return b.CreateNumpyVector(np.array(values, np.int32))


def _offsets(b: Any, values: Sequence[Any]) -> Any:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependUOffsetTRelative(value)
    return b.EndVector()
