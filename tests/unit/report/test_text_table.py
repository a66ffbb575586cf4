"""Tables and lines for terminals: what fits, what wraps, and that numbers stay whole."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_embed.report.text_table import cells_wide, fit, table

HEAD = ("layer", "kind", "cycles", "bytes in", "ratio", "speed-up", "why")
ROWS = [
    ["conv000", "aligned", "29,692,518", "1.5e+09", "0.9862", "287.82x", "fastest device"],
    ["conv001", "im2col commuted", "650,884", "-", "inf", "nan", "beside conv000, saves transfers"],
    ["gemm000", "", "0", "-12", "1.0", "", "x" * 90],
]


def whole(text: str) -> list[str]:
    """Everything between blanks."""
    return re.findall(r"\S+", text)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 400, None])
def test_every_number_is_whole_at_every_width(width: int | None) -> None:
    text = table(HEAD, ROWS, width)
    words = whole(text)
    for row in ROWS:
        for cell in row[2:6]:
            assert not cell or cell in words, cell
    assert "…" not in text
    assert all(len(line) <= (width or 1000) for line in text.splitlines())
    # Nothing is left out: wrapped words come together again.
    assert text.count("x") >= 90 + sum(cell.count("x") for row in ROWS[:2] for cell in row)


def test_a_table_that_fits_is_one() -> None:
    assert table(("a", "ms"), [["x", "10"], ["longer", "2.5"]], 80) == (
        "a        ms\nx        10\nlonger  2.5"
    )


def test_parts_repeat_the_names() -> None:
    text = table(("name", *"pqrs"), [["one", *["1234567890"] * 4]], 40)
    blocks = text.split("\n\n")
    assert len(blocks) == 2
    assert [b.splitlines()[0].split() for b in blocks] == [
        list(("name", "p", "q", "r")),
        ["name", "s"],
    ]
    assert all(b.splitlines()[1].startswith("one") for b in blocks)


@pytest.mark.parametrize("rows", [[], [["", "", ""]]])
def test_empty_tables_are_heads(rows: list[list[str]]) -> None:
    assert table(("a", "b", "c"), rows, 80).splitlines()[0] == "a  b  c"


def test_wide_and_odd_characters_keep_columns_straight() -> None:
    rows = [["名前", "1"], ["e\u0301", "22"], ["a\x1b[31m\nb", "333"]]
    lines = table(("n", "v"), rows, 80).splitlines()
    assert len({cells_wide(line) for line in lines}) == 1
    assert "\x1b" not in "".join(lines)


@given(
    st.lists(
        st.tuples(
            st.text("ab<&é名 ", max_size=30),
            st.floats(allow_nan=True).map(lambda v: f"{v:,.6g}"),
            st.integers().map("{:,}".format),
            st.text("xyz -", max_size=60),
        ),
        max_size=6,
    ),
    st.integers(60, 130),
)
def test_random_tables_keep_their_numbers(rows: list[tuple[str, ...]], width: int) -> None:
    text = table(("name", "value", "count", "words"), [list(r) for r in rows], width)
    words = whole(text)
    for row in rows:
        assert row[1] in words
        assert row[2] in words


def test_long_lines_hang_below_their_text() -> None:
    text = fit("  layout       relaxed; packed bytes: x 3,136, w 4,608, y 6,272,345,123", 44)
    assert text.splitlines() == [
        "  layout       relaxed; packed bytes: x",
        "               3,136, w 4,608, y",
        "               6,272,345,123",
    ]


def test_a_number_longer_than_the_line_is_not_broken() -> None:
    number = "1" * 70
    assert number in fit(f"total {number} bytes", 40).split()
    path = "/a/very/long/path" * 6
    pieces = fit(path, 40)
    assert pieces.replace("\n", "").replace(" ", "") == path
    assert fit("a b", None) == "a b"


def test_a_long_name_leaves_room_for_the_numbers() -> None:
    text = table(("name", "n", "why"), [["p" * 200, "1234567", "because of it"]], 60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert text.count("p") == 200 * text.count("name")
    assert "1234567" in text.split()
