"""When this process began: what a limit of so many seconds counts from.

Starting Python and importing the command line take a second, on a busy machine several; who gives a
search ten seconds means ten from the moment the command was entered.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_begun: float | None = None  # on perf_counter; None: not the program `csp-embed`, but its functions


def mark() -> None:
    """Called first by the program: everything since the process began counts."""
    global _begun
    _begun = time.perf_counter() - _age()


def begun() -> float:
    """When the program began, on `time.perf_counter`; now, where nobody called `mark`."""
    return time.perf_counter() if _begun is None else _begun


def _age() -> float:
    """Seconds since the process began; 0 where the system does not tell as Linux does."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    except (OSError, ValueError, AttributeError, IndexError):
        return 0.0
