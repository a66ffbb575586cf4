"""Data-sheet facts of accelerators, for tables that nobody measured.

memory_bytes; flops: dense fp16 with tensor cores, fp32 accumulation (sheets that give the rate with
sparsity are halved); bytes_per_s of device memory. The makers' sheets could not be opened from
here; each figure was read in a public copy of them:

    A10, A100, L4, L40S, T4, V100: memory, flops;      github.com/winston-zhang-orz/gpu-specs,
    bytes_per_s of all but T4                          its table at 097f0fb (gmasse/gpu-specs)
    H100-PCIE: memory, flops                           the same (with sparsity: 1,513 TFLOPS)
    H100-SXM, H200, A100-80GB; L4 again                inferenceengineering.tech, cheat sheets
    H100-PCIE: bytes_per_s                             github.com/lijun99/GPU-Resources
    T4: flops, bytes_per_s                             huggingface.co/RajBhope, gpu_catalog.json
    RTX-3090: memory, bytes_per_s; int8 285 TOPS       github.com/stillwater-sc/KPU-Simulator
    RTX-4090: memory, bytes_per_s                      gpu-specs as above

Where copies differ: T4 has 300 GB/s in gpu-specs and 320 elsewhere; its clock (5,001 MHz, two
transfers each, 256 bits) gives 320. Derived, not read: flops of the RTX cards, a quarter of their
dense int8 rate (their tensor cores run at half rate with fp32 accumulation).
"""

from __future__ import annotations

from dataclasses import dataclass

from csp_embed.errors import InputError
from csp_embed.nearest import nearest


@dataclass(frozen=True)
class Gpu:
    """Peak figures of one device."""

    memory_bytes: float
    flops: float
    bytes_per_s: float


GPUS = {
    "A10": Gpu(24e9, 125e12, 600e9),
    "A100-40GB": Gpu(40e9, 312e12, 1.555e12),
    "A100-80GB": Gpu(80e9, 312e12, 2.039e12),
    "H100-PCIE": Gpu(80e9, 756e12, 2.0e12),
    "H100-SXM": Gpu(80e9, 989e12, 3.35e12),
    "H200": Gpu(141e9, 989e12, 4.8e12),
    "L4": Gpu(24e9, 121e12, 300e9),
    "L40S": Gpu(48e9, 362e12, 864e9),
    "RTX-3090": Gpu(24e9, 71e12, 936e9),
    "RTX-4090": Gpu(24e9, 165e12, 1.008e12),
    "T4": Gpu(16e9, 65e12, 320e9),
    "V100-16GB": Gpu(16e9, 125e12, 900e9),
    "V100-32GB": Gpu(32e9, 125e12, 900e9),
}


def gpu_named(name: str, where: str) -> Gpu:
    """A device of the table. Raises: InputError with near names."""
    if name in GPUS:
        return GPUS[name]
    # A few near ones, else all.
    near = nearest(name, GPUS, 3, cutoff=0.3) or sorted(GPUS)
    raise InputError(
        f"no GPU {name!r} in the table",
        where=where,
        hint="one of " + ", ".join(near) + "; or give memory_bytes, flops and bytes_per_s",
    )
