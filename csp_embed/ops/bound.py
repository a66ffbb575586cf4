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

from csp_embed.ir.operator import Operator
from csp_embed.ops.checks import BYTES
from csp_embed.ops.counting import useful_points
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


def useful_products(op: Operator) -> int | None:
    """Products of two elements that exist; 0 for an operator that multiplies nothing, None where
    they are not counted (`useful_points`)."""
    return useful_points(op) if op.kind == "contract" else 0


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
