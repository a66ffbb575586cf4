"""Machine configurations: JSON files of numbers (VTA's vta_config.json), named ones or a dict.

Takes: what the user gave.  Leaves: every key of the spec with a value in its range.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from csp_embed.errors import SpecError
from csp_embed.isa.tree import Item

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
        config = check(table, wanted, "the given configuration")
        return ("custom" if folder is None else _name_of(config, table, folder)), config
    assert folder is not None
    if str(wanted) in named:
        name = str(wanted)
        raw, where = _named(named[name], folder)
    else:
        path = Path(wanted)
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
    """`raw` with defaults filled in; refuses missing, mistyped, out-of-range and closed keys."""
    keys = table["keys"].entries()
    closed = table["closed_prefix"].text() if "closed_prefix" in table else ""
    config: Config = {}
    missing: list[str] = []
    for key, item in keys.items():
        rule = item.table(["min", "max"], ["default"])
        if key not in raw:
            if "default" in rule:
                config[key] = rule["default"].integer({})
            else:
                missing.append(key)
            continue
        value = raw[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise SpecError(
                f"{key} is {value!r}", where=where, why="a whole number is expected", hint=""
            )
        low, high = rule["min"].integer({}), rule["max"].integer({})
        if not low <= value <= high:
            allowed = f"{low}" if low == high else f"{low} to {high}"
            raise SpecError(
                f"{key} is {value}",
                where=where,
                why=f"this machine allows {allowed}",
                hint=f"set {key} to a value in that range",
            )
        config[key] = value
    if missing:
        raise SpecError(
            f"the configuration lacks {', '.join(missing)}",
            where=where,
            why="no size is guessed",
            hint="add the missing keys; isa_specs/configs has complete files",
        )
    strange = [k for k in raw if k not in keys and closed and k.startswith(closed)]
    if strange:
        raise SpecError(
            f"unknown key {', '.join(strange)}",
            where=where,
            why=f"keys that start with {closed} size the machine and must be known",
            hint=f"known: {', '.join(keys)}",
        )
    for key, value in raw.items():
        if key not in keys and isinstance(value, str | int) and not isinstance(value, bool):
            config[key] = value
    return config


def read_json(text: str, where: str) -> Mapping[str, Any]:
    """A JSON object; SpecError with the line otherwise. Duplicate keys are refused."""
    try:
        raw = json.loads(text, object_pairs_hook=lambda pairs: _no_duplicates(pairs, where))
    except json.JSONDecodeError as error:
        raise SpecError(
            "this is not JSON", where=f"{where}:{error.lineno}", why=error.msg
        ) from error
    except RecursionError as error:
        raise SpecError("this JSON is nested too deeply", where=where) from error
    if not isinstance(raw, dict):
        raise SpecError(
            "a configuration is a JSON object", where=where, why=f"found {type(raw).__name__}"
        )
    return raw


def _no_duplicates(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise SpecError(f"key {key} stands twice", where=where, hint="remove one of them")
        found[key] = value
    return found


def _file(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"cannot read {path}", where=str(path), why=reason) from error
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
        if all(other[k] == config[k] for k in keys):
            return name
    return "custom"
