"""One call of a built kernel in a process of its own: what its templates do wrong ends that alone.

A template may read where it may not, or use an instruction that this CPU lacks. The system ends a
process for that, and with it everything that a compiler has found. A copy of this process costs
milliseconds, and needs nothing built or loaded again.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import select
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SECONDS = 600.0  # after which a kernel is taken to hang
_FAILED = 70


class Died(Exception):
    """How the process ended, where it did not end well."""


def apart(call: Callable[[], Array], shape: tuple[int, ...], dtype: str) -> Array:
    """What `call` returns, an array of that shape and type. Its arguments were checked before: what
    it raises is told as an exit code only. Raises: Died."""
    size = int(np.prod(shape, dtype=np.int64))
    shared = mmap.mmap(-1, max(1, size * np.dtype(dtype).itemsize))
    ended, ends = os.pipe()
    child = os.fork()
    if not child:
        _child(call, shared)
    os.close(ends)
    late = True
    try:
        # The pipe closes with the process, however that ends.
        late = not select.select([ended], [], [], SECONDS)[0]
    finally:
        os.close(ended)
        # An interrupt comes here too, and must leave no process behind.
        if late:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if late:
        raise Died(f"ran for {SECONDS:.0f} s without an end")
    if status < 0:
        raise Died(
            f"ended by {signal.Signals(-status).name}: it reads or writes where it may not, asks"
            " for alignment that an address lacks, or this CPU lacks an instruction"
        )
    if status:
        raise Died(f"ended with exit code {status}")
    return np.frombuffer(shared, dtype, size).reshape(shape).copy()


def _child(call: Callable[[], Array], shared: mmap.mmap) -> None:
    """Never returns."""
    try:
        # The parent tells what happened; neither a trace of Python nor a core file is wanted.
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        done: list[bool] = []

        def run() -> None:
            found = np.ascontiguousarray(call())
            shared[: found.nbytes] = found.tobytes()
            done.append(True)

        # In a thread of its own: OpenMP's threads of the parent's one do not exist here, and it
        # would wait for them.
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        os._exit(0 if done else _FAILED)
    finally:
        os._exit(_FAILED)
