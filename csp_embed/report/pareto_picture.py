"""A Pareto front as four charts: cycles against each other criterion.

Takes: a Front.  Leaves: a Scene. Numbers are those of the table; pale dots are dominated once
scheduled cycles are compared, the ringed one has the fewest cycles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from csp_embed.embed.explain.pareto import CRITERIA, Front, Member
from csp_embed.report.pareto import LABELS, cycles, fastest, name, survives
from csp_embed.report.scene import (
    INK,
    PAPER,
    QUIET,
    Box,
    Dot,
    Item,
    Line,
    Scene,
    Words,
    save,
    text_width,
)

# By kind, the same in every chart and in the legend.
COLOURS = {
    "aligned": "#2f6db5", "im2col": "#d9782d", "toeplitz": "#3a9a5b", "diagonal": "#b23a6b",
    "mixed": "#7a5ab5",
}  # fmt: skip
_WIDE, _HIGH = 430.0, 300.0  # of one chart's frame
_LEFT, _TOP, _ACROSS, _DOWN = 86.0, 60.0, 540.0, 384.0
_SIZE, _RADIUS, _RING, _RULE = 10.0, 5.0, 9.0, "#DDDDDD"
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def plot(front: Front, path: Path, title: str) -> None:
    """Writes the picture (SVG, PNG or PDF by the ending). Raises: InputError, MissingLibrary."""
    save(scene(front, title), path)


def scene(front: Front, title: str) -> Scene:
    """The picture of `plot`."""
    state = "proved complete" if front.complete else "incomplete"
    head = f"{title}: {len(front.members)} non-dominated embeddings, {state}"
    items: list[Item] = [Words(12, 18, head, 13, bold=True)]
    for at, criterion in enumerate(CRITERIA[1:]):
        left, top = _LEFT + _ACROSS * (at % 2), _TOP + _DOWN * (at // 2)
        items += _chart(front.members, criterion, left, top)
    bottom = _TOP + 2 * _DOWN
    items += _legend(front.members, bottom)
    # The heading may be wider than the charts.
    width = max(_LEFT + _ACROSS + _WIDE + 24, text_width(head, 14) + 24)
    return Scene(width, bottom + 44, items, head)


class _Scale:
    """Positions of values: logarithmic, or linear where a value is zero or less."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        # Zero has no place on a logarithmic axis.
        self.start, self.end, self.log = start, end, low > 0
        if self.log:
            # At least a factor of two, so that a single value stands in the middle.
            room = max(0.08 * math.log(high / low), math.log(2) / 2)
            self.low, self.high = math.log(low) - room, math.log(high) + room
        else:
            # A single value: a range of 1 around it.
            room = 0.06 * (high - low) or 1.0
            self.low, self.high = low - room, high + room

    def __call__(self, value: float) -> float:
        at = math.log(value) if self.log else value
        return self.start + (at - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, apart: float) -> list[float]:
        """Round values, `apart` pixels from each other at least."""
        if self.log:
            found = self._steps((1, 2, 5))
            if len(found) < 3:  # everything within a factor of three or so
                found = self._steps((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))
        else:
            power = 10.0 ** math.floor(math.log10(self.high - self.low))
            step = power / 4
            first = math.ceil(self.low / step)
            found = [k * step for k in range(first, int(self.high / step) + 1)]
        # Powers of ten first: they are the ones that readers look for.
        kept: list[float] = []
        for value in sorted(found, key=lambda v: (_roundness(v), v)):
            if all(abs(self(value) - self(other)) >= apart for other in kept):
                kept.append(value)
        return sorted(kept)

    def _steps(self, multiples: Sequence[float]) -> list[float]:
        # Beyond the range on both sides; what lies outside is dropped below.
        exponents = range(math.floor(self.low / math.log(10)) - 1, math.ceil(self.high))
        values = [m * 10.0**e for e in exponents for m in multiples]
        return [v for v in values if self.low <= math.log(v) <= self.high]


def _roundness(value: float) -> int:
    digits = f"{value:.3e}".partition("e")[0].rstrip("0.")
    # Powers of ten are roundest; then fewer digits.
    return 0 if digits in ("1", "") else len(digits)


def _chart(members: Sequence[Member], criterion: str, left: float, top: float) -> list[Item]:
    right, bottom = left + _WIDE, top + _HIGH
    x = _Scale([cycles(m) for m in members], left, right)
    y = _Scale([m.criteria[criterion] for m in members], bottom, top)
    items: list[Item] = []
    for value in x.ticks(58):
        items.append(Line((x(value), top), (x(value), bottom), _RULE))
        items.append(Words(x(value), bottom + 13, _amount(value), _SIZE, "middle"))
    for value in y.ticks(26):
        items.append(Line((left, y(value)), (right, y(value)), _RULE))
        items.append(Words(left - 6, y(value), _amount(value), _SIZE, "end"))
    items += [Line((left, bottom), (right, bottom)), Line((left, top), (left, bottom))]
    items.append(Words((left + right) / 2, bottom + 32, "cycles", 11, "middle"))
    items.append(Words(left, top - 12, LABELS[criterion], 11, bold=True))
    stays, first = survives(members), fastest(members)
    spots = [(x(cycles(m)), y(m.criteria[criterion])) for m in members]
    for n, (m, (px, py), stay) in enumerate(zip(members, spots, stays, strict=True)):
        colour = COLOURS.get(m.embedding.kind, "#555555")
        title = f"{n}: {name(m)}, {cycles(m):,.0f} cycles, " + (
            f"{m.criteria[criterion]:,.0f} {LABELS[criterion]}"
        )
        # A member that is dominated once scheduled is drawn hollow.
        items.append(_dot(m, px, py, colour if stay else PAPER, colour, title))
    # Under the dots, so that it hides none.
    items.insert(0, Dot(*spots[first], _RING, PAPER, INK))
    return items + _numbers(spots, first, (left, top, right, bottom))


