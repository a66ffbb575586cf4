"""Data-sheet facts of accelerators, for tables that nobody measured.

memory_bytes; flops: dense fp16 with tensor cores, fp32 accumulation; bytes_per_s of device memory.
They go back to the makers' data sheets (sheets that give the rate with sparsity are halved), which
could not be opened from here. What could be compared with others' copies of them:

    flops of A100, H100, A10, L4, T4, V100 (SXM)    Lightning 2.6.6 (fabric/utilities/throughput.py)
    all of A100, H100, V100, and A10's rates        llm-analysis 0.2.2 (gpu_configs/)
    flops of RTX 3090 and 4090                      a quarter of Lightning's int8 figures

All agree. From memory alone: L40S and H200, memory rates of L4, T4 and the RTX cards, sizes of L4,
T4, A10 and the RTX cards. `memory_bytes`, `flops` and `bytes_per_s` of a server override any.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from csp_embed.errors import InputError


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
    near = get_close_matches(name.upper(), GPUS, n=3, cutoff=0.3) or sorted(GPUS)
    raise InputError(
        f"no GPU {name!r} in the table",
        where=where,
        hint="one of " + ", ".join(near) + "; or give memory_bytes, flops and bytes_per_s",
    )
