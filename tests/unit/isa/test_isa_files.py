"""Atomic files: whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from csp_embed.errors import InputError
from csp_embed.files import atomic


def interrupted(path: Path, error: BaseException) -> None:
    with atomic(path) as file:
        file.write("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), SystemExit(1)])
def test_an_interruption_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)):
        interrupted(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic(path, "wb") as file:
        file.write(b"123")
        assert not path.exists()
    assert path.read_bytes() == b"123"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error, atomic(tmp_path / "no" / "a.txt"):
        pass
    assert str(tmp_path / "no" / "a.txt") in error.value.what
    assert error.value.why == "No such file or directory"
