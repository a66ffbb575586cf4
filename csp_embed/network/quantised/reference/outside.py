"""Parts of a network that a runtime computes in floating point: onnxruntime is the reference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from csp_embed.network.onnx.net import import_onnx
from csp_embed.network.onnx.runtime import open_session, run_session

Array = NDArray[Any]


@lru_cache(maxsize=64)
def _session(model: bytes, where: str) -> Any:
    # By content: the same part is opened once, however often it runs.
    return open_session(import_onnx().ModelProto.FromString(model), where)


def run_outside(model: bytes, feeds: Mapping[str, Array], where: str) -> Array:
    """The one output of a serialised ONNX model. where: the file that it was cut from.

    Raises: InputError where onnxruntime cannot load or run it; MissingLibrary without it.
    """
    return run_session(_session(model, where), None, feeds, where)[0]
