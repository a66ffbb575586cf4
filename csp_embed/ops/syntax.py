"""Formula text to a syntax tree with places: the only reader of the notation.

    statement := access ("+=" access "*" access | "max=" access | "min=" access | "=" expression)
    program   := statement { ";" step }
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

import re
from dataclasses import dataclass, field
from typing import NoReturn

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Access, Affine, Step

_TOKEN = re.compile(
    r"\s+|(?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+|\d+[eE][+-]?\d+)|(?P<int>\d+)"
    r"|(?P<update>\+=|(?:max|min)\s*=(?!=))|(?P<name>[A-Za-z_]\w*)|(?P<sym>>>|<<|//|\*\*|==|\S)",
    re.ASCII,
)
MAX_NUMBER = 2**32  # beyond every address
MAX_DEPTH = 50
STEP_NAMES = ("shr", "shl", "add", "max", "min", "mul", "relu", "clip")


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Statement:
    """text: the formula on one line. kind, out, lhs, rhs, steps as in `Operator`.

    places: position of each tensor's first access; index_places: (tensor, dimension) -> position.
    """

    text: str
    kind: str
    out: Access
    lhs: Access
    rhs: Access | None
    steps: tuple[Step, ...]
    places: dict[str, int] = field(default_factory=dict)
    index_places: dict[tuple[str, int], int] = field(default_factory=dict)


def fail(text: str, at: int | None, what: str, *, why: str = "", hint: str = "") -> NoReturn:
    """Raises OperatorError with a caret under position `at` of the formula."""
    caret = "" if at is None else "\n" + " " * (len("  where: ") + at) + "^"
    raise OperatorError(what, where=text + caret, why=why, hint=hint)


def make_affine(terms: dict[str, int], const: int = 0) -> Affine:
    """An `Affine` in its normal form: sorted, without zero coefficients."""
    return Affine(tuple(sorted((a, c) for a, c in terms.items() if c)), const)


def read_statement(text: str) -> Statement:
    """Reads a formula. Raises: OperatorError at the first place that is not in the notation."""
    if not isinstance(text, str):
        raise OperatorError(f"a formula is text, not {type(text).__name__}")
    return _Reader(" ".join(text.split())).statement()


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[Token] = []
        for m in _TOKEN.finditer(text):
            if m.lastgroup:
                self.tokens.append(Token(m.lastgroup, m.group(), m.start()))
        self.tokens.append(Token("end", "", len(text)))
        self.pos = 0
        self.depth = 0
        self.places: dict[str, int] = {}
        self.index_places: dict[tuple[str, int], int] = {}

    # -- tokens ---------------------------------------------------------------------------------
    @property
    def now(self) -> Token:
        return self.tokens[self.pos]

    def take(self) -> Token:
        self.pos += 1
        return self.tokens[self.pos - 1]

    def accept(self, *texts: str) -> Token | None:
        return self.take() if self.now.text in texts and self.now.kind != "end" else None

    def need(self, text: str, why: str = "") -> Token:
        if self.now.text != text:
            found = f"found {self.now.text!r}" if self.now.text else "the formula ends"
            self.fail(f"expected {text!r} here, {found}", why=why)
        return self.take()

    def fail(self, what: str, at: int | None = None, why: str = "", hint: str = "") -> NoReturn:
        fail(self.text, self.now.at if at is None else at, what, why=why, hint=hint)

    # -- the statement --------------------------------------------------------------------------
    def statement(self) -> Statement:
        if self.now.kind == "end":
            self.fail("the formula is empty", hint="y[n,m] += x[n,k] * w[m,k]")
        out = self.access()
        kind, lhs, rhs, steps = self.update()
        while self.accept(";"):
            if self.now.kind != "end":
                steps += self.step()
        if self.now.kind != "end":
            self.fail(
                f"did not expect {self.now.text!r} here",
                hint="steps behind the formula stand after ';', e.g. '; shr 8; add b[m]'",
            )
        return Statement(
            self.text, kind, out, lhs, rhs, tuple(steps), self.places, self.index_places
        )

    def update(self) -> tuple[str, Access, Access | None, list[Step]]:
        token = self.now
        if token.kind == "update":
            self.take()
            if token.text == "+=":
                lhs = self.access()
                self.need("*", "a sum is of products: y[..] += x[..] * w[..]")
                return "contract", lhs, self.access(), []
            return token.text[:3], self.access(), None, []
        if self.accept("="):
            lhs, steps = self.elementwise(token.at)
            return "map", lhs, None, steps
        self.fail("expected +=, max=, min= or = behind the result", hint="y[i] += x[i,k] * w[k]")

    # -- accesses and affine indices ------------------------------------------------------------
    def access(self) -> Access:
        name = self.now
        if name.kind != "name":
            self.no_float()
            self.fail("expected a tensor, e.g. x[n,k]")
        self.take()
        self.places.setdefault(name.text, name.at)
        self.need("[", f"{name.text} is a tensor and needs its indices")
        index: list[Affine] = []
        while True:
            self.index_places.setdefault((name.text, len(index)), self.now.at)
            index.append(self.affine())
            if not self.accept(","):
                break
        self.need("]")
        return Access(name.text, tuple(index))

    def affine(self) -> Affine:
        negative = bool(self.accept("-"))
        total = self.term(-1 if negative else 1)
        while self.now.text in ("+", "-"):
            sign = 1 if self.take().text == "+" else -1
            other = self.term(sign)
            total = _sum(total, other)
        if self.now.text in ("/", "//", "%", "**", "<<", ">>"):
            self.non_affine(f"{self.now.text!r} in an index")
        self.no_float()
        return total

    def term(self, sign: int) -> Affine:
        value = self.factor()
        while self.now.text == "*":
            star = self.take()
            other = self.factor()
            if value.terms and other.terms:
                self.non_affine("a product of two axes", star.at)
            value = _scale(value, other.const) if value.terms else _scale(other, value.const)
        return _scale(value, sign)

    def factor(self) -> Affine:
        token = self.now
        self.no_float()
        if self.now.text in ("(", "-"):
            self.deeper()
            if self.take().text == "(":
                inner = self.affine()
                self.need(")")
            else:
                inner = _scale(self.factor(), -1)
            self.depth -= 1
            return inner
        if token.kind == "int":
            return Affine((), self.integer())
        self.take()
        if token.kind == "name":
            if self.now.text in ("[", "("):
                self.non_affine(f"{token.text}{self.now.text}…", token.at)
            return Affine(((token.text, 1),))
        self.pos -= 1
        self.fail("expected an axis or an integer in this index")

    def non_affine(self, what: str, at: int | None = None) -> NoReturn:
        self.fail(
            f"{what} is not affine",
            at,
            why="an index is a sum of axes with integer coefficients, e.g. 2*p+r-3",
        )

    def no_float(self) -> None:
        if self.now.kind == "float":
            self.fail(
                f"{self.now.text} is a floating-point number",
                why="tensors are int8 and int32, indices and immediates are integers",
            )

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        self.no_float()
        if self.now.kind != "int":
            self.fail("expected an integer here")
        if len(self.now.text) > 10 or int(self.now.text) >= MAX_NUMBER:
            self.fail("this number is too large", why="addresses have 32 bits")
        return sign * int(self.take().text)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"more than {MAX_DEPTH} nested parentheses")

    # -- steps ----------------------------------------------------------------------------------
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
        return [Step("shr", -imm) if name.text == "shl" else Step(name.text, imm)]

    # -- elementwise expressions: a chain of steps from one first tensor --------------------------
    def elementwise(self, at: int) -> tuple[Access, list[Step]]:
        value = self.shifts()
        if isinstance(value, int):
            self.fail("an elementwise program starts from a tensor", at)
        return value.first, value.steps

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
            self.need(",")
            value = self.join(name.text, value, self.shifts(), name.at)
        self.need(")")
        self.depth -= 1
        return value

    def join(
        self, op: str, a: int | _Chain, b: int | _Chain, at: int, commutes: bool = True
    ) -> int | _Chain:
        """The chain a followed by `op b`; b must be plain, or a if the operation commutes."""
        if commutes and _rank(a) < _rank(b):
            a, b = b, a
        if isinstance(a, int):
            if isinstance(b, int):
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
    return (min(1, len(value.steps)), len({a for ix in value.first.index for a, _ in ix.terms}))


def _fold(op: str, a: int, b: int) -> int:
    if op == "shr":
        return a >> b if b >= 0 else a << min(-b, 64)
    return {"add": a + b, "mul": a * b, "max": max(a, b), "min": min(a, b)}[op]


def _scale(value: Affine, by: int) -> Affine:
    return make_affine({a: c * by for a, c in value.terms}, value.const * by)


def _sum(a: Affine, b: Affine) -> Affine:
    terms = dict(a.terms)
    for axis, c in b.terms:
        terms[axis] = terms.get(axis, 0) + c
    return make_affine(terms, a.const + b.const)
