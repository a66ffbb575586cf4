"""The formulas of docs/formulas.md compile and are bit-equal to NumPy."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import run

PAGE = (Path(__file__).parents[1] / "docs" / "formulas.md").read_text("utf-8")
(LISTED,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
SHOWN = [line.strip() for line in PAGE.splitlines() if line.startswith("    y[")]


@pytest.mark.parametrize("line", LISTED.splitlines())
def test_examples(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    got = run(capsys, "compile", *shlex.split(line, comments=True), "--json")
    assert got.code == 0, got.err
    assert got.document["verified"] == "simulated"


def test_shown_formulas_are_in_the_notation(capsys: pytest.CaptureFixture[str]) -> None:
    shapes = [
        ["x=1,3,32,32", "w=8,3,7,7", "y=1,8,16,16"],
        ["a=4,6", "b=6"],
    ]
    for text, known in zip(SHOWN, shapes, strict=True):
        options = [o for s in known for o in ("--shape", s)]
        assert run(capsys, "compile", text, *options, "--stop-after", "operator").code == 0
