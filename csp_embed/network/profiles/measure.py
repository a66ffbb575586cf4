"""`csp-embed profile`: measures every layer of a model on the CPU with onnxruntime.

Each layer has two times. Alone: cut out and run on the values that reach it in the whole model, as
a part of one layer would be. Inside: its share of the whole model's time, where onnxruntime fuses
across layers and keeps its own data layout. Warm-ups, then at least ten timed runs; the median
counts. One thread unless told otherwise.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.network import Device
from csp_embed.network.files.schema import read_bytes, sha256
from csp_embed.network.onnx.layers import Layer, layers
from csp_embed.network.onnx.net import Net, TensorInfo, import_onnx
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.network.onnx.runtime import import_runtime, open_session, run_call, run_session
from csp_embed.network.onnx.submodels import cut, whole
from csp_embed.network.onnx.weights import real_constants
from csp_embed.network.profiles.file import (
    Clock,
    DeviceNote,
    Granularity,
    LayerTime,
    ModelNote,
    Profile,
)
from csp_embed.network.profiles.in_context import kernel_ms
from csp_embed.network.profiles.roofline import is_roofline, roofline_ms
from csp_embed.network.profiles.work import work_of

WARM_UPS, RUNS = 3, 10
# Short calls are repeated for this long: ten runs of 50 us may all fall into one disturbance.
LEAST_MS, MOST_RUNS = 30.0, 300
# Half of the profiler's resolution: what a kernel takes that it counts as nothing.
TICK_MS = 0.5e-3
# thread_time counts one thread: hence no more than one with it.
CLOCKS = {"wall": time.perf_counter_ns, "cpu": time.thread_time_ns}
Progress = Callable[[str, int, int], None]
# (net, layer, device) -> (ms, origin), or the reason why there is none; see onnx/graph.py.
KernelCost = Callable[[Net, Layer, Device], "tuple[float, str] | str"]


def profile_model(
    path: str | Path,
    *,
    granularity: Granularity = "fused",
    threads: int = 1,
    runs: int = RUNS,
    warm_ups: int = WARM_UPS,
    dims: Mapping[str, int] | None = None,
    weights: str = "auto",
    seed: int = 0,
    clock: Clock = "wall",
    inputs: Mapping[str, NDArray[Any]] | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Times of every layer of a model.

    clock: "wall", or "cpu" (one thread only): the thread's own CPU time, which is the same on an
    idle machine and does not count what other programs take on a busy one. inputs: values of the
    model's inputs; random ones unless given.
    Raises: InputError for bad options, or a model that onnx or onnxruntime does not take.
    """
    if runs < RUNS or warm_ups < WARM_UPS:
        raise InputError(
            f"at least {RUNS} runs after {WARM_UPS} warm-ups", hint="a median of fewer is noise"
        )
    if clock not in CLOCKS or (clock == "cpu" and threads != 1):
        raise InputError(f"clock {clock!r} with {threads} threads", hint="wall, or cpu with one")
    net = read_model(path, dims, inputs)
    constants = real_constants(net, weights, seed)
    parts = layers(net, granularity)
    # Inner tensors come out as outputs: each layer is then run on what really reaches it.
    inner = [t for part in parts for t in part.makes if t not in net.outputs]
    feeds = dict(inputs) if inputs is not None else random_inputs(net, seed)
    check_inputs(net, feeds)
    session = open_session(whole(net, constants, inner), net.path, threads)
    names = [o.name for o in session.get_outputs()]
    values = feeds | dict(zip(names, run_session(session, names, feeds, net.path), strict=True))
    # Sessions hold all weights: one at a time.
    del session
    alone: dict[str, LayerTime] = {}
    for done, part in enumerate(parts):
        if progress is not None:
            progress(part.name, done, len(parts))
        model = cut(net, constants, part.nodes, part.name)
        session = open_session(model, f"{net.path}: layer {part.name}", threads)
        median, spread = measure(run_call(session, values), runs, warm_ups, clock)
        alone[part.name] = LayerTime(ms=None, alone_ms=median, op=part.op, spread_ms=spread)
    session = open_session(whole(net, constants), net.path, threads)
    # The whole without inner outputs: these would stop fusion.
    total, _ = measure(run_call(session, feeds), runs, warm_ups, clock)
    del session
    # What a call costs without work cannot be more than all of it.
    run_ms = min(total, _run_ms(runs, warm_ups, clock, threads))
    kernels = kernel_ms(net, constants, parts, feeds, threads=threads, runs=runs, warm_ups=warm_ups)
    shares = {
        # No kernel takes longer than its layer alone but for what other programs took meanwhile.
        n: max(TICK_MS, min(kernels[n], (t.alone_ms or 0.0) - run_ms))
        for n, t in alone.items()
    }
    # On a busy machine the empty call may seem to take longer than the whole model.
    inside = max(total - run_ms, TICK_MS * len(shares))
    run_ms = max(0.0, total - inside)
    # Shares are scaled to the measured whole: their sum is then what a run takes.
    scale = inside / (sum(shares.values()) or 1.0)
    times = {n: t.model_copy(update={"ms": scale * shares[n]}) for n, t in alone.items()}
    return Profile(
        format="csp-embed-profile/1",
        device=DeviceNote(kind="cpu", name=_cpu_name(), how="measured", software=_software()),
        model=ModelNote(name=Path(path).name, sha256=sha256(read_bytes(path))),
        granularity=granularity,
        threads=threads,
        runs=runs,
        warm_ups=warm_ups,
        weights=f"{weights}, seed {seed}",
        clock=clock,
        whole_ms=run_ms + inside,
        run_ms=run_ms,
        layers=times,
    )


