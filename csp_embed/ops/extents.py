"""Extents of a formula's axes from the shapes of its tensors.

In this order, each later rule only for axes still unknown:
1. extents given by name;
2. an output index numbers its axes mixed-radix (`8*g+k`: k has 8 values, g the rest of y's extent);
3. an index that is one plain axis gives it that extent;
   (an elementwise program whose axis has a larger extent by rule 1 is padded at that end);
4. otherwise the largest extent for which no read is out of range. Negative offsets mean padding,
   which nothing bounds: then y's shape is required.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from csp_embed.ir.affine import Affine
from csp_embed.ir.operator import Access
from csp_embed.ops.syntax import Statement
from csp_embed.ops.tokens import fail


def plain_axis(ix: Affine) -> str | None:
    """The axis of an index that is just one axis, else None."""
    return ix.terms[0][0] if ix.const == 0 and len(ix.terms) == 1 and ix.terms[0][1] == 1 else None


def accesses_of(st: Statement) -> list[Access]:
    """The reads of the statement: lhs, rhs, then the tensors of its steps."""
    return [a for a in (st.lhs, st.rhs, *(s.access for s in st.steps)) if a is not None]


def axis_order(st: Statement) -> list[str]:
    """Output axes as y names them (large strides first), then the reduced ones as they appear."""
    order: list[str] = []
    for ix in st.out.index:
        # Large strides first: y's memory order, so that loops nest as the tensor lies.
        order += [a for a, _ in sorted(ix.terms, key=lambda t: -t[1])]
    for access in (st.lhs, st.rhs):
        for ix in access.index if access else ():
            # By name: the order in which reduced axes stand has no meaning.
            order += sorted((a for a, _ in ix.terms if a not in order), key=str)
    return order


GIVEN = "the extent given"


@dataclass
class Solver:
    """Holds what is known of the axes, and where each fact came from."""

    st: Statement
    shapes: Mapping[str, tuple[int, ...]]
    known: dict[str, int]
    origin: dict[str, str]

    def learn(self, axis: str, extent: int, origin: str, at: int | None) -> None:
        if extent < 1:
            fail(self.st.text, at, f"axis {axis} would have extent {extent}", why=f"from {origin}")
        # A second origin may confirm an extent, never change it.
        if self.known.setdefault(axis, extent) != extent:
            fail(
                self.st.text,
                at,
                f"axis {axis} is {self.known[axis]} by {self.origin[axis]}, "
                f"but {extent} by {origin}",
                why="the shapes contradict each other",
                hint=self._end_padding(axis, extent),
            )
        self.origin.setdefault(axis, origin)

    def _end_padding(self, axis: str, extent: int) -> str:
        """How to say that zeros at the end are meant, where they can be."""
        # Padding at the end is legal for elementwise programs alone, and must be said.
        longest = max(extent, self.known[axis])
        return f"if zeros at the end are meant: '; {axis} < {longest}'" * (self.st.kind == "map")

    def indices(self, out: bool = False) -> Iterator[tuple[str, int, Affine, int | None, int]]:
        """(tensor, dimension, index, its extent where the shape is given, place)."""
        for access in [self.st.out] if out else accesses_of(self.st):
            shape = self.shapes.get(access.tensor)
            for d, ix in enumerate(access.index):
                at = self.st.index_places[access.tensor, d]
                yield access.tensor, d, ix, shape[d] if shape else None, at

    def output(self) -> None:
        """Rule 2: radices of the output indices; leading extents where y's shape is given."""
        text = self.st.text
        for tensor, d, ix, dim, at in self.indices(out=True):
            # From the smallest stride: radices are quotients of neighbours.
            terms = sorted(ix.terms, key=lambda t: t[1])
            why = "an output index numbers its axes: k, or 8*g+k with k below 8"
            if ix.const or (terms and terms[0][1] != 1):
                fail(text, at, f"{tensor} is written at {ix}, which leaves gaps", why=why)
            # Each stride must be a multiple of the one below, or two points share an element.
            for (axis, c), (_, above) in pairwise(terms):
                if above % c or above == c:
                    fail(text, at, f"{tensor} is written at {ix}, not a numeration", why=why)
                self.learn(axis, above // c, f"the radix in {tensor}'s index {ix}", at)
            if dim is not None and terms:
                axis, c = terms[-1]
                # Rounded up: at a ragged end the last block is shorter.
                self.learn(axis, -(-dim // c), f"{tensor}'s dimension {d}", at)
            elif dim is not None and dim != 1:
                fail(text, at, f"{tensor}'s dimension {d} is {dim}, but only index 0 is written")

    def plain(self) -> None:
        """Rule 3."""
        for tensor, d, ix, dim, at in self.indices():
            axis = plain_axis(ix)
            if axis is None or dim is None:
                continue
            # An elementwise program may be padded at the end alone, if its extent is stated.
            padded = self.st.kind == "map" and tensor == self.st.lhs.tensor
            if padded and self.origin.get(axis) == GIVEN and dim < self.known[axis]:
                continue
            self.learn(axis, dim, f"{tensor}'s dimension {d}", at)

    def largest(self, order: list[str]) -> None:
        """Rule 4."""
        # One after the other: an axis that becomes known may bound the next.
        todo = [a for a in order if a not in self.known]
        while todo:
            for axis in todo:
                if self.bound(axis):
                    todo.remove(axis)
                    break
            else:
                names = ", ".join(todo)
                fail(
                    self.st.text,
                    None,
                    f"the shapes do not tell the extent of {names}",
                    hint=f"give all operands' shapes, and --shape {self.st.out.tensor}=…, or write "
                    f"'; {todo[-1]} < 3' behind the formula",
                )

    def bound(self, axis: str) -> bool:
        best: int | None = None
        place: int | None = None
        for tensor, _, ix, dim, at in self.indices():
            c = ix.coef(axis)
            if not c or dim is None or any(a != axis and a not in self.known for a, _ in ix.terms):
                continue
            # With the axis at 0, the rest of the index alone.
            lo, hi = ix.reach({**self.known, axis: 1})
            if lo < 0 or c < 0:
                fail(
                    self.st.text,
                    at,
                    f"{tensor} is read below 0, so {self.st.out.tensor}'s shape must be given",
                    why="reads out of range are padding, and nothing says how much is wanted",
                    hint=f"--shape {self.st.out.tensor}=…",
                )
            if hi > dim - 1:
                fail(
                    self.st.text,
                    at,
                    f"{tensor}'s extent {dim} is too small: index {ix} reaches {hi}",
                    why=f"no value of {axis} reads within the tensor",
                )
            extent = (dim - 1 - hi) // c + 1
            if best is None or extent < best:
                best, place = extent, at
        if best is None:
            return False
        self.learn(axis, best, "the largest that reads within range", place)
        return True


def solve_extents(
    st: Statement,
    shapes: Mapping[str, tuple[int, ...]],
    given: Mapping[str, int],
) -> dict[str, int]:
    """Extents of all axes, in the operator's order.

    Raises: OperatorError where shapes contradict, a read needs y's shape, or an axis stays unknown.
    """
    order = axis_order(st)
    solver = Solver(st, shapes, {}, {})
    for source in (st.extents, given):
        for axis, extent in source.items():
            if axis not in order:
                why = f"axes are {', '.join(order)}"
                fail(st.text, None, f"axis {axis} does not occur", why=why)
            solver.learn(axis, extent, GIVEN, None)
    solver.output()
    solver.plain()
    guessed = [a for a in order if a not in solver.known]
    solver.largest(order)
    for tensor, _, ix, dim, at in solver.indices() if st.out.tensor not in shapes else ():
        lo, hi = ix.reach(solver.known)
        if dim is not None and (lo < 0 or hi >= dim) and plain_axis(ix) is None:
            fail(
                st.text,
                at,
                f"{tensor} is read at {lo}..{hi}, outside its extent {dim}",
                hint=f"give --shape {st.out.tensor}=… if padding is meant"
                + (f" (extents found: {guessed})" if guessed else ""),
            )
    return {a: solver.known[a] for a in order}
