"""Files that appear whole or not at all, paths that are refused before the work, not after, and
what is said of those that cannot be read."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from csp_embed.errors import CspEmbedError, InputError

try:
    import fcntl
except ImportError:  # Windows: folders of processes that were killed stay there
    fcntl = None

# Suffixes that pictures may have.
PICTURES = (".svg", ".png", ".pdf")
# Files that `atomic` has begun; what ends the process by force removes them.
_unfinished: set[str] = set()
# Folders of `scratch_folder`, likewise; the file in each that its process has locked.
_scratch: set[str] = set()
_IN_USE = ".in-use"


@contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that is written beside `path` and renamed at the end; nothing stays after an error.

    Raises: InputError where the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    encoding = None if "b" in mode else "utf-8"
    if _is_device(target):
        try:
            with target.open(mode, encoding=encoding) as file:
                yield file
        except (OSError, ValueError) as error:
            _tell_unwritten(target, error)
            raise
        return
    handle, name = _beside(target)
    _unfinished.add(name)
    try:
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except (OSError, ValueError) as error:
        _tell_unwritten(target, error)
        raise
    finally:
        _unfinished.discard(name)
        if os.path.exists(name):
            os.unlink(name)


def _tell_unwritten(target: Path, error: Exception) -> None:
    """Raises: InputError where the error comes of the file's disk, whatever else came of that."""
    cause: BaseException | None = error
    # A ZipFile that is closed after a failed write complains about its own state.
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    if cause is not None:
        raise InputError(
            f"cannot write {target}",
            where=str(target),
            why=cause.strerror or str(cause),
            hint="free some space, or write to another disk",
        ) from error


@contextmanager
def readable(path: str | Path, hint: str, kind: type[CspEmbedError] = InputError) -> Iterator[None]:
    """Around the reading of a file. Raises: `kind` where it is missing, unreadable or no text."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        # UnicodeDecodeError has no strerror.
        why = getattr(error, "strerror", None) or str(error)
        raise kind(f"cannot read {path}", where=str(path), why=why, hint=hint) from error


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A new folder among the system's temporary ones; it goes however the process ends. What
    SIGKILL leaves is removed by the next one of that prefix.

    Raises: InputError where there is no room for one.
    """
    _sweep(prefix)
    # Named before it is made: an interrupt at any point from here on finds it.
    name = os.path.join(tempfile.gettempdir(), prefix + secrets.token_hex(6))
    _scratch.add(name)
    held = None
    try:
        try:
            os.mkdir(name, 0o700)
            held = _hold(Path(name))
        except OSError as error:
            raise InputError(
                f"no temporary folder can be made in {tempfile.gettempdir()}",
                why=error.strerror or str(error),
                hint="free some space, or name another place: TMPDIR=. csp-embed …",
            ) from error
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        _scratch.discard(name)
        if held is not None:
            os.close(held)


def _hold(folder: Path) -> int | None:
    """Marks a folder as in use for as long as this process lives, whatever ends it."""
    if fcntl is None:
        return None
    handle = os.open(folder / ".new", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    # Only now by its name: nobody meets it before it is locked.
    os.rename(folder / ".new", folder / _IN_USE)
    return handle


def _sweep(prefix: str) -> None:
    """Removes folders whose process is gone. Process numbers would not tell: they come again, and
    containers that share a folder have numbers of their own."""
    if fcntl is None:
        return
    for mark in Path(tempfile.gettempdir()).glob(f"{prefix}*/{_IN_USE}"):
        # Somebody else's, gone meanwhile, or held by a process that lives.
        with suppress(OSError):
            handle = os.open(mark, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(mark.parent, ignore_errors=True)
            finally:
                os.close(handle)


def check_writable(path: str | Path | None, suffixes: Sequence[str] = ()) -> None:
    """Refuses a path that `atomic` would refuse, before minutes of work. Leaves nothing behind.

    suffixes: those that the file may have, with their dots; all by default. None: nothing is to be
    written. Raises: InputError.
    """
    if path is None:
        return
    target = Path(path)
    if _is_device(target):
        return
    if suffixes and target.suffix.lower() not in suffixes:
        raise InputError(
            f"{target} does not end in {' or '.join(suffixes)}",
            where=str(target),
            why="the suffix tells what kind of file is written",
            hint=f"{target.with_suffix(suffixes[0]) if target.name else suffixes[0]}",
        )
    handle, probe = _beside(target)
    os.close(handle)
    os.unlink(probe)


def check_outputs(
    *outputs: tuple[str | Path | None, Sequence[str]], reads: Sequence[str | Path | None] = ()
) -> None:
    """`check_writable` for all (path, suffixes) of a command, and none may replace another or one
    of the files that the command `reads`. Raises: InputError.
    """
    taken = {Path(r).resolve(): "the command reads it" for r in reads if r is not None}
    for path, suffixes in outputs:
        check_writable(path, suffixes)
        if path is None or _is_device(Path(path)):
            continue
        place = Path(path).resolve()
        if place in taken:
            raise InputError(
                f"{path} would be overwritten",
                where=str(path),
                why=taken[place],
                hint=str(place.with_stem(place.stem + "_2")),
            )
        taken[place] = "another option writes it"


def check_folder(path: str | Path | None) -> None:
    """Refuses a folder that cannot be made or written into. Leaves nothing behind.

    Raises: InputError.
    """
    if path is None:
        return
    here = Path(path).absolute()
    while not here.exists():
        here = here.parent
    if not here.is_dir() or not os.access(here, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write into {path}",
            where=str(here),
            why="no permission" if here.is_dir() else "it is a file, not a folder",
            hint=f"name a folder that you may write into, e.g. {tempfile.gettempdir()}",
        )


def remove_unfinished() -> None:
    """Removes what `atomic` has begun and not finished, for a process that ends by force."""
    for name in list(_unfinished):
        if os.path.exists(name):
            os.unlink(name)
    for name in list(_scratch):
        shutil.rmtree(name, ignore_errors=True)


def _beside(target: Path) -> tuple[int, str]:
    """A new temporary file in the folder of `target`: (handle, name). Raises: InputError."""
    try:
        return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise InputError(
            f"cannot write {target}",
            where=str(target.parent),
            why=error.strerror or str(error),
            hint="choose a folder that you may write into"
            if target.parent.is_dir()
            else f"mkdir -p {shlex.quote(str(target.parent))}",
        ) from error


def _is_device(target: Path) -> bool:
    """/dev/null or a pipe: written to, never replaced. Raises: InputError for a folder."""
    if target.is_dir():
        raise InputError(
            f"cannot write {target}",
            where=str(target),
            why="it is a folder",
            hint=f"give a file name, e.g. {target / ('out' + target.suffix)}",
        )
    return target.exists() and not target.is_file()


def _umask() -> int:
    """The process's mask; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
