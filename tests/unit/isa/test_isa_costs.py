"""Costs that cannot be weighed are refused with the line where they stand, or their section's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from csp_embed.errors import SpecError
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from csp_embed.machine.resources import folder

TOY = folder("isa_specs").joinpath("toy_dot.yaml").read_text("utf-8")


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize("key", ["beat_bytes", "burst_beats", "bytes_per_cycle"])
def test_zero_is_refused_at_its_line(tmp_path: Path, key: str) -> None:
    first = re.search(rf"{key}: *\d+", TOY)
    assert first is not None
    path = tmp_path / "zero.yaml"
    path.write_text(TOY.replace(first[0], f"{key}: 0", 1))
    isa = load_isa(path)
    with pytest.raises(SpecError, match=rf"{key} is 0") as caught:
        costs_of(isa)
    assert caught.value.where == f"{path}:{line_of(path.read_text(), f'{key}: 0')}"


def test_a_missing_cost_is_refused_at_its_section(tmp_path: Path) -> None:
    first = re.search(r"burst_beats: *\d+,? *", TOY)
    assert first is not None
    path = tmp_path / "less.yaml"
    path.write_text(TOY.replace(first[0], "", 1))
    isa = load_isa(path)
    with pytest.raises(SpecError, match="burst_beats") as caught:
        costs_of(isa)
    assert caught.value.where == f"{path}:{line_of(TOY, 'ideal:')}"


@pytest.mark.parametrize("section", ["read", "map", "contract"])
def test_a_missing_section_is_refused_at_the_costs(tmp_path: Path, section: str) -> None:
    document = yaml.safe_load(TOY)
    del document["costs"][section]
    path = tmp_path / "none.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(SpecError, match=section) as caught:
        costs_of(load_isa(path))
    # A block begins with its first entry.
    assert caught.value.where == f"{path}:{line_of(path.read_text(), 'costs:') + 1}"