def measure(
    call: Callable[[], Any], runs: int, warm_ups: int, clock: str = "wall"
) -> tuple[float, float]:
    """(median, distance between quartiles) of the call's time in ms by that clock, of at least
    `runs` calls and LEAST_MS."""
    now = CLOCKS[clock]
    for _ in range(warm_ups):
        call()
    samples: list[float] = []
    spent = 0.0
    # At least the runs, then until the time is enough.
    while len(samples) < runs or (spent < LEAST_MS and len(samples) < MOST_RUNS):
        begin = now()
        call()
        samples.append((now() - begin) / 1e6)
        spent += samples[-1]
    # Median and quartiles: one disturbed run moves neither.
    low, middle, high = np.percentile(samples, [25, 50, 75])
    return float(middle), float(high - low)


def _run_ms(runs: int, warm_ups: int, clock: str, threads: int) -> float:
    """What onnxruntime takes for a model that copies one number."""
    onnx = import_onnx()
    one = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    copy = onnx.helper.make_node("Identity", ["x"], ["y"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([copy], "copy", [one], [y]),
        opset_imports=[onnx.helper.make_opsetid("", 13)],
        ir_version=8,
    )
    session = open_session(model, "copy", threads)
    feeds = {"x": np.zeros(1, np.float32)}
    return measure(run_call(session, feeds), runs, warm_ups, clock)[0]


def random_inputs(net: Net, seed: int) -> dict[str, NDArray[Any]]:
    """A value for every graph input: floats normal, int8 over its whole range, other integers 0 or
    1 (they may be indices), booleans either."""
    # A number beside the seed: weights are drawn from it, too.
    rng = np.random.default_rng([seed, 7])
    return {name: _random(net.tensors[name], rng, net.path) for name in net.inputs}


def _random(info: TensorInfo, rng: Any, path: str) -> NDArray[Any]:
    onnx = import_onnx()
    kind = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(info.dtype))
    # NumPy draws no numbers of these types: they are cast.
    if info.dtype == "BFLOAT16" or info.dtype.startswith("FLOAT8"):  # extensions of NumPy
        return rng.standard_normal(info.shape).astype(kind)
    if kind.kind == "c":
        return (rng.standard_normal(info.shape) + 1j * rng.standard_normal(info.shape)).astype(kind)
    if kind.kind not in "biuf" or kind.isbuiltin != 1:
        raise InputError(
            f"cannot make random values of type {info.dtype}",
            where=path,
            why="onnxruntime takes no such inputs from NumPy",
            hint="cut the model behind its first layer, or widen that input",
        )
    if kind == np.bool_:
        return rng.integers(0, 2, info.shape).astype(bool)
    if kind in (np.int8, np.uint8):
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max + 1, info.shape).astype(kind)
    if np.issubdtype(kind, np.integer):
        return rng.integers(0, 2, info.shape).astype(kind)
    return rng.standard_normal(info.shape).astype(kind)


