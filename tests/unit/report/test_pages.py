"""The pages of sweeps and kernels read back: every cell has its head, nothing is cut."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from svg_look import read

from csp_embed.report.html import HEAD, sweep_page
from csp_embed.report.page import STYLE, hanging, number, table
from csp_embed.report.svg import roofline, speedups


def record(name: str = "conv000", **more: Any) -> dict[str, Any]:
    known = {
        "id": name, "class": "conv", "machine": "1x16x16", "cycles": 1000, "bound_cycles": 900,
        "ratio": 1000 / 900, "utilisation": 0.5, "kind": "aligned", "embedding": "o = (k.o:16)",
        "host_bytes": 12, "seconds": 0.5, "verified": "simulated", "macs": 100000,
        "natural_bytes": 4000, "speedup": 1.5, "reference_cycles": 1500, "strict_cycles": 1000,
    }  # fmt: skip
    return known | more


class Cells(HTMLParser):
    """Tables as lists of rows of (attributes, text); checks that tags are closed in order."""

    VOID = ("meta", "input", "br", "line", "circle", "rect", "polyline", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[tuple[dict[str, str | None], str]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append((dict(attrs), ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        while self.open[-1] != tag and self.open[-1] in self.VOID:
            self.open.pop()
        if tag in self.VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            attributes, text = self.rows[-1][-1]
            self.rows[-1][-1] = (attributes, text + data)


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_every_cell_knows_its_head(count: int) -> None:
    page = sweep_page([record(f"conv{n:03}", cycles=12345678 + n) for n in range(count)])
    rows = [r for r in Cells(page).rows if r and "data-head" in r[0][0]]
    layers = [r for r in rows if r[0][0]["data-head"] == "layer"]
    assert len(layers) == count
    for n, row in enumerate(layers):
        assert [a["data-head"] for a, _ in row] == list(HEAD)
        assert row[2][1] == f"{12345678 + n:,}"


def test_narrow_pages_show_cards_and_no_text_is_kept_on_one_line() -> None:
    # What fixed widths or a scrolling box would hide: measured in a browser at 400, 800, 1280 and
    # 1920 pixels when this was written, kept here by the rules that made it so.
    assert STYLE.count("content:attr(data-head)") == 2
    assert "overflow-x" not in STYLE
    assert re.search(r"pre\{[^}]*white-space:pre-wrap", STYLE)
    assert re.search(r"td\.t\{white-space:normal", STYLE)
    # Cards are as wide as they can be.
    assert STYLE.count("td.t{min-width:0}") == 2


def test_a_failed_layer_spans_the_row() -> None:
    failed = {"id": "<x>", "class": "a & b", "status": "failed", "error": "no <embedding>"}
    (row,) = [r for r in Cells(sweep_page([record(), failed])).rows if r[0][1] == "<x>"]
    assert [text for _, text in row] == ["<x>", "a & b", "failed: no <embedding>"]
    assert len(row) - 1 + int(row[2][0]["colspan"] or 0) == len(HEAD)


def test_only_failures_make_a_page_too() -> None:
    failed = {"id": "a", "class": "b", "status": "failed", "error": "c"}
    page = sweep_page([failed])
    assert "0 layers of 1" in page
    assert Cells(page).rows[-1][0][1] == "a"


@pytest.mark.parametrize(
    ("value", "plain", "shown"),
    [(None, "-1", "-"), (math.nan, "-1", "-"), (math.inf, "Infinity", "inf"), (0, "0", "0"),
     (-math.inf, "-Infinity", "-inf"), (1234567.0, "1234567.0", "1,234,567")],
)  # fmt: skip
def test_numbers_sort_by_what_javascript_reads(value: Any, plain: str, shown: str) -> None:
    assert number(value) == f'<td data-v="{plain}">{shown}</td>'


def test_charts_keep_labels_apart_and_inside() -> None:
    classes = [f"a class with a long name {n}" for n in range(6)]
    records = [
        record(f"l{n}", **{"class": classes[n % 6], "natural_bytes": 10 ** (n % 8 + 1),
                           "macs": 10 ** (n % 8 + 2), "cycles": 10 ** (n % 5 + 1),
                           "speedup": 10.0 ** (n % 7 - 3)})
        for n in range(40)
    ]  # fmt: skip
    for text in (roofline(records, 256, 8), speedups(records)):
        ElementTree.fromstring(text)
        seen = read(text)
        labels = [t for t in seen.labels if t.words not in ("MACs per cycle",)]
        for at, a in enumerate(labels):
            assert a.left >= 0
            assert a.right <= seen.width
            assert not any(a.meets(b) for b in labels[:at])
        assert set(classes) <= set(seen.words)


@pytest.mark.parametrize(
    "odd",
    [{"cycles": None, "ratio": None, "utilisation": None}, {"cycles": 0}, {"macs": 0},
     {"cycles": math.inf, "ratio": math.inf, "speedup": math.inf}, {"speedup": -1.0},
     {"ratio": math.nan, "speedup": math.nan}, {"peak_macs": 0}, {"macs": 10**18, "cycles": 1},
     {"id": "x" * 500}, {"speedup": 1e-9}],
    ids=str,
)  # fmt: skip
def test_odd_records_have_a_row_and_spoil_no_other(odd: dict[str, Any]) -> None:
    rows = Cells(sweep_page([record("plain"), record("odd") | odd])).rows
    names = [r[0][1] for r in rows if r and r[0][0].get("data-head") == "layer"]
    assert sorted(names) == sorted(["plain", odd.get("id", "odd")])


def test_charts_of_nothing_are_nothing() -> None:
    assert roofline([], 256, 8) == ""
    assert speedups([record(speedup=None)]) == ""


def test_markup_in_names_is_shown() -> None:
    page = sweep_page([record("<script>alert(1)</script>", kind="<i>", embedding='"><b>')])
    assert "<script>alert" not in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert "&lt;i&gt;" in table(("h",), [["<i>"]])


def test_lines_of_a_report_hang() -> None:
    style = 'style="padding-left:3ch;text-indent:-3ch"'
    assert hanging("a <b>\n", 3) == (
        f'<pre class="hang"><span {style}>a &lt;b&gt;</span><span {style}> </span></pre>'
    )
