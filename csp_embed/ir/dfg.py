"""Scalar dataflow: which scalar operation reads and writes which tensor elements.

One type serves operators and instructions. Symbolic: a box of integer points and one affine map per
read and write. Expanded: every point and every edge, as NumPy arrays. `expand` derives the second
from the first, so both have one source.

A *point* is one scalar operation, e.g. one multiply-accumulate. A read outside its tensor is the
neutral element and no edge; a point that writes outside its tensor does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Access, Operator

# Some gigabytes of indices: beyond, only the symbolic form is of use.
MAX_POINTS = 50_000_000
NEUTRAL = {
    # Not of products: a sum has 0, whatever its type.
    ("max", "int8"): -128,
    ("min", "int8"): 127,
    ("max", "int32"): -(2**31),
    ("min", "int32"): 2**31 - 1,
}
SIGN = {
    "mac": "{out} += {0} * {1}",
    "max": "{out} max= {0}",
    "min": "{out} min= {0}",
    "copy": "{out} = {0}",
}


@dataclass(frozen=True)
class Read:
    """One operand: role ("lhs", "rhs", "dst"), affine map, extents of its tensor, neutral value."""

    role: str
    access: Access
    shape: tuple[int, ...]
    neutral: int = 0


@dataclass(frozen=True)
class Dataflow:
    """The symbolic form.

    function: "mac" (out += lhs * rhs), "max" / "min" (out max= lhs), "copy" (out = lhs), or a map
        instruction's function applied to its reads in order ("add", "shr", "mul", "max2", "min2").
    axes: the domain, name -> extent, in order. steps: what happens to each output element
        afterwards, as text, in order.
    """

    name: str
    function: str
    axes: Mapping[str, int]
    out: Access
    out_shape: tuple[int, ...]
    reads: tuple[Read, ...]
    steps: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """Number of scalar operations."""
        return prod(self.axes.values())

    def statement(self) -> str:
        """The scalar statement as text."""
        reads = [str(r.access) for r in self.reads]
        # Maps have no sign of their own: function notation, the marker of pairs left out.
        pattern = SIGN.get(self.function)
        if pattern is None:
            return f"{self.out} = {self.function.rstrip('2')}({', '.join(reads)})"
        return pattern.format(*reads, out=self.out)

    def show(self) -> str:
        """The symbolic form for people: domain, statement and one affine map per access."""
        # An axis that the result does not index is summed over.
        outs = {a for ix in self.out.index for a, _ in ix.terms}
        domain = ", ".join(
            f"0 <= {a} < {n}{'' if a in outs else ' (reduced)'}" for a, n in self.axes.items()
        )
        lines = [
            f"dataflow of {self.name}: {self.statement()}",
            f"  domain  {domain}",
            f"  points  {' x '.join(map(str, self.axes.values())) or '1'} = {self.points}",
            f"  write   {_map_text(self.axes, self.out, self.out_shape)}",
        ]
        for read in self.reads:
            # Overhang is legal, padding is what it means; people want to see where it is.
            reach = _overhang(read, self.axes)
            note = f"; out of range is {read.neutral} ({reach})" if reach else ""
            text = _map_text(self.axes, read.access, read.shape)
            lines.append(f"  {read.role:<7} {text}{note}")
        lines += [f"  then    {step}" for step in self.steps]
        return "\n".join(lines)

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed."""
        # The result is an access like every other.
        wrong = [f"axis {a} has extent {n}" for a, n in self.axes.items() if n < 1]
        for access, shape in [
            (self.out, self.out_shape),
            *((r.access, r.shape) for r in self.reads),
        ]:
            if len(access.index) != len(shape):
                wrong.append(f"{access} has {len(access.index)} indices, {len(shape)} wanted")
            unknown = {a for ix in access.index for a, _ in ix.terms} - set(self.axes)
            wrong += [f"{access} names an unknown axis {a}" for a in sorted(unknown)]
        roles = [r.role for r in self.reads]
        return wrong + [f"{r} is read twice" for r in sorted(set(roles)) if roles.count(r) > 1]

    def expand(self, max_points: int = MAX_POINTS) -> Expanded:
        """The expanded form. Raises: OperatorError above `max_points` points."""
        if self.points > max_points:
            raise OperatorError(
                f"{self.name} has {self.points} scalar operations, too many to list",
                why=f"the limit is {max_points}",
                hint="look at the symbolic form, or at a smaller shape",
            )
        extents = tuple(self.axes.values())
        # Row-major, as NumPy counts: flat numbers of points agree with those of everybody else.
        points = np.indices(extents, dtype=np.int64).reshape(len(extents), self.points).T
        columns = dict(zip(self.axes, points.T, strict=True))
        return Expanded(
            self,
            points,
            _flat(self.out, self.out_shape, columns, self.points),
            {r.role: _flat(r.access, r.shape, columns, self.points) for r in self.reads},
        )

    def dot(self, max_nodes: int = 400) -> str:
        """Graphviz text: every point and element where they are at most `max_nodes`, otherwise one
        node for each tensor and for all points, with the maps between them."""
        lines = _dot_lines(self) if _few(self, max_nodes) else _summary_lines(self)
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Expanded:
    """Every point and edge.

    points: int64[P, axes], row-major. write: int64[P], flat index of the output element, -1 if
        none. reads: role -> int64[P], flat index of the element read, -1 where it is the neutral
        element.
    """

    source: Dataflow
    points: NDArray[np.int64]
    write: NDArray[np.int64]
    reads: Mapping[str, NDArray[np.int64]]

    @property
    def nodes(self) -> dict[str, tuple[int, int]]:
        """Node numbers as (first, count): of each tensor's elements, then of the points.

        Tensors stand under "out" and the roles; a tensor element is numbered row-major.
        """
        sizes = {"out": prod(self.source.out_shape)}
        # One numbering for all nodes, so that an edge is a pair of integers.
        sizes.update({r.role: prod(r.shape) for r in self.source.reads})
        # Points come last, so that tensors keep their numbers whatever the size.
        sizes["points"] = len(self.points)
        first = 0
        result: dict[str, tuple[int, int]] = {}
        for name, size in sizes.items():
            result[name] = (first, size)
            first += size
        return result

    def edges(self) -> NDArray[np.int64]:
        """int64[E, 2]: (element, point) for each read in range, (point, element) for each write."""
        nodes, ids = self.nodes, np.arange(len(self.points))
        base = nodes["points"][0]
        # A point without an output element does nothing, and so reads nothing.
        alive = self.write >= 0
        parts: list[NDArray[np.int64]] = []
        for role, flat in self.reads.items():
            ok = alive & (flat >= 0)
            parts.append(np.stack([nodes[role][0] + flat[ok], base + ids[ok]], axis=1))
        parts.append(np.stack([base + ids[alive], nodes["out"][0] + self.write[alive]], axis=1))
        return np.concatenate(parts).astype(np.int64)

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed."""
        wrong = self.source.verify()
        if self.points.shape != (self.source.points, len(self.source.axes)):
            wrong.append(f"points have shape {self.points.shape}")
        sizes = {r.role: prod(r.shape) for r in self.source.reads} | {
            "out": prod(self.source.out_shape)
        }
        for name, flat in (("out", self.write), *self.reads.items()):
            if flat.shape != (self.source.points,):
                wrong.append(f"{name} has {flat.shape} entries, one for each point is wanted")
            elif flat.size and not -1 <= flat.min() <= flat.max() < sizes[name]:
                wrong.append(f"{name} names an element beyond its tensor")
        return wrong

    def show(self) -> str:
        """How many nodes and edges of each kind there are."""
        alive = int((self.write >= 0).sum())
        lines = [f"{self.source.name}: {len(self.points)} points, {alive} write an element"]
        lines += [
            f"  {role} reads {int((flat >= 0).sum())} elements in range, "
            f"{len(np.unique(flat[flat >= 0]))} of them distinct"
            for role, flat in self.reads.items()
        ]
        return "\n".join(lines)


def dataflow(op: Operator) -> Dataflow:
    """The scalar dataflow of an operator: its points, and its epilogue as steps."""
    reads: list[Read] = []
    for role, access in (("lhs", op.lhs), ("rhs", op.rhs)):
        if access is not None:
            t = op.tensors[access.tensor]
            # Sums have 0; a maximum needs the least value that its type has.
            reads.append(Read(role, access, t.shape, NEUTRAL.get((op.kind, t.dtype), 0)))
    return Dataflow(
        name=op.name,
        function={"contract": "mac", "map": "copy"}.get(op.kind, op.kind),
        axes=op.axes,
        out=op.out,
        out_shape=op.tensors[op.out.tensor].shape,
        reads=tuple(reads),
        steps=(*map(str, op.epilogue), f"low bits as {op.out_dtype}"),
    )


def _flat(
    access: Access, shape: tuple[int, ...], columns: Mapping[str, NDArray[np.int64]], points: int
) -> NDArray[np.int64]:
    """Flat row-major element index of every point, -1 outside the tensor."""
    flat = np.zeros(points, np.int64)
    inside = np.ones(points, np.bool_)
    for ix, extent in zip(access.index, shape, strict=True):
        value = np.full(points, ix.const, np.int64)
        # Row by row: one column for each axis, so that whole arrays are multiplied.
        for axis, c in ix.terms:
            value += c * columns[axis]
        inside &= (value >= 0) & (value < extent)
        # Computed outside of the tensor too, where it is meaningless, and masked at the end.
        flat = flat * extent + value
    return np.where(inside, flat, -1)


def _map_text(axes: Mapping[str, int], access: Access, shape: tuple[int, ...]) -> str:
    names = ",".join(axes)
    index = ", ".join(map(str, access.index))
    return f"({names}) -> {access.tensor}({index}) of {'x'.join(map(str, shape)) or 'scalar'}"


def _overhang(read: Read, axes: Mapping[str, int]) -> str:
    """How far an access reaches beyond its tensor, as text; empty if nowhere."""
    parts: list[str] = []
    for d, (ix, extent) in enumerate(zip(read.access.index, read.shape, strict=True)):
        lo, hi = ix.reach(axes)
        if lo < 0 or hi >= extent:
            parts.append(f"dimension {d} runs over {lo}..{hi}")
    return ", ".join(parts)


def _few(flow: Dataflow, most: int) -> bool:
    """Whether the points and the elements that they touch are at most `most`."""
    # Cheap first: the elements need not be counted where the points are too many.
    if flow.points > most:
        # Points that write nothing touch nothing.
        return False
    nodes: set[int | str] = set()
    for number, values in enumerate(_points_by_output(flow)):
        touched = [(flow.out, flow.out_shape), *((r.access, r.shape) for r in flow.reads)]
        names = [_name(access, shape, values) for access, shape in touched]
        if names[0] is not None:
            nodes |= {number, *(n for n in names if n is not None)}
    return len(nodes) <= most


def _dot_lines(flow: Dataflow) -> Iterator[str]:
    """Every element as a box, every point as a circle; the epilogue stands in the outputs."""
    yield f'digraph "{flow.name}" {{'
    yield f'  label="{flow.statement()}"; rankdir=LR; node [fontname="monospace"];'
    seen: set[str] = set()
    drawn = 0
    for values in _points_by_output(flow):
        names = [_name(flow.out, flow.out_shape, values)]
        names += [_name(r.access, r.shape, values) for r in flow.reads]
        if names[0] is None:
            # Only what some point touches is drawn; padding has no node.
            continue
        for n in names:
            if n is not None and n not in seen:
                seen.add(n)
                then = "".join(f"\\n{step}" for step in flow.steps) if n == names[0] else ""
                yield f'  "{n}" [shape=box label="{n}{then}"];'
        point = f"p{drawn}"
        label = ",".join(map(str, values.values()))
        yield f'  {point} [shape=ellipse label="{flow.function} {label}"];'
        yield from (f'  "{n}" -> {point};' for n in names[1:] if n is not None)
        yield f'  {point} -> "{names[0]}";'
        drawn += 1
    yield "}"


def _summary_lines(flow: Dataflow) -> Iterator[str]:
    """Tensors as boxes with their shapes, all points as one ellipse with its domain."""
    outs = {a for ix in flow.out.index for a, _ in ix.terms}
    axes = [f"{a} {n}{'' if a in outs else ' (reduced)'}" for a, n in flow.axes.items()]
    # Four axes a line: labels stay readable.
    rows = [axes[k : k + 4] for k in range(0, len(axes), 4)]
    domain = "\\n".join(", ".join(row) for row in rows)
    yield f'digraph "{flow.name}" {{'
    yield f'  label="{flow.name}: summary, one node for all points"; rankdir=LR;'
    yield '  node [fontname="monospace"]; edge [fontname="monospace"];'
    points = f"{flow.statement()}\\n{flow.points:,} points\\n{domain}"
    yield f'  points [shape=ellipse label="{points}"];'
    for read in flow.reads:
        index = ", ".join(map(str, read.access.index))
        reach = _overhang(read, flow.axes)
        note = f"\\nout of range is {read.neutral}" if reach else ""
        yield f'  {read.role} [shape=box label="{_tensor(read.access, read.shape)}{note}"];'
        yield f'  {read.role} -> points [label="[{index}]"];'
    then = "".join(f"\\n{step}" for step in flow.steps)
    index = ", ".join(map(str, flow.out.index))
    yield f'  out [shape=box label="{_tensor(flow.out, flow.out_shape)}{then}"];'
    yield f'  points -> out [label="[{index}]"];'
    yield "}"


def _tensor(access: Access, shape: tuple[int, ...]) -> str:
    return f"{access.tensor} {' x '.join(map(str, shape)) or 'scalar'}"


def _points_by_output(flow: Dataflow) -> Iterator[dict[str, int]]:
    """Points one at a time, those of one output element together."""
    outs = [a for ix in flow.out.index for a, _ in ix.terms]
    # Output axes outermost: the points of one sum are neighbours in the picture.
    order = [*outs, *(a for a in flow.axes if a not in outs)]
    # Counted by mixed radix: no list of all points is made.
    for flat in range(flow.points):
        values, rest = {}, flat
        for axis in reversed(order):
            rest, values[axis] = divmod(rest, flow.axes[axis])
        yield {a: values[a] for a in flow.axes}


def _name(access: Access, shape: tuple[int, ...], values: Mapping[str, int]) -> str | None:
    """The element that a point touches, as text; None outside the tensor."""
    index = [ix.const + sum(c * values[a] for a, c in ix.terms) for ix in access.index]
    if any(i < 0 or i >= n for i, n in zip(index, shape, strict=True)):
        return None
    return f"{access.tensor}[{','.join(map(str, index))}]"
