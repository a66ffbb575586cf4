"""A picture of which tensor elements sit in which lanes of the first micro-operations, as SVG.

Takes: Embedding, Isa.  Leaves: SVG text. A contraction is drawn as the product that it is: the
input element on top, the weight element below it, the accumulator element at its right; lanes
without an element are grey. Colours tell values of the index that varies most.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.embedding import Embedding
from csp_embed.judge.embedding.points import held, lanes_of, met, operand_dims
from csp_embed.machine.spec import Isa

Ints = NDArray[np.int64]
INK, GRID, EMPTY = "#333333", "#ffffff", "#e4e4e4"
SHADES = (
    "#9ec9e2", "#fdbf6f", "#b2df8a", "#cab2d6", "#fb9a99", "#ffe08a", "#a6d8cf", "#d9b38c",
    "#c7d36f", "#e5a8d0", "#8fb0d9", "#f2a57b", "#9fd49b", "#b8a6e0", "#f0c6c0", "#c9c9a0",
)  # fmt: skip
_ROW, _CHAR, _GAP, _TOP = 17, 5.6, 34, 64
# Steps that are looked at for the first ones with work: padding may come first.
_MOST_TRIED = 20_000


def picture(embedding: Embedding, isa: Isa, steps: int = 2) -> str:
    """SVG of the first `steps` micro-operations that do work."""
    panels = [_step(embedding, isa, values) for values in _working(embedding, isa, steps)]
    width = max((p[0] for p in panels), default=300) + 24
    parts: list[str] = []
    y = _TOP
    # Panels below each other, each as high as it is.
    for _, height, body in panels:
        parts.append(f'<g transform="translate(12,{y:.1f})">{body}</g>')
        y += height + 18
    head = [f"{embedding.operator.formula()}   ({embedding.kind}"
            f"{', commuted' if embedding.commuted else ''})"]  # fmt: skip
    head += [t.strip() for t in embedding.formula().split("|")[:2]]
    # The heading may be longer than any panel.
    width = max(width, 24 + 6.6 * max(len(t) for t in head))
    title = "".join(_text(12, 16 + 15 * n, t, size=12) for n, t in enumerate(head))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y:.0f}" '
        f'viewBox="0 0 {width:.0f} {y:.0f}" font-family="DejaVu Sans Mono, monospace" role="img" '
        f'aria-label="lanes of the first micro-operations">'
        f'<rect width="100%" height="100%" fill="white"/>{title}{"".join(parts)}</svg>\n'
    )


def _working(embedding: Embedding, isa: Isa, steps: int) -> Iterator[dict[str, int]]:
    """Counter values of steps whose elements exist; the reduced counters run fastest."""
    names = [c.name for c in embedding.counters]
    inputs = [r for r in ("lhs", "rhs") if r in embedding.layouts]
    ranges = [range(c.extent) for c in embedding.counters]
    for values in itertools.islice(itertools.product(*ranges), _MOST_TRIED):
        at = {n: np.array([v], np.int64) for n, v in zip(names, values, strict=True)}
        # Only steps in which every input has an element are worth a picture.
        if all(met(embedding.layouts[r], at, 1)[1][0] for r in inputs):
            yield dict(zip(names, values, strict=True))
            steps -= 1
        if not steps:
            return


def _step(embedding: Embedding, isa: Isa, values: Mapping[str, int]) -> tuple[float, float, str]:
    """(width, height, SVG) of one micro-operation."""
    # Added operands have no lanes of the product.
    tables = {r: content(embedding, isa, r, values) for r in embedding.layouts if r[:3] != "add"}
    at = " ".join(f"{n}={v}" for n, v in values.items()) or "the only step"
    parts = [_text(0, 10, f"micro-operation at {at}", size=11)]
    # Element-wise: input beside output, no product to draw.
    if "rhs" not in tables:
        x = 0.0
        height = 0.0
        for role in ("lhs", "dst"):
            w, h, body = _panel(embedding, isa, role, tables[role])
            parts.append(f'<g transform="translate({x:.1f},20)">{body}</g>')
            x, height = x + w + _GAP, max(height, h)
        return x, height + 24, "".join(parts)
    wide = max(_cell_width(tables["lhs"]), _cell_width(tables["rhs"]))  # their lanes line up
    left, top, lhs = _panel(embedding, isa, "lhs", tables["lhs"], wide=wide)
    below, rows, rhs = _panel(embedding, isa, "rhs", tables["rhs"], wide=wide)
    right, tall, dst = _panel(embedding, isa, "dst", tables["dst"], upright=True)
    # Left above, right below, the result beside: as a product is written.
    parts.append(f'<g transform="translate(0,20)">{lhs}</g>')
    parts.append(f'<g transform="translate(0,{30 + top:.1f})">{rhs}</g>')
    parts.append(
        f'<g transform="translate({max(left, below) + _GAP:.1f},{30 + top:.1f})">{dst}</g>'
    )
    return max(left, below) + _GAP + right, 34 + top + max(rows, tall), "".join(parts)


def content(
    embedding: Embedding, isa: Isa, role: str, values: Mapping[str, int]
) -> list[list[tuple[int, ...] | None]]:
    """The tensor index in each lane of the element that an operand meets: [row][column], None where
    it holds none. Rows and columns are the element's first and last dimension."""
    layout = embedding.layouts[role]
    dims = operand_dims(embedding, isa)[role]
    memory = isa.memory(layout.memory).lanes
    sizes = {d: isa.dims[d] for d in memory}
    lanes = lanes_of(embedding, sizes)
    at = {n: np.array([v], np.int64) for n, v in values.items()}
    grid, inside = met(layout, at, 1)
    # -1 in all lanes where the step meets no element.
    flat = held(layout, embedding, dims, lanes, grid)[0] if inside[0] else np.full(lanes.count, -1)
    shape = embedding.operator.tensors[layout.tensor].shape
    index = [
        None if f < 0 else tuple(int(v) for v in np.unravel_index(int(f), shape)) for f in flat
    ]
    # Rows of the last dimension, as the lanes lie in memory.
    columns = sizes[memory[-1]] if memory else 1
    return [index[n : n + columns] for n in range(0, len(index), columns)]


