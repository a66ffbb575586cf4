"""Where the elements of a logical tensor lie in DRAM: the digits in a program file's `meta`.

Takes: the layout that the embedding claims and the region that the schedule gave it.  Leaves: what
docs/program-file.md describes, from which a stranger finds or places an element without us.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from csp_embed.ir.embedding import Embedding
from csp_embed.ir.schedule import Schedule
from csp_embed.machine.spec import Isa
from csp_embed.targets.stream.lower import Lowered


def digits(
    schedule: Schedule, lowered: Lowered, embedding: Embedding, isa: Isa, operand: str
) -> dict[str, Any] | None:
    """Where a logical element lies: addr + sum of stride_bytes * ((index[axis] // div) % mod).

    None where that form cannot tell it: the layout lacks elements that nobody reads, or padding
    shifts an index that lane and grid share.
    """
    n = next(n for n, r in enumerate(schedule.regions) if r.operand == operand)
    region, layout = schedule.regions[n], embedding.layouts[operand]
    memory = isa.memory(region.memory)
    lanes = isa.lane_shape(region.memory)
    elem = memory.elem_bytes
    total = elem
    # Innermost last: the region's own order of grid dimensions.
    pitch: dict[int, int] = {}
    for d in reversed(region.order):
        pitch[d] = total
        total *= region.grid[d]
    # A split coordinate has several digits, each with a place of its own.
    splits = region.splits or tuple(((1, size),) for size in region.grid)
    first = np.cumsum([0, *(len(parts) for parts in splits)])
    unit = elem // int(np.prod(lanes)) if lanes else elem
    lane_bytes: dict[str, int] = {}
    # Lanes are row-major within the element.
    for dim, size in zip(reversed(memory.lanes), reversed(lanes), strict=True):
        lane_bytes[dim] = unit
        unit *= size
    identity = schedule.identity
    if identity is not None and operand in identity.operands:
        # The embedding names the lanes that these become.
        own, become = identity.dims
        lane_bytes[become] = lane_bytes.pop(own)
    digit = {d.name: d for d in embedding.digits}
    partner = dict(layout.equal)
    address = lowered.address[n]
    out: list[dict[str, int]] = []
    for t, size in enumerate(embedding.operator.tensors[layout.tensor].shape):
        parts: list[tuple[int, int, int]] = []
        for g, k in enumerate(layout.grid_coef[t]):
            for j, (unit, extent) in enumerate(splits[g]):
                if k and extent > 1:
                    # A digit of one value moves nothing.
                    parts.append((k * unit, extent, pitch[int(first[g]) + j]))
        for name, k in layout.digit_coef[t].items():
            if k and name in digit and digit[name].dim in lane_bytes:
                # On a diagonal two dimensions move together.
                both = [digit[x] for x in (name, partner.get(name)) if x is not None]
                stride = sum(lane_bytes[d.dim] * d.radix for d in both)
                parts.append((k, digit[name].extent, stride))
        # By unit: a mixed-radix number is read from its lowest digit.
        parts.sort()
        if not _mixed_radix(parts, layout.const[t], size):
            return None
        # Index 0 lies -const elements into the grid.
        if layout.const[t]:
            address -= layout.const[t] * parts[0][2]
        for i, (k, extent, stride) in enumerate(parts):
            top = i == len(parts) - 1
            out.append(
                {
                    "axis": t,
                    "div": k,
                    # The top digit takes what is left of the index, whatever its extent.
                    "mod": max(extent, -(-size // k)) if top else extent,
                    "stride_bytes": stride,
                }
            )
    return {
        "addr": address,
        # Lanes are little-endian: the low bits of a wider one stand first.
        "dtype": embedding.operator.tensors[layout.tensor].dtype,
        "shape": list(embedding.operator.tensors[layout.tensor].shape),
        "digits": out,
    }


def _mixed_radix(parts: list[tuple[int, int, int]], const: int, size: int) -> bool:
    """Every index below size is const + the value of one digit string; parts: (unit, extent, …)."""
    unit = 1
    # Units must follow each other without gap or overlap.
    for k, extent, _ in parts:
        if k != unit:
            return False
        unit *= extent
    # A shift carries over from digit to digit, so it needs all of the index in one.
    return -const + size <= unit and (const == 0 or (const < 0 and len(parts) == 1))
