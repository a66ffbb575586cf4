"""The only place that opens onnxruntime sessions and runs them: settings, types that NumPy lacks,
and one clear error for a refusal."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.network.onnx.net import import_onnx
from csp_embed.network.onnx.runtime_limits import load_hint, version_hint

CPU = "CPUExecutionProvider"
# How a session rewrites its model. PLAIN: not at all: optimisations round quantised networks
# differently wherever they are cut. FAST: as onnxruntime does by itself. INTEGERS: quantised
# operators by their integer kernels throughout, which is the profile "onnxruntime": each has one
# rounding, wherever the model is cut between stored tensors.
PLAIN, FAST, INTEGERS = "plain", "fast", "integers"


def import_runtime() -> Any:
    """The onnxruntime package, or one error that says how to get it."""
    try:
        import onnxruntime  # pyright: ignore[reportMissingTypeStubs] (it has none)
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
    form: str = FAST,
    folder: Path | None = None,
    provider: str | None = None,
) -> Any:
    """An InferenceSession on the CPU, or on an execution provider.

    model: a ModelProto, or the path of a file.
    trace: record every kernel's time to a file of that prefix (`end_profiling` names it).
    rewritten: write the model as onnxruntime runs it, its weights in a second file. form: one of
    PLAIN, FAST, INTEGERS. folder: where a ModelProto's external weights lie. provider: an execution
    provider's name; what it does not take falls back to the CPU, as onnxruntime does.
    Raises: InputError naming IR version, opset and what the installed onnxruntime takes.
    """
    ort = import_runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # One graph thread: parallel branches would hide what a layer takes.
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # refusals are reported below, once
    # A spinning worker would steal the core of the next measurement.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if form == INTEGERS:
        # Off on x86 by default: int8 whose two ends do not meet would be computed in floats.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    if form == PLAIN:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    if rewritten is not None:
        options.optimized_model_filepath = str(rewritten)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{rewritten.name}.weights"
        )
    # Told before the session is opened, which would quietly fall back to the CPU.
    known_provider(provider, where)
    # The CPU takes what the provider lacks.
    providers = [p for p in (provider,) if p is not None and p != CPU] + [CPU]
    source = str(model) if isinstance(model, (str, Path)) else _serialised(model, where)
    try:
        return ort.InferenceSession(source, options, providers=providers)
    except Exception as error:  # onnxruntime raises its own family of exceptions
        named = not isinstance(model, (str, Path))
        raise InputError(
            f"onnxruntime {ort.__version__} cannot load this model"
            + (f" ({_facts(model)})" if named else ""),
            where=where,
            why=_short(str(error)),
            hint=load_hint(ort, model if named else None, where, str(error)),
        ) from error


def refusal_note(model: Any, where: str) -> str:
    """A sentence where onnxruntime does not take this model for its age, which says so only when it
    is run; else empty. model: a ModelProto as read from the file `where`."""
    try:
        ort = import_runtime()
    except MissingLibrary:
        return ""
    # Outside the limits alone: opening a session takes long for a large model.
    hint = version_hint(ort, model, where)
    if not hint:
        return ""
    try:
        open_session(where, where, form=PLAIN)
    except InputError:
        return (
            f"onnxruntime {ort.__version__} refuses this model ({_facts(model)}): it can be planned"
            f" but neither profiled nor run; {hint}"
        )
    return ""


def known_provider(name: str | None, where: str) -> None:
    """Raises: InputError where the installed onnxruntime lacks this execution provider."""
    if name is None:
        return
    ort = import_runtime()
    present = ort.get_available_providers()
    if name not in present:
        every = ort.get_all_providers()
        raise InputError(
            f"onnxruntime {ort.__version__} has no {name} here",
            where=where,
            why=f"this build has {', '.join(present)}"
            + (
                "" if name in every else f"; there is no provider of that name in {ort.__version__}"
            ),
            hint="install the build that has it (onnxruntime-gpu for CUDA and TensorRT, "
            "onnxruntime-openvino for OpenVINO), or name one that is present",
        )


def run_session(session: Any, names: Any, feeds: Mapping[str, Any], where: str) -> list[Any]:
    """NumPy arrays of the outputs. feeds: values of at least the session's inputs.

    Raises: InputError, mostly because random inputs mean nothing to this model.
    """
    # Values of all tensors may be given; a session refuses names it does not know.
    wanted = {i.name for i in session.get_inputs()}
    given = {n: v for n, v in feeds.items() if n in wanted}
    if not _needs_ort_values(session):
        return list(_own_error(partial(session.run, names, given), where))
    outputs = names or [o.name for o in session.get_outputs()]
    return [
        _to_numpy(v) for v in run_ort_values(session, outputs, ort_values(session, given), where)
    ]


def run_call(session: Any, feeds: Mapping[str, Any]) -> Callable[[], Any]:
    """What runs the session once on these values, and does nothing else: for measuring."""
    wanted = {i.name for i in session.get_inputs()}
    given = {n: v for n, v in feeds.items() if n in wanted}
    # Converted once, so that conversion is not measured.
    if _needs_ort_values(session):
        outputs = [o.name for o in session.get_outputs()]
        return partial(session.run_with_ort_values, outputs, ort_values(session, given))
    return partial(session.run, None, given)


def ort_values(session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The session's inputs as onnxruntime's own values."""
    ort = import_runtime()
    out: dict[str, Any] = {}
    for i in session.get_inputs():
        if i.name not in feeds:
            continue
        value = np.ascontiguousarray(feeds[i.name])
        kind = value.dtype
        # ml_dtypes' types (bfloat16, float8) are no builtins of NumPy.
        if kind.isbuiltin == 1 or kind.kind in "OUS":
            out[i.name] = ort.OrtValue.ortvalue_from_numpy(value)
        else:
            number = import_onnx().helper.np_dtype_to_tensor_dtype(kind)
            # Bits as integers of the same size, with their ONNX type told beside.
            bits = value.view(f"u{kind.itemsize}")
            out[i.name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, number)
    return out


