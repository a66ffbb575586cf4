"""The frame of a self-contained HTML page: style, tables that fit every width, sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from csp_embed.report.scene import xml

# Light on purpose: the pictures have their own white ground.
_BASE = """
:root{color-scheme:light}
body{font:14px/1.45 system-ui,sans-serif;color:#222;background:#fff;max-width:1800px;
 margin:1.5em auto;padding:0 1em;overflow-wrap:break-word}
h1{font-size:1.4em;overflow-wrap:anywhere} h2{font-size:1.15em;margin-top:2em}
table{border-collapse:collapse;width:100%;font-size:12px}
th,td{padding:3px 5px;text-align:right;border-bottom:1px solid #e5e5e5}
th{background:#f4f4f4;position:sticky;top:0;vertical-align:bottom} .sort th{cursor:pointer}
td{white-space:nowrap} td.t{white-space:normal;overflow-wrap:anywhere}
th:first-child,td:first-child{text-align:left}
td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:9.5em} td.t{min-width:5em}
td.l,th.l{text-align:left}
td.f{white-space:normal;overflow-wrap:anywhere;font-family:monospace;font-size:11px}
.wide svg{width:100%;max-width:1400px;height:auto;display:block}
.chart svg{width:100%;max-width:900px;height:auto;display:block} svg.bar{width:80px;height:12px}
.big svg.bar{width:100%;max-width:660px;height:36px}
pre{background:#f6f6f6;padding:1em;white-space:pre-wrap;overflow-wrap:anywhere;font-size:12.5px}
pre.hang span{display:block}
.note{color:#595959}
"""

# Below a width a row becomes a card: one line for each cell, with the head's words before it.
_CARDS = """
@media (max-width:%(width)dpx){
 table.%(name)s,.%(name)s tbody,.%(name)s tr{display:block}
 .%(name)s thead{display:none}
 .%(name)s tr{border:1px solid #ccc;border-radius:4px;margin:.6em 0;padding:.2em}
 .%(name)s td,.%(name)s td.t{min-width:0}
 .%(name)s td{display:flex;justify-content:space-between;gap:1.5em;white-space:normal;
  text-align:right;overflow-wrap:anywhere}
 .%(name)s td:first-child{font-weight:bold}
 .%(name)s td::before{content:attr(data-head);color:#595959;text-align:left;font-weight:normal;
  overflow-wrap:normal;flex:none}
}
"""
# Wide tables become cards earlier than narrow ones.
STYLE = _BASE + _CARDS % {"name": "many", "width": 1270} + _CARDS % {"name": "few", "width": 700}
_LEFT = ' class="l"'
# Up to so many columns a table fits into 700 pixels.
_FEW = 7  # columns

# Sorts in the page itself: no library, and it works without a network.
SORT = """
document.querySelectorAll('table.sort th').forEach(th=>th.onclick=()=>{
 const i=th.cellIndex,b=th.closest('table').tBodies[0],d=th.dataset.d=th.dataset.d==='1'?'-1':'1';
 const v=r=>{const c=r.cells[i];
  return !c?'':c.dataset.v!==undefined?+c.dataset.v:c.textContent};
 [...b.rows].sort((p,q)=>{const x=v(p),y=v(q);
  return (typeof x!==typeof y?(typeof x==='string'?1:-1):x>y?1:x<y?-1:0)*d})
 .forEach(r=>b.append(r))});
"""


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole document. style and script are added to what every page has."""
    return (
        # Everything inside one file: it can be sent and opened anywhere.
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}<script>{SORT}{script}</script></body></html>\n"
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    sort: bool = False,
    keys: Sequence[str] | None = None,
) -> str:
    """rows hold ready cells (`<td>…`) or plain text; keys: one for each row, for scripts."""
    # A head stands over its column's words at the left, over its numbers at the right.
    # The first whole row tells which is which.
    whole = next((row for row in rows if len(row) == len(head)), ())
    first = [*whole, *[""] * len(head)]
    left = [_left(cell) for cell in first]
    cells = "".join(
        f"<th{_LEFT if at else ''}>{escape(h)}</th>" for h, at in zip(head, left, strict=False)
    )
    # Heads again in every cell: on narrow screens the table's own head is hidden.
    lines: list[str] = []
    for at, row in enumerate(rows):
        key = "" if keys is None else f' data-key="{xml(keys[at])}"'
        named = [_named(h, c) for h, c in zip(head, row, strict=False)]
        lines.append(f"<tr{key}>{''.join(named)}</tr>")
    # Two classes only: the style sheet has a width for each.
    kind = ("few" if len(head) <= _FEW else "many") + (" sort" if sort else "")
    return (
        f'<table class="{kind}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _named(head: str, cell: str) -> str:
    """The cell with its column's name, which stands before it on narrow screens."""
    kind = "l t" if _left(cell) else "t"
    if "colspan" in cell:  # it is of no single column
        head = ""
    ready = cell if cell.startswith("<td") else f'<td class="{kind}">{escape(cell)}</td>'
    return f'<td data-head="{escape(head)}"{ready.removeprefix("<td")}'


def _left(cell: str) -> bool:
    """Whether a cell, ready or plain, holds words rather than a number."""
    if cell.startswith("<td"):
        return cell.startswith('<td class="l')
    return bool(cell) and not cell[0].isdigit() and cell[0] not in "-+."


def number(value: float | None, style: str = ",.0f") -> str:
    """A cell that sorts by its value."""
    # -1 sorts what is unknown below all figures.
    if value is None or math.isnan(value):
        return '<td data-v="-1">-</td>'
    # JavaScript has another word for it.
    plain = str(value).replace("inf", "Infinity")
    return f'<td data-v="{plain}">{format(value, style)}</td>'


def hanging(text: str, by: int) -> str:
    """Lines as a <pre> in which what wraps goes on `by` characters from the left."""
    # What wraps goes on under the text, not under the label.
    style = f"padding-left:{by}ch;text-indent:-{by}ch"
    lines = "".join(
        f'<span style="{style}">{escape(line) or " "}</span>' for line in text.split("\n")
    )
    return f'<pre class="hang">{lines}</pre>'
