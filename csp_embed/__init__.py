"""csp_embed: from tensor formulas to accelerator programs by constraint solving.

Folders, in the order in which data flows:
    ir/         values between stages: operators, embeddings, schedules, streams, networks, plans
    machine/    an accelerator's instruction set as data: specs, bits, costs, listings, files
    ops/        tensor operators as formulas, with NumPy references
    embed/      which scalar operation runs in which lane; rooms: space/ (digits and options),
                algebra/ (rows, layouts, counts, cost), model/ (CP-SAT), pins/, explain/,
                certificate/, ground/ (point by point)
    schedule/   tiles, boxes, loop orders, and the search over them by simulated cycles
    targets/    stream/: schedules of a stream (DMA, micro-ops, slots, tokens), its words and
                DRAM images; commands/: streams written out by the host; source/: C for CPUs
    judge/      every checker; shares no code with the builders; certify/: for all inputs
    sim/        functional/ (values), cycles/ (time), tvm/ (foreign engines), traces, debugging
    compiler/   the stages in order (chain), the kernel that comes out, sweeps over layers
    network/    layer graphs: onnx/ (models), files/ (graph, platform, plan), profiles/ (costs),
                made/ (generated); quantised/ (integer networks and their reference), lower/ (which
                operators compute a quantised layer exactly)
    partition/  which device runs which layer when: view, bounds/, methods/, models/
    serving/    which layers of a large model stand on which servers
    run/        executes plans; hosts/: on other hosts, by TCP or Dask
    report/     tables, pictures, HTML
    commands/   the command line, below `cli.py`
"""

import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # What type checkers and editors see; tests compare it with _NAMES.
    from csp_embed import partition as partition
    from csp_embed import serving as serve  # noqa: F401 (another name than its module)
    from csp_embed.compiler.driver import compile as compile
    from csp_embed.compiler.kernel import Kernel as Kernel
    from csp_embed.compiler.network_file import build as build
    from csp_embed.compiler.request.options import Options as Options
    from csp_embed.errors import CspEmbedError as CspEmbedError
    from csp_embed.machine.load import load_isa as load_isa
    from csp_embed.ops import avg_pool2d as avg_pool2d
    from csp_embed.ops import batch_matmul as batch_matmul
    from csp_embed.ops import conv1d as conv1d
    from csp_embed.ops import conv2d as conv2d
    from csp_embed.ops import conv3d as conv3d
    from csp_embed.ops import conv_transpose2d as conv_transpose2d
    from csp_embed.ops import dense as dense
    from csp_embed.ops import depthwise_conv2d as depthwise_conv2d
    from csp_embed.ops import elementwise as elementwise
    from csp_embed.ops import matmul as matmul
    from csp_embed.ops import max_pool2d as max_pool2d
    from csp_embed.ops import parse_formula as parse_formula

__version__ = "0.1.0"

# Public name -> module. Resolved on first use, so that `csp-embed --help` loads no solver.
_NAMES = {
    "build": "csp_embed.compiler.network_file",
    "compile": "csp_embed.compiler.driver",
    "CspEmbedError": "csp_embed.errors",
    "Kernel": "csp_embed.compiler.kernel",
    "Options": "csp_embed.compiler.request.options",
    "load_isa": "csp_embed.machine.load",
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

# Of _NAMES, so that a name stands once; checkers read those above.
__all__ = sorted(_NAMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module = import_module(_NAMES[name])
        # The packages `partition` and `serving` are callable themselves.
        return getattr(module, name, module)
    raise AttributeError(f"module 'csp_embed' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for completion, beside what every module has."""
    return sorted({*__all__, *(n for n in globals() if n.startswith("__"))})


def _writable(folder: Path) -> bool:
    """Whether it is, or could be made."""
    return any(
        os.access(f, os.W_OK) for f in [p for p in (folder, *folder.parents) if p.exists()][:1]
    )


# Numba keeps what it compiled beside the sources or under the user's home. Where neither can be
# written (a system-wide installation, a service without a home) it would refuse to start.
if not any(map(_writable, (Path(__file__).parent, Path(os.path.expanduser("~"), ".cache")))):
    os.environ.setdefault(
        "NUMBA_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"csp-embed-numba-{os.getuid()}")
    )
