"""Temperatures of annealing, from the instance: what its worsening moves cost.

Takes: energy differences in ms of proposals that make a plan worse, noted while a kernel descends.
Leaves: first and last temperatures in ms, and the slices of a chain.

A temperature means something only beside the differences that it is to overcome: exp(-rise / heat)
of them are accepted. A share of the makespan or of the period says nothing of these, for they
depend on how many tasks there are, how unlike their costs, how dear their transfers. So every chain
states its temperatures as multiples of the usual rise, measured where it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from csp_embed.partition.arrays.view import Floats

NOTED = 4000  # rises of one descent
TINY = 1e-12  # ms in units of a view, which are near 1: colder than any difference of floats
UNNOTED = np.zeros(1)  # for chains at known temperatures: `annealer.note` keeps nothing there


def usual_rise(descend: Callable[[Floats], object]) -> float:
    """The median rise in ms while `descend(rises)` runs a kernel at temperature TINY; 0 where
    nothing can get worse, and no temperature matters."""
    noted = np.zeros(NOTED + 1)
    descend(noted)
    seen = noted[1 : int(noted[0]) + 1]
    seen = seen[seen > TINY]  # differences of equal sums
    return float(np.median(seen)) if len(seen) else 0.0


def span(usual: float, hot: float, cold: float) -> tuple[float, float]:
    """First and last temperature in ms from multiples of the usual rise."""
    return max(hot * usual, TINY), max(min(hot, cold) * usual, TINY)


def slices(hot: float, cold: float, steps: float, size: int) -> Iterator[tuple[float, float, int]]:
    """First and last temperature and proposals of the slices of a chain, of about `size` proposals
    each: kernels cannot be interrupted, so clocks are asked between two of them."""
    count, ratio = max(1, round(steps / size)), cold / hot
    for k in range(count):
        yield (
            hot * ratio ** (k / count),
            hot * ratio ** ((k + 1) / count),
            max(1, int(steps / count)),
        )
