"""Files whose disk is full."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from csp_embed.errors import InputError
from csp_embed.files import atomic


def test_a_full_disk_is_told_whoever_complains() -> None:
    """A text, and an archive, whose closing raises ValueError after the write that failed."""
    with (
        pytest.raises(InputError, match="cannot write /dev/full") as told,
        atomic("/dev/full") as f,
    ):
        f.write("x" * 100_000)
    assert told.value.why == "No space left on device"
    with (
        pytest.raises(InputError) as told,
        atomic("/dev/full", "wb") as file,
        zipfile.ZipFile(file, "w") as archive,
        archive.open("a", "w") as entry,
    ):
        entry.write(bytes(100_000))
    assert told.value.why == "No space left on device"


def test_other_errors_pass_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of the caller"), atomic(tmp_path / "a"):
        raise ValueError("of the caller")
    assert list(tmp_path.iterdir()) == []
