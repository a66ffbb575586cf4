"""Standard output that is closed, full or read by nobody: every command, no trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SELF = [sys.executable, "-m", "csp_embed"]
GOLDEN = Path(__file__).parents[1] / "golden" / "reference" / "dense_1x16x16.npz"
COMMANDS = [
    ["--help"],
    ["--version"],
    ["compile", "--help"],
    ["isa", "show", "--json"],
    ["disasm", str(GOLDEN)],
    ["check", str(GOLDEN), "--no-values"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_full(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        got = subprocess.run([*SELF, *command], stdout=full, stderr=subprocess.PIPE, text=True)
    assert got.returncode == 2
    assert got.stderr.startswith("error[input]: cannot write standard output\n")
    assert "No space left" in got.stderr
    assert "Traceback" not in got.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nobody_reads(command: list[str]) -> None:
    read, write = os.pipe()
    child = subprocess.Popen([*SELF, *command], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    os.close(read)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0
    assert [n for n in err.splitlines() if not n.startswith("csp-embed: compiling")] == []


@pytest.mark.parametrize("command", [["--help"], ["isa", "list", "--json"]], ids=" ".join)
def test_closed(command: list[str]) -> None:
    shell = f"exec {' '.join([*SELF, *command])} >&-"
    got = subprocess.run(["bash", "-c", shell], stderr=subprocess.PIPE, text=True)
    assert got.returncode == 2
    assert got.stderr.startswith("error[input]: standard output is closed\n")


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "<&-", "0<&- 2>&-"])
def test_other_streams_do_not_matter(where: str) -> None:
    shell = f"exec {' '.join(SELF)} isa list --json {where}"
    got = subprocess.run(["bash", "-c", shell], stdout=subprocess.PIPE, text=True)
    assert got.returncode == 0
    assert "vta" in json.loads(got.stdout)


def test_an_error_stays_an_error_when_nothing_can_be_said() -> None:
    shell = f"exec {' '.join(SELF)} nonsense --json >/dev/full 2>/dev/full"
    assert subprocess.run(["bash", "-c", shell]).returncode == 2


def test_a_locale_without_our_signs() -> None:
    """Formulas and ratios use the multiplication sign; ASCII shows a question mark for it."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    got = subprocess.run(
        [*SELF, "compile", "--help"], capture_output=True, text=True, env=environment
    )
    assert got.returncode == 0, got.stderr
    assert got.stdout.isascii()
