"""C loops that move a logical tensor into a packed buffer, and a packed result out of one.

Takes: a `Place`.  Leaves: lines of C. Conditions stand only where an index can leave its range,
and loops that walk both sides evenly are joined, so that a plain copy is one loop.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from csp_embed.targets.source.places import Place
from csp_embed.targets.source.written.text import CTYPES, affine, narrow

# Most copies that are written out in the body of a loop: the lanes of a register of sums.
GROUP = 16


@dataclass(frozen=True)
class _Walk:
    """One loop. step: in the buffer; index: what it adds to each tensor index; fused: to each
    fused coordinate; grid: the grid dimension that it walks, or -1. first: its first value."""

    extent: int
    first: int
    step: int
    index: tuple[int, ...]
    fused: tuple[int, ...]
    grid: int
    name: str


def pack_lines(place: Place, tensor: str, indent: str) -> list[str]:
    """From `tensor` into the place's buffer, neutral elements and all."""
    ctype = CTYPES[place.dtype]
    value = f"{tensor}[{{source}}]" + (f" + {place.offset}" if place.offset else "")
    # The offset (128 of unsigned lanes) is part of what is packed.
    copy = f"{place.buffer}[{{target}}] = ({ctype})({value});"
    walks, lines = _walks(place), []
    # Filled first where some value is written by no loop.
    if not _whole(place, walks):
        lines.append(
            f"{indent}for (ptrdiff_t i = 0; i < {place.elements}; i++)"
            f" {place.buffer}[i] = {place.offset};"
        )
    return lines + _loops(place, walks, copy, indent)


def unpack_lines(place: Place, tensor: str, indent: str) -> list[str]:
    """From the place's buffer into `tensor`."""
    copy = f"{tensor}[{{source}}] = {place.buffer}[{{target}}];"
    return _loops(place, _walks(place), copy, indent)


def _walks(place: Place) -> list[_Walk]:
    layout = place.layout
    out = [
        _Walk(
            place.shape[d], place.low[d], place.strides[d],
            tuple(row[d] for row in layout.grid_coef),
            tuple(f.grid_coef[d] for f in layout.fused), d, f"g_{d}",
        )
        for d in place.order
    ]  # fmt: skip
    # The second digit of a diagonal moves with the first.
    partner = {second: first for first, second in layout.equal}
    steps = {d.name: step for d, step in place.digits}
    for n, (digit, _) in enumerate(place.digits):
        if digit.name in partner:
            continue
        # The lanes of a diagonal are those where both digits are equal: one loop walks both.
        names = [digit.name, *(second for first, second in layout.equal if first == digit.name)]
        out.append(
            _Walk(
                digit.extent, 0, sum(steps[d] for d in names),
                tuple(sum(row.get(d, 0) for d in names) for row in layout.digit_coef),
                tuple(sum(f.digit_coef.get(d, 0) for d in names) for f in layout.fused),
                -1, f"d_{n}",
            )
        )  # fmt: skip
    # A loop of one value from 0 needs no text.
    return [w for w in out if w.extent > 1 or w.first]


def _range(const: int, parts: Sequence[tuple[int, _Walk]]) -> tuple[int, int]:
    low = const + sum(min(c * w.first, c * (w.first + w.extent - 1)) for c, w in parts)
    high = const + sum(max(c * w.first, c * (w.first + w.extent - 1)) for c, w in parts)
    return low, high


def _whole(place: Place, walks: list[_Walk]) -> bool:
    """Whether the loops write every value of the buffer: no lane is pad, no index out of range."""
    used = math.prod(d.extent for d, _ in place.digits)
    return used == place.lane_count and not place.layout.equal and not _conditions(place, walks)


@dataclass(frozen=True)
class _Condition:
    """A value must lie in [0, size). kind: "g" (grid dimension `number`), "z" (fused coordinate) or
    "t" (tensor index). const: of the value; names: loops that move it."""

    kind: str
    number: int
    size: int
    const: int
    names: frozenset[str]


