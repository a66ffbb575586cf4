"""Single kernels of devices that name an `isa`: layers of networks that are no whole quantised ones
(ConvInteger chains, float layers counted as int8).

The compiler is imported when a device needs it, never before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible
from csp_embed.ir.network import Device
from csp_embed.network.onnx.layers import Layer
from csp_embed.network.onnx.net import Net
from csp_embed.network.onnx.quantised_chains import QuantLayer, quantised_layer
from csp_embed.run.devices import clock_of

Array = NDArray[Any]
Progress = Callable[[str, int, int], None]


class Kernels:
    """Costs of layers: cycles of each one's kernel over the clock. Equal ones are compiled once."""

    def __init__(self, assume_int8: bool, progress: Progress | None = None) -> None:
        self.assume_int8, self.progress = assume_int8, progress
        # A text is remembered too: what has no embedding is not tried again.
        self.known: dict[tuple[Any, ...], int | str] = {}

    def __call__(self, net: Net, layer: Layer, device: Device) -> tuple[float, str] | str:
        found = quantised_layer(net, layer, self.assume_int8)
        if isinstance(found, str):
            return found
        clock = clock_of(device)
        # Equal layers on equal machines.
        key = (device.isa, device.vta_config, *found.key)
        if key not in self.known:
            if self.progress is not None:
                self.progress(f"compiling {layer.name}", len(self.known), len(self.known) + 1)
            try:
                self.known[key] = _kernel(found, device).cycles
            except Infeasible as error:
                # Not on this machine: the layer may still run elsewhere.
                self.known[key] = error.what
        cycles = self.known[key]
        if isinstance(cycles, str):
            return cycles
        origin = f"compiled kernel, {cycles} cycles at {clock:g} MHz"
        # Without weights nothing was quantised: int8 is an assumption.
        if found.w is None:
            origin += ", int8 assumed"
        # MHz are thousands of cycles in a millisecond.
        return cycles / (clock * 1e3), origin


def compile_layer(layer: QuantLayer, device: Device) -> Callable[[Array], tuple[Array, int]]:
    """The kernel of a quantised chain as a function from x to (y, cycles)."""
    kernel = _kernel(layer, device)

    def run(x: Array) -> tuple[Array, int]:
        y = kernel.run(x, layer.w, layer.b)
        return np.asarray(y, dtype=np.int8), int(kernel.cycles or 0)

    return run


def _kernel(layer: QuantLayer, device: Device) -> Any:
    from csp_embed import ops
    from csp_embed.compiler import driver

    # By name: a layer says which operator computes it.
    operator = getattr(ops, layer.call)(**layer.arguments)
    return driver.compile(operator, device.isa or "vta", b=layer.b, config=device.vta_config)
