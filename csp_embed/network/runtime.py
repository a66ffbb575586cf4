"""The only place that opens onnxruntime sessions: settings, and one clear error for a refusal."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError, MissingLibrary


def import_runtime() -> Any:
    """The onnxruntime package, or one error that says how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingLibrary(
            "running ONNX models needs the package onnxruntime",
            why=str(error),
            hint="pip install 'csp-embed[onnx]'",
        ) from error
    return onnxruntime


def open_session(
    model: Any,
    where: str,
    threads: int = 1,
    trace: Path | None = None,
    rewritten: Path | None = None,
) -> Any:
    """An InferenceSession on the CPU. `model`: a ModelProto, or the path of a file.

    trace: record every kernel's time to a file of that prefix (`end_profiling` names it).
    rewritten: write the model as onnxruntime runs it, its weights in a second file.
    Raises: InputError naming IR version, opset and what the installed onnxruntime takes.
    """
    ort = import_runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # refusals are reported below, once
    # A spinning worker would steal the core of the next measurement.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    if rewritten is not None:
        options.optimized_model_filepath = str(rewritten)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{rewritten.name}.weights"
        )
    source = str(model) if isinstance(model, (str, Path)) else _serialised(model, where)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own family of exceptions
        facts = "" if isinstance(model, (str, Path)) else f" ({_facts(model)})"
        raise InputError(
            f"onnxruntime {ort.__version__} cannot load this model{facts}",
            where=where,
            why=_short(str(error)),
            hint=f"export it with {_limits()}",
        ) from error


def run_session(session: Any, names: Any, feeds: dict[str, Any], where: str) -> list[Any]:
    """session.run with onnxruntime's own exceptions as one clear error.

    Raises: InputError, mostly because random inputs mean nothing to this model.
    """
    try:
        return list(session.run(names, feeds))
    except Exception as error:
        # RuntimeError: a type that Python's side of onnxruntime does not know.
        if not type(error).__module__.startswith("onnxruntime") and type(error) is not RuntimeError:
            raise
        raise InputError(
            "the model does not run on these inputs",
            where=where,
            why=_short(str(error)),
            hint="give inputs that mean something to it: --inputs FILE.npz",
        ) from error


def _serialised(model: Any, where: str) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # protobuf refuses messages of 2 GiB
        raise InputError(
            "the model is too large to run in one piece", where=where, why=str(error)
        ) from error


@cache
def _limits() -> str:
    """What this onnxruntime takes at most: it says so when asked for too much."""
    from csp_embed.network.onnx_model import import_onnx

    onnx, ort = import_onnx(), import_runtime()
    found = []
    for name, ir, opset, mark in (
        ("IR version", 999, 13, "max supported IR version:"),
        ("opset", 8, 999, "is till opset"),
    ):
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
        try:
            ort.InferenceSession(model.SerializeToString(), options)
        except _own_errors(ort) as error:
            number = re.search(rf"{mark} *(\d+)", str(error))
            found += [f"{name} {number[1]} or less"] if number else []
    return " and ".join(found) or "an IR version and opset that this onnxruntime takes"


def _own_errors(ort: Any) -> tuple[type[Exception], ...]:
    """onnxruntime's exceptions have no common parent of their own."""
    found = vars(ort.capi.onnxruntime_pybind11_state).values()
    return (
        RuntimeError,
        *(e for e in found if isinstance(e, type) and issubclass(e, Exception)),
    )


def _facts(model: Any) -> str:
    opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    return f"IR version {model.ir_version}, opset {opsets}"


def _short(text: str) -> str:
    """onnxruntime's message without source paths of its build machine."""
    line = " ".join(text.split())
    for mark in ("ModelProto&&", "const onnx"):
        if mark in line and ") " in line:
            line = line.split(") ", 1)[1]
    return line[:400]
