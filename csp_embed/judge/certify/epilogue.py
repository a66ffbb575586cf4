"""Do two expressions compute the same function of the accumulators? By normal form, or by trying.

An expression is a nested tuple over int32 with wrap-around:
    ("var", n)  ("num", c)  ("sum", e, f, …)  ("shr", k, e)  ("shl", k, e)  ("clamp", lo, hi, e)
    and ("max" | "min" | "mul" | "shift", e, f), where both sides depend on data.
Variables have ranges; a rule that needs them is used only where the value cannot wrap around.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Expr = tuple[Any, ...]
LOW, HIGH = -(1 << 31), (1 << 31) - 1
LARGEST = 1 << 26  # Values that are tried one by one.


class Algebra:
    """Smart constructors: each returns the normal form. ranges: of the variables."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.ranges = ranges

    def reach(self, e: Expr) -> tuple[int, int]:
        """Least and greatest value; all of int32 where it may wrap around."""
        kind = e[0]
        if kind == "var":
            variable: int = e[1]
            return self.ranges[variable]
        if kind == "num":
            return e[1], e[1]
        if kind == "sum":
            return _int32(*(sum(x) for x in zip(*map(self.reach, e[1:]), strict=True)))
        if kind == "clamp":
            low, high = self.reach(e[3])
            return min(max(low, e[1]), e[2]), min(max(high, e[1]), e[2])
        if kind == "shr":
            low, high = self.reach(e[2])
            return low >> e[1], high >> e[1]
        if kind == "shl":
            low, high = self.reach(e[2])
            return _int32(low << e[1], high << e[1])
        if kind in ("max", "min"):
            function = max if kind == "max" else min
            (a, b), (c, d) = self.reach(e[1]), self.reach(e[2])
            return function(a, c), function(b, d)
        return LOW, HIGH

    def add(self, *terms: Expr) -> Expr:
        flat = [t for e in terms for t in (e[1:] if e[0] == "sum" else (e,))]
        # Constants join modulo 2^32, which is what int32 addition does in any order.
        number = sum(t[1] for t in flat if t[0] == "num")
        number = (number - LOW) % (1 << 32) + LOW
        # repr orders nested tuples that have no order of their own; any fixed order does.
        rest = sorted((t for t in flat if t[0] != "num"), key=repr)
        rest += [("num", number)] if number or not rest else []
        return rest[0] if len(rest) == 1 else ("sum", *rest)

    def shr(self, k: int, e: Expr) -> Expr:
        if k == 0:
            return e
        if e[0] == "num":
            return ("num", e[1] >> k)
        if e[0] == "shr":
            # Beyond 31 only the sign is left, as after 31.
            return self.shr(min(31, k + e[1]), e[2])
        if e[0] == "sum" and e[-1][0] == "num" and e[-1][1] % (1 << k) == 0 and self._exact(e):
            # (a + c 2^k) >> k = (a >> k) + c where the sum does not wrap around.
            return self.add(self.shr(k, self.add(*e[1:-1])), ("num", e[-1][1] >> k))
        return ("shr", k, e)

    def shl(self, k: int, e: Expr) -> Expr:
        return ("num", (e[1] << k) % (1 << 32)) if e[0] == "num" and e[1] >= 0 else ("shl", k, e)

    def clamp(self, low: int, high: int, e: Expr) -> Expr:
        """min(max(e, low), high), for low <= high."""
        # Idle clips go first: the formula may clip where the stream, knowing ranges, does not.
        least, most = self.reach(e)
        if least >= low and most <= high:
            return e
        if e[0] == "clamp":
            least, most = (min(max(x, low), high) for x in e[1:3])
            return self.clamp(least, most, e[3])
        if e[0] == "sum" and e[-1][0] == "num" and self._exact(e):
            c = e[-1][1]
            # Constants outside of clips, so that fused and unfused offsets meet in one form.
            inner = self.clamp(max(low - c, LOW), min(high - c, HIGH), self.add(*e[1:-1]))
            return self.add(inner, e[-1])
        if low == high or most <= low or least >= high:
            return ("num", high if least >= high else low)
        # A side that never clips is written as far out as it goes.
        return ("clamp", LOW if least >= low else low, HIGH if most <= high else high, e)

    def both(self, kind: str, a: Expr, b: Expr) -> Expr:
        """A function of two expressions."""
        # A maximum with a constant is half a clip.
        if kind in ("max", "min") and "num" in (a[0], b[0]):
            number, e = (a[1], b) if a[0] == "num" else (b[1], a)
            return self.clamp(number, HIGH, e) if kind == "max" else self.clamp(LOW, number, e)
        if kind == "shift" and b[0] == "num":
            return self.shr(b[1] & 31, a)
        # All but shifts commute.
        if kind != "shift" and repr(b) < repr(a):
            a, b = b, a
        return (kind, a, b)

    def _exact(self, e: Expr) -> bool:
        """Neither the sum nor what is left of it without its constant wraps around."""
        # Both: taking the constant out needs the sum with it and the sum without it to be true
        # sums.
        for terms in (e[1:], e[1:-1]):
            low, high = (sum(x) for x in zip(*map(self.reach, terms), strict=True))
            if low < LOW or high > HIGH:
                return False
        return True


