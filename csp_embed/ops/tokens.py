"""Tokens of a formula, and the parts that every statement has: accesses with affine indices.

Takes: text on one line.  Leaves: a `Cursor` over its tokens, whose errors point at the place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from csp_embed.errors import OperatorError
from csp_embed.ir.affine import Affine
from csp_embed.ir.operator import Access

# Floats are tokens only to be refused with a word of their own; symbols longest first.
_TOKEN = re.compile(
    r"\s+|(?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+|\d+[eE][+-]?\d+)|(?P<int>\d+)"
    r"|(?P<update>\+=|(?:max|min)\s*=(?!=))|(?P<name>[A-Za-z_]\w*)|(?P<sym>>>|<<|//|\*\*|==|\S)",
    re.ASCII,
)
MAX_NUMBER = 2**32  # beyond every address
# Far more than formulas have; recursion is not the user's problem.
MAX_DEPTH = 50


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    at: int


def fail(text: str, at: int | None, what: str, *, why: str = "", hint: str = "") -> NoReturn:
    """Raises OperatorError with a caret under position `at` of the formula."""
    # Under the place: the message's own margin counts.
    caret = "" if at is None else "\n" + " " * (len("  where: ") + at) + "^"
    hint = hint or "docs/formulas.md states the notation, with examples"
    raise OperatorError(what, where=text + caret, why=why, hint=hint)


def make_affine(terms: dict[str, int], const: int = 0) -> Affine:
    """An `Affine` in its normal form: sorted, without zero coefficients."""
    return Affine(tuple(sorted((a, c) for a, c in terms.items() if c)), const)


class Cursor:
    """Reads tokens one after the other; remembers where tensors and their indices stand."""

    # All tokens at once: the parser looks one ahead.
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[Token] = []
        for m in _TOKEN.finditer(text):
            if m.lastgroup:
                self.tokens.append(Token(m.lastgroup, m.group(), m.start()))
        self.tokens.append(Token("end", "", len(text)))
        self.pos = 0
        self.depth = 0
        self.extents: dict[str, int] = {}
        self.places: dict[str, int] = {}
        self.index_places: dict[tuple[str, int], int] = {}

    @property
    def now(self) -> Token:
        return self.tokens[self.pos]

    def take(self) -> Token:
        self.pos += 1
        return self.tokens[self.pos - 1]

    def accept(self, *texts: str) -> Token | None:
        return self.take() if self.now.text in texts and self.now.kind != "end" else None

    def need(self, text: str, why: str = "", hint: str = "") -> Token:
        if self.now.text != text:
            found = f"found {self.now.text!r}" if self.now.text else "the formula ends"
            self.fail(f"expected {text!r} here, {found}", why=why, hint=hint)
        return self.take()

    def fail(self, what: str, at: int | None = None, why: str = "", hint: str = "") -> NoReturn:
        fail(self.text, self.now.at if at is None else at, what, why=why, hint=hint)

    def access(self) -> Access:
        name = self.now
        if name.kind != "name":
            self.no_float()
            self.fail("expected a tensor, e.g. x[n,k]")
        self.take()
        # The first place is where errors point to.
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
        # Told as "not affine", not as an unexpected sign.
        if self.now.text in ("/", "//", "%", "**", "<<", ">>"):
            self.non_affine(f"{self.now.text!r} in an index")
        self.no_float()
        return total

    def term(self, sign: int) -> Affine:
        value = self.factor()
        while self.now.text == "*":
            star = self.take()
            other = self.factor()
            # Two axes multiplied: no affine map has that.
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
        # Back to the token itself, so that the caret stands under it.
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
        # By length first: int() of thousands of digits takes long.
        if len(self.now.text) > 10 or int(self.now.text) >= MAX_NUMBER:
            self.fail("this number is too large", why="addresses have 32 bits")
        return sign * int(self.take().text)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"more than {MAX_DEPTH} nested parentheses")


def _scale(value: Affine, by: int) -> Affine:
    return make_affine({a: c * by for a, c in value.terms}, value.const * by)


def _sum(a: Affine, b: Affine) -> Affine:
    terms = dict(a.terms)
    for axis, c in b.terms:
        terms[axis] = terms.get(axis, 0) + c
    return make_affine(terms, a.const + b.const)
