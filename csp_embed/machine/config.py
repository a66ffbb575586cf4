"""Machine configurations: JSON files of numbers (VTA's vta_config.json), named ones or a dict.

Takes: what the user gave.  Leaves: every key of the spec with a value in its range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from csp_embed.errors import SpecError
from csp_embed.files import readable
from csp_embed.machine.reading import expr
from csp_embed.machine.reading.tree import Item
from csp_embed.narrow import is_object
from csp_embed.nearest import nearest

# Texts are kept for people (VTA's "TARGET"); only numbers size a machine.
Config = dict[str, int | str]


def choose(
    section: Item, wanted: str | Path | Mapping[str, Any] | None, folder: Traversable | Path | None
) -> tuple[str, Config]:
    """(name, checked configuration) for `wanted`: a name, a path, a dict, or None for the default.

    `folder` is where the spec lies; named configurations are paths from there or mappings. Without
    one (a spec inside a program file) `wanted` must be a dict, and no file is read.
    Raises: SpecError naming the missing, unknown or out-of-range keys.
    """
    table = section.table(["default", "named", "keys"], ["closed_prefix"])
    named = table["named"].entries()
    default = table["default"].text()
    if default not in named:
        raise table["default"].error(
            f"'{default}' is not among the named configurations", f"named: {', '.join(named)}"
        )
    if wanted is None:
        wanted = default
    if isinstance(wanted, Mapping):
        # A spec inside a program file carries its sizes itself: it must not depend on files that
        # lie around.
        config = check(table, wanted, "the given configuration")
        return ("custom" if folder is None else _name_of(config, table, folder)), config
    assert folder is not None
    # A name of the spec goes before a file of that name: names are what messages recommend.
    if str(wanted) in named:
        name = str(wanted)
        raw, where = _named(named[name], folder)
    else:
        path = Path(wanted)
        # A file that exists is read whatever it is called; a name that does not is a misspelt
        # configuration.
        if path.suffix != ".json" and not path.exists():
            raise SpecError(
                f"no configuration '{wanted}'",
                why=f"named configurations are {', '.join(named)}",
                hint="give one of these names or a path to a .json file",
            )
        raw, name, where = _file(path), path.stem, str(path)
    return name, check(table, raw, where)


def named(section: Item) -> dict[str, Item]:
    """The named configurations of a spec, in its order."""
    return section.table(["default", "named", "keys"], ["closed_prefix"])["named"].entries()


def check(table: Mapping[str, Item], raw: Mapping[str, Any], where: str) -> Config:
    """`raw` with defaults and derived values filled in.

    A key with `equals` follows from others where they are given; a value that is given too must
    agree. Refused: missing, mistyped, out-of-range, contradicting and closed keys.
    """
    rules = {
        key: item.table(["min", "max"], ["default", "optional", "equals"])
        for key, item in table["keys"].entries().items()
    }
    closed = table["closed_prefix"].text() if "closed_prefix" in table else ""
    # vta_config.json holds keys of other tools too; only the prefix that sizes machines is closed.
    strange = [k for k in raw if k not in rules and closed and k.startswith(closed)]
    if strange:
        near = [n for k in strange for n in nearest(k, rules)]
        raise SpecError(
            f"unknown key {', '.join(strange)}",
            where=_place(raw, strange[0], where),
            why=f"keys that start with {closed} size the machine and must be known",
            hint=f"{'did you mean ' + ', '.join(near) + '? ' if near else ''}"
            f"known: {', '.join(rules)}",
        )
    sizes: dict[str, int] = {}
    # All given and default values first: what follows from others is reckoned from these.
    for key, rule in rules.items():
        if key in raw:
            sizes[key] = _within(key, raw[key], rule, _place(raw, key, where))
        elif "default" in rule:
            sizes[key] = rule["default"].integer({})
    _derive(rules, raw, sizes, where)
    missing = [
        key
        for key, rule in rules.items()
        if key not in sizes and not ("optional" in rule and rule["optional"].flag())
    ]
    if missing:
        sources = {k: rules[k]["equals"].text() for k in missing if "equals" in rules[k]}
        either = " or ".join(dict.fromkeys(sources.values()))
        # A missing key that others would give can be added in two ways; both are told.
        raise SpecError(
            f"the configuration lacks {', '.join(missing)}",
            where=where,
            why="no size is guessed"
            + (f"; {either} would give {', '.join(sources)}" * bool(either)),
            hint="add the missing keys; isa_specs/configs has complete files",
        )
    config: Config = {key: sizes[key] for key in rules if key in sizes}
    # Foreign keys are kept, so that a configuration comes back whole from a program file.
    for key, value in raw.items():
        if key not in rules and isinstance(value, str | int) and not isinstance(value, bool):
            config[key] = value
    return config


def _within(key: str, value: Any, rule: Mapping[str, Item], where: str) -> int:
    """A given value. Raises: SpecError where it is no number or out of range."""
    low, high = rule["min"].integer({}), rule["max"].integer({})
    allowed = f"{low}" if low == high else f"{low} to {high}"
    # bool is an int in Python, and `true` no size.
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(
            f"{key} is {value!r}",
            where=where,
            why="a whole number is expected",
            hint=f"set {key} to {allowed if low == high else f'a number from {allowed}'}",
        )
    if not low <= value <= high:
        raise SpecError(
            f"{key} is {value}",
            where=where,
            why=f"this machine allows {allowed}",
            hint=f"set {key} to {'that value' if low == high else 'a value in that range'}",
        )
    return value


def _derive(
    rules: Mapping[str, Mapping[str, Item]],
    raw: Mapping[str, Any],
    sizes: dict[str, int],
    where: str,
) -> None:
    """Adds to `sizes` what follows from other keys. Raises: SpecError for a contradiction."""
    for key, rule in rules.items():
        if "equals" not in rule:
            continue
        item = rule["equals"]
        sources = [n for n in expr.names_in(expr.parse(item.text())) if n in rules]
        # With a source missing nothing follows; `missing` tells it, if the key is needed.
        if any(n not in sizes for n in sources):
            continue
        value = item.integer(sizes)
        given = ", ".join(f"{n} = {sizes[n]}" for n in sources)
        # The place of the source: that is the line to change.
        if key not in raw:
            sizes[key] = _within(key, value, rule, _place(raw, sources[0], where))
        elif sizes[key] != value:
            raise SpecError(
                f"{key} is {sizes[key]}, and {given} makes it {value}",
                where=_place(raw, key, where),
                why=f"{key} = {item.text()}",
                hint=f"set {key} to {value}, or leave out one of {key}, {', '.join(sources)}",
            )


class _Lines(dict[str, Any]):
    """A JSON object that knows the lines of its keys."""

    def __init__(self, values: Mapping[str, Any], text: str) -> None:
        super().__init__(values)
        self.lines = {
            key: text.count("\n", 0, found.start()) + 1
            for key in values
            # json gives no lines. The first place where a key is followed by a colon is nearly
            # always the key.
            if (found := re.search(rf"{re.escape(json.dumps(key))}\s*:", text))
        }


def _place(raw: Mapping[str, Any], key: str, where: str) -> str:
    """file:line of a key, where it came from a file."""
    line = raw.lines.get(key) if isinstance(raw, _Lines) else None
    return where if line is None else f"{where}:{line}"


def read_json(text: str, where: str) -> Mapping[str, Any]:
    """A JSON object; SpecError with the line otherwise. Duplicate keys are refused."""
    try:
        # json keeps the last of two equal keys without a word.
        raw = json.loads(text, object_pairs_hook=lambda pairs: _no_duplicates(pairs, where))
    except json.JSONDecodeError as error:
        raise SpecError(
            "this is not JSON",
            where=f"{where}:{error.lineno}",
            why=error.msg,
            hint="isa_specs/configs has some; csp-embed isa show prints every key",
        ) from error
    # json recurses in Python: a file of many brackets would end in a traceback.
    except RecursionError as error:
        raise SpecError(
            "this JSON is nested too deeply",
            where=where,
            hint='{"LOG_BLOCK": 4, ...}: names and numbers, nothing inside',
        ) from error
    if not is_object(raw):
        raise SpecError(
            "a configuration is a JSON object",
            where=where,
            why=f"found {type(raw).__name__}",
            hint='{"LOG_BLOCK": 4, ...}; csp-embed isa show prints every key',
        )
    return _Lines(raw, text)


def _no_duplicates(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise SpecError(f"key {key} stands twice", where=where, hint="remove one of them")
        found[key] = value
    return found


def _file(path: Path) -> Mapping[str, Any]:
    with readable(path, "csp-embed isa list shows the named configurations", SpecError):
        text = path.read_text(encoding="utf-8")
    return read_json(text, str(path))


def _named(item: Item, folder: Traversable | Path) -> tuple[Mapping[str, Any], str]:
    if item.kind() == "a mapping":
        return {k: v.integer({}) for k, v in item.entries().items()}, item.where
    target = folder / item.text()
    if not target.is_file():
        raise item.error(f"no file '{item.text()}' beside the spec", f"looked for {target}")
    return read_json(target.read_text(encoding="utf-8"), str(target)), str(target)


def _name_of(config: Config, table: Mapping[str, Item], folder: Traversable | Path) -> str:
    """The name of the named configuration with the same sizes, else "custom"."""
    keys = list(table["keys"].entries())
    for name, item in table["named"].entries().items():
        other = check(table, *_named(item, folder))
        # Sizes alone: keys that only one of the two has (a target's name) make no other machine.
        if all(other.get(k) == config.get(k) for k in keys if k in other and k in config):
            return name
    return "custom"
