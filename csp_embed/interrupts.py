"""Ctrl-C, SIGTERM, SIGHUP: the main thread gets a KeyboardInterrupt; what does not react is ended.

Code that keeps its best answer on an interrupt need not know which signal it was. A handler in
Python runs only once the main thread is back from compiled code; so a second thread hears of every
signal at once (`signal.set_wakeup_fd`) and ends the process when the main thread takes too long.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from csp_embed import files

# The terminal's end too, where there is such a signal: a connection that breaks.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupts:
    """Watches from `start` to `stop`.

    grace: seconds that the main thread has to react. last_words: called before the process is ended
    by force. Outside the main thread of a process nothing is watched.
    """

    def __init__(self, grace: float, last_words: Callable[[], None]) -> None:
        self.grace, self.last_words = grace, last_words
        self.seen: list[int] = []
        self._reader = self._writer = -1
        self._before: dict[int, Any] = {}
        self._wakeup = -1

    @property
    def exit_code(self) -> int:
        """128 and the signal: 130 after Ctrl-C, 143 after SIGTERM; 130 where none was seen."""
        return 128 + (self.seen[0] if self.seen else signal.SIGINT)

    def start(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        for number in SIGNALS:
            # Ignored by who started us (nohup, a shell's background job): so it stays.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True).start()

    def ignore(self) -> None:
        """The work is done: a signal from here on would only spoil the exit code."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def stop(self) -> None:
        """Back to how it was before `start`."""
        if self._writer < 0:
            return
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        writer, self._writer = self._writer, -1  # First the mark, then the end that the watch sees.
        os.close(writer)

    def _interrupt(self, number: int, frame: Any) -> None:
        self.seen.append(number)
        raise KeyboardInterrupt

    def _watch(self) -> None:
        """The second thread: the first signal starts the clock, another one ends it."""
        first = self._next(None)
        if first is not None:
            self._next(self.grace)
            if self._writer >= 0:
                self._end(first)
        os.close(self._reader)

    def _next(self, seconds: float | None) -> int | None:
        """The next signal of ours; None at the end of the time or of watching."""
        import select

        while select.select([self._reader], [], [], seconds)[0]:
            got = os.read(self._reader, 1)
            if not got:
                return None
            if got[0] in self._before:
                return got[0]
        return None

    def _end(self, number: int) -> None:
        files.remove_unfinished()
        # Only where processes were started is the module there.
        processes = sys.modules.get("multiprocessing")
        for child in processes.active_children() if processes else ():
            child.kill()
        self.last_words()
        os._exit(128 + number)
