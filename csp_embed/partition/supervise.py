"""A search under a limit and under Ctrl-C: it runs in a thread of its own, this one watches.

Takes: the work and its clock.  Leaves: how it ended.  Compiling kernels, building models and native
solvers do not look at clocks, and an exception that a signal raises inside native code ends the
process; so signals arrive here, the search is asked to stop, and where it does not hear that soon
it is left behind. What it has found so far is in the incumbent and stays whole. Kernels that a
search calls run without the interpreter's lock (`nogil`), or nobody could watch them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from csp_embed.partition.request import Clock

DONE, LIMIT, INTERRUPTED = "done", "limit", "interrupted"
NAME = "csp-embed search"
FIRST = 0.05, 1.0  # of the limit, and s: how much later it may be where there is no plan at all
GRACE = 0.3  # s between the request to stop and leaving the search behind
POLL = 0.05  # s
AGAIN = 2.0  # s after which who listens is told the progress again: one solver may run for long
# When the last search began, by the monotonic clock.
_began = [float("-inf")]


def supervised(work: Callable[[], None], clock: Clock, ready: Callable[[], bool]) -> str:
    """Runs work() until it ends, the clock's limit or Ctrl-C: DONE, LIMIT or INTERRUPTED.

    ready: whether there is a plan; until there is, the limit is stretched a little, since on a busy
    machine it may come before the arrays are built. Raises what work() raises."""
    _began[0] = time.monotonic()
    # Without a limit `late` is never true and at_most is not looked at.
    limit = clock.request.time_limit or 0.0
    at_most = limit * (1 + FIRST[0]) + FIRST[1]
    failure: list[BaseException] = []
    stopped: list[str] = []

    # In a thread: native code would not let a signal through.
    def run() -> None:
        try:
            work()
        except KeyboardInterrupt:  # from the clock, which was told; or from whoever shows progress
            if not clock.stop.is_set():
                stopped.append(INTERRUPTED)
        except BaseException as error:  # noqa: BLE001 (handed to the calling thread, raised there)
            failure.append(error)

    # A daemon: a search that is left behind must not keep the process.
    thread = threading.Thread(target=run, daemon=True, name=NAME)
    ended, last, said = DONE, float("inf"), time.perf_counter()
    thread.start()
    while thread.is_alive() and time.perf_counter() < last:
        try:
            thread.join(POLL)
            # Without a plan the limit is stretched: an answer late is better than none.
            if ended == DONE and clock.late() and (ready() or clock.seconds() >= at_most):
                ended, last = LIMIT, time.perf_counter() + GRACE
                clock.stop.set()
            if time.perf_counter() - said > AGAIN:
                clock.repeat()
                said = time.perf_counter()
        except KeyboardInterrupt:
            # A second Ctrl-C does not put the end off.
            ended, last = INTERRUPTED, min(last, time.perf_counter() + GRACE)
            clock.stop.set()
    # Errors of the search are those of the call.
    if failure:
        raise failure[0]
    return stopped[0] if stopped else ended


def ran_since(moment: float) -> bool:
    """Whether some search began at that moment of the monotonic clock or later."""
    return _began[0] >= moment


def left_behind() -> bool:
    """Whether some search still runs: the process must then end without tearing down what it
    uses."""
    return any(t.name == NAME and t.is_alive() for t in threading.enumerate())
