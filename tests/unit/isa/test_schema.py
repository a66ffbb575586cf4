"""The JSON schema of instruction sets: shipped files have its shape, broken ones have not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import run
from oracles.json_schema import valid

from csp_embed.errors import SpecError
from csp_embed.machine.load import load_isa
from csp_embed.machine.reading.schema import schema, shape_problems

ROOT = Path(__file__).parents[3]
FILES = [*sorted((ROOT / "isa_specs").glob("*.yaml")), ROOT / "tests/data/specs/mill.yaml"]
SCHEMA = schema()


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_shipped_files_have_the_shape(path: Path) -> None:
    assert shape_problems(_read(path)) == []
    assert valid(_read(path), SCHEMA)


def _mutants(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents with one thing wrong that the loader refuses too."""
    for key in ("format", "name", "dims", "memories", "instructions"):
        other = copy.deepcopy(document)
        del other[key]
        yield f"no {key}", other
    for place in ((), ("memories", None), ("instructions", None)):
        other = copy.deepcopy(document)
        table = other
        for step in place:
            table = table[next(iter(table)) if step is None else step]
        table["surprise"] = 1
        yield f"a surprise in {place}", other
    for key, value in (("dims", [1, 2]), ("instructions", "none"), ("format", "csp-embed-isa/9")):
        yield f"{key} is {value}", copy.deepcopy(document) | {key: value}
    other = copy.deepcopy(document)
    first = next(iter(other["instructions"].values()))
    first["meaning"] = {"a": 1}
    yield "a meaning that is a mapping", other
    other = copy.deepcopy(document)
    memory = next(m for m in other["memories"].values() if "type" in m)
    memory["type"] = "int7"
    yield "a type of 7 bits", other


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_broken_files_are_refused_as_the_loader_refuses_them(path: Path) -> None:
    for name, document in _mutants(_read(path)):
        assert not valid(document, SCHEMA), name
        assert shape_problems(document), name
        with pytest.raises(SpecError):
            load_isa(document)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "isa", "schema")
    assert done.code == 0
    assert json.loads(done.out) == SCHEMA