def read_inputs(path: str | Path) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz file by name. Raises: InputError."""
    hint = "a NumPy .npz file: numpy.savez(FILE, input_name=array)"
    read_bytes(path)
    # np.load would run pickles of a file that is no zip.
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no .npz file", where=str(path), hint=hint)
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"cannot read {path}", where=str(path), why=str(error), hint=hint
        ) from error


def check_inputs(net: Net, feeds: Mapping[str, NDArray[Any]]) -> None:
    """Raises: InputError where a value is missing or has another shape or type."""
    onnx = import_onnx()
    # Inputs that nobody reads may be missing.
    for name in net.read_inputs():
        info = net.tensors[name]
        if name not in feeds:
            raise InputError(
                f"no value for the model's input {name!r}",
                where=net.path,
                why="there are values for " + (", ".join(list(feeds)[:8]) or "nothing"),
                hint=f"numpy.savez(FILE, {name}=array of {info.dtype}{list(info.shape)})",
            )
        number = onnx.TensorProto.DataType.Value(info.dtype)
        kind = onnx.helper.tensor_dtype_to_np_dtype(number)
        if feeds[name].shape != info.shape or feeds[name].dtype != kind:
            raise InputError(
                f"input {name!r} is {feeds[name].dtype}{list(feeds[name].shape)}",
                where=net.path,
                why=f"the model takes {kind}{list(info.shape)}",
                hint="give it so, or other extents by --dim",
            )


def _software() -> str:
    ort = import_runtime()
    return f"onnxruntime {ort.__version__}"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    import platform

    return platform.processor() or platform.machine()


def modelled_profile(
    path: str | Path,
    device: Device,
    *,
    granularity: Granularity = "fused",
    dims: Mapping[str, int] | None = None,
    batches: Sequence[int] = (),
    kernel_cost: KernelCost | None = None,
) -> Profile:
    """A profile that is not a measurement: cycles of compiled kernels (layers without one have no
    time) where the device names an `isa`, else the roofline model.

    Raises: InputError where the device is neither.
    """
    kernels = device.isa is not None and kernel_cost is not None
    if not kernels and not is_roofline(device):
        raise InputError(
            f"device {device.name} has no peak_ops_per_ms and no isa",
            hint="give it one of them in the platform file, or measure: csp-embed profile",
        )
    net = read_model(path, dims)
    times: dict[str, LayerTime] = {}
    for part in layers(net, granularity):
        if kernels:
            assert kernel_cost is not None
            found = kernel_cost(net, part, device)
            times[part.name] = LayerTime(
                ms=None if isinstance(found, str) else found[0], op=part.op
            )
            continue
        work = work_of(net, part)
        times[part.name] = LayerTime(
            ms=roofline_ms(work, device),
            op=part.op,
            by_batch={n: roofline_ms(work, device, n) for n in batches},
        )
    how = "simulated" if kernels else "roofline"
    note = "analytical, not measured: max(operations / peak, bytes / rate) + overhead"
    if kernels:
        note = f"cycles of compiled programs at {device.clock_mhz:g} MHz; null: no program"
    return Profile(
        format="csp-embed-profile/1",
        device=DeviceNote(kind=device.kind, name=device.name, how=how),
        model=ModelNote(name=Path(path).name, sha256=sha256(read_bytes(path))),
        granularity=granularity,
        notes=note,
        layers=times,
    )
