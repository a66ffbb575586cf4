"""A user's own layer list: the format of `deepbench/networks.json`, or its list of layers alone.

Takes: a JSON file.  Leaves: records that `deepbench.build` takes, each built once to see that it
can be; every error names the file and the entry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError, OperatorError
from csp_embed.narrow import is_list, is_object
from csp_embed.nearest import did_you_mean, nearest
from csp_embed.ops import deepbench
from csp_embed.ops.bound import natural

_EXAMPLE = '[{"id": "l0", "op": "matmul", "m": 8, "n": 4, "k": 16}]'


def selected(selection: str) -> list[Mapping[str, Any]]:
    """Records of a list's name, of ids, or of a file. Raises: InputError."""
    records: list[Mapping[str, Any]]
    # Names of lists before names of files: a file `conv` must be written as ./conv.
    if selection in ("conv", "gemm", "all", "networks"):
        records = [*deepbench.layers(selection)]
    # Not Path.is_file: a long list of ids is no name of a file, and no fault.
    elif selection.endswith(".json") or os.path.isfile(selection):
        records = [*read_layer_list(selection)]
    else:
        ids = [i.strip() for i in selection.split(",") if i.strip()]
        # Each once, in the order given.
        records = [deepbench.record(i) for i in dict.fromkeys(ids)]
    if not records:
        raise InputError(
            "no layer is selected",
            why="a selection is conv, gemm, all, networks, ids such as conv000,gemm008, or my.json",
            hint="csp-embed deepbench gemm008",
        )
    return records


def read_layer_list(path: str | Path) -> list[Mapping[str, Any]]:
    """The layers in their order, with `macs` filled in.

    Raises: InputError for a file that cannot be read, has no layers, an entry with a missing,
    unknown or repeated part, or extents that make no operator.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        # UnicodeDecodeError has no strerror.
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot read the layer list {path}",
            why=why,
            hint="csp-embed deepbench networks, which is deepbench/networks.json",
        ) from error
    except ValueError as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(
            f"{path} is no JSON", where=f"{path}{line}", why=str(error), hint=_EXAMPLE
        ) from error
    # Both forms: the shipped file has an object, a user's may be the bare list.
    entries = document.get("layers") if is_object(document) else document
    if not is_list(entries) or not entries:
        raise InputError(
            f"{path} holds no layers",
            where=str(path),
            why="a list of layers, or an object whose `layers` is one, is expected",
            hint=_EXAMPLE,
        )
    seen: dict[str, int] = {}
    found: list[Mapping[str, Any]] = []
    for number, entry in enumerate(entries):
        record = _checked(f"{path}: entry {number}", entry)
        # Sweeps resume by id, so that two layers of one would be one.
        first = seen.setdefault(record["id"], number)
        if first != number:
            raise InputError(
                f"the id {record['id']!r} stands twice",
                where=f"{path}: entries {first} and {number}",
                why="records of a sweep are told apart by their ids",
                hint=f"rename it, e.g. {record['id']}b",
            )
        found.append(record)
    return found


def _checked(where: str, entry: Any) -> Mapping[str, Any]:
    """The entry, built once. Raises: InputError."""
    if not is_object(entry):
        raise InputError(
            "a layer is a JSON object",
            where=where,
            why=repr(entry)[:60],
            hint="deepbench/README.md shows the form",
        )
    for key in ("id", "op"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise InputError(
                f"the layer has no {key}", where=where, why=f"{key} is a text", hint=_EXAMPLE
            )
    where = f"{where}, {entry['id']!r}"
    op = entry["op"]
    if op not in deepbench.EPILOGUES:
        # An unknown operator is refused before its keys are looked at.
        known = list(deepbench.EPILOGUES)
        near = nearest(str(op), known)
        raise InputError(
            f"unknown operator {op!r}",
            where=where,
            why=f"known: {', '.join(known)}",
            hint=f'"op": "{(near or known)[0]}"',
        )
    own = deepbench.arguments(op)
    allowed = (*deepbench.ABOUT, *own, *deepbench.EPILOGUE)
    # Each key must be known: a misspelt one would silently have no effect.
    for key in entry:
        if key not in allowed:
            raise InputError(
                f"{op} has no {key!r}",
                where=where,
                why=f"it takes {', '.join(own)}; {', '.join(deepbench.EPILOGUE)}",
                hint=did_you_mean(str(key), allowed, f"remove {key!r}"),
            )
    missing = [key for key, required in own.items() if required and key not in entry]
    if missing:
        raise InputError(f"{op} needs {', '.join(missing)}", where=where, hint=f'"{missing[0]}": 8')
    # bool is an int, and `true` no count.
    count = entry.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(
            f"count is {count!r}; it must be a positive integer",
            where=where,
            hint='leave "count" out, or write 1',
        )
    if not isinstance(entry.get("reference", {}), Mapping | None):
        raise InputError(
            "reference is an object of figures",
            where=where,
            hint='"reference": {"cycles_rtl_de10": 1000}',
        )
    # Built once: only the formula knows whether extents go together.
    try:
        op_built = deepbench.build(entry)
    except OperatorError as error:
        raise InputError(
            error.what, where=where, why="; ".join(filter(None, (error.where, error.why))),
            hint=error.hint,
        ) from error  # fmt: skip
    return {**entry, "macs": natural(op_built)["macs"]}
