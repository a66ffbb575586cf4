"""Small pieces of C text."""

from __future__ import annotations

from collections.abc import Sequence

CTYPES = {"int8": "int8_t", "uint8": "uint8_t", "int32": "int32_t", "int16": "int16_t"}
CEIL_DIV = (
    "/* a / b rounded up, for b above 0. */",
    "static inline ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) {",
    "  return a / b + (a % b > 0);",
    "}",
)


def affine(const: int, terms: Sequence[tuple[int, str]]) -> str:
    """`const + sum` as C text."""
    # Factors of 1 and 0 leave no trace: the text stays readable.
    parts = [n if c == 1 else f"{c} * {n}" for c, n in terms if c]
    if const or not parts:
        parts.append(str(const))
    return " + ".join(parts).replace("+ -", "- ")


def narrow(coefficient: int, rest: str, size: int) -> list[str]:
    """`low` and `high` cut to the values of a loop where 0 <= rest + coefficient * value < size."""
    k, below, above = coefficient, f"-({rest})", f"{size} - ({rest})"
    # Divided by a negative number both ends change places.
    if coefficient < 0:
        k, below, above = -coefficient, f"({rest}) - {size - 1}", f"({rest}) + 1"
    return [
        f"{{ const ptrdiff_t a = ceil_div({below}, {k}), b = ceil_div({above}, {k});",
        "  low = low > a ? low : a; high = high < b ? high : b; }",
    ]
