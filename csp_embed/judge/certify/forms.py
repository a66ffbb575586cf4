"""Expressions of many stored elements at once, and their comparison with the formula's.

A Form is what `walk` left of one element, for all elements whose nodes look alike: numbers become
arrays over these elements. The formula's steps make a Form of the same kind. Numbers that agree in
all elements become one variable of an expression, which `epilogue` compares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from csp_embed.judge.certify.epilogue import HIGH, LOW, Algebra, Expr
from csp_embed.judge.certify.field import Values, add, integer, inverse, mul, number
from csp_embed.judge.certify.walk import ADD, MAX, MIN, MOST_LEFT, MUL, SHR

NAMES = {MIN: "min", MAX: "max", ADD: "add", SHR: "shr", MUL: "mul"}
# Sorts last, so that a row's real members stand in front.
_NOTHING = np.uint64((1 << 64) - 1)  # No value of the field.


@dataclass(frozen=True)
class Form:
    """node + value. node: None, (function, immediate, Form, None), (function, None, Form, Form), or
    (function, None, matrix of values, None): of all columns of the matrix."""

    value: Values
    node: tuple[str, int | None, Any, Any] | None = None


def read_forms(nodes: NDArray[Any], ids: NDArray[np.int64], values: Values) -> Form:
    """The Form of elements whose nodes have one shape."""
    if not len(ids) or ids[0] == 0:
        return Form(values)
    # One shape for all ids, so the first one's function and immediate are everybody's.
    at = nodes[ids]
    left = read_forms(nodes, at["left"], at["left_value"])
    function = NAMES[int(at["function"][0])]
    if at["right"][0] < 0:
        return Form(values, (function, int(at["immediate"][0]), left, None))
    right = read_forms(nodes, at["right"], at["right_value"])
    return Form(values, (function, None, left, right))


@dataclass
class Reader:
    """Turns Forms into expressions over shared variables. ones: what a lane value of 1 makes;
    neutral: the element that changes no maximum or minimum of the operator, or None."""

    ones: np.uint64
    neutral: int | None = None
    known: list[Values] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    algebra: Algebra = field(init=False)

    def __post_init__(self) -> None:
        self.algebra = Algebra(self.ranges)

    def variable(self, values: Values, reach: tuple[int, int]) -> Expr:
        """A number of each element, or a set of numbers (rows), as a variable or constant."""
        if values.ndim == 1:
            constant = self._constant(values)
            if constant is not None:
                return ("num", constant)
        for n, other in enumerate(self.known):
            if other.shape == values.shape and np.array_equal(other, values):
                return ("var", n)
        # x + c for a known x: else an offset that two sides apply at different places would look
        # like a new sum.
        for n, other in enumerate(self.known if values.ndim == 1 else ()):
            if other.ndim == 1:
                constant = self._constant(add(values, mul(other, number(-1))))
                if constant is not None:
                    return self.algebra.add(("var", n), ("num", constant))
        self.known.append(values)
        self.ranges.append(reach)
        return ("var", len(self.known) - 1)

    def _constant(self, values: Values) -> int | None:
        """The integer that every lane of every element holds, if there is one."""
        if not len(values) or (values != values[0]).any():
            return None
        # A constant c in every lane has the value c times the weights' sum.
        found = integer(int(mul(values[0], inverse(int(self.ones)))))
        return None if found is None else (found - LOW) % (1 << 32) + LOW

    def read(self, form: Form, reach: tuple[int, int] = (LOW, HIGH)) -> Expr:
        """The expression. reach: of variables that are new."""
        if form.node is None:
            return self.variable(form.value, reach)
        function, imm, left, right = form.node
        alg = self.algebra
        if isinstance(left, np.ndarray):
            e = self._extreme(cast(Values, left), function, reach)
        elif right is None and imm is not None:
            e = self._immediate(function, imm, self.read(left, reach))
        else:
            # A maximum over a window is a set: the order in which pairs were compared does not
            # matter.
            leaves = self._leaves(form, function) if function in ("min", "max") else None
            # Of a pool two are a set too; elsewhere the formula has such a pair as a step.
            if leaves is not None and len(leaves) > (2 if self.neutral is None else 1):
                e = self._extreme(np.stack(leaves, axis=1), function, reach)
            else:
                assert right is not None
                a, b = self.read(left, reach), self.read(right, reach)
                e = alg.add(a, b) if function == "add" else alg.both(
                    "shift" if function == "shr" else function, a, b)  # fmt: skip
        return alg.add(e, self.variable(form.value, reach)) if form.value.any() else e

    def _immediate(self, function: str, imm: int, e: Expr) -> Expr:
        alg = self.algebra
        if function == "shr":
            return alg.shr(imm, e) if imm >= 0 else alg.shl(-imm, e)
        if function == "add":
            return alg.add(e, ("num", imm))
        return alg.both(function, e, ("num", imm))

    def _leaves(self, form: Form, function: str) -> list[Values] | None:
        """The numbers whose maximum it is, where it is one of nothing else."""
        if form.node is None:
            return [form.value]
        name, imm, left, right = form.node
        # A start value, shifted or clipped on its way, is still one constant member of the set.
        fixed = self._fixed(form)
        if fixed is not None:
            return [np.full_like(form.value, mul(number(fixed), self.ones))]
        if name != function or isinstance(left, np.ndarray) or form.value.any():
            return None
        if right is None:
            # An immediate that changes nothing, or one element of the set.
            constant = np.full_like(form.value, mul(number(imm or 0), self.ones))
            parts = [self._leaves(left, function), [constant]]
        else:
            parts = [self._leaves(left, function), self._leaves(right, function)]
        return None if None in parts else [v for p in parts if p is not None for v in p]

    def _fixed(self, form: Form) -> int | None:
        """Its value, where that is the same whatever the inputs (a start value)."""
        if form.node is None:
            return self._constant(form.value)
        function, imm, left, _ = form.node
        inner = None if imm is None or form.value.any() else self._fixed(left)
        e = None if inner is None or imm is None else self._immediate(function, imm, ("num", inner))
        return e[1] if e is not None and e[0] == "num" else None

    def _extreme(self, matrix: Values, function: str, reach: tuple[int, int]) -> Expr:
        """The maximum or minimum of each row's members."""
        found = self._set(matrix, function)
        # Of one member it is that member, and a stream need not have compared it with anything.
        return self.variable(found[:, 0] if found.shape[1] == 2 else found, reach)

    def _set(self, matrix: Values, function: str) -> Values:
        """Rows as sets: sorted, each number once, without the neutral one beside others."""
        matrix = matrix.copy()
        if self.neutral is not None:
            bare = mul(number(self.neutral), self.ones)
            idle = matrix == bare
            # A row of neutral members only keeps one: its maximum is that.
            idle[idle.all(axis=1), 0] = False
            matrix[idle] = _NOTHING
        matrix.sort(axis=1)
        # Twice the same member is one member; then sorted again to close the gap.
        matrix[:, 1:][matrix[:, 1:] == matrix[:, :-1]] = _NOTHING
        matrix.sort(axis=1)
        used = int((matrix != _NOTHING).sum(axis=1).max(initial=1))
        # Maxima and minima of the same set are different variables.
        mark = np.full((len(matrix), 1), 1 if function == "max" else 2, np.uint64)
        return np.concatenate([matrix[:, : max(used, 1)], mark], axis=1)


