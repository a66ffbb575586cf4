"""The progress bar and what is printed meanwhile, on a terminal that is read back."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

from csp_embed.commands.common import print_json

SCRIPT = """
import time
from csp_embed.commands.common import progress, say
with progress() as tell:
    for n in range(4):
        tell("a layer with a rather long name " * 3, n, 4)
        time.sleep(0.15)  # the bar is drawn ten times a second
        say(f"record {n}: {12345678 + n:,} cycles " + "and words " * 7 + "end")
say("last")
"""


def run(width: int, into: Path | None = None) -> str:
    """What a terminal of that width has got. into: a file for standard output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    out = theirs if into is None else os.open(into, os.O_WRONLY | os.O_CREAT)
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=theirs, stdout=out, stderr=theirs,
        env=environment | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    if into is not None:
        os.close(out)
    got = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the child has closed its end
            break
        if not part:
            break
        got += part
    os.close(ours)
    assert child.wait() == 0
    return got.decode()


def screen(raw: str, width: int) -> list[str]:
    """The lines that a terminal shows: carriage returns, cursor up, erased lines, wrapping."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|.", raw, re.DOTALL):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
        elif part.startswith("\x1b"):
            count = int(re.sub(r"\D", "", part) or 1)
            if part[-1] == "A":
                row -= count
            elif part[-1] == "K":
                lines[row] = "" if count == 2 else lines[row][:column]
        else:
            if column == width:
                row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + 1 :]
            column += 1
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_records_and_the_bar_do_not_meet(width: int) -> None:
    raw = run(width)
    assert "━" in raw  # there was a bar
    lines = [line for line in screen(raw, width) if line]
    assert lines[-1] == "last"
    text = "\n".join(lines)
    assert "━" not in text
    assert [*re.findall(r"record (\d): ([\d,]+) cycles", text)] == [
        (str(n), f"{12345678 + n:,}") for n in range(4)
    ]
    assert " ".join(text.split()).count("and words " * 7 + "end") == 4


def test_records_go_where_standard_output_goes(tmp_path: Path) -> None:
    raw = run(80, tmp_path / "out.txt")
    assert "record" not in raw
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert [line[:8] for line in lines] == ["record 0", "record 1", "record 2", "record 3", "last"]


def test_json_takes_numbers_and_arrays_of_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"one": np.int64(3), "part": np.float32(0.5), "many": np.arange(3), "at": Path("x")})
    assert json.loads(capsys.readouterr().out) == {
        "one": 3, "part": 0.5, "many": [0, 1, 2], "at": "x",
    }  # fmt: skip
