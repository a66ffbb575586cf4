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
from functools import lru_cache
from math import ceil, prod
from typing import Any, Protocol

import numpy as np

from csp_embed.ir.operator import Operator
from csp_embed.ops.checks import BYTES
from csp_embed.ops.formula import channel_dimension


class Machine(Protocol):
    """The part of `isa.spec.Isa` that the bound needs; `ops` does not import `isa`."""

    @property
    def dims(self) -> Mapping[str, int]: ...
    def of_kind(self, kind: str) -> Any: ...


class Costs(Protocol):
    """The part of `machine.costs.Costs` that the bound needs."""

    @property
    def port_bytes(self) -> float: ...
    @property
    def step(self) -> float: ...
    @property
    def reset_step(self) -> float: ...
    @property
    def immediate_step(self) -> float: ...
    @property
    def tensor_step(self) -> float: ...


def natural(op: Operator) -> dict[str, int]:
    """Figures of the operator as the user wrote it.

    Units: macs (scalar operations; 0 for an elementwise program), read_bytes, write_bytes,
        outputs (elements). Constants that come from the formula itself are not read.
    """
    # Elementwise programs multiply nothing; their steps are counted with the epilogue.
    points = 0 if op.kind == "map" else prod(op.axes.values())
    sizes = {t.name: prod(t.shape) * BYTES[t.dtype] for t in op.tensors.values()}
    out = op.out.tensor
    return {
        # Transposed convolutions know better: their points include those that only meet zeros.
        "macs": int(op.notes.get("macs", points)),
        "read_bytes": sum(n for name, n in sizes.items() if name not in (out, *op.values)),
        "write_bytes": sizes[out],
        "outputs": prod(op.tensors[out].shape),
    }


def input_bytes(op: Operator) -> int:
    """Bytes of the activations, unpacked: of the natural bytes those that the host gives anew for
    each run, weights not included."""
    # Everything the host hands over: epilogue tensors are part of it where they are activations.
    return sum(
        prod(t.shape) * BYTES[t.dtype]
        for t in op.tensors.values()
        if t.name != op.out.tensor and not t.constant
    )


# Points of the axes that some index ties together; above, counting them would take seconds.
COUNTED_POINTS = 1 << 27


def useful_products(op: Operator) -> int | None:
    """Products of two elements that exist; 0 for an operator that multiplies nothing, None where
    they are not counted (`useful_points`)."""
    return useful_points(op) if op.kind == "contract" else 0


def useful_points(op: Operator) -> int | None:
    """The operator's points without those that read padding or have no element of the result.

    None where indices tie axes to each other in more points than `COUNTED_POINTS`. Counted exactly:
    whether an index is inside depends on the axes that it names alone, so the counts of groups of
    axes that no index ties together multiply.
    """
    accesses = [a for a in (op.out, op.lhs, op.rhs) if a is not None]
    # A constant index ties no axes.
    tests = tuple(
        (ix.terms, ix.const, size)
        for access in accesses
        for ix, size in zip(access.index, op.tensors[access.tensor].shape, strict=True)
        if ix.terms
    )
    return _points(tuple(op.axes.items()), tests)


Test = tuple[tuple[tuple[str, int], ...], int, int]  # an index' terms and constant, its extent


@lru_cache(maxsize=256)
def _points(axes: tuple[tuple[str, int], ...], tests: tuple[Test, ...]) -> int | None:
    """Points of the box of axes at which every index is inside its extent."""
    extents = dict(axes)
    # Most indices stay inside whatever the axes are, and tie none.
    tests = tuple(t for t in tests if _leaves(extents, t))
    # A union of its own: this bound judges, and may not use the builders' algebra.
    groups: list[set[str]] = []
    for terms, _, _ in tests:
        joined = {a for a, _ in terms}
        apart = [g for g in groups if not g & joined]
        groups = [*apart, joined.union(*(g for g in groups if g & joined))]
    # Counting is by enumeration, so it has an end.
    if any(prod(extents[a] for a in g) > COUNTED_POINTS for g in groups):
        return None
    # Axes in no group take all their values, whatever the others are.
    free = prod(n for a, n in axes if not any(a in g for g in groups))
    return free * prod(_inside(extents, g, tests) for g in groups)


def _leaves(extents: Mapping[str, int], test: Test) -> bool:
    """Whether some point of the box takes the index out of its extent."""
    terms, const, size = test
    ends = [c * (extents[a] - 1) for a, c in terms]
    # A sum of independent terms is least, and greatest, where each is.
    return const + sum(min(e, 0) for e in ends) < 0 or const + sum(max(e, 0) for e in ends) >= size


def _inside(extents: Mapping[str, int], group: set[str], tests: tuple[Test, ...]) -> int:
    """Points of these axes at which every index that names them is inside."""
    # The shortest axis is walked, the others are one array.
    # Sorted by name as well: the same array is walked in every run.
    first, *rest = sorted(group, key=lambda a: (extents[a], a))
    grids = dict(zip(rest, np.ogrid[tuple(slice(extents[a]) for a in rest)], strict=True))
    mine = [t for t in tests if {a for a, _ in t[0]} <= group]
    total = 0
    for value in range(extents[first]):
        good: Any = np.ones([extents[a] for a in rest], np.bool_)
        for terms, const, size in mine:
            at = const + sum(c * (value if a == first else grids[a]) for a, c in terms)
            good = good & (at >= 0) & (at < size)
        total += int(np.count_nonzero(good))
    return total


def vectors(op: Operator, isa: Machine) -> int:
    """Accumulator elements that the result takes, as the bound counts them."""
    contract = isa.of_kind("contract")
    dst, _, rhs = contract.operands
    # Lanes that share the second operand: weights select them, so they are channels.
    wide = prod(isa.dims[d] for d in dst.dims if d in rhs.dims)
    high = prod(isa.dims[d] for d in dst.dims if d not in rhs.dims)
    shape = op.tensors[op.out.tensor].shape
    channel = channel_dimension(op.out, op.lhs, op.rhs)
    # Nobody says which dimension holds channels: then any vector takes any outputs.
    # An upper estimate of what fits, so that the bound stays below.
    if channel is None:
        return ceil(prod(shape) / (wide * high))
    rows = prod(shape) // shape[channel]
    # Rounded up in both directions: a ragged end takes whole vectors.
    return ceil(rows / high) * ceil(shape[channel] / wide)


def bound_cycles(op: Operator, isa: Machine, costs: Costs) -> int:
    """The bound of the module's docstring, rounded up.

    costs: of the machine behind the memory interface that counts. A maximum or minimum over several
    elements counts one tensor step a vector (partial results may be shared), an elementwise program
    its steps.
    """
    figures = natural(op)
    contract = isa.of_kind("contract")
    dims = {d for operand in contract.operands for d in operand.dims}
    # Every lane of a step multiplies at best.
    macs_per_step = prod(isa.dims[d] for d in dims)
    # What follows the sums is paid once a vector.
    each = sum(costs.immediate_step if s.access is None else costs.tensor_step for s in op.epilogue)
    work = 0.0
    if op.kind == "contract":
        each += costs.reset_step
        work = figures["macs"] / macs_per_step * costs.step
    elif op.kind != "map" and figures["macs"] > figures["outputs"]:
        # Partial maxima may be shared between windows, so one step a vector is all that is certain.
        each += costs.tensor_step
    # All three overlap at best, so the largest of them is a bound and their sum is none.
    return ceil(
        max(
            work + each * vectors(op, isa),
            figures["read_bytes"] / costs.port_bytes,
            figures["write_bytes"] / costs.port_bytes,
        )
    )
