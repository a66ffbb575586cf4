"""One way in for both formats, by the file's own first bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from csp_embed.errors import InputError
from csp_embed.files import readable
from csp_embed.network.quantised.graph import Graph
from csp_embed.network.quantised.onnx.graph import read_onnx
from csp_embed.network.quantised.tflite.graph import read_tflite


def read_quantised(path: str | Path, dims: Mapping[str, int] | None = None) -> Graph:
    """The graph of a TFLite or ONNX file. dims: extents of named dimensions (ONNX only).

    Raises: InputError, MissingLibrary, as `read_tflite` and `read_onnx`.
    """
    path = Path(path)
    if not is_tflite(path):
        return read_onnx(path, dims)
    without_dims(path, dims)
    return read_tflite(path)


def without_dims(path: Path, dims: Mapping[str, int] | None) -> None:
    """Raises: InputError where extents are given for a TFLite file."""
    if dims:
        raise InputError(
            "--dim has no effect on a TFLite model",
            where=str(path),
            why="its dimensions have no names",
            hint="leave out --dim",
        )


def is_tflite(path: str | Path) -> bool:
    """Whether a model file is TFLite: by its content first, then by its ending.

    Raises: InputError for a path that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder", where=str(path), hint="give the model file in it")
    with readable(path, "check the path"), path.open("rb") as file:
        # Eight bytes hold both marks; a model may be large.
        head = file.read(8)
    return head[4:] == b"TFL3" or path.suffix.lower() == ".tflite"
