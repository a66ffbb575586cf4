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
from math import prod
from typing import Any

from csp_embed.ir.operator import Access, Operator, Role


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

    def show(self) -> str:
        """Which access it serves, its grid, and the tensor index that a lane holds."""
        grid = " x ".join(f"{n}:{g}" for n, g in zip(self.grid_names, self.grid, strict=True))
        # "#name" stands for a grid index, as opposed to the digit or counter of that name.
        index: list[str] = []
        for const, grid_coef, digits in zip(
            self.const, self.grid_coef, self.digit_coef, strict=True
        ):
            parts = [(c, f"#{n}") for n, c in zip(self.grid_names, grid_coef, strict=True) if c]
            index.append(_sum(const, [*parts, *((c, d) for d, c in digits.items())]))
        # Fused coordinates have no plain index; their names must do.
        fused = [
            # Entries that move nothing only watch a range, and are of no interest here.
            f"{'*'.join(f.axes)} fused"
            for f in self.fused
            if any(map(any, f.axis_coef.values()))
        ]
        notes = [*fused, *(["with duplicates"] if self.duplicates else [])]
        text = f"{self.operand}: {self.access} in {self.memory}, elements {grid or 1}"
        return f"{text}, lanes hold [{', '.join(index)}]{''.join(f', {n}' for n in notes)}"

    def verify(self, digits: Mapping[str, Digit], counters: Mapping[str, Counter]) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed."""
        rank = len(self.grid)
        wrong: list[str] = []
        # One set of lengths: all equal, or something is missing.
        if {rank} != {len(self.grid_names), len(self.origin), *map(len, self.step.values())}:
            wrong.append("grid, names, origin and steps differ in length")
        if {len(self.access.index)} != {len(self.const), len(self.grid_coef), len(self.digit_coef)}:
            wrong.append("index expressions and the access differ in length")
        if any(len(row) != rank for row in self.grid_coef):
            wrong.append("an index does not say what each grid dimension adds")
        if any(g < 1 for g in self.grid):
            wrong.append(f"grid {self.grid} has no element")
        if self.order is not None and sorted(self.order) != list(range(rank)):
            wrong.append(f"order {self.order} is no order of {rank} dimensions")
        named = {d for row in self.digit_coef for d in row} | {d for p in self.equal for d in p}
        named |= {d for f in self.fused for d in f.digit_coef}
        wrong += [f"digit {d} is not known" for d in sorted(named - set(digits))]
        wrong += [f"counter {c} is not known" for c in sorted(set(self.step) - set(counters))]
        return [f"{self.operand}: {text}" for text in wrong]


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
    cost: Mapping[str, float] = field(default_factory=dict[str, float])
    proof: Mapping[str, Any] = field(default_factory=dict[str, Any])

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
        # Lanes by dimension, as a data sheet lists them.
        by_dim: dict[str, list[str]] = {}
        for d in self.digits:
            # In the order of the digits: the innermost last.
            by_dim.setdefault(d.dim, []).append(f"{d.name}:{d.extent}")
        lanes = "; ".join(f"{dim} = ({', '.join(v)})" for dim, v in by_dim.items())
        loops = " ".join(f"{c.name}:{c.extent}{'+' if c.reduced else ''}" for c in self.counters)
        coords = "; ".join(f"{'*'.join(c.axes)} = {_affine(c)}" for c in self.coordinates)
        return f"{lanes} | loops {loops} | {coords}" + (" | commuted" if self.commuted else "")

    def show(self) -> str:
        """The formula, then one line for each operand."""
        return "\n".join(
            [
                f"{self.kind}: {self.formula()}",
                *(f"  {layout.show()}" for layout in self.layouts.values()),
            ]
        )

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed. Whether it covers the
        operator is for `judge.embedding.judge` to say."""
        op = self.operator
        wrong: list[str] = []
        digits = {d.name: d for d in self.digits}
        counters = {c.name: c for c in self.counters}
        # Counters and digits share one name space, for coordinates name both alike.
        if len({*digits, *counters}) != len(self.digits) + len(self.counters):
            wrong.append("two digits or counters have one name")
        wrong += [f"{x.name} takes {x.extent} values" for x in (*self.digits, *self.counters)
                  if x.extent < 1]  # fmt: skip
        for dim in dict.fromkeys(d.dim for d in self.digits):
            # Per dimension, since radices of different ones have nothing to do with each other.
            wrong += _unequal_radices(dim, [d for d in self.digits if d.dim == dim])
        # Every axis stands in exactly one coordinate.
        axes = [a for c in self.coordinates for a in c.axes]
        if sorted(axes) != sorted(op.axes):
            wrong.append(f"coordinates enumerate {axes}, the axes are {list(op.axes)}")
        for c in self.coordinates:
            unknown = (set(c.digits) - set(digits)) | (set(c.counters) - set(counters))
            wrong += [f"{'*'.join(c.axes)} names an unknown {n}" for n in sorted(unknown)]
            if c.extent != prod(op.axes.get(a, 1) for a in c.axes):
                wrong.append(f"{'*'.join(c.axes)} has extent {c.extent}")
        for first, second in self.equal:
            # Pairs advance together, so they need equal ranges.
            pair = digits.get(first), digits.get(second)
            if pair[0] is None or pair[1] is None or pair[0].extent != pair[1].extent:
                wrong.append(f"{first} and {second} cannot be equal digits")
        # Without a second factor there is no rhs; each tensor step has an operand.
        operands = {Role.DST, Role.LHS, *([Role.RHS] if op.rhs else []), *op.steps_read()}
        if set(self.layouts) != operands:
            wanted = ", ".join(sorted(operands))
            wrong.append(f"layouts of {', '.join(self.layouts)}, wanted of {wanted}")
        for role, layout in self.layouts.items():
            if layout.operand != role or layout.tensor not in op.tensors:
                wrong.append(f"{role} has a layout of {layout.operand} for {layout.tensor}")
            wrong += layout.verify(digits, counters)
        return wrong


def _unequal_radices(dim: str, digits: list[Digit]) -> list[str]:
    """Two lanes of one value, or a lane that no value names: digits are mixed-radix."""
    used = 1
    # From the innermost: each radix is the product of all extents below.
    for digit in sorted(digits, key=lambda d: (d.radix, d.extent)):
        if digit.radix != used:
            return [f"digit {digit.name} of {dim} has radix {digit.radix}, {used} is next"]
        used *= digit.extent
    return []


def _affine(c: Coordinate) -> str:
    return _sum(c.const, [(k, n) for n, k in [*c.counters.items(), *c.digits.items()]])


def _sum(const: int, terms: list[tuple[int, str]]) -> str:
    parts = [f"{k}*{n}" if k != 1 else n for k, n in terms]
    if const or not parts:
        parts.append(str(const))
    return "+".join(parts).replace("+-", "-")