class Writer:
    """Makes the Form of the formula, step by step, and tells the reader each number's range.

    reach: of the number that was added up since the last step that is no sum.
    """

    def __init__(self, reader: Reader, form: Form, reach: tuple[int, int]) -> None:
        self.reader, self.form, self.reach = reader, form, reach
        if form.node is not None:
            self._known(form, reach)
            self.reach = 0, 0

    def _known(self, form: Form, reach: tuple[int, int]) -> Expr:
        # Accumulators wrap around, so a range beyond int32 says nothing.
        inside = reach[0] >= LOW and reach[1] <= HIGH
        return self.reader.read(form, reach if inside else (LOW, HIGH))

    def add(self, values: Values, reach: tuple[int, int]) -> None:
        """A number of each element."""
        self.join(Form(values), reach)

    def join(self, form: Form, reach: tuple[int, int]) -> None:
        """What was made apart is added. Sums are merged as `walk` merges them."""
        mine = self.form
        if form.node is None or mine.node is None:
            self.form = Form(add(mine.value, form.value), mine.node or form.node)
            self.reach = self.reach[0] + reach[0], self.reach[1] + reach[1]
            return
        self._known(form, reach)
        self._known(mine, self.reach)
        self.form, self.reach = _node("add", None, form, mine), (0, 0)

    def step(
        self, function: str, imm: int | None, values: Values | None = None,
        reach: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        """A step by an immediate, or by a number of each element within `reach`."""
        mine = self.form
        if function == "shr" and imm is not None and -MOST_LEFT <= imm <= 0 and mine.node is None:
            # A short shift to the left of a sum is part of it, as in `walk`.
            self.form = Form(mul(mine.value, number(1 << -imm)))
            self.reach = self.reach[0] << -imm, self.reach[1] << -imm
            return
        self._known(mine, self.reach)
        other = None if values is None else Form(values)
        if other is not None:
            self._known(other, reach)
        self.form, self.reach = _node(function, imm, mine, other), (0, 0)

    def read(self) -> Expr:
        """The expression of all that was done."""
        return self._known(self.form, self.reach)


def _node(function: str, imm: int | None, left: Form, right: Form | None) -> Form:
    return Form(np.zeros_like(left.value), (function, imm, left, right))
