"""Reads a model file: what it is, whether it is whole, and small values from beside it.

Takes: a path.  Leaves: a ModelProto that onnx's checker accepts, or that onnxruntime loads; weights
in further files stay there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import import_onnx
from csp_embed.network.onnx.runtime import PLAIN, open_session

SMALL_ELEMENTS = 4096
# onnx reads these by their ending; everything else is the binary form.
TEXT_FORMS = (".textproto", ".prototxt", ".pbtxt", ".onnxtxt", ".onnxtext", ".onnxjson")
SUFFIXES = (".onnx", ".pb", *TEXT_FORMS)
_CONVERT = "export or convert it to ONNX first"
# What a file is by its first bytes: (offset, bytes, name, what helps).
_MAGIC = (
    (4, b"ORTM", "onnxruntime's own format (.ort)", "give the .onnx that it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model", "pip install tf2onnx; python -m tf2onnx.convert "
     "--tflite MODEL.tflite --output MODEL.onnx"),
    (0, b"\x89HDF", "a HDF5 file (Keras?)", _CONVERT),
    (0, b"PK\x03\x04", "a zip archive (PyTorch, Keras or NumPy?)", _CONVERT),
    (0, b"\x80\x02", "a Python pickle (PyTorch?)", _CONVERT),
    (0, b"\x1f\x8b", "compressed with gzip", "gunzip it first"),
    (0, b"GGUF", "a GGUF model", _CONVERT),
    (0, b"version https://git-lfs", "a pointer of git-lfs, not the model", "git lfs pull"),
)  # fmt: skip


def is_model_file(path: str | Path) -> bool:
    """Whether a file is to be read as a network model rather than as a graph file: by its ending,
    else by its first bytes."""
    # Formats that are refused with a hint count too: they are models for sure.
    if Path(path).suffix.lower() in (*SUFFIXES, ".ort", ".tflite"):
        return True
    head = _head(path)
    return known_format(head) is not None or _is_binary(head)


def _is_binary(head: bytes) -> bool:
    """A ModelProto begins with its IR version (field 1, a small number)."""
    # Field 1 as varint: tag 8, then a version below 32.
    return head[:1] == b"\x08" and b"\x00" < head[1:2] < b"\x20"


def known_format(head: bytes) -> tuple[str, str] | None:
    """(what a file of these first bytes is, what helps) where it is surely no ONNX model."""
    for offset, mark, name, hint in _MAGIC:
        if head[offset : offset + len(mark)] == mark:
            return name, hint
    return None


def load(path: str | Path) -> Any:
    """The ModelProto of a file, its large external weights left where they are.

    Raises: InputError for a file that is missing, unreadable, of another format, truncated, or that
    neither onnx's checker nor onnxruntime accepts; MissingLibrary without onnx.
    """
    onnx = import_onnx()
    # Told before protobuf fails with a message about wire types.
    foreign = known_format(_head(path))
    if foreign is not None:
        raise InputError(f"this is {foreign[0]}, not ONNX", where=str(path), hint=foreign[1])
    try:
        # A binary file stays one, whatever it is called.
        form = "protobuf" if _is_binary(_head(path)) else None
        # Weights of gigabytes stay on disk until someone asks for values.
        model = onnx.load(str(path), format=form, load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(
            f"no such file: {error.filename or path}", where=str(path), hint="check the path"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot read {path}",
            where=str(path),
            why=error.strerror or str(error),
            hint="check the path",
        ) from error
    except Exception as error:  # protobuf's DecodeError, the text parsers' ParseError
        raise InputError(
            "not an ONNX model, or not a whole one",
            where=str(path),
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            hint="export it or copy it again; MODEL.onnx is protobuf's binary form",
        ) from error
    if not model.HasField("graph"):
        raise InputError(
            "not an ONNX model: it has no graph",
            where=str(path),
            why="the file is empty" if Path(path).stat().st_size == 0 else "",
            hint="export the model again",
        )
    # Shapes and indices are needed for inference; they are small.
    _load_small_external(model, Path(path))
    _check(model, path)
    return model


def _head(path: str | Path) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(32)
    except OSError:
        return b""  # whoever reads the file says why it cannot be read


def _check(model: Any, path: str | Path) -> None:
    """onnx's checker decides; where it refuses, onnxruntime may still run the model."""
    onnx = import_onnx()
    # Shapes of values are found here; whether the file declares one does not matter.
    bare = [
        # An absent shape is legal for values, but the checker wants one.
        v.type.tensor_type
        for v in (*model.graph.input, *model.graph.output, *model.graph.value_info)
        if v.type.HasField("tensor_type") and not v.type.tensor_type.HasField("shape")
    ]
    for kind in bare:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(_without_weights(model))
        return
    except onnx.checker.ValidationError as error:
        refusal = error
    finally:
        # Only for the check: an empty shape would later count as a scalar.
        for kind in bare:
            kind.ClearField("shape")
    lines = str(refusal).strip().splitlines() or ["?"]
    if "topologically sorted" in str(refusal):  # order is mended by `normalise`
        return
    try:
        open_session(model, str(path), form=PLAIN, folder=Path(path).parent)
    except InputError as error:
        raise InputError(
            "not a valid ONNX model", where=str(path), why=lines[0], hint=error.hint
        ) from refusal


def _load_small_external(model: Any, path: Path) -> None:
    """Reads shapes and indices that lie in a second file; large weights stay there."""
    onnx = import_onnx()
    for tensor in model.graph.initializer:
        # Integers are shapes, axes and indices; weights are not.
        shapes = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        small = shapes and math.prod(tensor.dims) <= SMALL_ELEMENTS
        if tensor.data_location != tensor.EXTERNAL or not small:
            continue
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise InputError(
                f"cannot read the external data of {tensor.name!r}",
                where=str(path),
                why=str(error).strip().splitlines()[0],
                hint="keep the model's data file beside it",
            ) from error
        # From here on the value lies in the model.
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]


def _without_weights(model: Any) -> Any:
    """A copy without external weights, which the checker would look for on disk."""
    if not any(t.data_location == t.EXTERNAL for t in model.graph.initializer):
        return model
    copy = type(model)()
    copy.CopyFrom(model)
    # Old models list initializers among the inputs.
    known = {i.name for i in copy.graph.input}
    for tensor in copy.graph.initializer:
        if tensor.data_location == tensor.EXTERNAL and tensor.name not in known:
            value = copy.graph.input.add()
            value.name = tensor.name
            value.type.tensor_type.elem_type = tensor.data_type
            value.type.tensor_type.shape.SetInParent()
            for extent in tensor.dims:
                value.type.tensor_type.shape.dim.add().dim_value = extent
    kept = [t for t in copy.graph.initializer if t.data_location != t.EXTERNAL]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy
