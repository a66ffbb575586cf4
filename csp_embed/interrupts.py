"""Ctrl-C, SIGTERM, SIGHUP: the main thread gets a KeyboardInterrupt; what does not react is ended.

Code that keeps its best answer on an interrupt need not know which signal it was. A handler in
Python runs only once the main thread is back from compiled code; so a second thread hears of every
signal at once (`signal.set_wakeup_fd`) and ends the process when the main thread takes too long.
An interrupt must not get lost either: in the middle of an import it would leave half a module, and
native code that calls back into Python (OR-tools into protobuf) may drop an exception and go on. So
within an import and, for a while, in other people's packages it waits for a better moment; one that
is known to be dropped comes again.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from csp_embed import files

# The terminal's end too, where there is such a signal: a connection that breaks.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
# Seconds between two attempts, and how many of them spare other people's packages.
AGAIN, ATTEMPTS = 0.05, 20


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
        self._unheard = False
        self._hooks = sys.unraisablehook, sys.excepthook

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
        # Where Python tells of exceptions that native code did not pass on.
        self._hooks = sys.unraisablehook, sys.excepthook
        sys.unraisablehook, sys.excepthook = self._ignored, self._printed
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
        sys.unraisablehook, sys.excepthook = self._hooks
        for number, handler in self._before.items():
            signal.signal(number, handler)
        writer, self._writer = self._writer, -1  # First the mark, then the end that the watch sees.
        os.close(writer)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.seen.append(number)
        spared = frame is not None and "site-packages" in frame.f_code.co_filename
        self._unheard = _importing(frame) or (spared and len(self.seen) <= ATTEMPTS)
        if not self._unheard:
            raise KeyboardInterrupt

    def _ignored(self, told: Any) -> None:
        if not self._lost(told.exc_type):
            self._hooks[0](told)

    def _printed(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if not self._lost(kind):
            self._hooks[1](kind, error, trace)

    def _lost(self, kind: type[BaseException]) -> bool:
        """Notes an interrupt that native code has swallowed."""
        if issubclass(kind, KeyboardInterrupt):
            self._unheard = True
            return True
        return False

    def _watch(self) -> None:
        """The second thread: the first signal starts the clock, another one ends it."""
        first = self._next(None)
        last, echoes = time.monotonic() + self.grace, 0
        while first is not None and self._writer >= 0:
            if time.monotonic() >= last:
                self._end(first)
            if self._next(AGAIN) is not None:
                if not echoes:
                    self._end(first)
                echoes -= 1
            elif self._unheard:
                # It writes to the pipe like a signal, and is none.
                self._unheard, echoes = False, echoes + 1
                _thread.interrupt_main(signal.Signals(first))
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


def _importing(frame: FrameType | None) -> bool:
    """Whether the interrupted code runs within an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
