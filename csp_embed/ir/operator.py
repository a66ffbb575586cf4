"""An operator as a formula over integer points: pure data, made by `ops`, read by everybody.

    y[n,k,p,q] += x[n,c,2*p+r-3,2*q+s-3] * w[k,c,r,s]     then an epilogue, then int8

`kind` says how a point combines into its output element:
    "contract"  y += lhs * rhs      (int8 * int8 into int32, wrap-around)
    "max"/"min" y max= lhs          (pooling)
    "map"       y = lhs             (elementwise: the epilogue does the work; lhs is int32)
An out-of-range read of lhs or rhs is the neutral element (0; int8 min or max for max and min): the
point then contributes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from csp_embed.ir.affine import Affine


class Role(StrEnum):
    """An operand of a compute instruction. Tensor steps of an epilogue have operands of their own,
    `added(0)`, `added(1)`, … in order; they lie where the result does."""

    DST = "dst"
    LHS = "lhs"
    # Not the epilogue's operands: no instruction multiplies those.
    RHS = "rhs"


FACTORS = (Role.LHS, Role.RHS)


def added(step: int) -> str:
    """The operand of the epilogue's tensor step number `step`."""
    return f"add{step}"


@dataclass(frozen=True)
class Access:
    """tensor[index_0, index_1, …] with affine indices."""

    tensor: str
    index: tuple[Affine, ...]

    def __str__(self) -> str:
        return f"{self.tensor}[{','.join(map(str, self.index))}]"


