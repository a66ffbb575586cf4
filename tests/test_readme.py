"""The README's commands and Python, as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

import csp_embed as ce
from csp_embed.ops.reference import evaluate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
# A sweep over all convolutions takes minutes: three quick layers stand in for it.
SHORTER = {("deepbench", "conv"): ("deepbench", "gemm075,gemm078,gemm082")}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Every command of the console blocks: what stands behind `$ scripts/run`."""
    out = []
    for block in blocks("console"):
        for line in block.replace("\\\n", " ").splitlines():
            assert line.startswith("$ "), line
            for part in re.split(r" && ", line[2:]):
                words = shlex.split(part, comments=True)
                assert words[0] == "scripts/run", words
                out.append(words[1:])
    return out


def test_commands_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The README's files lie in /tmp, so that nobody's checkout is littered; here in a folder.
    monkeypatch.chdir(ROOT)
    before = untracked()
    printed = commands()
    assert printed[0] == ["compile", "deepbench:conv003"]
    assert len(printed) >= 10
    for words in printed:
        words = [w.replace("/tmp/", f"{tmp_path}/") for w in words]
        for long, short in SHORTER.items():
            if tuple(words[: len(long)]) == long:
                words = [*short, *words[len(long) :]]
        got = run(capsys, *words)
        assert got.code == 0, (words, got.err)
        for flag, name in pairwise(words):
            if flag in ("-o", "--out", "--trace", "--report"):
                assert name.startswith(str(tmp_path)), f"{name} would litter the checkout"
                assert Path(name).stat().st_size > 0
        if words[0] == "compile":
            assert "simulated bit-equal to NumPy" in got.out, words
    assert untracked() == before


def untracked() -> str:
    """What git would call changed or new; empty outside a checkout."""
    command = ["git", "-C", str(ROOT), "status", "--porcelain"]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_python() -> None:
    (source,) = blocks("python")
    names: dict[str, Any] = {}
    exec(source, names)
    want = evaluate(names["op"], {"x": names["x"], "w": names["w"]})["y"]
    assert np.array_equal(names["y"], want)
    assert isinstance(names["kernel"], ce.Kernel)


def test_files_and_folders_that_documents_name_exist() -> None:
    """In README, CONTRIBUTING and docs/: paths in backquotes that look like the project's own."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    missing = []
    for page in pages:
        for path in re.findall(r"`([\w./-]+)`", page.read_text("utf-8")):
            top = path.split("/")[0]
            own = top in ("csp_embed", "scripts", "tests", "docs", "isa_specs", "deepbench",
                          "platforms", "profiles")  # fmt: skip
            if "/" in path and own and not (ROOT / path).exists():
                missing.append((page.name, path))
    assert missing == []


def test_readme_is_short_and_starts_with_an_example() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert any("scripts/run compile" in line for line in lines[:30])
