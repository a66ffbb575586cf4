"""Safe arithmetic: same values as Python where allowed, refused elsewhere."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_embed.machine.reading import expr

NAMES = {"a": 11, "i": 4, "w": 10}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 ** 3 ** 2", 512), ("a + max(a, i) + w", 32), ("-7 // 2", -4), ("-7 % 3", 2),
        ("log2(1024)", 10), ("1 < i < 5 <= w", 1), ("1 < i > 5", 0), ("not a or i == 4", 1),
        ("a if i > 9 else w", 10), ("min(3, a, 2)", 2), ("0x10", 16), ("True", 1),
    ],
)  # fmt: skip
def test_values(text: str, value: int) -> None:
    assert expr.value(text, NAMES) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "a +", "b", "1.5", "'x'", "a.real", "a[0]", "open('x')", "max()", "log2(6)", "log2(0)",
        "log2(1, 2)", "a / 2", "a << 2", "a @ 2", "1 // 0", "1 % 0", "2 ** -1", "2 ** 9999",
        "(2 ** 256) ** 256", "a in i", "lambda: 1", "[1]", "a := 1", "max(a, key=i)", "~a",
        "__import__('os')", "-" * 50_000 + "1", "(" * 5_000 + "1" + ")" * 5_000, "1" * 9_999,
        "a\nb",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(expr.ExprError):
        expr.value(text, NAMES)


@given(st.recursive(
    st.integers(0, 50).map(str) | st.sampled_from(sorted(NAMES)),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "<", "<=", "==", "!="]), inner)
    .map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=12,
))  # fmt: skip
def test_agrees_with_python(text: str) -> None:
    assert expr.value(text, NAMES) == eval(text, {}, dict(NAMES))


def test_names_come_in_order_without_functions() -> None:
    assert expr.names_in(ast.parse("max(b, a) + log2(b)", mode="eval")) == ["b", "a"]
