"""Natural figures of an operator, and the cycles that no program of it can beat in its plain form.

bound = max(work, natural bytes read / port, natural bytes written / port), where work is
    MACs / MACs of a step + e * vectors,
    e = the reset, 1 per immediate step and 2 per tensor step of the epilogue (the machine's costs),
    vectors = output elements / lanes of the accumulator element: lanes that share the second
        operand take output channels, the others rows; either is rounded up (35 channels take 3 x 16
lanes). Natural means unpacked: every operand once, as the user has it.
docs/glossary.md explains the figures to their readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from typing import Any, Protocol

import numpy as np

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ops.checks import BYTES
from csp_embed.ops.formula import channel_dimension


class Machine(Protocol):
    """The part of `isa.spec.Isa` that the bound needs; `ops` does not import `isa`."""

    @property
    def dims(self) -> Mapping[str, int]: ...
    @property
    def costs(self) -> Mapping[str, Mapping[str, float]]: ...
    def of_kind(self, kind: str) -> Any: ...


def natural(op: Operator) -> dict[str, int]:
    """Figures of the operator as the user wrote it.

    Units: macs (scalar operations; 0 for an elementwise program), read_bytes, input_bytes (of them
        the activations: what the host gives anew for each run), write_bytes, outputs (elements).
        Constants that come from the formula itself are not read.
    """
    points = 0 if op.kind == "map" else prod(op.axes.values())
    sizes = {t.name: prod(t.shape) * BYTES[t.dtype] for t in op.tensors.values()}
    out = op.out.tensor
    return {
        "macs": int(op.notes.get("macs", points)),
        "read_bytes": sum(n for name, n in sizes.items() if name not in (out, *op.values)),
        "input_bytes": sum(
            n for name, n in sizes.items() if name != out and not op.tensors[name].constant
        ),
        "write_bytes": sizes[out],
        "outputs": prod(op.tensors[out].shape),
    }


# Points of the axes that some index ties together; above, counting them would take seconds.
COUNTED_POINTS = 1 << 27


def useful_products(op: Operator) -> int | None:
    """Products of two elements that exist: the operator's points without those that read padding.

    0 for an operator that multiplies nothing; None where axes are tied to each other in so many
    points that they are not counted. Counted exactly: an index is inside or not whatever the axes
    do that it does not name, so groups of axes that no index ties together multiply.
    """
    if op.kind != "contract" or op.rhs is None:
        return 0
    tests = [
        (ix, size)
        for access in (op.out, op.lhs, op.rhs)
        for ix, size in zip(access.index, op.tensors[access.tensor].shape, strict=True)
        if ix.terms
    ]
    groups: list[set[str]] = []
    for ix, _ in tests:
        joined = {a for a, _ in ix.terms}
        apart = [g for g in groups if not g & joined]
        groups = [*apart, joined.union(*(g for g in groups if g & joined))]
    free = prod(n for a, n in op.axes.items() if not any(a in g for g in groups))
    if any(prod(op.axes[a] for a in g) > COUNTED_POINTS for g in groups):
        return None
    return free * prod(_inside(op, sorted(g), tests) for g in groups)


def _inside(op: Operator, axes: list[str], tests: list[tuple[Any, int]]) -> int:
    """Points of these axes at which every index that names them is inside its tensor."""
    first, rest = axes[0], axes[1:]
    grids = dict(zip(rest, np.ogrid[tuple(slice(op.axes[a]) for a in rest)], strict=True))
    mine = [(ix, size) for ix, size in tests if {a for a, _ in ix.terms} <= set(axes)]
    total = 0
    for value in range(op.axes[first]):
        good: Any = np.ones([op.axes[a] for a in rest], np.bool_)
        for ix, size in mine:
            at = ix.const + sum(c * (value if a == first else grids[a]) for a, c in ix.terms)
            good = good & (at >= 0) & (at < size)
        total += int(np.count_nonzero(good))
    return total


def vectors(op: Operator, isa: Machine) -> int:
    """Accumulator elements that the result takes, as the bound counts them."""
    contract = isa.of_kind("contract")
    dst, _, rhs = contract.operands
    wide = prod(isa.dims[d] for d in dst.dims if d in rhs.dims)
    high = prod(isa.dims[d] for d in dst.dims if d not in rhs.dims)
    shape = op.tensors[op.out.tensor].shape
    channel = channel_dimension(op.out, op.lhs, op.rhs)
    if channel is None:
        return ceil(prod(shape) / (wide * high))
    rows = prod(shape) // shape[channel]
    return ceil(rows / high) * ceil(shape[channel] / wide)


def bound_cycles(op: Operator, isa: Machine, memory: str = "de10") -> int:
    """The bound of the module's docstring, rounded up.

    memory: the section of the machine's costs that describes its DRAM port; a machine without it
    has the bound of its compute steps alone. A maximum or minimum over several elements counts one
    tensor step a vector (partial results may be shared), an elementwise program its steps.
    """
    figures = natural(op)
    contract = isa.of_kind("contract")
    step = isa.costs.get("contract", {})
    alu = isa.costs.get("map", {})
    dims = {d for operand in contract.operands for d in operand.dims}
    macs_per_step = prod(isa.dims[d] for d in dims)
    tensor = alu.get("tensor_step", 2)
    each = sum(alu.get("immediate_step", 1) if s.access is None else tensor for s in op.epilogue)
    work = 0.0
    if op.kind == "contract":
        each += step.get("reset_step", 1)
        work = figures["macs"] / macs_per_step * step.get("step", 1)
    elif op.kind != "map" and figures["macs"] > figures["outputs"]:
        each += tensor
    name, *changes = (part.strip() for part in memory.split(","))
    port = float(isa.costs.get(name, {}).get("bytes_per_cycle", float("inf")))
    for key, _, value in (change.partition("=") for change in changes):
        port = float(value) if key.strip() == "bytes_per_cycle" else port
    if port <= 0:
        raise OperatorError(f"the machine's costs give {memory} {port} bytes a cycle")
    return ceil(
        max(
            work + each * vectors(op, isa),
            figures["read_bytes"] / port,
            figures["write_bytes"] / port,
        )
    )
