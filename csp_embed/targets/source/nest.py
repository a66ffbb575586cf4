"""Loops and template calls as values: what C is written from, and what the interpreter runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sum:
    """const + sum of coefficient * loop variable."""

    const: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(const: int, terms: Mapping[str, int]) -> Sum:
        # Without zeros: sums of equal value are equal objects.
        return Sum(const, tuple((v, c) for v, c in terms.items() if c))

    def plus(self, other: Sum, times: int = 1) -> Sum:
        terms = dict(self.terms)
        for v, c in other.terms:
            terms[v] = terms.get(v, 0) + times * c
        return Sum.of(self.const + times * other.const, terms)

    def bind(self, var: str, value: Sum) -> Sum:
        """With `value` in the place of a variable."""
        coef = dict(self.terms).get(var, 0)
        rest = Sum(self.const, tuple(t for t in self.terms if t[0] != var))
        # Unchanged where the variable does not occur, so that nothing is rebuilt.
        return rest.plus(value, coef) if coef else self

    def at(self, values: Mapping[str, int]) -> int:
        return self.const + sum(c * values[v] for v, c in self.terms)


@dataclass(frozen=True)
class Address:
    """An element of a buffer."""

    buffer: str
    at: Sum


@dataclass(frozen=True)
class Clamp:
    """min(most, at), not below 0: how many lanes of a ragged end exist."""

    at: Sum
    most: int


Value = str | int | Address | Clamp


@dataclass(frozen=True)
class Call:
    """A template with its operands by name: a register's name, an address or a number."""

    template: str
    operands: Mapping[str, Value]


@dataclass(frozen=True)
class Loop:
    """for (var = 0; var < count; var++). rolled: the C compiler is to keep it as it is."""

    var: str
    count: int
    body: tuple[Node, ...]
    rolled: bool = False


@dataclass(frozen=True)
class Block:
    """A scope with registers of its own: (memory, name)."""

    registers: tuple[tuple[str, str], ...]
    body: tuple[Node, ...]


@dataclass(frozen=True)
class Keep:
    """Registers (of one memory) whose loop ends here: what follows is to use them as they are."""

    memory: str
    names: tuple[str, ...]


Node = Call | Loop | Block | Keep


@dataclass(frozen=True)
class Buffer:
    """ctype: of an element. role: "argument" (a tensor), "packed" (constants, made once) or "work"
    (made in every run)."""

    name: str
    dtype: str
    elements: int
    role: str


def calls(nodes: tuple[Node, ...]) -> Iterator[Call]:
    """All template calls, in order of the text."""
    for node in nodes:
        if isinstance(node, Call):
            yield node
        elif not isinstance(node, Keep):
            yield from calls(node.body)
