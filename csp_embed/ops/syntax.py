"""Formula text to a syntax tree with places: the only reader of the notation.

    statement := access ("+=" access "*" access | "max=" access | "min=" access | "=" expression)
    program   := statement { ";" (step | extent) }
    extent    := axis "<" integer                          where no shape tells it
    step      := ("shr" | "shl" | "add" | "max" | "min" | "mul") integer | "relu"
               | ("shr" | "add" | "max" | "min" | "mul") access ["within" integer]
               | "clip" integer integer
    access    := name "[" index { "," index } "]"          an index is integer-affine in axis names
    expression (elementwise): access, integer, e + e, e - integer, e * e, e >> e, e << integer,
        max(e, e), min(e, e), relu(e), clip(e, lo, hi), parentheses; `>>` binds weaker than `+`.
        One side of every operation is a plain access or an integer: there is one accumulator.

Takes: text. Leaves: `Statement`. Every error carries the text with a caret under the place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Access, Step
from csp_embed.ops.tokens import Cursor

STEP_NAMES = ("shr", "shl", "add", "max", "min", "mul", "relu", "clip")


@dataclass(frozen=True)
class Statement:
    """text: the formula on one line. kind, out, lhs, rhs, steps as in `Operator`.

    extents: of axes, as written behind the formula. places: position of each tensor's first access;
    index_places: (tensor, dimension) -> position.
    """

    text: str
    kind: str
    out: Access
    lhs: Access
    rhs: Access | None
    steps: tuple[Step, ...]
    extents: dict[str, int] = field(default_factory=dict[str, int])
    places: dict[str, int] = field(default_factory=dict[str, int])
    index_places: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])


def read_statement(text: str) -> Statement:
    """Reads a formula. Raises: OperatorError at the first place that is not in the notation."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
        raise OperatorError(
            f"a formula is text, not {type(text).__name__}", hint="'y[n,m] += x[n,k] * w[m,k]'"
        )
    # One line: positions of carets then count characters.
    return _Reader(" ".join(text.split())).statement()


