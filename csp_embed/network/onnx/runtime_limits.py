"""Which models the installed onnxruntime takes, and what helps one that it does not."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from csp_embed.network.onnx.net import import_onnx

# onnxruntime promises nothing below; many operators have no kernel there.
LEAST_OPSET = 7


def load_hint(ort: Any, model: Any | None, where: str, reason: str) -> str:
    """What to try when onnxruntime refuses a model. model: None where only its file is known."""
    onnx = import_onnx()
    if model is None:
        if not Path(where).is_file():
            return f"export it with {limits_text(ort)}"
        model = onnx.load(where, load_external_data=False)
    found = version_hint(ort, model, where)
    if found:
        return found
    if "is not a registered function/op" in reason:
        return "operators of one's own have costs by --profile FILE only: partition plans them"
    if "NOT_IMPLEMENTED" in reason or "NotImplemented" in reason:
        return "onnxruntime has no CPU kernel for that: export with another type or opset"
    return f"mend what the reason names, or export it with {limits_text(ort)}"


def version_hint(ort: Any, model: Any, where: str) -> str:
    """What to try for an IR version or opset outside the limits; empty: both are inside."""
    onnx = import_onnx()
    most_ir, most_opset = limits(ort)
    # The standard domain has two names.
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    new_ir = most_ir is not None and model.ir_version > most_ir
    high, low = most_opset is not None and opset > most_opset, 0 < opset < LEAST_OPSET
    if not (new_ir or high or low):
        return ""
    fits = f"export it with {limits_text(ort)}"
    if not Path(where).is_file():
        return fits
    # Not newer than needed: opset 17 is what every release of the last years takes.
    target = most_opset if high else max(LEAST_OPSET, min(17, most_opset or 17))
    steps = ["import onnx, onnx.version_converter as v", f"m = onnx.load({where!r})"]
    if new_ir:
        steps.append(f"m.ir_version = {most_ir}")
    if high or low:
        copy = type(model)()
        copy.CopyFrom(model)
        copy.ir_version = min(copy.ir_version, most_ir or copy.ir_version)
        # Tried here: a hint must work when it is pasted.
        try:
            onnx.version_converter.convert_version(copy, target)
        except (RuntimeError, ValueError, onnx.version_converter.ConvertError):
            return fits  # the converter lacks a step; only the exporter can help
        steps.append(f"m = v.convert_version(m, {target})")
    steps.append("onnx.save(m, 'converted.onnx')")
    which = "too new" if new_ir or high else "too old"
    return f'it is {which} for onnxruntime; python -c "{"; ".join(steps)}", or {fits}'


def limits_text(ort: Any) -> str:
    """`IR version 13 or less and opset 7 or more and 26 or less`, as far as known."""
    ir, opset = limits(ort)
    found = [] if ir is None else [f"IR version {ir} or less"]
    found += [] if opset is None else [f"opset {LEAST_OPSET} or more and {opset} or less"]
    return " and ".join(found) or "an IR version and opset that this onnxruntime takes"


@cache
def limits(ort: Any) -> tuple[int | None, int | None]:
    """(IR version, opset) that this onnxruntime takes at most: it says so when asked for too much;
    None where it does not."""
    onnx = import_onnx()
    found: list[int | None] = []
    # Each model asks for one thing too much; the refusal names the limit.
    for ir, opset, mark in ((999, 13, "max supported IR version:"), (8, 999, "is till opset")):
        value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "probe", [value], [out]),
            opset_imports=[onnx.helper.make_opsetid("", opset)],
            ir_version=ir,
        )
        options = ort.SessionOptions()
        options.log_severity_level = 4
        found.append(None)
        try:
            ort.InferenceSession(model.SerializeToString(), options)
        except _own_errors(ort) as error:
            # Messages differ by release; no number means no known limit.
            number = re.search(rf"{mark} *(\d+)", str(error))
            found[-1] = int(number[1]) if number else None
    return found[0], found[1]


def _own_errors(ort: Any) -> tuple[type[Exception], ...]:
    """onnxruntime's exceptions have no common parent of their own."""
    found: dict[str, Any] = ort.capi.onnxruntime_pybind11_state.__dict__
    return (
        RuntimeError,
        *(e for e in found.values() if isinstance(e, type) and issubclass(e, Exception)),
    )
