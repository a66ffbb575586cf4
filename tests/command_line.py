"""Runs the command line inside the test process."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest

from csp_embed import cli


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> Outcome:
    """`csp-embed args`: exit code and what was printed."""
    capsys.readouterr()
    with (
        patch.object(sys, "argv", ["csp-embed", *map(str, args)]),
        pytest.raises(SystemExit) as stop,
    ):
        cli.main()
    code = stop.value.code
    assert isinstance(code, int)
    return Outcome(code, *capsys.readouterr())
