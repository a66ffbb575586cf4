"""Tables and lines of text that fit a terminal: a number is never cut, shortened or broken.

A table that is too wide is printed as several, one below the other, each with some of the columns
and the first one again; words may wrap, numbers may not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_NUMBER = re.compile(r"[-+−]?(inf|nan|[\d.,]+)(e[-+]?\d+)?( ?[a-zµ%×*]{1,3})?(/s)?")
_GAP = 2
_LEAST = 12  # characters to which a column of words may be narrowed


def cells_wide(text: str) -> int:
    """Columns of a terminal that a text takes: two for wide characters, none for combining."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    # Combining characters stand over the one before them.
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    keys: int = 1,
    gap: tuple[int, str] | None = None,
) -> str:
    """Aligned columns, those of numbers to the right.

    width: of the terminal, None for no limit. keys: how many first columns name a row; they come
    again in every part. gap: a line to print before row number so and so.
    """
    rows = [[_clean(cell) for cell in row] for row in rows]
    sizes = [max(map(cells_wide, (h, *(r[i] for r in rows)))) for i, h in enumerate(head)]
    right = [_numeric([r[i] for r in rows]) for i in range(len(head))]
    # Into a file there is no width: everything in one part.
    room = width if width is not None else sum(sizes) + _GAP * len(sizes)
    # Keys never give way: they are what a row is found by.
    words = [not r and n >= keys for n, r in enumerate(right)]
    parts = _parts(sizes, words, room, keys)
    out: list[str] = []
    # A table too wide comes in parts, each with the keys.
    for part in parts:
        wide = _narrowed([sizes[i] for i in part], [not right[i] for i in part], room)
        lines = [_line([head[i] for i in part], wide, [right[i] for i in part])]
        lines += [_line([row[i] for i in part], wide, [right[i] for i in part]) for row in rows]
        if gap is not None:
            lines.insert(gap[0] + 1, [gap[1]])
        out.append("\n".join(line for block in lines for line in block))
    return "\n\n".join(out)


def _parts(sizes: Sequence[int], words: Sequence[bool], room: int, keys: int) -> list[list[int]]:
    """Columns of each part, the keys first. A last column of words may be narrowed to fit."""
    if sum(sizes) + _GAP * (len(sizes) - 1) <= room:
        return [list(range(len(sizes)))]
    # Names as long as the terminal leave half of it to the rest, and wrap.
    start = min(sum(sizes[:keys]) + _GAP * keys, room // 2)
    parts: list[list[int]] = []
    used = room + 1
    for i in range(keys, len(sizes)):
        least = min(sizes[i], 2 * _LEAST) if words[i] else sizes[i]
        # A first part is needed in any case.
        if used + least > room or not parts:
            parts.append(list(range(keys)))
            used = start
        parts[-1].append(i)
        used += least + _GAP
    return parts or [list(range(keys))]


def _narrowed(sizes: list[int], words: Sequence[bool], room: int) -> list[int]:
    """Widths that fit: columns of words give way, the widest first."""
    sizes = list(sizes)
    while sum(sizes) + _GAP * (len(sizes) - 1) > room:
        wide = [i for i, w in enumerate(words) if w and sizes[i] > _LEAST]
        if not wide:
            # Nothing can give way any more: the terminal is too narrow, and lines break there.
            break
        sizes[max(wide, key=lambda i: sizes[i])] -= 1
    return sizes


def _line(cells: Sequence[str], wide: Sequence[int], right: Sequence[bool]) -> list[str]:
    """One row, on as many lines as its longest cell needs."""
    wrapped = [
        # Numbers stay whole even where they are too wide.
        [cell] if r or cells_wide(cell) <= w else wrap(cell, w)
        for cell, w, r in zip(cells, wide, right, strict=True)
    ]
    lines: list[str] = []
    for at in range(max(map(len, wrapped), default=0)):
        row = ""
        for cell, w, r in zip(wrapped, wide, right, strict=True):
            text = cell[at] if at < len(cell) else ""
            # By cells, not by characters: wide ones take two.
            space = " " * max(0, w - cells_wide(text))
            row += (space + text if r else text + space) + " " * _GAP
        lines.append(row.rstrip())
    return lines


def fit(text: str, width: int | None) -> str:
    """Lines wrapped at blanks; what is wrapped stands below the text of its own line."""
    if width is None:
        return text
    out: list[str] = []
    for line in text.split("\n"):
        if cells_wide(line) <= width:
            out.append(line)
            continue
        # Below the second word of "  name   text …", as labels stand in reports.
        found = re.match(r"\s*\S+\s{2,}|\s*", line)
        indent = len(found.group()) if found and len(found.group()) <= width // 2 else 2
        first, rest = line[:indent], line[indent:]
        # No label worth keeping in front.
        if first.strip() == "" and indent <= 2:
            first, rest, indent = "", line, 4
        pieces = wrap(rest, width - indent)
        out.append(first + pieces[0])
        out += [" " * indent + piece for piece in pieces[1:]]
    return "\n".join(out)


def wrap(text: str, width: int) -> list[str]:
    """Pieces of at most `width`, broken at blanks; a longer word is broken unless a number."""
    pieces: list[str] = []
    now = ""
    # With the blanks before it, so that pieces join without loss.
    for word in re.findall(r"\s*\S+", text):
        if cells_wide(now + word) <= width:
            now += word
            continue
        if now:
            pieces.append(now)
        now = word.lstrip() if now else word
        # A word wider than the line is cut, unless it is a number.
        while cells_wide(now) > width and not _NUMBER.fullmatch(now.strip()):
            cut = width
            while cut > 1 and (cells_wide(now[:cut]) > width or _inside_number(now, cut)):
                cut -= 1
            # No place to cut: it stands out of its column.
            if cut == 1:
                break
            pieces.append(now[:cut])
            now = now[cut:]
    return [*pieces, now]


def _inside_number(text: str, at: int) -> bool:
    """Whether a cut before `at` would part a number."""
    parts = "0123456789.,"
    return text[at - 1] in parts and text[at : at + 1] in parts and bool(text[at : at + 1])


def _numeric(cells: Sequence[str]) -> bool:
    # An empty cell or a dash says nothing about the column.
    full = [c for c in cells if c not in ("", "-")]
    return bool(full) and all(_NUMBER.fullmatch(c) for c in full)


def _clean(cell: str) -> str:
    """One line without control characters, which would break the table."""
    return "".join(c if c.isprintable() else "\ufffd" for c in cell.replace("\n", " "))