def run_ort_values(
    session: Any, names: Sequence[str], feeds: Mapping[str, Any], where: str
) -> list[Any]:
    """OrtValues of the named outputs. Raises: InputError as `run_session`."""
    return list(_own_error(partial(session.run_with_ort_values, names, dict(feeds)), where))


def _own_error(call: Callable[[], Any], where: str) -> Any:
    """A call into onnxruntime with its exceptions as one clear error."""
    try:
        return call()
    except Exception as error:
        # RuntimeError: a type that Python's side of onnxruntime does not know. ValueError: a
        # missing input.
        own = type(error).__module__.startswith("onnxruntime")
        if not own and type(error) not in (RuntimeError, ValueError):
            raise
        raise InputError(
            "the model does not run on these inputs",
            where=where,
            why=_short(str(error)),
            hint="give inputs that mean something to it: --inputs FILE.npz",
        ) from error


def _needs_ort_values(session: Any) -> bool:
    """Whether a tensor at the border is of a type that NumPy has only by extension."""
    types = [v.type for v in (*session.get_inputs(), *session.get_outputs())]
    return any(mark in text for text in types for mark in ("bfloat16", "float8"))


def _to_numpy(value: Any) -> Any:
    onnx = import_onnx()
    if not value.is_tensor():
        return value.numpy()
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.element_type())
    if kind.isbuiltin == 1 or kind.kind in "OUS":
        return value.numpy()
    # Copied out: the buffer belongs to the OrtValue.
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, kind).reshape(value.shape())


def _serialised(model: Any, where: str) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # protobuf refuses messages of 2 GiB
        raise InputError(
            "the model is too large to run in one piece",
            where=where,
            why=str(error),
            hint="save it with external data (onnx.save_model, save_as_external_data=True)",
        ) from error


def _facts(model: Any) -> str:
    opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    return f"IR version {model.ir_version}, opset {opsets}"


def _short(text: str) -> str:
    """onnxruntime's message without source paths of its build machine."""
    line = " ".join(text.split())
    for mark in ("ModelProto&&", "const onnx"):
        # Template noise of C++ stands before the sentence.
        if mark in line and ") " in line:
            line = line.split(") ", 1)[1]
    return line[:400]
