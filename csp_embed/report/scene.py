"""A picture as boxes, words and lines, for every file format.

Takes: items placed in pixels.  Leaves: SVG text (no library needed), or PNG and PDF by Matplotlib.
Items carry a `key`, so that a page's script can find what belongs to a layer, and a `title`, which
browsers show on hovering.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, cast

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.files import atomic

if TYPE_CHECKING:
    from csp_embed.report.plotted import Sheet, Written

# Colours that stand apart on white, WCAG's 4.5 to 1 for small text.
INK, QUIET, PAPER = "#222222", "#595959", "#FFFFFF"
FONT = "DejaVu Sans, Verdana, sans-serif"
# XML 1.0 has no way to write these.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    title: str = ""
    key: str = ""
    edge: str = ""


@dataclass(frozen=True)
class Words:
    """One line of text; y is its middle. anchor: start, middle or end. turned: reads upwards."""

    x: float
    y: float
    text: str
    size: float = 11
    anchor: str = "start"
    fill: str = INK
    turned: bool = False
    bold: bool = False
    key: str = ""


@dataclass(frozen=True)
class Line:
    """From a to b; curved: leaves and arrives level, `bow` pixels lower in between (negative:
    higher). head: an arrowhead at b that points right."""

    a: tuple[float, float]
    b: tuple[float, float]
    colour: str = QUIET
    width: float = 1
    title: str = ""
    key: str = ""
    to: str = ""
    curved: bool = False
    bow: float = 0
    head: bool = False
    dash: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Dot:
    """A circle."""

    x: float
    y: float
    radius: float
    fill: str
    edge: str = INK
    title: str = ""
    key: str = ""


# Four kinds of items: every format below must draw each of them.
Item = Box | Words | Line | Dot


@dataclass(frozen=True)
class Scene:
    """Items in drawing order. label: what the picture shows, for readers that cannot see it."""

    width: float
    height: float
    items: Sequence[Item]
    label: str


def text_width(text: str, size: float) -> float:
    """Pixels that a line takes at most: fonts differ, so this errs on the wide side."""
    # Wide characters take about twice the room.
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return size * (0.66 * (len(text) - wide) + 1.1 * wide)


def fitting(text: str, size: float, width: float) -> str:
    """The text, or its ends around an ellipsis, or "" where under five characters would stay."""
    if text_width(text, size) <= width:
        return text
    # No letter is narrower than two thirds of the size: long names need no long search.
    keep = min(len(text), int(max(width, 0) / size / 0.66) + 2)
    while keep >= 4:
        keep -= 1
        # Both ends stay: names of layers differ at their end.
        cut = f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
        if text_width(cut, size) <= width:
            return cut
    return ""


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, 0 to 1. Source: WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def ink_on(fill: str) -> str:
    """Black or white, whichever reads better: at least 4.58 to 1 on any fill."""
    # Contrast by WCAG: the lighter luminance over the darker, each plus 0.05.
    light = luminance(fill)
    return "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#FFFFFF"


def tint(colour: str, keep: float) -> str:
    """The colour over white, `keep` of 1 of it."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * keep):02X}" for part in parts)


def xml(text: str) -> str:
    """Escaped; characters that no XML file may hold become a replacement mark."""
    return escape(_UNPRINTABLE.sub("\ufffd", text))


def to_svg(scene: Scene) -> str:
    """The picture as one <svg> element."""
    size = f"{scene.width:.0f} {scene.height:.0f}"
    # Rounded once, so that both attributes agree.
    width, height = size.split()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{width}" '
        f'height="{height}" font-family="{FONT}" role="img" aria-label="{xml(scene.label)}">\n'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>\n'
        + "\n".join(_element(item) for item in scene.items)
        + "\n</svg>\n"
    )


def _element(item: Item) -> str:
    key = f' data-key="{xml(item.key)}"' if item.key else ""
    if isinstance(item, Words):
        # Turned around its own place: it reads upwards.
        turn = f' transform="rotate(-90 {item.x:.1f} {item.y:.1f})"' if item.turned else ""
        bold = ' font-weight="bold"' if item.bold else ""
        # A third of the size below the middle is where the line of writing lies.
        return (
            f'<text x="{item.x:.1f}" y="{item.y + item.size * 0.35:.1f}" font-size="{item.size:g}" '
            f'text-anchor="{item.anchor}" fill="{item.fill}"{bold}{turn}{key}>'
            f"{xml(item.text)}</text>"
        )
    title = f"<title>{xml(item.title)}</title>" if item.title else ""
    if isinstance(item, Box):
        edge = f' stroke="{item.edge}"' if item.edge else ""
        return (
            f'<rect x="{item.x:.2f}" y="{item.y:.1f}" width="{item.width:.2f}" '
            f'height="{item.height:.1f}" fill="{item.fill}"{edge}{key}>{title}</rect>'
        )
    if isinstance(item, Dot):
        return (
            f'<circle cx="{item.x:.1f}" cy="{item.y:.1f}" r="{item.radius:g}" fill="{item.fill}" '
            f'stroke="{item.edge}" stroke-width="1.5"{key}>{title}</circle>'
        )
    to = f' data-to="{xml(item.to)}"' if item.to else ""
    dash = f' stroke-dasharray="{item.dash}"' if item.dash else ""
    faint = ' opacity="0.45"' if item.faint else ""
    # The first point is the path's start.
    bends = " ".join(f"{x:.1f},{y:.1f}" for x, y in _bends(item)[1:])
    x, y = item.a
    line = (
        f'<path d="M{x:.1f},{y:.1f} {"C" if item.curved else "L"}{bends}" fill="none" '
        f'stroke="{item.colour}" stroke-width="{item.width:g}"{dash}/>'
    )
    head = ""
    if item.head:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in _head(item))
        head = f'<polygon points="{corners}" fill="{item.colour}"/>'
    # One group: hovering and marking take line and head together.
    return f"<g{key}{to}{faint}>{title}{line}{head}</g>"