def _conditions(place: Place, walks: list[_Walk]) -> list[_Condition]:
    """Every condition that can fail."""
    layout, out = place.layout, []
    for w in walks:
        if w.grid >= 0:
            size = layout.grid[w.grid]
            # Steps outside the grid are neutral elements of the layout.
            if w.first < 0 or w.first + w.extent > size:
                out.append(_Condition("g", w.grid, size, 0, frozenset([w.name])))
    for f, fused in enumerate(layout.fused):
        total = math.prod(fused.extents)
        parts = [(w.fused[f], w) for w in walks if w.fused[f]]
        low, high = _range(fused.const, parts)
        if low < 0 or high >= total:
            # Its value is a variable of its own, const and all.
            out.append(_Condition("z", f, total, 0, frozenset(w.name for _, w in parts)))
    for t, size in enumerate(place.tensor_shape):
        parts = [(w.index[t], w) for w in walks if w.index[t]]
        low, high = _range(layout.const[t], parts)
        names = {w.name for _, w in parts}
        # Fused coordinates reach whatever their axes reach.
        for f, fused in enumerate(layout.fused):
            reach = [
                fused.axis_coef[a][t] * (n - 1)
                for a, n in zip(fused.axes, fused.extents, strict=True)
            ]
            low, high = low + sum(min(0, r) for r in reach), high + sum(max(0, r) for r in reach)
            names |= {w.name for w in walks if w.fused[f]} if any(reach) else set()
        if low < 0 or high >= size:
            out.append(_Condition("t", t, size, layout.const[t], frozenset(names)))
    return out


def _loops(place: Place, walks: list[_Walk], copy: str, indent: str) -> list[str]:
    """The loops around `copy`. Innermost runs the loop of the smallest steps in the tensor, over
    the values that no condition on it excludes; small loops without conditions are written out in
    its body, so that compilers see whole groups of neighbours."""
    conditions = _conditions(place, walks)
    layout = place.layout
    strides, step = [0] * len(place.tensor_shape), 1
    # Row-major strides of the tensor.
    for t in reversed(range(len(place.tensor_shape))):
        strides[t] = step
        step *= place.tensor_shape[t]

    def source_step(w: _Walk) -> int:
        return sum(c * s for c, s in zip(w.index, strides, strict=True))

    bound = set().union(*(c.names for c in conditions)) if conditions else set()
    # Loops that a condition or a division names stay as they are.
    bound |= {w.name for w in walks if any(w.fused)}
    if not layout.fused:
        walks = _joined(walks, bound, source_step)
    group: list[_Walk] = []
    # Small steps in the buffer: neighbours that compilers turn into vectors.
    for w in sorted((w for w in walks if w.name not in bound and w.grid < 0), key=lambda w: w.step):
        if math.prod(g.extent for g in group) * w.extent <= GROUP and len(group) + 1 < len(walks):
            group.append(w)
    # A fused coordinate is taken apart by divisions: the further outside, the better.
    rest = sorted(
        (w for w in walks if w not in group),
        key=lambda w: (not any(w.fused), -abs(source_step(w)) if source_step(w) else 0, -w.step),
    )
    # The innermost loop moves no fused coordinate: no divisions in its body.
    inner = rest.pop() if rest and not any(rest[-1].fused) else None
    lines = []
    for w in rest:
        end = w.first + w.extent
        head = f"for (ptrdiff_t {w.name} = {w.first}; {w.name} < {end}; {w.name}++) {{"
        lines.append(indent + head)
        indent += "  "
    depth = len(rest)
    if not rest:  # what is declared below must be one statement's, which threads may share
        lines.append(f"{indent}{{")
        indent, depth = indent + "  ", 1
    for f, fused in enumerate(layout.fused):
        text = affine(fused.const, [(w.fused[f], w.name) for w in rest])
        lines.append(f"{indent}const ptrdiff_t z_{f} = {text};")
    moved = [_moved(place, t) for t in range(len(place.tensor_shape))]
    # What the inner loop does not move is tested once, outside of it.
    outside = [c for c in conditions if inner is None or not _coefficient(c, inner)]
    if outside:
        values = [(affine(c.const, _terms(c, rest, moved)), c.size) for c in outside]
        texts = [f"{value} >= 0 && {value} < {size}" for value, size in values]
        lines.append(f"{indent}if ({' && '.join(texts)}) {{")
        indent, depth = indent + "  ", depth + 1
    # The others cut the inner loop's range, so that its body has no test.
    own = [c for c in conditions if c not in outside]
    last = ""
    if inner is not None:
        first, last = str(inner.first), str(inner.first + inner.extent)
        if own:
            lines.append(f"{indent}ptrdiff_t low = {first}, high = {last};")
            first, last = "low", "high"
        for c in own:
            base_ = affine(c.const, _terms(c, rest, moved))
            lines += [indent + line for line in narrow(_coefficient(c, inner), base_, c.size)]
        # Not a `for`: with the test below, compilers make vectors of it at once.
        guard = "if (low < high) " if own else ""
        lines.append(f"{indent}{guard}{{ ptrdiff_t {inner.name} = {first}; do {{")
        indent, depth = indent + "  ", depth + 1
    places = []
    used = [*rest, *([inner] if inner is not None else [])]
    for t in range(len(place.tensor_shape)):
        places.append((strides[t], f"({affine(layout.const[t], _index(t, used, moved))})"))
    where = affine(0, places)
    base = -sum(s * low for s, low in zip(place.strides, place.low, strict=True))
    to = [(w.step, w.name) for w in used]
    # The group is written out: whole neighbourhoods without a loop.
    for values in itertools.product(*(range(w.extent) for w in group)):
        there = sum(v * w.step for v, w in zip(values, group, strict=True))
        here = sum(v * source_step(w) for v, w in zip(values, group, strict=True))
        source = f"{where} + {here}" if here else where
        lines.append(indent + copy.format(source=source, target=affine(base + there, to)))
    for n in range(depth):
        indent = indent[2:]
        close = f"}} while (++{inner.name} < {last}); }}" if inner is not None and n == 0 else "}"
        lines.append(indent + close)
    return lines


