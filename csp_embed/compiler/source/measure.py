"""How long kernels of C take on this computer: calls in turns, medians, beside the bare loop.

Times are of the calling thread, so that other work on the computer disturbs least; with more
threads than one they are of the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from csp_embed.compiler.source.kernel import SourceKernel

Call = Callable[[], Any]
# A short call runs several times in each turn: clocks are coarse and caches cold.
TURN_SECONDS = 0.02


def prepared(kernel: SourceKernel, tensors: dict[str, Any]) -> Call:
    """A call of the kernel on packed constants, without the checks that `run` makes of arrays."""
    native, file, op = kernel.native, kernel.file, kernel.operator
    # Held by the closure's default: pointers do not keep arrays alive.
    kept = [np.require(tensors[n], requirements=["C", "A"]) for n in file.arguments[:-1]]
    kept += [native.pack(tensors)] if file.packed else []
    kept += [native.buffer("work")] if file.work else []
    kept.append(np.zeros(op.tensors[op.out.tensor].shape, op.out_dtype))
    pointers = [native.pointer(a) for a in kept]
    function = getattr(native.library, file.name)

    def call(kept: list[Any] = kept) -> None:
        function(*pointers)

    return call


def turns(calls: Sequence[Call], rounds: int, *, wall: bool = False) -> list[list[float]]:
    """Seconds of each call in each turn; one after the other in every turn. wall: of the clock."""
    # The thread's own time leaves out what other programs take.
    clock = time.perf_counter if wall else time.thread_time
    found: list[list[float]] = [[] for _ in calls]
    # Once without a clock: pages are touched and caches filled.
    for call in calls:
        call()
    # In turns: drift of the clock rate hits all calls alike.
    for _ in range(rounds):
        for n, call in enumerate(calls):
            repeat, spent = 0, 0.0
            # Repeated until the turn is long against the clock's resolution.
            while spent < TURN_SECONDS:
                start = clock()
                call()
                spent += clock() - start
                repeat += 1
            found[n].append(spent / repeat)
    return found


def middle(seconds: Sequence[float]) -> tuple[float, float]:
    """(median, spread: half the range between the quartiles over the median)."""
    low, mid, high = np.percentile(seconds, [25, 50, 75])
    return float(mid), float((high - low) / 2 / mid)
