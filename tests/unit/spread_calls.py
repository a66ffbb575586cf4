"""Functions that worker processes of test_spread.py import."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from csp_embed.errors import InputError
from csp_embed.spread import spread


def double(item: int) -> int:
    return 2 * item


def slow(item: float) -> float:
    time.sleep(item)
    return item


def deadly(item: tuple[str, str]) -> str:
    """Kills its own process: always, or once (a file remembers)."""
    how, mark = item
    if how == "always" or (how == "once" and not Path(mark).exists()):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return how


def wrong(item: int) -> int:
    raise InputError("this item is wrong", where=str(item))


if __name__ == "__main__":
    # As the command line does: results are printed as they end, then an interrupt comes.
    from csp_embed.interrupts import Interrupts

    interrupts = Interrupts(5.0, lambda: print("by force", flush=True))
    interrupts.start()
    try:
        for result in spread(slow, [float(v) for v in sys.argv[1:]], 2):
            print(result, flush=True)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        sys.exit(interrupts.exit_code)