class _Reader(Cursor):
    """Recursive descent over the tokens."""

    # -- the statement --------------------------------------------------------------------------
    def statement(self) -> Statement:
        if self.now.kind == "end":
            # An empty text would be "expected a tensor", which says less.
            self.fail("the formula is empty", hint="y[n,m] += x[n,k] * w[m,k]")
        out = self.access()
        kind, lhs, rhs, steps = self.update()
        # A trailing ';' is no mistake.
        while self.accept(";"):
            if self.now.kind != "end":
                steps += self.step_or_extent()
        if self.now.kind != "end":
            self.fail(
                f"did not expect {self.now.text!r} here",
                hint="steps behind the formula stand after ';', e.g. '; shr 8; add b[m]'",
            )
        return Statement(
            self.text, kind, out, lhs, rhs, tuple(steps), self.extents, self.places,
            self.index_places,
        )  # fmt: skip

    def update(self) -> tuple[str, Access, Access | None, list[Step]]:
        token = self.now
        if token.kind == "update":
            self.take()
            if token.text == "+=":
                lhs = self.access()
                self.need(
                    "*",
                    "a sum is of products: y[..] += x[..] * w[..]",
                    "to sum one tensor alone, multiply by ones: y[c] += x[c,h,w] * one[h,w]",
                )
                return "contract", lhs, self.access(), []
            # "max=" may be written with blanks before "=".
            return token.text[:3], self.access(), None, []
        if self.accept("="):
            lhs, steps = self.elementwise(token.at)
            return "map", lhs, None, steps
        self.fail("expected +=, max=, min= or = behind the result", hint="y[i] += x[i,k] * w[k]")

    # -- steps ----------------------------------------------------------------------------------
    def step_or_extent(self) -> list[Step]:
        """Steps; none where an extent was written."""
        axis = self.now
        # An axis before '<' is an extent; step names never stand there.
        if axis.kind != "name" or self.tokens[self.pos + 1].text != "<":
            return self.step()
        self.take()
        self.take()
        at = self.now.at
        extent = self.integer()
        # The same extent twice is no contradiction.
        if extent < 1 or self.extents.setdefault(axis.text, extent) != extent:
            why = "" if extent < 1 else f"it was {self.extents[axis.text]} before"
            self.fail(f"axis {axis.text} cannot have extent {extent}", at, why=why)
        return []

    def step(self) -> list[Step]:
        name = self.now
        if name.text not in STEP_NAMES:
            self.fail(f"{name.text!r} is no step", why="steps are " + ", ".join(STEP_NAMES))
        self.take()
        if name.text == "relu":
            return [Step("max", 0)]
        if name.text == "clip":
            lo, hi = self.integer(), self.integer()
            if lo > hi:
                self.fail(f"clip {lo} {hi} is empty", name.at)
            return [Step("max", lo), Step("min", hi)]
        if self.now.kind == "name":
            if name.text == "shl":
                self.fail("shl takes an integer", why="no machine shifts left by a tensor")
            access = self.access()
            bound = self.integer() if self.accept("within") else None
            return [Step(name.text, access=access, bias_range=bound)]
        imm = self.integer()
        # A left shift is a right shift by a negative amount, as the machines have it.
        return [Step("shr", -imm) if name.text == "shl" else Step(name.text, imm)]

    # -- elementwise expressions: a chain of steps from one first tensor --------------------------
    def elementwise(self, at: int) -> tuple[Access, list[Step]]:
        value = self.shifts()
        if isinstance(value, int):
            self.fail("an elementwise program starts from a tensor", at)
        return value.first, value.steps

    # Weaker than '+', as in C and Python.
    def shifts(self) -> int | _Chain:
        value = self.sums()
        while token := self.accept(">>", "<<"):
            other = self.sums()
            if token.text == "<<":
                if not isinstance(other, int):
                    self.fail("<< takes an integer", token.at)
                other = -other
            value = self.join("shr", value, other, token.at, commutes=False)
        return value

    def sums(self) -> int | _Chain:
        value = self.products()
        while token := self.accept("+", "-"):
            other = self.products()
            if token.text == "-":
                if not isinstance(other, int):
                    self.fail(
                        "a tensor cannot be subtracted",
                        token.at,
                        why="the machines have no subtraction",
                        hint="negate the tensor before, and add it",
                    )
                # Minus an integer is plus its negative: machines add only.
                other = -other
            value = self.join("add", value, other, token.at)
        return value

    def products(self) -> int | _Chain:
        value = self.primary()
        while token := self.accept("*"):
            value = self.join("mul", value, self.primary(), token.at)
        return value

    def primary(self) -> int | _Chain:
        self.no_float()
        token = self.now
        # Depth is counted, as Python's own stack is what nesting uses up.
        if self.now.text == "(":
            self.deeper()
            self.take()
            inner = self.shifts()
            self.need(")")
            self.depth -= 1
            return inner
        if token.text == "-" or token.kind == "int":
            return self.integer()
        following = self.tokens[self.pos + 1].text if token.kind == "name" else ""
        if following == "(":
            return self.call()
        return _Chain(self.access(), [])

    def call(self) -> int | _Chain:
        name = self.take()
        if name.text not in ("max", "min", "relu", "clip"):
            self.fail(f"unknown function {name.text!r}", name.at, why="max, min, relu, clip")
        self.deeper()
        self.need("(")
        value = self.shifts()
        if name.text == "relu":
            value = self.join("max", value, 0, name.at)
        elif name.text == "clip":
            self.need(",")
            lo = self.integer()
            self.need(",")
            hi = self.integer()
            if lo > hi:
                self.fail(f"clip to {lo}..{hi} is empty", name.at)
            value = self.join("min", self.join("max", value, lo, name.at), hi, name.at)
        else:
            over_axis = f"over an axis it is written y[i] {name.text}= x[i,j]"
            self.need(",", f"{name.text} is of two values here", over_axis)
            value = self.join(name.text, value, self.shifts(), name.at)
        self.need(")")
        self.depth -= 1
        return value

    def join(
        self, op: str, a: int | _Chain, b: int | _Chain, at: int, commutes: bool = True
    ) -> int | _Chain:
        """The chain a followed by `op b`; b must be plain, or a if the operation commutes."""
        # The computed side carries the chain, since only one accumulator exists.
        if commutes and _rank(a) < _rank(b):
            a, b = b, a
        if isinstance(a, int):
            if isinstance(b, int):
                # Two integers are folded: no machine needs to see them.
                return _fold(op, a, b)
            self.fail("an integer cannot be shifted by a tensor", at)
        if isinstance(b, int):
            return _Chain(a.first, [*a.steps, Step(op, b)])
        if b.steps:
            self.fail(
                "both sides of this operation are computed",
                at,
                why="an elementwise program is one chain: each step takes a tensor or an integer",
                hint="split it into two operators",
            )
        # A plain tensor becomes a step of its own.
        return _Chain(a.first, [*a.steps, Step(op, access=b.first)])


@dataclass
class _Chain:
    """A value: the first tensor and the steps applied to it."""

    first: Access
    steps: list[Step]


def _rank(value: int | _Chain) -> tuple[int, int]:
    """Which side carries the chain: the computed one, then the one with more axes."""
    if isinstance(value, int):
        return (-1, 0)
    # Of two plain tensors the one with more axes is first: steps may repeat along an axis.
    return (min(1, len(value.steps)), len({a for ix in value.first.index for a, _ in ix.terms}))


def _fold(op: str, a: int, b: int) -> int:
    if op == "shr":
        # Bounded: a huge shift would build a number without end.
        return a >> b if b >= 0 else a << min(-b, 64)
    return {"add": a + b, "mul": a * b, "max": max(a, b), "min": min(a, b)}[op]