def _panel(
    embedding: Embedding,
    isa: Isa,
    role: str,
    table: Sequence[Sequence[tuple[int, ...] | None]],
    upright: bool = False,
    wide: float = 0.0,
) -> tuple[float, float, str]:
    """One memory element: a title, then lanes as cells. upright: rows and columns swapped."""
    layout = embedding.layouts[role]
    memory = isa.memory(layout.memory)
    dims = list(memory.lanes[-2:])
    # The result stands upright: its rows meet the input's columns.
    if upright:
        table, dims = [list(r) for r in zip(*table, strict=True)], dims[::-1]
    full = [v for row in table for v in row if v is not None]
    # Colours follow the index that varies most: others would be one colour.
    by = _busiest(full)
    wide = wide or _cell_width(table)
    title = f"{memory.name}: {layout.tensor}[{','.join(map(str, layout.access.index))}]"
    label = 22 if len(dims) > 1 else 0
    parts = [_text(0, 10, title, size=11)]
    for n in range(len(table[0])):
        parts.append(
            _text(label + wide * (n + 0.5), 23, f"{dims[-1]}{n}" if dims else "", "middle")
        )
    for m, row in enumerate(table):
        y = 27 + _ROW * m
        if label:
            parts.append(_text(0, y + 12, f"{dims[0]}{m}"))
        for n, value in enumerate(row):
            x = label + wide * n
            # A scalar has no index to colour by.
            shade = EMPTY if value is None else SHADES[value[by] % len(SHADES) if value else 0]
            tip = "no element" if value is None else f"{layout.tensor}[{_cell(value)}]"
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{_ROW}" fill="{shade}" '
                f'stroke="{GRID}"><title>{escape(tip)}</title></rect>'
            )
            parts.append(_text(x + wide / 2, y + 12, _cell(value), "middle"))
    # The title may be wider than the cells.
    width = max(label + wide * len(table[0]), 6.2 * len(title))
    return width, 30.0 + _ROW * len(table), "".join(parts)


def _cell_width(table: Sequence[Sequence[tuple[int, ...] | None]]) -> float:
    return max(26.0, 8 + _CHAR * max(len(_cell(v)) for row in table for v in row))


def _busiest(values: Sequence[tuple[int, ...]]) -> int:
    """The index that takes most values."""
    if not values or not values[0]:
        return 0
    return max(range(len(values[0])), key=lambda t: len({v[t] for v in values}))


def _cell(value: tuple[int, ...] | None) -> str:
    return "·" if value is None else ",".join(map(str, value))


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 9) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">'
        f"{escape(words)}</text>"
    )
