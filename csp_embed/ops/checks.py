"""What a formula and its shapes must satisfy before they make an operator.

Each function takes the statement (and shapes, extents, tensors as they become known) and raises
OperatorError with a caret under the place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod

from csp_embed.errors import OperatorError
from csp_embed.ir.affine import Affine
from csp_embed.ir.operator import Access, Tensor
from csp_embed.ops.extents import accesses_of, plain_axis
from csp_embed.ops.syntax import Statement
from csp_embed.ops.tokens import fail

ADDRESS_BITS = 32
# Immediates are words of the machine's accumulators.
INT32_MAX = 2**31 - 1
BYTES = {"int8": 1, "int16": 2, "int32": 4}


def axes_of(access: Access) -> set[str]:
    """All axes that an access reads."""
    return {a for ix in access.index for a, _ in ix.terms}


def check_names(st: Statement) -> None:
    """The result is no operand; a contraction's operands differ."""
    reads = [a.tensor for a in accesses_of(st)]
    # The result is being written while operands are read: its values are not there yet.
    if st.out.tensor in reads:
        at = st.text.find(f"{st.out.tensor}[", len(str(st.out.tensor)))
        fail(st.text, at, f"{st.out.tensor} is the result and cannot be read")
    if st.kind == "contract" and len(set(reads)) < len(reads):
        twice = next(r for r in reads if reads.count(r) > 1)
        fail(
            st.text,
            st.places[twice],
            f"{twice} stands twice",
            why="each operand of a contraction is packed in its own way",
            hint="name them differently and pass the same array twice",
        )


