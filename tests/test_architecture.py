"""docs/architecture.md says what is true: its commands print what it shows, its picture is the
chain; and CONTRIBUTING names files that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import run

import csp_embed as ce
from csp_embed.compiler.chain import STAGES, chain
from csp_embed.compiler.program.values import ValuesStage
from csp_embed.compiler.request.setting import setting_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
# Blocks whose commands print what stands below them, and those that only list commands.
SHOWN = [b for b in CONSOLE if b.count("\n") > 1 and b.count("$ ") == 1]
LISTED = [line[2:] for b in CONSOLE if b not in SHOWN for line in b.splitlines()]


def as_shown(out: str, shown: list[str]) -> bool:
    """The lines are those of the output; … stands for any number of them."""
    lines = [line.rstrip() for line in out.splitlines()]
    if "…" not in shown:
        return lines == shown
    cut = shown.index("…")
    head, tail = shown[:cut], shown[cut + 1 :]
    return lines[:cut] == head and lines[len(lines) - len(tail) :] == tail


@pytest.mark.parametrize("block", SHOWN, ids=lambda b: b.splitlines()[0][-40:])
def test_commands_print_what_is_shown(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *shown = block.splitlines()
    words = shlex.split(command.removeprefix("$ "))
    assert words[0] == "scripts/run"
    got = run(capsys, *words[1:])
    assert got.code == 0, got.err
    assert as_shown(got.out, shown), got.out[:3000]


def test_what_is_not_shown_is_seen() -> None:
    assert as_shown("a\nb\nc\n", ["a", "…", "c"])
    assert not as_shown("a\nb\nc\n", ["a", "…", "d"])
    assert not as_shown("a\nb\n", ["a"])


def test_every_stage_is_followed() -> None:
    stopped = re.findall(r"--stop-after (\w+)", "".join(SHOWN))
    assert tuple(stopped) == STAGES


def test_listed_commands_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(LISTED) == 4
    for line in LISTED:
        program, *words = shlex.split(line)
        if program == "scripts/lines":
            continue  # below
        got = run(capsys, *(w.replace("/tmp/", f"{tmp_path}/") for w in words))
        assert got.code == 0, (line, got.err)
    assert (tmp_path / "conv032.npz").stat().st_size > 0


def test_lines_are_counted() -> None:
    """Every folder has a row, and the rows add up to what the files hold."""
    command = ["python3", str(ROOT / "scripts" / "lines.py"), "--top", "5"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in table.split("\n\n")[0].splitlines()[1:]]
    package = ROOT / "csp_embed"
    held = {p.parent.name for p in package.glob("*/__init__.py")}
    assert {r[0] for r in rows} == held | {".", "all"}
    total = sum(len(p.read_text("utf-8").splitlines()) for p in package.rglob("*.py"))
    assert sum(int(r[2]) for r in rows if r[0] != "all") == total == int(rows[-1][2])


def test_comments_are_counted() -> None:
    """What is said to the formatter or the type checker is none."""
    spec = importlib.util.spec_from_file_location("lines", ROOT / "scripts" / "lines.py")
    assert spec is not None
    assert spec.loader is not None
    lines = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lines)
    code = ["a = 1  # why", "b = '# no'", "# two", "# lines", "c = (1,", "     2)  # fmt: skip"]
    text = "\n".join([*code, "d = 3  # noqa: E1", ""])
    assert lines.comments(text) == 3


def test_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)
    assert "cycles; scheduled:" in capsys.readouterr().out
    assert names["made"].checked == list(STAGES[:4])


def test_the_picture_is_the_chain() -> None:
    """Arrows between stages are what each takes; boxes name the artefacts."""
    (picture,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    arrows = {
        (a, b)
        for a, b in re.findall(r"(\w+)(?:\[[^\]]*\])? --> (\w+)", picture)
        if a in STAGES and b in STAGES
    }
    op = ce.matmul(m=2, n=2, k=2)
    stages = (*chain(setting_of(op, ce.load_isa("vta"), ce.Options())).stages, ValuesStage(dict))
    assert arrows == {(s.takes, s.name) for s in stages if s.takes}
    boxes = dict(re.findall(r"(\w+)\[\w+<br>(\w+)\]", picture))
    assert boxes == {s.name: s.leaves.split(":")[0] for s in stages}


TASKS = (
    "operator", "instruction set", "kind of instruction", "constraint family", "epilogue step",
    "schedule decision", "rule of a judge", "promise about DRAM", "cost of the simulator",
    "partitioning method", "ONNX operator", "operator of quantised networks",
    "way to requantise exactly", "command",
    "figure of a report", "stage",
)  # fmt: skip


def changes() -> dict[str, str]:
    """The table "where do I change": task -> where."""
    table = CONTRIBUTING.split("## Where do I change")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return {r[0].strip(): r[1] for r in rows[2:]}


def test_contributing_answers_where() -> None:
    assert set(changes()) == {f"a{'n' if t[0] in 'oieO' else ''} {t}" for t in TASKS}


@pytest.mark.parametrize("task", changes())
def test_every_place_that_contributing_names_exists(task: str) -> None:
    places = re.findall(r"`([^`]+)`", changes()[task])
    paths = [p for p in places if "/" in p or p.endswith((".py", ".md", ".yaml"))]
    assert paths, task
    for path in paths:
        assert any((root / path).exists() for root in (ROOT, ROOT / "csp_embed")), (task, path)
    # A name after a path is one that the file has.
    for path, name in re.findall(r"`([\w/]+\.py)` \(`(\w+)`", changes()[task]):
        files = [root / path for root in (ROOT, ROOT / "csp_embed") if (root / path).exists()]
        assert re.search(rf"\b{name}\b", files[0].read_text("utf-8")), (path, name)
