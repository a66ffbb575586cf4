"""The command line as a whole: help, usage errors, interrupts, pipes."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from command_line import run

from csp_embed import cli, commands

SELF = [sys.executable, "-m", "csp_embed"]
NAMES = (
    "compile", "simulate", "check", "disasm", "isa", "deepbench", "report", "build", "partition",
)  # fmt: skip


def names(app: typer.Typer) -> set[str | None]:
    """Of the commands and groups that are registered there."""
    own = {c.name for c in app.registered_commands}
    return own | {g.name or g.typer_instance.info.name for g in app.registered_groups}


def test_no_module_of_commands_is_forgotten() -> None:
    """What any file of commands/ registers is on the command line."""
    cli.register_all()
    folder = Path(commands.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(path.relative_to(folder).with_suffix("").parts)
        module = importlib.import_module(f"csp_embed.commands.{name}")
        if hasattr(module, "register"):
            alone = typer.Typer()
            module.register(alone)
            assert names(alone) <= names(cli.app), path.stem


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    got = run(capsys, name, "--help")
    assert got.code == 0
    assert "Usage: csp-embed" in got.out


@pytest.mark.parametrize("name", ["compile", "deepbench", "report"])
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"csp-embed {name} " in run(capsys, name, "-h").out.split("Example")[1]


def test_formulas_in_help_keep_their_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    """Rich takes unescaped ones for markup."""
    text = run(capsys, "compile", "--help").out
    assert "'y[i,j] += x[i,k] * w[j,k]'" in text
    for name in sorted(n for n in names(cli.app) if n):
        assert "\\[" not in run(capsys, name, "--help").out


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    got = run(capsys)
    assert got.code == 2
    assert all(name in got.out for name in NAMES)
    assert got.err == ""


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["nonsense"], "No such command 'nonsense'", "csp-embed --help"),
        (["compile", "matmul", "--bogus"], "No such option: --bogus", "csp-embed compile --help"),
        (["compile"], "Missing argument", "csp-embed compile --help"),
        (["compile", "matmul", "--m", "x"], "Invalid value for '--m'", "csp-embed compile --help"),
        (["compile", "matmul", "--clip", "5"], "requires 2 arguments", "csp-embed compile --help"),
    ],
)
def test_usage_errors(
    args: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run(capsys, *args)
    assert plain.code == 2
    assert plain.out == ""
    assert plain.err.startswith("error[usage]: ")
    assert message in plain.err
    assert f"try: {hint}" in plain.err
    as_json = run(capsys, args[0], "--json", *args[1:])
    assert as_json.code == 2
    assert as_json.document["error"] == "usage"
    assert message in as_json.document["what"]
    assert as_json.document["try"] == hint


def test_an_unforeseen_error_is_called_a_bug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("csp_embed.commands.compiling.request.operator", broken)
    got = run(capsys, "compile", "matmul", "--json")
    assert got.code == 1
    assert got.document["error"] == "bug"
    assert "report" in got.err
    assert "oops" in got.err


@pytest.mark.parametrize("library", ["numba", "ortools"])
def test_ctrl_c_leaves_nothing_half_written(library: str, tmp_path: Path) -> None:
    """SIGINT while modules are loaded, or with the solver at work: 130, no file, no traceback."""
    files = ["-o", str(tmp_path / "x.npz"), "--report", str(tmp_path / "x.html")]
    child = subprocess.Popen(
        [*SELF, "compile", "deepbench:conv000", "--json", *files],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    modules = Path(f"/proc/{child.pid}/maps")
    for _ in range(6000):  # Until that library is there, which tells how far the run has come.
        if f"{library}" in modules.read_text("utf-8"):
            break
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "Ctrl-C" in err
    assert "Traceback" not in err
    assert out.strip() == '{"error": "interrupted"}'
    assert os.listdir(tmp_path) == []


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """`| head -1`: no complaint about the pipe."""
    read, write = os.pipe()
    command = [*SELF, "compile", "matmul", "--m", "9", "--n", "9", "--k", "9"]
    child = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    os.close(read)
    _, err = child.communicate(timeout=120)
    # Where the kernels are not compiled yet, a line says that they are.
    assert [n for n in err.splitlines() if not n.startswith("csp-embed: compiling")] == []
    assert child.returncode == 0