def _int32(low: int, high: int) -> tuple[int, int]:
    return (low, high) if low >= LOW and high <= HIGH else (LOW, HIGH)


def decide(algebra: Algebra, a: Expr, b: Expr) -> str:
    """How it was shown that the low 8 bits of both are equal, or "" where they are not, or where
    it could not be shown."""
    if a == b:
        return "step by step"
    # Fewer variables with narrower ranges: what is left is often small enough to try.
    a, b, ranges = _cut(algebra, a, b)
    names = sorted(_variables(a) | _variables(b))
    sizes = [ranges[n][1] - ranges[n][0] + 1 for n in names]
    if prod(sizes) > LARGEST:
        return ""
    grids = np.ix_(*(np.arange(ranges[n][0], ranges[n][1] + 1, dtype=np.int32) for n in names))
    values = dict(zip(names, grids, strict=True))
    # Only the low byte is stored, so only it has to agree.
    left, right = np.broadcast_arrays(*(_value(e, values) & 255 for e in (a, b)))
    same = np.array_equal(left, right)
    return f"all {prod(sizes):,} values" if same else ""


def _cut(algebra: Algebra, a: Expr, b: Expr) -> tuple[Expr, Expr, dict[int, tuple[int, int]]]:
    """Both with the largest parts that they share replaced by variables of the parts' range."""
    shared = set(_parts(a)) & set(_parts(b))
    ranges = dict(enumerate(algebra.ranges))
    names: dict[Expr, int] = {}

    def replaced(e: Any) -> Any:
        if not _is_expr(e) or e[0] in ("var", "num"):
            return e
        if e in shared:
            ranges[names.setdefault(e, len(algebra.ranges) + len(names))] = algebra.reach(e)
            return ("var", names[e])
        return tuple(replaced(x) for x in e)

    cut = replaced(a), replaced(b), ranges
    # A variable that stands beside a part that holds it would be free of it; then nothing is cut.
    inside = {v for e in names for v in _variables(e)}
    # Trying a variable and its part independently would ask for more than is needed, and could
    # refuse what is right.
    left = (_variables(cut[0]) | _variables(cut[1])) & inside
    return (a, b, dict(enumerate(algebra.ranges))) if left else cut


def _is_expr(e: Any) -> TypeGuard[Expr]:
    """A part of an expression that is one, not its kind or a number."""
    return isinstance(e, tuple)


def _parts(e: Any) -> Iterable[Expr]:
    if _is_expr(e):
        if e[0] not in ("var", "num"):
            yield e
        for x in e[1:]:
            yield from _parts(x)


def _variables(e: Any) -> set[int]:
    if not _is_expr(e):
        return set()
    return {e[1]} if e[0] == "var" else {v for x in e[1:] for v in _variables(x)}


def _value(e: Expr, values: Mapping[int, NDArray[np.int32]]) -> NDArray[np.int32]:
    kind = e[0]
    if kind == "var":
        return values[e[1]]
    if kind == "num":
        return np.array(e[1], np.int32)
    if kind == "sum":
        parts = [_value(x, values) for x in e[1:]]
        out = parts[0]
        for part in parts[1:]:
            out = np.add(out, part, dtype=np.int32)
        return out
    if kind == "shr":
        return np.right_shift(_value(e[2], values), e[1])
    if kind == "shl":
        return np.left_shift(_value(e[2], values), e[1])
    if kind == "clamp":
        return np.minimum(np.maximum(_value(e[3], values), np.int32(e[1])), np.int32(e[2]))
    first, second = (_value(x, values) for x in e[1:])
    if kind == "shift":
        return np.right_shift(first, second & 31)
    function = {"max": np.maximum, "min": np.minimum, "mul": np.multiply}[kind]
    return function(first, second, dtype=np.int32)