def _bends(line: Line) -> list[tuple[float, float]]:
    """Start, the two handles of a curve, end."""
    (x0, y0), (x1, y1) = line.a, line.b
    if not line.curved:
        return [line.a, line.b]
    # Lines to a lower band run backwards; a fixed handle keeps them near their ends.
    reach = max(16.0, min(60.0, abs(x1 - x0) / 2))
    return [line.a, (x0 + reach, y0 + line.bow), (x1 - reach, y1 + line.bow), line.b]


def _head(line: Line) -> list[tuple[float, float]]:
    x, y = line.b
    # Heads grow with the line, slower than it.
    size = 3 + 1.5 * line.width
    return [(x, y), (x - size, y - size / 2), (x - size, y + size / 2)]


def save(scene: Scene, path: str | Path) -> None:
    """Writes SVG, PNG or PDF by the ending, whole or not at all.

    Raises: InputError for another ending; MissingLibrary for PNG and PDF without Matplotlib.
    """
    # Without an ending: SVG, which needs no library.
    ending = Path(path).suffix.lstrip(".").lower() or "svg"
    if ending not in ("svg", "png", "pdf"):
        hint = "--report FILE.html makes a page" if ending in ("html", "htm") else ""
        raise InputError(
            f"cannot draw a .{ending} file", where=str(path), hint=hint or "use .svg, .png or .pdf"
        )
    if ending == "svg":
        with atomic(path) as file:
            file.write('<?xml version="1.0" encoding="UTF-8"?>\n' + to_svg(scene))
        return
    figure = _figure(scene)
    # No date: the same picture gives the same bytes.
    metadata = {"CreationDate": None} if ending == "pdf" else None
    # Wide pictures at twice the pixels, as screens have them; huge ones as they are.
    dpi = 144 if scene.width * scene.height < 12e6 else 72
    with atomic(path, "wb") as binary:
        figure.savefig(binary, format=ending, metadata=metadata, dpi=dpi)


def _figure(scene: Scene) -> Sheet:
    """The scene as a Matplotlib figure: one unit is one pixel of 1/72 inch."""
    try:
        # Loaded late: most pictures are SVG.
        from matplotlib.figure import Figure
        from matplotlib.patches import Circle, PathPatch, Polygon, Rectangle
        from matplotlib.path import Path as Curve
    except ImportError as error:
        raise MissingLibrary(
            "PNG and PDF pictures need the package matplotlib",
            why=str(error),
            hint="pip install 'csp-embed[plot]', or ask for .svg",
        ) from error
    figure = cast("Sheet", Figure(figsize=(scene.width / 72, scene.height / 72), facecolor=PAPER))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, scene.width)
    # Downwards, as in SVG.
    axes.set_ylim(scene.height, 0)
    axes.axis("off")
    across = {"start": "left", "middle": "center", "end": "right"}
    # Matplotlib draws by kind, not by order; zorder keeps the scene's.
    for order, item in enumerate(scene.items):
        if isinstance(item, Box):
            place = ((item.x, item.y), item.width, item.height)
            edge = item.edge or "none"
            axes.add_patch(Rectangle(*place, fc=item.fill, ec=edge, lw=0.8, zorder=order))
        elif isinstance(item, Words):
            cast("Written", axes).text(
                item.x, item.y, item.text, fontsize=item.size, color=item.fill,
                ha=across[item.anchor], va="center_baseline" if not item.turned else "center",
                rotation=90 if item.turned else 0, parse_math=False, zorder=order,
                fontweight="bold" if item.bold else "normal",
            )  # fmt: skip
        elif isinstance(item, Dot):
            round_ = {"fc": item.fill, "ec": item.edge, "lw": 1.5, "zorder": order}
            axes.add_patch(Circle((item.x, item.y), item.radius, **round_))
        else:
            points, alpha = _bends(item), 0.45 if item.faint else 1.0
            codes = [Curve.MOVETO] + [Curve.CURVE4 if item.curved else Curve.LINETO] * (
                len(points) - 1
            )
            axes.add_patch(PathPatch(
                Curve(points, codes), fc="none", ec=item.colour, lw=item.width, alpha=alpha,
                ls=(0, tuple(map(float, item.dash.split()))) if item.dash else "-", zorder=order,
            ))  # fmt: skip
            if item.head:
                axes.add_patch(
                    Polygon(_head(item), fc=item.colour, ec="none", alpha=alpha, zorder=order)
                )
    return figure
