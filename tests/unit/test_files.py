"""Files whose disk is full; folders that go with their process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from csp_embed import files
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


HOLDS = """
import sys
from csp_embed.files import scratch_folder
with scratch_folder("csp-embed-test-") as folder:
    (folder / "part.onnx").write_bytes(b"weights")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_folders_of_killed_processes_go_with_the_next_and_those_in_use_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = [sys.executable, "-c", HOLDS]
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(
                subprocess.Popen(
                    command, env=place, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            for _ in range(2)
        ]
        dead, alive = [Path(j.stdout.readline().strip()) for j in jobs if j.stdout is not None]
        jobs[0].kill()
        jobs[0].wait()
        strange = tmp_path / "csp-embed-test-of-somebody"
        strange.mkdir()
        assert (dead / "part.onnx").exists()
        with files.scratch_folder("csp-embed-test-") as own:
            assert not dead.exists()
            assert strange.exists()
            assert (alive / "part.onnx").read_bytes() == b"weights"
        assert not own.exists()
    # Its standard input ended, and it removed its own.
    assert list(tmp_path.iterdir()) == [strange]