def _moved(place: Place, t: int) -> list[tuple[int, str]]:
    """What fused coordinates add to tensor index t, as C terms."""
    terms = []
    # Axes of a fused coordinate by division and remainder, the outermost without the latter.
    for f, fused in enumerate(place.layout.fused):
        below = 1
        for axis, n in zip(reversed(fused.axes), reversed(fused.extents), strict=True):
            value = f"z_{f}" if below == 1 else f"z_{f} / {below}"
            text = f"({value})" if axis == fused.axes[0] else f"(({value}) % {n})"
            terms.append((fused.axis_coef[axis][t], text))
            below *= n
    return terms


def _index(t: int, walks: list[_Walk], moved: list[list[tuple[int, str]]]) -> list[tuple[int, str]]:
    return [*((w.index[t], w.name) for w in walks), *moved[t]]


def _terms(
    c: _Condition, walks: list[_Walk], moved: list[list[tuple[int, str]]]
) -> list[tuple[int, str]]:
    """The part of a condition's value that the outer loops give."""
    if c.kind == "z":
        return [(1, f"z_{c.number}")]
    if c.kind == "g":
        return [(1, w.name) for w in walks if w.grid == c.number]
    return _index(c.number, walks, moved)


def _coefficient(c: _Condition, w: _Walk) -> int:
    if c.kind == "g":
        return int(w.grid == c.number)
    return w.index[c.number] if c.kind == "t" else 0


def _joined(
    walks: list[_Walk], bound: set[str], source_step: Callable[[_Walk], int]
) -> list[_Walk]:
    """Loops without conditions that continue one another on both sides become one."""
    done = False
    # Until no two loops can be joined any more.
    while not done:
        done = True
        for a in walks:
            for b in walks:
                even = (
                    a is not b and not {a.name, b.name} & bound
                    and a.step == b.step * b.extent and a.first == b.first == 0
                    and source_step(a) == source_step(b) * b.extent
                )  # fmt: skip
                if even:
                    joined = _Walk(a.extent * b.extent, 0, b.step, b.index, b.fused, -1, b.name)
                    walks = [joined if w is a else w for w in walks if w is not b]
                    done = False
                    break
            if not done:
                break
    return walks
