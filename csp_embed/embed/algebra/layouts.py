"""Layouts of all operands of an embedding: a deterministic function of digits and counters.

Takes: Operator, Unit, Map (digits, counters, coordinates), commuted, mode.
Leaves: operand role -> `Layout`.  Raises `Reject` where the map breaks a rule: operand agreement,
one home per output, harmless pad, strict layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

from csp_embed.embed.algebra.grid import STRICT, grid_axes, grid_mode
from csp_embed.embed.algebra.occupancy import Occupancy, occupancy
from csp_embed.embed.algebra.rows import Reject, Row, coordinate_row, is_plain, reads, tensor_rows
from csp_embed.embed.space.digits import Map
from csp_embed.embed.space.unit import Unit, accesses
from csp_embed.ir.affine import reach
from csp_embed.ir.embedding import Coordinate, Digit, Fused, Layout
from csp_embed.ir.operator import Access, Operator, Role


def derive_layouts(
    op: Operator, unit: Unit, lanes: Map, commuted: bool, mode: str = "relaxed"
) -> tuple[dict[str, Layout], dict[str, Occupancy]]:
    """Layouts by operand ("lhs", "rhs", "dst", then "add0", … of the epilogue's tensor steps), and
    how full each is.

    Raises: Reject, where the map is no embedding or not one in this layout mode.
    """
    roles = accesses(op, commuted)
    checked = range_checks(op, unit, lanes, roles)
    layouts: dict[str, Layout] = {}
    counts: dict[str, Occupancy] = {}
    for role, access in roles.items():
        layouts[role], counts[role] = _layout(
            op, unit, lanes, role, access, mode, checked.get(role, ())
        )
    # A sum that lands in two elements, or nowhere, is no embedding, whatever it costs.
    result, size = counts[Role.DST], math.prod(op.tensors[op.out.tensor].shape)
    if result.duplicates:
        raise Reject("one-home", "an output element has two homes")
    if result.exact and result.distinct < size:
        raise Reject("one-home", "an output element has no home")
    # Tensors of steps lie as the result does: nothing is to be decided, so no mode applies.
    for role, access in op.steps_read().items():
        layouts[role], counts[role] = _layout(op, unit, lanes, role, access, "relaxed", ())
    return layouts, counts


def _layout(
    op: Operator,
    unit: Unit,
    lanes: Map,
    role: str,
    access: Access,
    mode: str,
    checked: Sequence[str],
) -> tuple[Layout, Occupancy]:
    dims, tensor = unit.dims_of(role), op.tensors[access.tensor]
    extents = {d.name: d.extent for d in lanes.digits}
    seen, equal, partners = seen_by(lanes, dims)
    rows = tensor_rows(access, tensor.shape, seen, op.axes)
    # Coordinates that this operand must watch, and fused ones whose axes it reads.
    fused = [c for c in seen if c.axes[0] in checked or (not is_plain(c) and reads(access, c))]
    own = [coordinate_row(c) for c in fused]
    every = [*rows, *own]
    _agree(role, every, {d.name: d.dim for d in lanes.digits}, dims)
    cut = grid_mode(role, tensor.constant, mode)
    if cut == STRICT:
        permutation_only(lanes, dims, every, equal, own)
    grid = grid_axes(every, lanes.counters, extents, cut)
    n = len(rows)
    # Grid dimensions may begin below 0; their shift is added once here, so indices count from 0.
    const = [row.const + sum(a.shift.get(r, 0) for a in grid) for r, row in enumerate(every)]
    coef = [tuple(a.coef.get(r, 0) for a in grid) for r in range(len(every))]
    moved = {d for row in every for d in row.digits} | partners
    repeat = _repeats(op, access, [d for d in lanes.digits if d.dim in dims], moved, fused)
    # A fused coordinate says where its axes' values lie: they count once each, as virtual digits.
    counted = dict(enumerate(rows))
    for f, (c, row) in enumerate(zip(fused, own, strict=True)):
        if is_plain(c) or not reads(access, c):
            counted[n + f] = row
    # Watched coordinates beyond the tensor's indices cut what is held and name no element.
    count = occupancy(counted, n, grid, extents, repeat)
    if cut == STRICT and count.duplicates:
        raise Reject("layout", "an element stands twice")
    layout = Layout(
        operand=role,
        tensor=access.tensor,
        memory=unit.memory_of(role),
        access=access,
        grid=tuple(a.size for a in grid),
        grid_names=tuple(a.name for a in grid),
        origin=tuple(a.origin for a in grid),
        step={
            c.name: tuple(a.step.get(c.name, 0) for a in grid)
            for c in lanes.counters
            if any(c.name in a.step for a in grid)
        },
        const=tuple(const[:n]),
        grid_coef=tuple(coef[:n]),
        digit_coef=tuple(dict(row.digits) for row in rows),
        fused=tuple(
            _fused(op, access, c, row, const[n + f], coef[n + f])
            for f, (c, row) in enumerate(zip(fused, own, strict=True))
        ),
        equal=equal,
        duplicates=count.duplicates,
    )
    return layout, count


def _repeats(
    op: Operator,
    access: Access,
    digits: Sequence[Digit],
    moved: Set[str],
    fused: Sequence[Coordinate],
) -> int:
    """How often each lane's content stands in an element: digits of the operand's dimensions that
    move no row, and values of fused axes that it does not read."""
    # Lanes that move nothing hold the same content again.
    out = math.prod(d.extent for d in digits if d.name not in moved)
    for c in fused:
        if not is_plain(c) and reads(access, c):
            unread = [a for a in c.axes if not any(ix.coef(a) for ix in access.index)]
            out *= math.prod(op.axes[a] for a in unread)
    return out


def permutation_only(
    lanes: Map,
    dims: Sequence[str],
    rows: Sequence[Row],
    equal: Sequence[tuple[str, str]],
    own: Sequence[object],
) -> None:
    """A strict layout has no lanes that repeat, and no dimension but the tensor's; lanes off a
    diagonal are pad. own: rows of fused or range-checked coordinates."""
    if own:
        raise Reject("layout", "fused or range-checked axes are no indices of the tensor")
    # One digit in two rows is met with equal values only: all other pairs would be missing.
    uses = [d for row in rows for d in row.digits]
    moved = set(uses)
    if len(uses) > len(moved):
        raise Reject("layout", "a lane moves two tensor indices: it meets their diagonal only")
    moved |= {second for _, second in equal}
    idle = [d.name for d in lanes.digits if d.dim in dims and d.name not in moved and d.extent > 1]
    if idle:
        raise Reject("layout", f"lanes {', '.join(idle)} repeat the elements")


def _fused(
    op: Operator, access: Access, c: Coordinate, row: Row, const: int, grid_coef: tuple[int, ...]
) -> Fused:
    """A range-checked plain coordinate moves no index here: its digits already do."""
    # Else the digits' own movement would be counted twice.
    moves = not is_plain(c)
    axis_coef = {a: tuple(ix.coef(a) if moves else 0 for ix in access.index) for a in c.axes}
    extents = tuple(op.axes[a] for a in c.axes)
    return Fused(c.axes, extents, const, grid_coef, dict(row.digits), axis_coef)


def seen_by(
    lanes: Map, dims: Sequence[str]
) -> tuple[list[Coordinate], tuple[tuple[str, str], ...], set[str]]:
    """Coordinates in digits that an operand with `dims` has, the equal pairs it has both of, and
    the digits that are partners (they select, but move nothing)."""
    dim_of = {d.name: d.dim for d in lanes.digits}
    swap: dict[str, str] = {}
    both: list[tuple[str, str]] = []
    partners: set[str] = set()
    for first, second in lanes.equal:
        # Both ends of an equal pair: the second repeats the first. One end: the operand sees the
        # digit under its partner's name, for the lanes are the same.
        if dim_of[first] in dims and dim_of[second] in dims:
            both.append((first, second))
            partners.add(second)
        elif dim_of[first] not in dims and dim_of[second] in dims:
            swap[first] = second
    out: list[Coordinate] = []
    for c in lanes.coordinates:
        digits = {swap.get(name, name): coef for name, coef in c.digits.items()}
        out.append(Coordinate(c.axes, c.extent, c.const, digits, c.counters))
    return out, tuple(both), partners


def _agree(role: str, rows: Sequence[Row], dim_of: Mapping[str, str], dims: Sequence[str]) -> None:
    for row in rows:
        for digit in row.digits:
            # Lanes of a dimension that the operand lacks all get one element of it.
            if dim_of[digit] not in dims:
                why = f"{role} has no dimension {dim_of[digit]}, yet digit {digit} moves it"
                raise Reject("operand-agreement", why)


def range_checks(
    op: Operator, unit: Unit, lanes: Map, roles: Mapping[Role, Access]
) -> dict[str, list[str]]:
    """Role -> first axes of the coordinates whose range it must watch (rules 4 and 6)."""
    dim_of = {d.name: d.dim for d in lanes.digits}
    inputs = [r for r in roles if r != Role.DST]
    for first, second in lanes.equal:
        # A factor that has both is zero off the diagonal; a result that has both is dead there.
        if not any({dim_of[first], dim_of[second]} <= set(unit.dims[r]) for r in roles):
            raise Reject("pad-harmless", f"no operand can hold zeros where {first} is not {second}")
    out: dict[str, list[str]] = {}
    for c in lanes.coordinates:
        if not _overflows(c, lanes):
            continue
        if c.axes[0] not in op.reduced_axes:
            # A dead lane may hold anything, but must not be taken for another output element.
            if not _masks(op, roles[Role.DST], c):
                out.setdefault(Role.DST, []).append(c.axes[0])
            continue
        if any(_masks(op, roles[r], c) for r in inputs):
            continue
        dims = {dim_of[d] for d in c.digits}
        # A product is 0 where one factor is: any factor with all the lanes can hold the zeros.
        able = [r for r in inputs if dims <= set(unit.dims[r])]
        # A constant first: zeros in weights cost nothing, in activations the host has to write
        # them.
        able.sort(key=lambda r: not op.tensors[roles[r].tensor].constant)
        if not able:
            raise Reject("pad-harmless", f"no operand can be zero where {c.axes} is out of range")
        out.setdefault(able[0], []).append(c.axes[0])
    return out


def _overflows(c: Coordinate, lanes: Map) -> bool:
    trips = {k.name: k.extent for k in lanes.counters} | {d.name: d.extent for d in lanes.digits}
    moves = (*c.digits.items(), *c.counters.items())
    # In range at both ends of every digit is in range everywhere.
    low, high = reach(((coef, trips[n]) for n, coef in moves), c.const)
    return low < 0 or high >= c.extent


def _masks(op: Operator, access: Access, c: Coordinate) -> bool:
    """Whether reading `access` out of the coordinate's range is already out of the tensor."""
    if not is_plain(c):
        return reads(access, c)
    axis, extent = c.axes[0], op.axes[c.axes[0]]
    for size, ix in zip(op.tensors[access.tensor].shape, access.index, strict=True):
        if len(ix.terms) == 1 and abs(ix.coef(axis)) == 1:
            # The tensor ends where the axis does, so its own border already gives zeros there.
            ends = sorted((v - ix.const) * ix.coef(axis) for v in (0, size - 1))
            if ends[0] >= 0 and ends[1] < extent:
                return True
    return False
