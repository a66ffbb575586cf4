"""C loops that move a logical tensor into a packed buffer, and a packed result out of one.

Takes: a `Place`.  Leaves: lines of C. Conditions stand only where an index can leave its range,
and loops that walk both sides evenly are joined, so that a plain copy is one loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from csp_embed.targets.source.places import Place

CTYPES = {"int8": "int8_t", "uint8": "uint8_t", "int32": "int32_t", "int16": "int16_t"}


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
    copy = f"{place.buffer}[{{target}}] = ({ctype})({value});"
    walks, lines = _walks(place), []
    if not _whole(place, walks):
        lines.append(
            f"{indent}for (ptrdiff_t i = 0; i < {place.elements}; i++)"
            f" {place.buffer}[i] = {place.offset};"
        )
    return lines + _loops(place, walks, copy, indent)


def unpack_lines(place: Place, tensor: str, indent: str) -> list[str]:
    """From the place's buffer into `tensor`."""
    return _loops(place, _walks(place), f"{tensor}[{{source}}] = {place.buffer}[{{target}}];", indent)


def _walks(place: Place) -> list[_Walk]:
    layout = place.layout
    out = [
        _Walk(
            place.shape[d], place.low[d], place.strides[d],
            tuple(row[d] for row in layout.grid_coef),
            tuple(f.grid_coef[d] for f in layout.fused), d, f"g{d}",
        )
        for d in place.order
    ]  # fmt: skip
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
                -1, f"d{n}",
            )
        )  # fmt: skip
    return [w for w in out if w.extent > 1 or w.first]


def _range(const: int, parts: Sequence[tuple[int, _Walk]]) -> tuple[int, int]:
    low = const + sum(min(c * w.first, c * (w.first + w.extent - 1)) for c, w in parts)
    high = const + sum(max(c * w.first, c * (w.first + w.extent - 1)) for c, w in parts)
    return low, high


def _whole(place: Place, walks: list[_Walk]) -> bool:
    """Whether the loops write every value of the buffer: no lane is pad, no index out of range."""
    used = math.prod(d.extent for d, _ in place.digits)
    return used == place.lane_count and not place.layout.equal and not _conditions(place, walks)


def _conditions(place: Place, walks: list[_Walk]) -> list[tuple[str, set[str]]]:
    """(C text, loops in it) of every condition that can fail."""
    layout, out = place.layout, []
    for w in walks:
        if w.grid >= 0:
            size = layout.grid[w.grid]
            if w.first < 0 or w.first + w.extent > size:
                out.append((_within(w.name, size), {w.name}))
    for f in range(len(layout.fused)):
        total = math.prod(layout.fused[f].extents)
        parts = [(w.fused[f], w) for w in walks if w.fused[f]]
        low, high = _range(layout.fused[f].const, parts)
        if low < 0 or high >= total:
            out.append((_within(f"z{f}", total), {w.name for _, w in parts}))
    for t, size in enumerate(place.tensor_shape):
        parts = [(w.index[t], w) for w in walks if w.index[t]]
        low, high = _range(layout.const[t], parts)
        moved = False
        for f in layout.fused:
            reach = [f.axis_coef[a][t] * (n - 1) for a, n in zip(f.axes, f.extents, strict=True)]
            low, high = low + sum(min(0, r) for r in reach), high + sum(max(0, r) for r in reach)
            moved = moved or any(reach)
        if low < 0 or high >= size:
            names = {w.name for _, w in parts} | ({w.name for w in walks if any(w.fused)}
                                                 if moved else set())  # fmt: skip
            out.append((_within(f"t{t}", size), names))
    return out


def _within(name: str, size: int) -> str:
    return f"{name} >= 0 && {name} < {size}"


def _loops(place: Place, walks: list[_Walk], copy: str, indent: str) -> list[str]:
    conditions = _conditions(place, walks)
    layout = place.layout
    strides, step = [0] * len(place.tensor_shape), 1
    for t in reversed(range(len(place.tensor_shape))):
        strides[t] = step
        step *= place.tensor_shape[t]

    def source_step(w: _Walk) -> int:
        return sum(c * s for c, s in zip(w.index, strides, strict=True))

    bound = set().union(*(names for _, names in conditions)) if conditions else set()
    bound |= {w.name for w in walks if any(w.fused)}
    if not layout.fused:
        walks = _joined(walks, bound, source_step)
    # Innermost the loop that walks the tensor in the smallest steps.
    walks = sorted(walks, key=lambda w: (-abs(source_step(w)) if source_step(w) else 0, -w.step))
    lines = []
    for w in walks:
        lines.append(
            f"{indent}for (ptrdiff_t {w.name} = {w.first}; {w.name} < {w.first + w.extent};"
            f" {w.name}++)"
        )
        indent += "  "
    lines.append(f"{indent}{{")
    indent += "  "
    for f, fused in enumerate(layout.fused):
        lines.append(
            f"{indent}const ptrdiff_t z{f} = "
            f"{affine(fused.const, [(w.fused[f], w.name) for w in walks])};"
        )
    shown = {text.split()[0] for text, _ in conditions}
    source = []
    for t in range(len(place.tensor_shape)):
        terms = [(w.index[t], w.name) for w in walks]
        for f, fused in enumerate(layout.fused):
            below = 1
            for axis, n in zip(reversed(fused.axes), reversed(fused.extents), strict=True):
                coef = fused.axis_coef[axis][t]
                value = f"z{f}" if below == 1 else f"z{f} / {below}"
                terms.append((coef, f"(({value}) % {n})" if axis != fused.axes[0]
                              else f"({value})"))  # fmt: skip
                below *= n
        text = affine(layout.const[t], terms)
        if f"t{t}" in shown:
            lines.append(f"{indent}const ptrdiff_t t{t} = {text};")
            text = f"t{t}"
        source.append((strides[t], f"({text})"))
    where = affine(0, source)
    target = affine(
        -sum(s * low for s, low in zip(place.strides, place.low, strict=True)),
        [(w.step, w.name) for w in walks],
    )
    guard = f"if ({' && '.join(text for text, _ in conditions)}) " if conditions else ""
    lines.append(indent + guard + copy.format(source=where, target=target))
    lines.append(indent[2:] + "}")
    return lines


def _joined(walks: list[_Walk], bound: set[str], source_step: object) -> list[_Walk]:
    """Loops without conditions that continue one another on both sides become one."""
    assert callable(source_step)
    done = False
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


def affine(const: int, terms: Sequence[tuple[int, str]]) -> str:
    """`const + sum` as C text."""
    parts = [n if c == 1 else f"{c} * {n}" for c, n in terms if c]
    if const or not parts:
        parts.append(str(const))
    return " + ".join(parts).replace("+ -", "- ")
