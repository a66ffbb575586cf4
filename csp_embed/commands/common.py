"""What several commands share: printing, progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class _Console(Console):
    """Lets a broken pipe through to `cli.main`; Rich's own answer is exit code 1."""

    def on_broken_pipe(self) -> None:
        raise


# Into a file or pipe, tables keep their full width.
console = _Console(width=None if sys.stdout.isatty() else 160)
stderr = Console(stderr=True)
# Numba compiles at first use, half a minute in all: after so many seconds a line says why.
_PATIENCE_SECONDS = 1.0
_announced = False


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error: call it with (text, done, total)."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=stderr,
        transient=True,
        disable=quiet or not stderr.is_terminal,
    )
    _announce_compiling()
    with bar:
        task = bar.add_task("", total=1)

        def update(text: str, done: int, total: int) -> None:
            _announce_compiling()
            bar.update(task, description=text, completed=done, total=total)

        yield update


def _announce_compiling() -> None:
    """Has Numba say on standard error that it compiles, once; it is loaded late, if at all."""
    global _announced
    if _announced or "numba" not in sys.modules:
        return
    _announced = True
    from numba.core import event

    class Announcer(event.Listener):
        started, told = 0.0, False

        def on_start(self, event: Any) -> None:
            self.started = self.started or time.monotonic()
            if not self.told and time.monotonic() - self.started > _PATIENCE_SECONDS:
                self.told = True
                text = "compiling the simulators and planners for this machine, once (a minute)"
                stderr.print(f"csp-embed: {text}", markup=False, highlight=False, soft_wrap=True)

        def on_end(self, event: Any) -> None:
            """Nothing: the next start tells how long it has been."""

    event.register("numba:compile", Announcer())
