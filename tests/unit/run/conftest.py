"""What tests of commands of plans share."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from csp_embed import cli

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.setattr(cli, "register_all", lambda: None)
    if not any(c.name == "profile" for c in cli.app.registered_commands):
        monkeypatch.undo()
        cli.register_all()
        monkeypatch.setattr(cli, "register_all", lambda: None)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["csp-embed", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return run
