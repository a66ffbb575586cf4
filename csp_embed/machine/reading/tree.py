"""YAML as nodes that know their line: the base of every error about a spec file.

Takes: text and the name to show for it.  Leaves: `Item`s; numbers stay text until `expr` reads it.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import yaml

from csp_embed.errors import SpecError
from csp_embed.machine.reading import expr
from csp_embed.nearest import did_you_mean

# Meanings are Python's syntax, so a name that they use cannot be one of its words.
NAMES = "letters, digits and _ only, and no word of Python's syntax (from, in, is, …)"


def is_name(text: str) -> bool:
    """Whether a meaning can use it."""
    return text.isidentifier() and not keyword.iskeyword(text)


@dataclass(frozen=True)
class Item:
    """One YAML node and what it is called in messages (`memories.ACC.depth`)."""

    node: yaml.Node
    file: str
    name: str

    @property
    # PyYAML counts lines from 0, editors from 1.
    def where(self) -> str:
        return f"{self.file}:{self.node.start_mark.line + 1}"

    def error(self, what: str, why: str = "", hint: str = "") -> SpecError:
        label = f"{self.name}: " if self.name else ""
        # Most refusals are about the format; whoever knows better gives a hint.
        pages = "isa_specs/README.md, docs/machines.md, docs/commands.md: the formats, key by key"
        hint = hint or pages
        return SpecError(label + what, where=self.where, why=why, hint=hint)

    def child(self, node: yaml.Node, name: str) -> Item:
        return Item(node, self.file, f"{self.name}.{name}" if self.name else name)

    def entries(self) -> dict[str, Item]:
        """Of a mapping: key -> item, in order; duplicate keys are refused."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(
                "a mapping is expected here", f"found {self.kind()}", "write `key: value` lines"
            )
        found: dict[str, Item] = {}
        # YAML allows equal keys and keeps the last one, which hides mistakes.
        for key, value in self.node.value:
            place = Item(key, self.file, self.name)
            if not isinstance(key, yaml.ScalarNode):
                raise place.error("a key must be a plain name", f"found {place.kind()}")
            if key.value in found:
                raise place.error(
                    f"'{key.value}' stands twice",
                    f"first at line {found[key.value].node.start_mark.line + 1}",
                    "remove or rename one of them",
                )
            found[key.value] = self.child(value, key.value)
        return found

    def key_where(self, name: str) -> str:
        """Of a mapping: file:line of that key, which may stand above its value."""
        # A block's value begins on the line below its key; messages should name the key.
        lines = [k.start_mark.line for k, _ in self.node.value if k.value == name]
        return f"{self.file}:{lines[0] + 1}"

    def table(self, required: Iterable[str], optional: Iterable[str] = ()) -> Mapping[str, Item]:
        """A mapping with exactly these keys."""
        required, optional = tuple(required), tuple(optional)
        found = self.entries()
        known = [*required, *optional]
        for key, item in found.items():
            if key not in known:
                # Misspellings are the usual reason, so the nearest known key is told.
                hint = did_you_mean(key, known, f"known keys: {', '.join(known)}")
                where = Item(item.node, self.file, self.name)
                raise where.error(f"unknown key '{key}'", "the format has no such key here", hint)
        missing = [key for key in required if key not in found]
        if missing:
            raise self.error(
                f"missing key{'s' if len(missing) > 1 else ''}: {', '.join(missing)}",
                "the format requires it here",
                "see isa_specs/README.md for the format, field by field",
            )
        return found

    def items(self) -> list[Item]:
        """Of a list: its items."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(
                "a list is expected here", f"found {self.kind()}", "write [a, b] or `- a` lines"
            )
        return [self.child(node, str(n)) for n, node in enumerate(self.node.value)]

    def text(self) -> str:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error("plain text is expected here", f"found {self.kind()}")
        # PyYAML's node holds the text as it was written: 0x10 and 1_000 are for `expr` to read.
        return str(self.node.value)

    def word(self) -> str:
        """Text that is an identifier."""
        text = self.text()
        if not is_name(text):
            raise self.error(f"'{text}' is not a name", NAMES)
        return text

    def integer(self, names: Mapping[str, int]) -> int:
        """The value of an arithmetic expression over `names`."""
        text = self.text()
        try:
            return expr.value(text, names)
        except expr.ExprError as error:
            # Only an undefined name has a nearest one.
            hint = did_you_mean(error.name, names, f"defined: {', '.join(names)}")
            raise self.error(f"cannot evaluate '{text}'", str(error), hint) from error

    def number(self) -> float:
        """A finite decimal number (costs)."""
        try:
            value = float(self.text())
        except ValueError as error:
            raise self.error(
                f"'{self.text()}' is not a number", "costs are decimal numbers"
            ) from error
        # `.inf` and `.nan` are floats to YAML; cycles could not be compared with them.
        if not abs(value) < float("inf"):
            raise self.error(f"'{self.text()}' is not a finite number", "costs are decimal numbers")
        return value

    def flag(self) -> bool:
        # YAML 1.1 reads yes and on as true; only the plain words are taken.
        text = self.text().lower()
        if text not in ("true", "false"):
            raise self.error(
                f"'{self.text()}' is neither true nor false",
                "this is a switch",
                "write true or false",
            )
        return text == "true"

    def kind(self) -> str:
        match self.node:
            case yaml.MappingNode():
                return "a mapping"
            case yaml.SequenceNode():
                return "a list"
            case _:
                pass
        return f"the text '{self.node.value}'"


@lru_cache(maxsize=8)
def read(text: str, file: str) -> Item:
    """The root of a YAML text. Kept for the next call: a sweep loads one spec many times.

    Raises: SpecError with the line where the text is not YAML or is empty.
    """
    try:
        # Nodes, not values: these know their lines, and numbers stay text.
        node = yaml.SafeLoader(text).get_single_node()  # as yaml.compose, which has no types
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        reason = getattr(error, "problem", None) or str(error)
        raise SpecError(
            "this is not YAML",
            where=f"{file}:{line}",
            why=str(reason),
            hint="check indentation, quotes and brackets near that line",
        ) from error
    # PyYAML recurses for every level.
    except RecursionError as error:
        raise SpecError(
            "the file is nested too deeply",
            where=f"{file}:1",
            hint="docs/machines.md shows the form; no key is deeper than six levels",
        ) from error
    if node is None:
        raise SpecError("the file is empty", where=f"{file}:1", hint="see isa_specs/README.md")
    return Item(node, file, "")