def check_ranks(st: Statement, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Every access of a tensor has as many indices as the tensor has dimensions."""
    ranks: dict[str, int] = {}
    for access in (st.out, *accesses_of(st)):
        rank = len(access.index)
        # The first access fixes the rank; the shape, if given, must agree.
        if ranks.setdefault(access.tensor, rank) != rank:
            fail(
                st.text,
                st.places[access.tensor],
                f"{access.tensor} has {ranks[access.tensor]} indices in one place "
                f"and {rank} in another",
            )
        shape = shapes.get(access.tensor)
        if shape is not None and len(shape) != rank:
            fail(
                st.text,
                st.places[access.tensor],
                f"{access.tensor} has {rank} indices, but its shape {_dims(shape)} has "
                f"{len(shape)} dimensions",
            )


def check_axes(st: Statement) -> None:
    """No axis stands twice in the result, and none stands only there."""
    seen: set[str] = set()
    # An axis of the result alone would repeat every element along it.
    read = axes_of(st.lhs) | (axes_of(st.rhs) if st.rhs else set[str]())
    for d, ix in enumerate(st.out.index):
        at = st.index_places[st.out.tensor, d]
        for axis, _ in ix.terms:
            if axis in seen:
                fail(st.text, at, f"axis {axis} stands twice in {st.out}")
            if axis not in read:
                fail(
                    st.text,
                    at,
                    f"only {st.out.tensor} has axis {axis}",
                    why="no operand says what its elements are"
                    if st.kind != "map"
                    else f"{st.lhs}, where the program starts, does not have it",
                    hint="" if st.kind != "map" else "start with a tensor that has all axes",
                )
            seen.add(axis)
    # In `=` each element has one value: an axis that y lacks would need a sum.
    reduced = axes_of(st.lhs) - seen
    if st.kind == "map" and reduced:
        fail(
            st.text,
            st.places[st.lhs.tensor],
            f"{st.out.tensor} does not have axis {', '.join(sorted(reduced))}",
            why="'=' is elementwise; sums are written +=",
        )


def check_steps(st: Statement) -> None:
    """Step tensors run over the result's axes; immediates fit; shift amounts are real shifts."""
    outs = axes_of(st.out)
    # A step runs behind the sums, where the reduced axes are gone.
    for step in st.steps:
        if step.access is not None:
            strange = axes_of(step.access) - outs
            if strange:
                fail(
                    st.text,
                    st.places.get(step.access.tensor),
                    f"{step.access} uses axis {', '.join(sorted(strange))}, which the result lacks",
                )
        elif step.imm is not None and not -INT32_MAX - 1 <= step.imm <= INT32_MAX:
            raise OperatorError(
                f"{step} does not fit 32 bits",
                where=st.text,
                hint=f"a constant within {-INT32_MAX - 1}..{INT32_MAX}",
            )
        # The machines look at five bits of the amount.
        if step.op == "shr" and step.imm is not None and not -31 <= step.imm <= 31:
            raise OperatorError(
                f"a shift by {step.imm} is not within -31..31",
                where=st.text,
                why="sums have 32 bits",
                hint="shift by at most 31",
            )


def check_reads(
    st: Statement,
    axes: Mapping[str, int],
    tensors: Mapping[str, Tensor],
    stated: Collection[str] = (),
) -> None:
    """Padding is plausible, and steps read within range.

    An output axis of which most values read nothing, all at one end, is taken for a wrong shape;
    not so one of `stated`, whose extent was given by name.
    """
    outs = axes_of(st.out)
    for access in accesses_of(st):
        # Compared by value: an operand's access may also stand in a step.
        operand = access in (st.lhs, st.rhs)
        for d, ix in enumerate(access.index):
            dim = tensors[access.tensor].shape[d]
            lo, hi = ix.reach(axes)
            at = st.index_places.get((access.tensor, d))
            # Only operands have a neutral value for what lies outside.
            if not operand and (lo < 0 or hi >= dim):
                other = st.kind == "map" and access.tensor != st.lhs.tensor
                fail(
                    st.text,
                    at,
                    f"{access.tensor} is read at {lo}..{hi}, outside its extent {dim}",
                    why="steps read their tensors within range; only the operands are padded",
                    hint=f"let the program start with {access}" if other else "",
                )
            axis = plain_axis(ix)
            padded = st.kind == "map" and access is st.lhs and axes.get(str(axis), 0) > dim
            if axis is not None and axes[axis] != dim and not padded:
                fail(
                    st.text, at, f"axis {axis} is {axes[axis]}, but {access.tensor} has {dim} there"
                )
            for name, c in ix.terms:
                # More overhang at one end than the other axes explain: probably a wrong shape.
                lopsided = abs((hi - dim + 1) + lo) > abs(
                    hi - lo - abs(c) * (axes[name] - 1)
                ) + abs(c)
                if (
                    access is st.lhs
                    and name in outs
                    and name not in stated
                    and lopsided
                    and _dead_share(ix, name, c, axes, dim) > 0.5
                ):
                    fail(
                        st.text,
                        at,
                        f"most of axis {name} ({axes[name]} values) reads nothing: "
                        f"{access.tensor} has extent {dim} there, the index runs over {lo}..{hi}",
                        why="the shapes contradict each other",
                    )
    # Elements that nothing writes would hold whatever was there.
    for d, (ix, dim) in enumerate(zip(st.out.index, tensors[st.out.tensor].shape, strict=True)):
        _, hi = ix.reach(axes)
        if hi < dim - 1:
            fail(
                st.text,
                st.index_places[st.out.tensor, d],
                f"{st.out.tensor} has extent {dim} there, but only 0..{hi} are written",
            )


def _dead_share(ix: Affine, axis: str, coef: int, axes: Mapping[str, int], dim: int) -> float:
    """Share of the axis' values for which every read along this index is out of range."""
    # With the axis at 0, the reach is that of all the others.
    lo, hi = ix.reach({**axes, axis: 1})
    # Values v with hi + coef*v >= 0 and lo + coef*v <= dim-1 read something.
    if coef > 0:
        first, last = -(hi // coef), (dim - 1 - lo) // coef
    else:
        first, last = -((dim - 1 - lo) // -coef), hi // -coef
    first, last = max(first, 0), min(last, axes[axis] - 1)
    return 1 - max(last - first + 1, 0) / axes[axis]


def check_addresses(st: Statement, tensors: Mapping[str, Tensor]) -> None:
    """Everything must lie below 2**32 bytes."""
    # One tensor first: its message is the clearer one.
    for t in tensors.values():
        size = prod(t.shape) * BYTES[t.dtype]
        if size >= 2**ADDRESS_BITS:
            raise OperatorError(
                f"{t.name} with shape {_dims(t.shape)} has {size} bytes",
                where=st.text,
                why=f"addresses have {ADDRESS_BITS} bits",
                hint="split the operator",
            )
    total = sum(prod(t.shape) * BYTES[t.dtype] for t in tensors.values())
    if total >= 2**ADDRESS_BITS:
        raise OperatorError(
            f"the tensors together have {total} bytes",
            where=st.text,
            why=f"addresses have {ADDRESS_BITS} bits",
            hint="split the operator",
        )


def _dims(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
