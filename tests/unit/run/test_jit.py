"""Code that is kept on disk follows changes of what it calls, not of its own file alone."""

import subprocess
import sys
from pathlib import Path

import pytest

INNER = """
from typing import NamedTuple
from csp_embed.jit import njit

STEP = {step}

class Pair(NamedTuple):
    x: int
    y: int

@njit(cache=True)
def inner(x):
    return x.y + {added}
"""
OUTER = """
from csp_embed.jit import njit
from kept.{file} import STEP, Pair, inner

@njit(cache=True)
def outer(x):
    return inner(x) * STEP
"""
# The package that stamps look into is this one for the test.
CALL = """
from csp_embed import jit
jit._PACKAGE = "kept."
from kept.outer import Pair, outer
print(outer(Pair(0, 1)), sum(outer.stats.cache_hits.values()))
"""


def module(folder: Path, name: str) -> Path:
    return folder / "kept" / f"{name}.py"


def called(folder: Path) -> list[str]:
    """(value, hits of the cache) in a fresh process."""
    result = subprocess.run(
        [sys.executable, "-c", CALL], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    module(tmp_path, "__init__").write_text("")
    module(tmp_path, "inner").write_text(INNER.format(step=10, added=1))
    module(tmp_path, "outer").write_text(OUTER.format(file="inner"))
    return tmp_path


def test_what_is_kept_follows_what_it_calls(package: Path):
    assert called(package) == ["20", "0"]
    # Without a change the kept code is used: the stamp does not change from run to run.
    assert called(package) == ["20", "1"]
    module(package, "inner").write_text(INNER.format(step=10, added=2))
    assert called(package) == ["30", "0"]
    module(package, "inner").write_text(INNER.format(step=100, added=2))
    assert called(package) == ["300", "0"]


def test_a_file_that_moved_is_no_error(package: Path):
    called(package)
    module(package, "inner").rename(module(package, "moved"))
    module(package, "outer").write_text(OUTER.format(file="moved"))
    assert called(package) == ["20", "0"]
