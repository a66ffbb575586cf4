"""Layout pins: which tensor elements lie side by side in one memory element.

    x=NHWC       plain row-major order: an element's lanes are consecutive values of that order, so
                 the innermost index must fill them exactly; nothing is padded, nothing stands twice
    x=NCHW16c    blocks as named: 16 values of c side by side, padded where c ends; NCHW1n16c on
                 machines with batch lanes
    x=n,p,q,c    names with commas, where letters are not enough

The names without numbers also order the elements in DRAM, outermost first: x=NHWC lies there byte
for byte as the tensor does. Letters of activations are those of the operator's own layout (NCHW,
…), by position, in x and in the result; of every tensor, the axes of its indices count too (KCRS
for w).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from csp_embed.embed.problem import EmbedProblem, Option
from csp_embed.embed.space.digits import Decisions, expand
from csp_embed.embed.space.evaluate import operands
from csp_embed.embed.space.rules import Rules
from csp_embed.embed.space.unit import Unit
from csp_embed.errors import InputError
from csp_embed.ir.embedding import Embedding, Layout
from csp_embed.ir.operator import FACTORS, Access, Operator

Lane = tuple[str, int, int, int]  # dimension, tensor index, lanes, coefficient


@dataclass(frozen=True)
class LayoutPin:
    """keep: predicate on options. arrange: the same embedding with the lanes inside each dimension
    in the order asked for (to the search that order is a symmetry). factors: axis -> lanes that the
    layout needs. strict: a run-time factor, which may not be duplicated. why: it cannot be kept at
    all; pad: (axis, extent) that would mend that."""

    keep: Callable[[Option], bool]
    arrange: Callable[[Embedding], Embedding]
    factors: Mapping[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    strict: bool = False
    why: str = ""
    pad: tuple[str, int] | None = None


def layout_pin(problem: EmbedProblem, text: str) -> LayoutPin:
    """Reads TENSOR=ORDER. Raises: InputError for an unknown tensor or letter."""
    op, isa, unit = problem.op, problem.isa, problem.unit
    tensor, sign, order = text.partition("=")
    tensor = tensor.strip()
    places = {r: a for r, a in operands(problem.rules(False)).items() if a.tensor == tensor}
    if not sign or not places:
        # In the order of operands, each once: a tensor may serve several.
        have = ", ".join(dict.fromkeys(a.tensor for a in operands(problem.rules(False)).values()))
        raise InputError(f"--layout {text} names no tensor", why=f"the operator has {have}",
                         hint="--layout x=NHWC, or --layout strict")  # fmt: skip
    role = next(iter(places))
    outer, blocks = _order(op, tensor, order.strip())
    shape = op.tensors[tensor].shape
    # Results and what is added to them hold padding anyway; constants may stand several times.
    strict = role in FACTORS and not op.tensors[tensor].constant
    per_role: dict[str, tuple[Lane, ...]] = {}
    factors: dict[str, frozenset[int]] = {}
    why, pad = "", None
    for actual in _roles(op, role):
        dims = isa.memory(unit.memory_of(actual)).lanes
        # Lanes are row-major, so the last dimension runs fastest.
        sizes = [(d, unit.size.get(d, 1)) for d in reversed(dims)]
        sequence = [(t, f, True) for f, t in reversed(blocks)]
        # Without blocks the plain order fills the lanes, innermost index first.
        sequence = sequence or [(t, shape[t], False) for t in reversed(outer)]
        # Every operand that the tensor may be is tried: commuted it lies in another memory.
        lanes, reason, mend = _lanes_in_order(sizes, sequence, shape, bool(blocks))
        if reason:
            why, pad = why or _said(op, tensor, order, reason), pad or _axis_of(op, tensor, mend)
            continue
        per_role[actual] = lanes
        for _, t, n, _ in lanes:
            # The search must weigh these sizes, though it would not choose them by itself.
            for axis, _ in places[role].index[t].terms:
                factors[axis] = factors.get(axis, frozenset()) | {n}
    keep = _keep(op, unit, tensor, per_role)
    return LayoutPin(
        keep,
        _arranger(tensor, outer, per_role),
        factors,
        strict,
        "" if per_role else why,
        None if per_role else pad,
    )


def _roles(op: Operator, role: str) -> tuple[str, ...]:
    """Instruction operands that may hold the tensor: factors may be commuted."""
    return FACTORS if op.rhs is not None and role in FACTORS else (role,)


def _order(op: Operator, tensor: str, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Indices outermost first, and blocks (size, index) outermost first."""
    access = next(a for a in (op.out, op.lhs, op.rhs, *(s.access for s in op.epilogue))
                  if a is not None and a.tensor == tensor)  # fmt: skip
    letters = str(op.notes.get("layout", "")).upper()
    names: dict[str, int] = {}
    for t, ix in enumerate(access.index):
        for axis, _ in ix.terms:
            # An index of several axes answers to each of their names.
            names.setdefault(axis.upper(), t)
    if tensor in (op.lhs.tensor, op.out.tensor) and len(letters) == len(access.index):
        # Letters of the layout come last, and so win over axes that are called alike.
        names |= {letter: t for t, letter in enumerate(letters)}
    words = (
        [w.strip() for w in text.split(",")]
        if "," in text
        else re.findall(r"\d+[A-Za-z]|[A-Za-z]|\d+", text)
    )
    outer: list[int] = []
    blocks: list[tuple[int, int]] = []
    for word in words:
        match = re.fullmatch(r"(\d*)([A-Za-z_]\w*)", word)
        t = names.get(match[2].upper()) if match else None
        if match is None or t is None:
            raise InputError(
                f"{word!r} names no index of {access}", where=f"--layout {tensor}={text}",
                why=f"known: {', '.join(names)}",
            hint=f"use letters of {', '.join(names)}")  # fmt: skip
        blocks.append((int(match[1]), t)) if match[1] else outer.append(t)
    # An index without axes has one value, and nobody has to name it.
    fixed = [t for t, ix in enumerate(access.index) if not ix.terms]
    if sorted(outer + [t for t in fixed if t not in outer]) != list(range(len(access.index))):
        raise InputError(
            f"--layout {tensor}={text} does not name every index of {access} once",
            hint=f"--layout {tensor}={letters or ''.join(names)}",
        )
    return outer, blocks


