"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from csp_embed.errors import InputError


@contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that is written beside `path` and renamed at the end; nothing stays after an error.

    Raises: InputError where the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise InputError(
            f"cannot write {target}",
            where=str(target),
            why=error.strerror or str(error),
            hint="choose a folder that exists and is writable",
        ) from error
    try:
        with os.fdopen(handle, mode) as file:
            yield file
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except OSError as error:
        raise InputError(
            f"cannot write {target}", where=str(target), why=error.strerror or str(error)
        ) from error
    finally:
        if os.path.exists(name):
            os.unlink(name)


def _umask() -> int:
    """The process's mask; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
