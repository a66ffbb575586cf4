"""Interrupts that come where they would get lost: within an import, within a callback of C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import os, signal, sys, time
from csp_embed.interrupts import Interrupts

interrupts = Interrupts(20.0, lambda: print("by force"))
interrupts.start()
{before}
try:
    {then}
    time.sleep(15)
    print("lost")
except KeyboardInterrupt:
    print("heard", {whole}, interrupts.exit_code)
interrupts.stop()
"""
CALLBACK = """
import ctypes
@ctypes.CFUNCTYPE(None)
def called():
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000):
        pass
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_within_an_import_waits_for_its_end(
    tmp_path: Path, name: str, code: int
) -> None:
    (tmp_path / "slow_module").with_suffix(".py").write_text(
        f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(0.3)\n"
        "whole = True\n"
    )
    before = f"sys.path.insert(0, {str(tmp_path)!r})"
    assert _said(before, "import slow_module", "slow_module.whole") == f"heard True {code}\n"


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_that_native_code_swallows_comes_again(name: str, code: int) -> None:
    said = _said(CALLBACK.format(name=name), "called()", "0")
    assert said == f"heard 0 {code}\n"


def test_an_interrupt_spares_packages_that_native_code_may_have_called(tmp_path: Path) -> None:
    """As OR-tools calls protobuf, and goes on whatever that raises."""
    package = _package(tmp_path, "SIGTERM", "for _ in range(1000)")
    native = "def native():\n    try:\n        helper.help()\n    except KeyboardInterrupt:\n"
    before = f"sys.path.insert(0, {str(package)!r})\nimport helper\n{native}        pass\n"
    assert _said(before, "native()", "0") == "heard 0 143\n"


def test_a_package_that_goes_on_and_on_is_interrupted(tmp_path: Path) -> None:
    package = _package(tmp_path, "SIGINT", "while True")
    before = f"sys.path.insert(0, {str(package)!r})\nimport helper"
    assert _said(before, "helper.help()", "0") == "heard 0 130\n"


def _package(folder: Path, name: str, loop: str) -> Path:
    """Somebody else's package, in which that signal comes, and what it does afterwards."""
    package = folder / "site-packages"
    package.mkdir()
    (package / "helper").with_suffix(".py").write_text(
        "import os, signal\n"
        "def help():\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        f"    {loop}:\n"
        "        pass\n"
    )
    return package


def _said(before: str, then: str, whole: str) -> str:
    text = WATCHED.format(before=before, then=then, whole=whole)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.stderr
    return done.stdout
