"""An embedding: which scalar operation runs in which lane of which micro-operation, and where the
elements of every operand lie (rule 8 of the embedding problem, and its layouts).

Lane digits and loop counters map affinely onto *coordinates*. A coordinate is one operator axis, or
several fused ones flattened row-major (their values are the unravelled digits of the coordinate).
One micro-operation is executed for each value of the counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from csp_embed.ir.operator import Access, Operator


@dataclass(frozen=True)
class Digit:
    """A lane digit: lane of `dim` = sum over its digits of value * radix; values are 0..extent-1.
    Lanes beyond the digits' product are pad."""

    name: str
    dim: str
    extent: int
    radix: int


@dataclass(frozen=True)
class Counter:
    """A loop around the micro-operation. reduced: it does not move the destination."""

    name: str
    extent: int
    reduced: bool


@dataclass(frozen=True)
class Coordinate:
    """const + sum coef * digit + sum coef * counter, valid in [0, extent).

    A digit may lie inside its counter (k = 16*k + k.o) or outside (p = p + 5*p.o^: lanes far apart,
    so that a window's elements stand in few of them).

    axes: the operator axes it enumerates, row-major; one axis unless fused. extent is the product
    of theirs. (A Toeplitz s = u - 2*q has negative coefficients; values out of range are pad.)
    """

    axes: tuple[str, ...]
    extent: int
    const: int
    digits: Mapping[str, int]
    counters: Mapping[str, int]


@dataclass(frozen=True)
class Layout:
    """Where the elements of one operand lie: a row-major grid of memory elements in DRAM.

    operand: "lhs", "rhs" or "dst" of the instruction, or "add0", "add1", … for the tensor steps of
        the epilogue in order. tensor: the operator's tensor. memory: the machine's memory whose
        elements hold it. access: the operator's access that it serves.
    grid: element counts, outermost first. The element that a micro-operation meets has grid index
        origin[d] + sum over counters of step[counter][d] * value; outside the grid the whole
        element is neutral (so the micro-operation may be left out).
    Content of lane digits at grid index g: tensor index t is
        const[t] + sum_d grid_coef[t][d]*g[d] + sum digit_coef[t][digit]*digit
          + sum over fused of coefficient * unravelled axis value,
        neutral where any index is outside the tensor, where a fused coordinate is outside its
        extent, or
        where the two digits of a pair in `equal` differ.
    fused: for each fused coordinate that this operand reads: (axes, their extents, const,
        grid coefficients, digit coefficients, per-tensor-index coefficients of each axis).
        An entry of one axis, all of whose axis_coef are 0, moves no index: it only keeps lanes
        neutral where that axis is out of range (Toeplitz weights that do not depend on the tap).
    duplicates: some tensor element stands more than once (then the layout is relaxed).
    order: grid dimensions as they lie in DRAM, outermost first, where the user pins it; None: the
        schedule chooses.

    A grid of no dimensions is one element. Factors' grids are clipped to elements with data; those
    of dst and add0, … hold every element that some step meets, live or not. An operand of another
    type than its memory's (int8 activations in an int32 accumulator) is widened by the host.
    """

    operand: str
    tensor: str
    memory: str
    access: Access
    grid: tuple[int, ...]
    grid_names: tuple[str, ...]
    origin: tuple[int, ...]
    step: Mapping[str, tuple[int, ...]]
    const: tuple[int, ...]
    grid_coef: tuple[tuple[int, ...], ...]
    digit_coef: tuple[Mapping[str, int], ...]
    fused: tuple[Fused, ...] = ()
    equal: tuple[tuple[str, str], ...] = ()
    duplicates: bool = False
    order: tuple[int, ...] | None = None

    @property
    def elements(self) -> int:
        n = 1
        for g in self.grid:
            n *= g
        return n


@dataclass(frozen=True)
class Fused:
    """A fused coordinate as an operand reads it; see Layout. axis_coef[axis][t]: coefficient of the
    axis' value in tensor index t."""

    axes: tuple[str, ...]
    extents: tuple[int, ...]
    const: int
    grid_coef: tuple[int, ...]
    digit_coef: Mapping[str, int]
    axis_coef: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, repr=False)
class Embedding:
    """One covering of an operator by one compute instruction.

    instruction: name of the instruction. commuted: operator lhs plays the instruction's rhs.
    layouts: by instruction operand ("lhs", "rhs", "dst", "add0", …). For a max, min or map operator
    the
        instruction is a map: "dst" and "lhs" both lie in the accumulator memory.
    cost: the analytic figures under which it was chosen (steps, vectors, bytes, objective, …).
    proof: status, bound, seed, limits, families: what the certificate needs.
    equal: pairs of digits that carry one coordinate together (diagonal): a point where the two
        differ is pad. The coordinate names the first of the pair.
    kind: how people call it: "aligned", "im2col", "toeplitz", "diagonal", "mixed".
    """

    operator: Operator
    isa_name: str
    instruction: str
    commuted: bool
    digits: tuple[Digit, ...]
    counters: tuple[Counter, ...]
    coordinates: tuple[Coordinate, ...]
    layouts: Mapping[str, Layout]
    kind: str
    layout_mode: str = "relaxed"
    equal: tuple[tuple[str, str], ...] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"<Embedding {self.kind} of {self.operator.name} in {self.isa_name}: {self.formula()}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = "".join(
            f"<tr><td>{escape(role)}</td><td>{escape(str(v.access))}</td><td>{v.memory}</td>"
            f"<td>{' × '.join(map(str, v.grid)) or 1}</td></tr>"
            for role, v in self.layouts.items()
        )
        head = "<tr><th>operand</th><th>reads</th><th>memory</th><th>elements</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{rows}</table>"

    def formula(self) -> str:
        """The embedding as text: `o = k%16; i = (c,r,s)%16; loops k//16 p q (c,r,s)//16`."""
        by_dim: dict[str, list[str]] = {}
        for d in self.digits:
            by_dim.setdefault(d.dim, []).append(f"{d.name}:{d.extent}")
        lanes = "; ".join(f"{dim} = ({', '.join(v)})" for dim, v in by_dim.items())
        loops = " ".join(f"{c.name}:{c.extent}{'+' if c.reduced else ''}" for c in self.counters)
        coords = "; ".join(f"{'*'.join(c.axes)} = {_affine(c)}" for c in self.coordinates)
        return f"{lanes} | loops {loops} | {coords}" + (" | commuted" if self.commuted else "")


def _affine(c: Coordinate) -> str:
    parts = [f"{k}*{n}" if k != 1 else n for n, k in [*c.counters.items(), *c.digits.items()]]
    if c.const or not parts:
        parts.append(str(c.const))
    return "+".join(parts).replace("+-", "-")