def _dot(member: Member, x: float, y: float, fill: str, edge: str, title: str) -> Item:
    """Square where the operands are commuted."""
    if member.embedding.commuted:
        return Box(x - _RADIUS, y - _RADIUS, 2 * _RADIUS, 2 * _RADIUS, fill, title, edge=edge)
    return Dot(x, y, _RADIUS, fill, edge, title)


def _numbers(spots: Sequence[tuple[float, float]], ringed: int, frame: Rectangle) -> list[Item]:
    """The members' numbers beside their dots, without overlap; dots that lie on each other share
    one label, and a label that had to move far has a line to its dot."""
    groups: list[tuple[tuple[float, float], list[str]]] = []
    for n, spot in enumerate(spots):
        # Dots that lie on each other would hide each other's number.
        near = (g for g in groups if math.dist(g[0], spot) < _RADIUS)
        group = next(near, None)
        if group is None:
            groups.append((spot, [str(n)]))
        else:
            group[1].append(str(n))
    radius = [_RING if n == ringed else _RADIUS for n in range(len(spots))]
    # Labels avoid dots as well as other labels.
    taken: list[Rectangle] = [
        (px - r, py - r, px + r, py + r) for (px, py), r in zip(spots, radius, strict=True)
    ]
    items: list[Item] = []
    for (px, py), numbers in groups:
        text = ",".join(numbers)
        if len(numbers) > 4:  # a heap: the table and the dots' titles have them all
            text = f"{numbers[0]}–{numbers[-1]} ({len(numbers)})"
        wide = text_width(text, _SIZE)
        place = _free(px, py, wide, taken, frame)
        taken.append(place)
        mx, my = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
        # So far away that a reader might look at another dot.
        if math.dist((mx, my), (px, py)) > wide / 2 + 14:
            items.append(Line((px, py), (mx, my), QUIET, 0.6))
        items.append(Words(mx, my, text, _SIZE, "middle"))
    return items


def _free(
    px: float, py: float, wide: float, taken: Sequence[Rectangle], frame: Rectangle
) -> Rectangle:
    """A place near a dot that is not taken: nearest first, around the dot in sixteen directions."""
    high = _SIZE + 2
    for far in range(9, 400, 4):
        # Sixteen directions, beginning at the upper right.
        for turn in range(16):
            angle = -math.pi / 4 + turn * math.pi / 8
            mx = px + (far + wide / 2) * math.cos(angle)
            my = py + (far + high / 4) * math.sin(angle)
            place = (mx - wide / 2, my - high / 2, mx + wide / 2, my + high / 2)
            inside = frame[0] <= place[0] and place[2] <= frame[2]
            inside = inside and frame[1] <= place[1] and place[3] <= frame[3]
            if inside and not any(overlap(place, other) for other in taken):
                return place
    # No place at all: over the dot is better than nowhere.
    return (px - wide / 2, py - high / 2, px + wide / 2, py + high / 2)


def overlap(a: Rectangle, b: Rectangle) -> bool:
    """Whether two rectangles share more than an edge."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _amount(value: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _legend(members: Sequence[Member], y: float) -> list[Item]:
    items: list[Item] = []
    x = _LEFT
    for kind in dict.fromkeys(m.embedding.kind for m in members):
        colour = COLOURS.get(kind, "#555555")
        items += [Dot(x, y, _RADIUS, colour, colour), Words(x + 11, y, kind, 11)]
        x += 30 + text_width(kind, 11)
    notes: list[tuple[str, Dot | Box]] = [("fewest cycles", Dot(x + 4, y, _RING, PAPER))]
    x += 40 + text_width("fewest cycles", 11)
    if any(m.embedding.commuted for m in members):
        square = Box(x - _RADIUS, y - _RADIUS, 2 * _RADIUS, 2 * _RADIUS, QUIET)
        notes.append(("commuted", square))
        x += 30 + text_width("commuted", 11)
    # Explained only where some dot is hollow.
    if not all(survives(members)):
        notes.append(("dominated once scheduled", Dot(x, y, _RADIUS, PAPER, QUIET)))
    for words, mark in notes:
        right = mark.x + (2 * _RADIUS if isinstance(mark, Box) else mark.radius)
        items += [mark, Words(right + 6, y, words, 11)]
    return items
