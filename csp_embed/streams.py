"""Standard output and standard error as the command line needs them: closed, full or broken ones
end in a message and an exit code, never in a trace.
"""

from __future__ import annotations

import os
import sys
from typing import Any


class Guarded:
    """A text stream that remembers the first error of writing to it.

    quiet: errors are swallowed: there is no place left to tell of a broken standard error.
    """

    def __init__(self, stream: Any, quiet: bool = False) -> None:
        self.stream, self.quiet = stream, quiet
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        return self._try(lambda: self.stream.write(text), len(text))

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._try(self.stream.flush, None)

    def _try(self, call: Any, otherwise: Any) -> Any:
        try:
            return call()
        except OSError as error:
            self.error = self.error or error
            # The buffer still holds what could not be written, and Python flushes it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if self.quiet:
                return otherwise
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @property
    def broken_pipe(self) -> bool:
        """The reader went away, as `| head` does: nothing is wrong."""
        return isinstance(self.error, BrokenPipeError)


def open_missing() -> bool:
    """Opens /dev/null for those of the three standard descriptors that are closed; else the next
    file would get their numbers, and what libraries print would land in it. Whether standard
    output was closed.
    """
    closed = sys.stdout is None
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
        if getattr(sys, name) is None:
            stream = os.fdopen(number, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
    return closed
