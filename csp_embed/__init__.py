"""csp_embed: from tensor formulas to accelerator programs by constraint solving.

Folders, in the order in which data flows:
    isa/        an accelerator's instruction set as data: specs, bits, listings, program files
    ops/        tensor operators as formulas, with NumPy references
    embed/      which scalar operation runs in which lane: the constraint models, layouts
    schedule/   tiles, loop order, buffers, tokens; chosen by simulated cycles
    emit/       instructions, micro-ops, DRAM images
    sim/        values, cycles, checks: the judges, which share no code with the builders
    report/     tables, pictures, HTML
    network/    layer graphs, platforms, profiles; run/ executes plans
    partition/  which device runs which layer when
    serving/    which layers of a large model stand on which servers
`ir/` holds the values between stages, `driver.py` runs them in order, `cli.py` and `commands/` are
the command line.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> module. Resolved on first use, so that `csp-embed --help` loads no solver.
_NAMES = {
    "compile": "csp_embed.driver",
    "Kernel": "csp_embed.kernel",
    "Options": "csp_embed.driver",
    "load_isa": "csp_embed.isa.load",
    "partition": "csp_embed.partition",
    "serve": "csp_embed.serving",
    **dict.fromkeys(
        (
            "avg_pool2d", "batch_matmul", "conv1d", "conv2d", "conv3d", "conv_transpose2d", "dense",
            "depthwise_conv2d", "elementwise", "matmul", "max_pool2d", "parse_formula",
        ),
        "csp_embed.ops",
    ),
}  # fmt: skip

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module = import_module(_NAMES[name])
        # The packages `partition` and `serving` are callable themselves.
        return getattr(module, name, module)
    raise AttributeError(f"module 'csp_embed' has no attribute {name!r}")
