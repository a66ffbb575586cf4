"""Devices inside this process: the simulator of our own kernels, or nobody ("by cost": values come
from a hidden CPU run, the time is the predicted one)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import InputError, SimError
from csp_embed.ir.network import Device
from csp_embed.network.onnx.graph import Imported
from csp_embed.network.onnx.quantised_chains import QuantLayer, quantised_layer
from csp_embed.network.onnx.runtime import FAST, open_session
from csp_embed.run.device_parts import Part
from csp_embed.run.runner import BY_COST, SIMULATED, Array, Done, Ran, Timing
from csp_embed.run.turn import Turn
from csp_embed.run.worker import run_once

# (layer with its weights, device) -> what runs it: x in the layer's shape -> (y, cycles)
Compile = Callable[[QuantLayer, Device], "Callable[[Array], tuple[Array, int]]"]


def clock_of(device: Device) -> float:
    """MHz. Raises: InputError where the platform does not say it."""
    if device.clock_mhz is None:
        raise InputError(
            f"device {device.name} needs clock_mhz to turn cycles into time",
            hint="write the device's clock into the platform file: clock_mhz: 100",
        )
    return device.clock_mhz


class Inside:
    """Runs in this process; `start` does the work."""

    lanes = 1

    def __init__(self) -> None:
        self.result: Done | None = None

    # `start` has done the work already.
    def ready(self, timeout: float) -> bool:
        return self.result is not None

    def finish(self) -> Done:
        # Taken away: the next `ready` must not find the old result.
        done, self.result = self.result, None
        assert done is not None
        return done

    def close(self) -> None:
        """Nothing to release."""


class ByCost(Inside):
    """A device that is not here: right values, the predicted time."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[int, Any] = {}

    def load(self, part: Part, path: Path, form: str = FAST) -> None:
        if form != FAST or part.index not in self.sessions:  # never measured: one session is enough
            self.sessions[part.index] = open_session(path, part.name, form=form)

    def start(self, part: Part, feeds: Mapping[str, Array]) -> None:
        given = {n: feeds[n] for n in part.reads}
        outputs = run_once(self.sessions[part.index], given, part.name)
        self.result = Done(part.index, outputs)

    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran:
        """Takes the predicted time, or longer where the hidden run does."""
        begin = time.perf_counter()
        self.start(part, feeds)
        # The predicted time passes for real: other devices wait as they would.
        time.sleep(max(0.0, part.predicted_ms / 1e3 - (time.perf_counter() - begin)))
        return Ran(self.finish().outputs, part.predicted_ms)

    def time(self, part: Part, feeds: Mapping[str, Array], timing: Timing) -> tuple[float, str]:
        return part.predicted_ms, BY_COST


class KernelSimulator(Inside):
    """Runs quantised chains as compiled kernels on the functional simulator; ms = cycles / clock.

    Equal inputs give equal outputs, so a repeated run is answered from the first. ties: by part
    with a `half_up` layer and by tensor, elements that ONNX would round down.
    """

    def __init__(self, device: Device, model: Imported, compile_layer: Compile) -> None:
        super().__init__()
        self.device, self.model, self.compile = device, model, compile_layer
        self.clock = clock_of(device)
        # By task: a part that is loaded again (plain, then optimised) compiles nothing anew.
        self.kernels: dict[str, tuple[QuantLayer, Callable[[Array], tuple[Array, int]]]] = {}
        self.seen: dict[int, tuple[dict[str, Array], Done]] = {}
        self.cycles: dict[int, int] = {}
        self.ties: dict[int, dict[str, int]] = {}

    def load(self, part: Part, path: Path, form: str = FAST) -> None:
        for task in part.tasks:
            if task in self.kernels:
                continue
            found = quantised_layer(self.model.net, self.model.layers[task])
            # Why not, in words.
            if isinstance(found, str):
                raise InputError(
                    f"{self.device.name} cannot run {task!r}",
                    why=found,
                    hint="only quantised integer chains run there; --assume-int8 is for costs only",
                )
            self.kernels[task] = (found, self.compile(found, self.device))

    def start(self, part: Part, feeds: Mapping[str, Array]) -> None:
        given = {n: feeds[n] for n in part.reads}
        if part.index in self.seen:
            # Simulating takes minutes, and measuring repeats equal inputs.
            before, done = self.seen[part.index]
            if all(np.array_equal(given[n], before[n]) for n in given):
                self.result = done
                return
        values, total = dict(given), 0
        # Kernels round half up where ONNX rounds half to even: such parts need their ties counted.
        tied = any(self.kernels[task][0].half_up for task in part.tasks)
        for task in part.tasks:
            layer, kernel = self.kernels[task]
            # Kernels want the layer's own shape; tensors may be flattened between layers.
            x = np.ascontiguousarray(values[layer.x].reshape(layer.x_shape))
            y, cycles = kernel(x)
            if tied:
                self.ties.setdefault(part.index, {})[layer.y] = count_ties(layer, x, y)
            values[layer.y] = y.reshape(self.model.net.tensors[layer.y].shape)
            total += cycles
        self.result = Done(part.index, {n: values[n] for n in part.makes})
        self.seen[part.index] = (given, self.result)
        self.cycles[part.index] = total

    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran:
        # A rate would be that of the simulator, not of the device.
        raise InputError(
            f"{self.device.name} is simulated, cycle by cycle: it has no rate of its own",
            hint="leave out --in-flight, or put its layers elsewhere with --fix",
        )

    def time(self, part: Part, feeds: Mapping[str, Array], timing: Timing) -> tuple[float, str]:
        return self.cycles[part.index] / (self.clock * 1e3), SIMULATED


def count_ties(layer: QuantLayer, x: Array, y: Array) -> int:
    """Elements of a `half_up` layer that round half up here and half to even in ONNX; 0 of others.

    Raises: SimError where y differs from the reference by anything else.
    """
    from csp_embed import ops
    from csp_embed.ops.reference import evaluate

    operator = getattr(ops, layer.call)(**layer.arguments)
    operands = {"x": x, "w": layer.w} | ({} if layer.b is None else {"b": layer.b})
    found = evaluate(operator, operands)
    # The simulator against NumPy: any other difference is our mistake, no tie.
    if not np.array_equal(found["y"], y):
        raise SimError(
            f"the kernel of {layer.y!r} differs from its reference",
            hint="this is our mistake; csp-embed compile of this layer shows where",
        )
    if not layer.half_up:
        return 0
    # `half_up` layers carry their rounding in the bias, so there is one.
    assert layer.b is not None
    total = found["acc"].astype(np.int64) + layer.b.reshape(1, -1, 1, 1)
    shift = layer.arguments["shift"]
    up = total >> shift
    # A tie whose upper neighbour is odd: ONNX takes the one below.
    even = up - ((total & ((1 << shift) - 1) == 0) & (up & 1 == 1))
    return int((np.clip(up, -128, 127) != np.clip(even, -128, 127)).sum())


def cores() -> list[int | None]:
    """Cores that this process may use, in order; [None] where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return list(sorted(os.sched_getaffinity(0)))
    return [None]
