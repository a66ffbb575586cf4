"""The analytical device: a layer takes the larger of its compute and its memory time.

    ms = max(ops / (peak_ops_per_ms * efficiency), bytes / bytes_per_ms) + overhead_ms

Its costs are marked `roofline` wherever they appear: they are a model, not a measurement.
Source: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

from csp_embed.ir.network import Device
from csp_embed.network.profiles.work import Work


def is_roofline(device: Device) -> bool:
    """Whether the device says enough for this model."""
    return device.peak_ops_per_ms is not None


def roofline_ms(work: Work, device: Device, batch: int = 1) -> float:
    """ms for `batch` samples: activations and operations scale, weights are read once."""
    assert device.peak_ops_per_ms is not None
    # Weights do not count: more samples use the same operations each.
    compute = batch * work.ops / (device.peak_ops_per_ms * efficiency(work, device))
    memory = 0.0
    if device.bytes_per_ms is not None:
        traffic = batch * (work.read_bytes + work.written_bytes) + work.weight_bytes
        memory = traffic / device.bytes_per_ms
    return max(compute, memory) + device.overhead_ms


def efficiency(work: Work, device: Device) -> float:
    """The share of the peak that this layer reaches: by kind, else by operator, else `default`."""
    # Finer kinds first: a 1x1 convolution runs at another rate than a depthwise one.
    table = device.efficiency
    return table.get(work.kind, table.get(work.op, table.get("default", 1.0)))


def describe(work: Work, device: Device) -> str:
    """The origin text of a cost: which of the two bounds it."""
    assert device.peak_ops_per_ms is not None
    compute = work.ops / (device.peak_ops_per_ms * efficiency(work, device))
    # The same rule as in `roofline_ms`, without overhead.
    memory = work.bytes / device.bytes_per_ms if device.bytes_per_ms else 0.0
    guess = f", a guess: {'; '.join(work.guesses)}" if work.guesses else ""
    return f"roofline ({'compute' if compute >= memory else 'memory'} bound{guess})"
