"""Shapes by running the model once in onnxruntime, which knows more operators than onnx does.

Without given inputs a shape counts only where inputs of zeros, ones and random values agree on it:
one that depends on values is then seen, and stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.narrow import is_array
from csp_embed.network.onnx.net import TensorInfo, import_onnx, tensors_of
from csp_embed.network.onnx.runtime import (
    PLAIN,
    open_session,
    ort_values,
    run_ort_values,
    run_session,
)

ASKS_FOR_VALUES = "the values of the model's inputs decide it"


def shapes_by_running(
    model: Any, names: Sequence[str], feeds: Mapping[str, Any] | None, path: str
) -> tuple[dict[str, TensorInfo], str]:
    """(type and shape of those of the tensors that have one, why the others have none).

    feeds: values of the model's inputs, which settle every shape; None tries several.
    """
    probe = type(model)()
    # Copied: asking for inner tensors adds outputs.
    probe.CopyFrom(model)
    already = {o.name for o in probe.graph.output}
    onnx = import_onnx()
    probe.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in already
    )
    try:
        # Plain: optimisation could fold away the tensors that are asked for.
        session = open_session(probe, path, form=PLAIN, folder=Path(path).parent)
    except (InputError, MissingLibrary) as error:
        return {}, error.why or error.what
    tried: list[dict[str, TensorInfo]] = []
    for values in [feeds] if feeds is not None else _tries(probe.graph):
        try:
            tried.append(_shapes(session, names, values, path))
        except InputError as error:
            # Values that the model does not run on may be those that would show a difference.
            return {}, error.why
    # Only what all tries agree on is a shape; the others depend on values.
    agreed = {
        name: info
        for name, info in tried[0].items()
        if all(other.get(name) == info for other in tried[1:])
    }
    return agreed, "" if len(agreed) == len(tried[0]) else ASKS_FOR_VALUES


def _tries(graph: Any) -> Iterator[dict[str, Any]]:
    """Values of all inputs: zeros, ones, random ones."""
    onnx = import_onnx()
    known = tensors_of(graph)
    rng = np.random.default_rng(7)
    infos = [known[i.name] for i in graph.input if i.name in known]
    kinds = {
        info.name: onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(info.dtype))
        for info in infos
    }
    draws: tuple[Callable[[tuple[int, ...]], NDArray[Any]], ...]
    # 0 to 2: small enough for indices of short axes.
    draws = (np.zeros, np.ones, lambda shape: rng.integers(0, 3, shape))
    for draw in draws:
        yield {
            i.name: np.full(i.shape, "", object)  # nobody reads it, or the model is refused
            if i.dtype == "STRING"
            else np.asarray(draw(i.shape)).astype(kinds[i.name])
            for i in infos
        }


def _shapes(
    session: Any, names: Sequence[str], feeds: Mapping[str, Any], path: str
) -> dict[str, TensorInfo]:
    """Of tensors; sequences, optionals and strings have no size."""
    onnx = import_onnx()
    found: dict[str, TensorInfo] = {}
    # In the session's order, which is that of its results.
    names = [o.name for o in session.get_outputs() if o.name in set(names)]
    tensors = {o.name for o in session.get_outputs() if o.type.startswith("tensor(")}
    if any(np.asarray(v).dtype.kind in "OUS" for v in feeds.values()):
        # onnxruntime's own values cannot be made of strings; NumPy's hold no bfloat16, which then
        # has its own error.
        for name, value in zip(names, run_session(session, names, feeds, path), strict=True):
            if is_array(value) and value.dtype.kind not in "OUS":
                number = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                dtype = onnx.TensorProto.DataType.Name(number)
                found[name] = TensorInfo(name, dtype, value.shape)
        return found
    values = run_ort_values(session, list(names), ort_values(session, feeds), path)
    for name, value in zip(names, values, strict=True):
        # An empty optional has no value.
        if name in tensors and value.has_value():
            dtype = onnx.TensorProto.DataType.Name(value.element_type())
            if dtype != "STRING":
                found[name] = TensorInfo(name, dtype, tuple(value.shape()))
    return found