@dataclass(frozen=True)
class Tensor:
    """dtype: "int8" or "int32". constant: known before run time (weights, bias) and so packed at
    compile time; others (activations) are packed by the host at run time."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool


@dataclass(frozen=True)
class Step:
    """One epilogue step on the int32 accumulator, in order.

    op: "shr" (arithmetic, negative = left), "add", "max", "min", "mul".
    imm: the immediate, or None; access: an int32 tensor read at the output's axes, or None.
    bias_range: promise |value| <= bias_range for a tensor step (None: nothing promised).
    """

    op: str
    imm: int | None = None
    access: Access | None = None
    bias_range: int | None = None

    def __str__(self) -> str:
        bound = "" if self.bias_range is None else f" within {self.bias_range}"
        return f"{self.op} {self.imm if self.access is None else self.access}{bound}"


@dataclass(frozen=True)
class Operator:
    """A tensor operator.

    axes: name -> extent, in order; the reduced ones are those that `out` does not index.
    out: access of the result by output axes. Each index is one plain axis, or numbers several axes
        mixed-radix (16*g+k with k below 16): every element of y has one point of the output axes.
        At a ragged end an index may exceed y's extent: such points do not exist.
    lhs / rhs: the operands (rhs None unless kind is "contract").
    tensors: every tensor by name, the result included. values: constants known from the formula
        itself (name -> array), e.g. the weights of an average pooling.
    notes: what the constructor knows: "layout" of activations, "groups", "macs" where the user's
        count differs from the number of points, "layer" (id in deepbench/), …
    """

    name: str
    kind: str
    axes: Mapping[str, int]
    out: Access
    lhs: Access
    rhs: Access | None
    tensors: Mapping[str, Tensor]
    epilogue: tuple[Step, ...] = ()
    out_dtype: str = "int8"
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __eq__(self, other: object) -> bool:
        """Whether both say the same; the order of axes counts, since loops follow it."""
        if not isinstance(other, Operator):
            return NotImplemented
        return self._said() == other._said() and _alike(self.values, other.values)

    def __hash__(self) -> int:
        return hash(self._said()[:-1])

    def _said(self) -> tuple[Any, ...]:
        """All but `values`, which are arrays; notes last, since they may hold anything."""
        axes, tensors = tuple(self.axes.items()), tuple(self.tensors.items())
        return (self.name, self.kind, axes, self.out, self.lhs, self.rhs, tensors, self.epilogue,
                self.out_dtype, self.notes)  # fmt: skip

    def __repr__(self) -> str:
        axes = " ".join(f"{a}={n}" for a, n in self.axes.items())
        return f"<Operator {self.name} {self.text()}, {axes}>"

    @property
    def out_axes(self) -> tuple[str, ...]:
        # In the order of the result's indices.
        return tuple(a for ix in self.out.index for a, _ in ix.terms)

    @property
    def reduced_axes(self) -> tuple[str, ...]:
        # In the order of `axes`: loops and names follow it, and goldens with them.
        outs = set(self.out_axes)
        return tuple(a for a in self.axes if a not in outs)

    def steps_read(self) -> dict[str, Access]:
        """Operand -> access, of the epilogue's tensor steps."""
        # Numbered by their place among tensor steps, not among all.
        reads = [s.access for s in self.epilogue if s.access is not None]
        return {added(n): access for n, access in enumerate(reads)}

    def formula(self) -> str:
        """The statement as text; `ops.parse` reads it back."""
        if self.kind == "contract":
            return f"{self.out} += {self.lhs} * {self.rhs}"
        if self.kind == "map":
            # Nothing is accumulated: the epilogue does the work.
            return f"{self.out} = {self.lhs}"
        return f"{self.out} {self.kind}= {self.lhs}"

    def text(self) -> str:
        """Formula and epilogue; with the tensors' shapes `ops.parse_formula` reads it back."""
        return "; ".join([self.formula(), *map(str, self.epilogue)])

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed."""
        wrong = [f"axis {a} has extent {n}" for a, n in self.axes.items() if n < 1]
        if self.kind not in ("contract", "max", "min", "map"):
            wrong.append(f"kind {self.kind} is not known")
        # Exactly contractions have a second factor.
        if (self.rhs is None) == (self.kind == "contract"):
            wrong.append(f"{self.kind} with {'no' if self.rhs is None else 'an'} rhs")
        steps = [s.access for s in self.epilogue if s.access is not None]
        for access in (self.out, self.lhs, *([self.rhs] if self.rhs else []), *steps):
            wrong += self._unreadable(access)
        if len(self.out_axes) != len(set(self.out_axes)):
            # A diagonal result has elements that no point makes.
            wrong.append(f"{self.out} indexes an axis twice")
        for step in self.epilogue:
            if (step.imm is None) == (step.access is None):
                wrong.append(f"step {step.op} needs an immediate or a tensor, not both")
            elif step.access is not None:
                used = {a for ix in step.access.index for a, _ in ix.terms}
                if used - set(self.out_axes):
                    # It would add another number for each reduced value.
                    wrong.append(f"step {step} reads by axes that the result lacks")
        return wrong

    def _unreadable(self, access: Access) -> list[str]:
        """What keeps an access from naming elements of its tensor."""
        tensor = self.tensors.get(access.tensor)
        if tensor is None:
            return [f"{access} reads an unknown tensor"]
        wrong: list[str] = []
        if len(access.index) != len(tensor.shape):
            wrong.append(f"{access} has {len(access.index)} indices, {len(tensor.shape)} wanted")
        unknown = {a for ix in access.index for a, _ in ix.terms} - set(self.axes)
        return wrong + [f"{access} names an unknown axis {a}" for a in sorted(unknown)]

    def show(self) -> str:
        """Formula, extents of the axes, epilogue."""
        axes = " ".join(f"{a}={n}" for a, n in self.axes.items())
        steps = "; ".join(map(str, self.epilogue))
        return f"{self.name}: {self.formula()}\n  axes {axes}\n  then {steps or 'nothing'}"


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether constants have equal names, types, shapes and elements."""
    if one.keys() != other.keys():
        return False
    return all(
        (a.dtype, a.shape) == (b.dtype, b.shape) and bool((a == b).all())
        for a, b in ((one[name], other[name]) for name in one)
    )
