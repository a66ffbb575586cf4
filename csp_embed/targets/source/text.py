"""Small pieces of C text."""

from __future__ import annotations

from collections.abc import Sequence

CTYPES = {"int8": "int8_t", "uint8": "uint8_t", "int32": "int32_t", "int16": "int16_t"}


def affine(const: int, terms: Sequence[tuple[int, str]]) -> str:
    """`const + sum` as C text."""
    parts = [n if c == 1 else f"{c} * {n}" for c, n in terms if c]
    if const or not parts:
        parts.append(str(const))
    return " + ".join(parts).replace("+ -", "- ")
