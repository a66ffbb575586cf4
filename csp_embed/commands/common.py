"""What several commands share: printing, progress."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from csp_embed.report import text_table

stderr = Console(stderr=True)
# Numba compiles at first use, half a minute in all: after so many seconds a line says why.
_PATIENCE_SECONDS = 1.0
_LINE_SECONDS = 10.0  # between two lines of progress where there is no bar
# Once per process: whoever was told need not be told again.
_announced = False


def width() -> int | None:
    """Characters in a line: what COLUMNS says, or the terminal; None into a file or pipe."""
    # Not sys.stdout: a progress bar stands in its place while it runs.
    if sys.__stdout__ is not None and sys.__stdout__.isatty():
        return max(40, shutil.get_terminal_size().columns)
    asked = os.environ.get("COLUMNS", "")
    # Never below 40: tables would be one letter wide.
    return max(40, int(asked)) if asked.isdecimal() and int(asked) > 0 else None


def say(text: str) -> None:
    """Prints lines, wrapped at blanks where a terminal is narrower. A progress bar stays below."""
    print(text_table.fit(text, width()))


def say_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", keys: int = 1
) -> None:
    """Prints a table that fits; see `report/text_table.py`."""
    if title:
        say(title)
    print(text_table.table(head, rows, width(), keys))


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    # NumPy's numbers are no JSON numbers.
    print(json.dumps(document, indent=1, default=_plain))


def report_check(
    file: str, problems: Sequence[str], remarks: Sequence[str], fine: str, as_json: bool
) -> None:
    """What the check of a file found; fine: what is said where it found no problem."""
    if as_json:
        print_json({"ok": not problems, "problems": problems, "remarks": remarks})
        return
    for text in problems:
        say(text)
    for text in remarks:
        say(f"remark: {text}")
    say(f"{file}: {f'{len(problems)} problems' if problems else fine}")


def _plain(value: Any) -> Any:
    # NumPy's scalars and arrays alike; an array of several numbers has no `item`.
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


@contextmanager
def progress(quiet: bool = False) -> Generator[Callable[[str, int, int], None]]:
    """A progress bar on standard error: call it with (text, done, total).

    Lines that are printed meanwhile stand above it, if they go to the same terminal; into a file
    they go as ever. Where standard error is no terminal, a line tells how far it is every ten
    seconds, as long as something calls.
    """
    begun = last = time.monotonic()
    bar = Progress(
        SpinnerColumn(),
        # A long name is shortened before the numbers beside it are.
        TextColumn("{task.description}", table_column=Column(overflow="ellipsis", no_wrap=True)),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=stderr,
        # Nothing of it stays in the terminal's history.
        transient=True,
        # Only in a terminal: a file must not get the bar's escapes.
        redirect_stdout=sys.stdout.isatty(),
        disable=quiet or not stderr.is_terminal,
    )
    # Before the bar: its first call may compile.
    _announce_compiling()
    with bar:
        task = bar.add_task("", total=1)

        def update(text: str, done: int, total: int) -> None:
            nonlocal last
            _announce_compiling()
            bar.update(task, description=text, completed=done, total=total)
            now = time.monotonic()
            # Into a file or a pipe: a line now and then in place of the bar.
            if not quiet and not stderr.is_terminal and now - last >= _LINE_SECONDS:
                last = now
                line = f"csp-embed: {now - begun:.0f} s: {text} ({done}/{total})"
                stderr.print(line, markup=False, highlight=False, soft_wrap=True)

        yield update


class _Events(Protocol):
    """`numba.core.event`, which has no types."""

    def register(self, kind: str, listener: object) -> None: ...


def _announce_compiling() -> None:
    """Has Numba say on standard error that it compiles, once; it is loaded late, if at all."""
    global _announced
    # Numba may be loaded at any time after: asked again at every step.
    if _announced or "numba" not in sys.modules:
        return
    _announced = True
    from numba.core import event

    class Announcer(event.Listener):
        started, told = 0.0, False

        def on_start(self, event: Any) -> None:
            # From the first compilation on: each by itself is short.
            self.started = self.started or time.monotonic()
            if not self.told and time.monotonic() - self.started > _PATIENCE_SECONDS:
                self.told = True
                text = "compiling the simulators and planners for this machine, once (a minute)"
                stderr.print(f"csp-embed: {text}", markup=False, highlight=False, soft_wrap=True)

        def on_end(self, event: Any) -> None:
            """Nothing: the next start tells how long it has been."""

    cast("_Events", event).register("numba:compile", Announcer())