def _lanes_in_order(
    sizes: Sequence[tuple[str, int]],
    sequence: Sequence[tuple[int, int, bool]],
    shape: Sequence[int],
    blocked: bool,
) -> tuple[tuple[Lane, ...], str, tuple[int, int] | None]:
    """Lanes from the innermost: (dimension, index, lanes, coefficient) with more than one value;
    or why they cannot be filled, and (index, extent) that would do."""
    out: list[Lane] = []
    rest = [[t, n, 1] for t, n, _ in sequence]
    for dim, size in sizes:
        room = size
        while room > 1 and rest:
            t, n, coef = rest[0]
            take = min(n, room)
            # A digit may fill a dimension or part of it, never one and a half.
            if n % take or room % take:
                text = f"index {t} has {n} values, which do not fill {room} lanes of {dim}"
                return (), text, (t, -(-n // room) * room)
            # What the tensor does not have is no lane with content.
            if (lanes := min(take, -(-shape[t] // coef))) > 1:
                out.append((dim, t, lanes, coef))
            room //= take
            if take == n:
                rest.pop(0)
            else:
                rest[0] = [t, n // take, coef * take]
        if room > 1:
            return (), f"{room} lanes of {dim} are left over", None
    if blocked and any(n > 1 for _, n, _ in rest):
        return (), "the blocks hold more than one memory element", None
    return tuple(out), "", None


def _said(op: Operator, tensor: str, order: str, reason: str) -> str:
    words = reason.split()
    if words[0] == "index":
        reason = reason.replace(f"index {words[1]}", _name(op, tensor, int(words[1])), 1)
    return f"{order} of {tensor}: {reason}"


def _index(op: Operator, tensor: str, t: int) -> list[str]:
    access = next(a for a in (op.out, op.lhs, op.rhs, *(s.access for s in op.epilogue))
                  if a is not None and a.tensor == tensor)  # fmt: skip
    return [a for a, _ in access.index[t].terms]


def _name(op: Operator, tensor: str, t: int) -> str:
    return "+".join(_index(op, tensor, t)) or f"index {t}"


def _axis_of(op: Operator, tensor: str, mend: tuple[int, int] | None) -> tuple[str, int] | None:
    """The axis to pad: only an index of one plain axis can be."""
    if mend is None:
        return None
    axes = _index(op, tensor, mend[0])
    return (axes[0], mend[1]) if len(axes) == 1 else None


def _keep(
    op: Operator, unit: Unit, tensor: str, per_role: Mapping[str, tuple[Lane, ...]]
) -> Callable[[Option], bool]:
    roles = {c: operands(Rules(op, unit, c)) for c in (False, True)}

    def keep(option: Option) -> bool:
        for role, access in roles[option.commuted].items():
            if access.tensor != tensor:
                continue
            wanted = per_role.get(role)
            # Commuted to an operand whose lanes cannot be filled so.
            if wanted is None:
                return False
            dims = set(unit.dims_of(role))
            own = {a for c in option.carries for a in c.axes}
            # A fused coordinate mixes its axes; lanes of it are no lanes of one index.
            if any(len(c.axes) > 1 and _moves(access.index, c.axes) for c in option.carries):
                return False
            if any(_moves(access.index, (a,)) for a in option.given):
                return False
            lanes = _lanes(op, option, access.index, dims)
            mine = {t for t, ix in enumerate(access.index) if own & {a for a, _ in ix.terms}}
            # Only the indices that this block moves; others are other options' business.
            if lanes != {w for w in wanted if w[1] in mine} or not _aligned(
                op, option, access, lanes
            ):
                return False
        return True

    return keep


def _grid_order(layout: Layout, outer: Sequence[int]) -> tuple[int, ...]:
    """Grid dimensions outermost first: by the tensor index that they move, then by how far."""

    def place(d: int) -> tuple[int, int]:
        # Indices outermost first, and among dimensions of one index the larger step outside.
        moved = [(outer.index(t), -abs(c[d])) for t, c in enumerate(layout.grid_coef) if c[d]]
        return min(moved, default=(-1, 0))

    return tuple(sorted(range(len(layout.grid)), key=place))


def _arranger(
    tensor: str, outer: Sequence[int], per_role: Mapping[str, tuple[Lane, ...]]
) -> Callable[[Embedding], Embedding]:
    def arrange(embedding: Embedding) -> Embedding:
        role = next(r for r, layout in embedding.layouts.items() if layout.tensor == tensor)
        coefs = embedding.layouts[role].digit_coef
        # Where each wanted lane stands, by dimension, index and step.
        place = {(dim, t, k): n for n, (dim, t, _, k) in enumerate(per_role[role])}
        order: dict[str, int] = {}
        for d in embedding.digits:
            at = [place[d.dim, t, c[d.name]] for t, c in enumerate(coefs)
                  if (d.dim, t, c.get(d.name)) in place]  # fmt: skip
            # Others behind them: their order among each other stays.
            order[d.name] = at[0] if at else len(place)
        used: dict[str, int] = {}
        radix = {}
        for d in sorted(embedding.digits, key=lambda d: (order[d.name], d.radix)):
            radix[d.name] = used.get(d.dim, 1)
            used[d.dim] = radix[d.name] * d.extent
        digits = tuple(replace(d, radix=radix[d.name]) for d in embedding.digits)
        layout = embedding.layouts[role]
        ordered = replace(layout, order=_grid_order(layout, outer))
        return replace(embedding, digits=digits, layouts={**embedding.layouts, role: ordered})

    return arrange


def _moves(index: Sequence[object], axes: Sequence[str]) -> bool:
    return any(ix.coef(a) for ix in index for a in axes)  # type: ignore[attr-defined]


def _lanes(op: Operator, option: Option, index: Sequence[object], dims: set[str]) -> set[Lane]:
    """What an option's digits on these dimensions do to the tensor's indices."""
    lanes = expand(op, Decisions(option.commuted, option.carries))
    digit = {d.name: d for d in lanes.digits}
    swap = {first: second for first, second in lanes.equal}
    out: set[Lane] = set()
    for t, ix in enumerate(index):
        moved: dict[str, int] = {}
        for c in lanes.coordinates:
            coef = ix.coef(c.axes[0])  # type: ignore[attr-defined]
            for name, k in c.digits.items():
                # On a diagonal the operand sees the lane under its partner's name.
                own = name if digit[name].dim in dims else swap.get(name, name)
                if coef and digit[own].dim in dims:
                    moved[own] = moved.get(own, 0) + coef * k
        out |= {(digit[n].dim, t, digit[n].extent, k) for n, k in moved.items() if k}
    return out


def _aligned(op: Operator, option: Option, access: Access, lanes: set[Lane]) -> bool:
    """Elements begin at multiples of their length: a window that starts in the padding would shift
    all of them."""
    coordinates = expand(op, Decisions(option.commuted, option.carries)).coordinates
    for t, ix in enumerate(access.index):
        span = math.prod(n for _, u, n, _ in lanes if u == t)
        start = ix.const + sum(ix.coef(c.axes[0]) * c.const for c in coordinates)
        # Otherwise lane 0 of every element would be another residue than the layout says.
        if span > 1 and start % span:
            return False
    return True


__all__ = ["LayoutPin", "layout_pin"]
