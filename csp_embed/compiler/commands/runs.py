"""Lists of elements as runs: what lies in a row of a tile is a number apart in the tensor.

Takes: whole numbers, flat.  Leaves: int64[n, 3], each run's first number, its step and its length;
and back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def runs_of(values: Ints) -> Ints:
    """Runs that follow each other; each goes on for as long as its step does."""
    found: list[tuple[int, int, int]] = []
    at, total = 0, len(values)
    step = np.diff(values)
    # Where the step differs from the one before: a run ends there at the latest.
    turns = np.flatnonzero(np.diff(step)) + 1
    for turn in turns.tolist():
        # The element behind a run begins the next one: the step across is nobody's.
        if turn <= at:
            continue
        found.append((int(values[at]), int(step[at]), turn - at + 1))
        at = turn + 1
    if at < total:
        found.append((int(values[at]), int(step[at]) if at + 1 < total else 0, total - at))
    return np.array(found, np.int64).reshape(-1, 3)


def values_of(runs: NDArray[np.integer], most: int) -> Ints:
    """The numbers again. Raises: ValueError for what are no runs, or more than `most` numbers."""
    if runs.ndim != 2 or runs.shape[1] != 3 or runs.dtype.kind != "i":
        raise ValueError("claims are no runs of elements")
    first, step, length = runs.astype(np.int64).T
    # Before anything is spread: a length is a number that somebody wrote.
    if len(runs) and (length.min() < 1 or length.max() > most or int(length.sum()) > most):
        raise ValueError(f"claims name more than the {most:,} values that the file has")
    ends = np.cumsum(length)
    within = np.arange(int(length.sum())) - np.repeat(ends - length, length)
    return np.repeat(first, length) + np.repeat(step, length) * within
