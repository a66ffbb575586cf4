"""Every step of docs/tutorial-machine.md: the file as it grows, its mistakes, its commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import run

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial-machine.md").read_text("utf-8")
PARTS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
FILE = "".join(PARTS)
SAID = [block.strip().splitlines() for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)]
# What each mistake replaces in the whole file, in the page's order; "": the file so far.
MISTAKES = {
    "memories.ACT": ("rows: 2048", "row: 2048"),
    "instructions.LOAD_ACT.fields.at": ('at: "a[0:30]"', 'at: "a[0:40]"'),
    "instructions.LOAD_ACT: 'rows'": ('to: "c[0:12]"', 'to: "c[0:18]"'),
    "instructions: LOAD_ACT and": ("code: {op: 3}", "code: {op: 2}"),
    "instructions.LOAD_ACT.meaning": ("ACT[to + r][k]", "ACT[to + r][j]"),
    "tern cannot be compiled for": (PARTS[3], ""),
    "missing key": (FILE.removeprefix(PARTS[0]), ""),
    "cannot: matmul, clip": (
        "clip((SUM[at + r][k] + (1 << s >> 1)) >> s, 0 if relu else -128, 127)",
        "(SUM[at + r][k] + (1 << s >> 1)) >> s",
    ),
    "HOLD walks 8": ("W[i, o] = WGT", "W[o, i] = WGT"),
    "no command sets bias_stride": ("      bias_stride = z\n", ""),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tern.yaml").write_text(FILE)


@pytest.mark.parametrize("begins", MISTAKES)
def test_a_mistake_is_told_as_the_page_says(begins, capsys):
    (said,) = [lines for lines in SAID if lines[0].startswith(begins)]
    old, new = MISTAKES[begins]
    assert old in FILE
    Path("tern.yaml").write_text(FILE.replace(old, new, 1))
    outcome = run(capsys, "isa", "check", "tern.yaml")
    shown = " ".join((outcome.out + outcome.err).split())
    assert all(line in shown for line in said), shown
    if not begins.startswith("cannot"):  # what cannot be had is no fault of the file
        assert outcome.code != 0
        assert "tern.yaml:" in shown


def test_every_mistake_of_the_page_is_tried():
    good = ("tern.yaml fixed", "epilogue", "commands")
    told = [lines[0] for lines in SAID if not lines[0].startswith(good)]
    assert len(told) == len(MISTAKES)


def test_the_commands_in_their_order(capsys):
    lines = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    shown = ""
    for line in lines:
        assert line.startswith("$ csp-embed ")
        outcome = run(capsys, *shlex.split(line[2:])[1:])
        assert outcome.code == 0, (line, outcome.err)
        shown += outcome.out
    good = ("tern.yaml fixed", "epilogue", "commands")
    promised = [text for said in SAID if said[0].startswith(good) for text in said]
    assert len(promised) == 5
    for text in promised:
        assert text in shown, text
    assert "7,329 predicted, 86.0 products a cycle" in shown
