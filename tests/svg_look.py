"""Reads an SVG picture back and judges whether people can read it.

Shares no code with what draws: contrast and extents are computed here from the file alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

NAME = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Shape:
    left: float
    top: float
    right: float
    bottom: float
    fill: str
    title: str = ""
    words: str = ""

    def holds(self, x: float, y: float) -> bool:
        return self.left <= x <= self.right and self.top <= y <= self.bottom

    def meets(self, other: Shape) -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return across > 0.5 and down > 0.5


@dataclass(frozen=True)
class Look:
    width: float
    height: float
    shapes: list[Shape]  # in drawing order
    labels: list[Shape]

    @property
    def words(self) -> list[str]:
        return [label.words for label in self.labels]

    def judge(self) -> None:
        """Every block has a label or a title, labels can be read, and none lies on another."""
        for shape in self.shapes[1:]:  # the first is the ground
            middle = ((shape.left + shape.right) / 2, (shape.top + shape.bottom) / 2)
            labelled = any(
                # In the block, or to the right of a legend's swatch.
                t.top < middle[1] < t.bottom and -20 < t.left - shape.right < 12
                for t in self.labels
            )
            assert shape.title or labelled, shape
        for label in self.labels:
            x, y = (label.left + label.right) / 2, (label.top + label.bottom) / 2
            ground = [s for s in self.shapes if s.holds(x, y)][-1]
            assert contrast(label.fill, ground.fill) >= 4.5, (label, ground)
            assert label.left >= -0.5, label
            assert label.right <= self.width + 0.5, label
        for a, b in combinations(self.labels, 2):
            assert not a.meets(b), (a, b)


def look(path: Path) -> Look:
    return read(path.read_text(encoding="utf-8"))


def read(text: str) -> Look:
    root = ElementTree.fromstring(text)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    shapes, labels = [], []
    for e in root.iter():
        a = e.attrib
        title = e.findtext(f"{NAME}title", "")
        match e.tag.removeprefix(NAME):
            case "rect":
                size = [width if v == "100%" else float(v) for v in (a["width"],)]
                size += [height if v == "100%" else float(v) for v in (a["height"],)]
                x, y = float(a.get("x", 0)), float(a.get("y", 0))
                shapes.append(Shape(x, y, x + size[0], y + size[1], a["fill"], title))
            case "text":
                labels.append(_label(e))
    return Look(width, height, shapes, labels)


def _label(e: ElementTree.Element) -> Shape:
    a, words = e.attrib, e.text or ""
    x, y, size = float(a["x"]), float(a["y"]), float(a["font-size"])
    # A usual sans serif takes little more than half an em a letter; wide letters take one.
    long = size * sum(1.0 if ord(c) > 0x2E80 else 0.55 for c in words)
    shift = {"start": 0.0, "middle": -long / 2, "end": -long}[a["text-anchor"]]
    if "rotate(-90" in a.get("transform", ""):
        turn = re.search(r"rotate\(-90 ([\d.]+) ([\d.]+)\)", a["transform"])
        assert turn is not None
        cx, cy = float(turn[1]), float(turn[2])
        box = (cx - size / 2, cy - long / 2, cx + size / 2, cy + long / 2)
    else:
        box = (x + shift, y - 0.8 * size, x + shift + long, y + 0.2 * size)
    return Shape(*box, a["fill"], words=words)


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two #rrggbb colours, 1 to 21. Source: WCAG 2.1."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    total = 0.0
    for at, share in ((1, 0.2126), (3, 0.7152), (5, 0.0722)):
        part = int(colour[at : at + 2], 16) / 255
        total += share * (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4)
    return total
