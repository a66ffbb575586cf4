"""What a program file holds: DRAM before the run, the bytes expected after it, and `meta`.

Takes: a Compiled and tensors.  Leaves: `Program`s (docs/program-file.md). Expected bytes are what
NumPy computes from the formula, placed by the claimed layout; no simulator runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import __version__
from csp_embed.compiler.compiled import Compiled
from csp_embed.compiler.program.addresses import digits
from csp_embed.compiler.program.claims import claims
from csp_embed.compiler.program.expected import SOURCE, expected_ranges
from csp_embed.compiler.request.operands import operands
from csp_embed.embed.algebra.packing import neutral
from csp_embed.ir.stream import Program
from csp_embed.machine.program_file import FORMAT, isa_meta
from csp_embed.ops.reference import evaluate
from csp_embed.targets.stream.image import before_ranges
from csp_embed.targets.stream.places import offsets

Array = NDArray[Any]


def filled(kernel: Compiled, tensors: Mapping[str, Array], *, reference: bool = True) -> Program:
    """A program file's content with these operands; `after` and the result are what NumPy
    computes from the formula, placed by the claimed layout (`csp_embed.compiler.program.expected`).

    reference: False leaves both out, for layers that NumPy would take minutes for; `meta` says
    which. Raises: InputError for missing, unknown or wrong tensors.
    """
    # All operands are checked before anything is packed.
    given = operands(kernel.operator, kernel.constants, tensors)
    n = kernel.region("dst")
    address, size = kernel.lowered.address[n], kernel.lowered.size_bytes[n]
    images = kernel.images(given)
    # No expectation where NumPy would take minutes: `meta` says so.
    after: tuple[tuple[int, NDArray[np.uint8]], ...] = ()
    logical = dict(given)
    if reference:
        name = kernel.operator.out.tensor
        y = logical[name] = evaluate(kernel.operator, given)[name]
        after = expected_ranges(kernel.schedule, kernel.embedding, kernel.isa, address, y)
    expected = sum(len(data) for _, data in after)
    if expected < size:
        # Nothing is expected of pad lanes, but the stores that write them need their bytes.
        images[n] = np.zeros(size, dtype=np.uint8)
    said = {"from": SOURCE if reference else None, "bytes": expected,
            "bytes_left_out": size - expected}  # fmt: skip
    return Program(
        meta=meta(kernel) | {"after": said},
        insn=kernel.words,
        before=before_ranges(kernel.schedule, kernel.lowered, images),
        after=after,
        tensors=logical,
    )


def blank(kernel: Compiled) -> Program:
    """The program over zeros: for checks that look at addresses only (large zero arrays cost
    nothing).
    """
    data = {
        n: np.zeros(size, dtype=np.uint8)
        for n, (region, size) in enumerate(
            zip(kernel.schedule.regions, kernel.lowered.size_bytes, strict=True)
        )
        # The result's bytes are given as `after`, not as content.
        if region.operand != "dst"
    }
    n = kernel.region("dst")
    after = ((kernel.lowered.address[n], np.zeros(kernel.lowered.size_bytes[n], dtype=np.uint8)),)
    return Program(
        meta(kernel), kernel.words, before_ranges(kernel.schedule, kernel.lowered, data), after, {}
    )


def bare(kernel: Compiled) -> Program:
    """The program with its constants, and zeros for every element of an operand: for proofs about
    all operands. `after` is empty.
    """
    op, lanes = kernel.operator, kernel.schedule.bias_lanes
    data: dict[int, NDArray[np.uint8]] = {}
    for n, region in enumerate(kernel.schedule.regions):
        layout = kernel.embedding.layouts.get(region.operand)
        variable = layout is not None and layout.tensor not in op.values
        if lanes is not None and region.operand == lanes.role:
            continue  # its idle lanes hold a constant
        # Zeros for what operands fill; a pool's neutral value is a constant of the program.
        if layout is not None and variable and neutral(layout, kernel.embedding) == 0:
            data[n] = np.zeros(kernel.lowered.size_bytes[n], np.uint8)
    zeros = {n: np.zeros(t.shape, t.dtype) for n, t in op.tensors.items() if n not in op.values}
    data |= kernel.images(zeros, skip=data)
    before = before_ranges(kernel.schedule, kernel.lowered, data)
    return Program(meta(kernel), kernel.words, before, (), {})


def loaded(kernel: Compiled, tensors: Mapping[str, Array]) -> Program:
    """The program with these operands in DRAM, before it runs: `after` holds zeros.

    Raises: InputError for missing or wrong tensors.
    """
    # Bytes of the result exist, and hold nothing.
    n = kernel.region("dst")
    return Program(
        meta=meta(kernel),
        insn=kernel.words,
        before=before_ranges(kernel.schedule, kernel.lowered, kernel.images(tensors)),
        after=((kernel.lowered.address[n], np.zeros(kernel.lowered.size_bytes[n], np.uint8)),),
        tensors={k: np.asarray(v) for k, v in tensors.items() if k in kernel.operator.tensors},
    )


def meta(kernel: Compiled) -> dict[str, Any]:
    """The program file's `meta`."""
    op = kernel.operator
    tensors = {op.out.tensor: _digits(kernel, "dst")}
    for operand in ("lhs", "rhs"):
        layout = kernel.embedding.layouts.get(operand)
        # Forms that digits cannot tell are left to the claims.
        if layout is None or layout.duplicates or layout.fused or layout.equal:
            continue
        # By box: an element's address is no sum over its indices.
        if kernel.schedule.regions[kernel.region(operand)].by_box:
            continue
        place = _digits(kernel, operand)
        if place is not None:
            tensors[layout.tensor] = place
    # A stranger must understand the file without this package: everything is plain JSON.
    return {
        "format": FORMAT,
        "operator": {
            "name": op.name,
            "formula": op.formula(),
            "extents": dict(op.axes),
            "shapes": {n: list(t.shape) for n, t in op.tensors.items()},
            "dtypes": {n: t.dtype for n, t in op.tensors.items()},
            "constant": {n: t.constant for n, t in op.tensors.items()},
            "epilogue": [
                {
                    "op": s.op,
                    "imm": s.imm,
                    "access": None if s.access is None else str(s.access),
                    "bias_range": s.bias_range,
                }
                for s in op.epilogue
            ],
        },
        **isa_meta(kernel.isa),
        "version": __version__,
        "embedding": kernel.embedding.formula(),
        "layout": kernel.embedding.layout_mode,
        "certificate": kernel.certificate(),
        "tensors": tensors,
        "claims": claims(kernel),
    }


def _digits(kernel: Compiled, operand: str) -> dict[str, Any] | None:
    found = digits(kernel.schedule, kernel.lowered, kernel.embedding, kernel.isa, operand)
    # Only the result must be findable; operands have claims.
    return _offsets(kernel) if found is None and operand == "dst" else found


def _offsets(kernel: Compiled) -> dict[str, Any]:
    """As `digits`, for a result whose index needs a number for each of its values."""
    n = kernel.region("dst")
    memory = kernel.isa.memory(kernel.schedule.regions[n].memory)
    item = np.dtype(memory.dram_dtype).itemsize
    # Each stored value is the address of itself: unpacked, it says where every element lies.
    where = kernel.lowered.address[n] + np.arange(0, kernel.lowered.size_bytes[n], item)
    found = offsets(kernel.unpacked(where.astype(np.int64).view(np.uint8), "int64"))
    assert found is not None, "each axis of a result has digits and counters of its own"
    address, tables = found
    return {
        "addr": address,
        "dtype": memory.dram_dtype,
        "shape": list(kernel.operator.tensors[kernel.operator.out.tensor].shape),
        "digits": [{"axis": t, "offset_bytes": v} for t, v in enumerate(tables)],
    }
