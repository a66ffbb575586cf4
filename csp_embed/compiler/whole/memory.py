"""Addresses of the tensors of a program in DRAM: those that are never needed at once share bytes.

Takes: sizes and lifetimes.  Leaves: offsets, the height, and a bound on it: the most bytes that
live at one time. CP-SAT packs rectangles of time and bytes without overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csp_embed.solver.cpsat import new_model, solve
from csp_embed.solver.params import Params
from csp_embed.solver.status import FEASIBLE, OPTIMAL

if TYPE_CHECKING:
    from csp_embed.solver.cpsat import IntervalVar, IntVar

# Small models; a deterministic limit, so that addresses are the same everywhere.
PARAMS = Params(seed=0, workers=1, deterministic_limit=4.0)


@dataclass(frozen=True)
class Life:
    """name, bytes; first and last: layers between which the tensor must keep its values."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """offset: of each tensor, bytes. height: bytes in all. bound: no plan needs fewer."""

    offset: dict[str, int]
    height: int
    bound: int
    status: str


def plan(lives: Sequence[Life], unit: int) -> Plan:
    """unit: every offset is a multiple of it."""
    if not lives:
        return Plan({}, 0, 0, OPTIMAL)
    # In units, so that alignment is no constraint.
    need = [max(1, -(-life.size // unit)) for life in lives]
    times = sorted({life.first for life in lives})
    # At some beginning of a life the most bytes are alive: no plan needs fewer.
    bound = max(
        sum(n for n, life in zip(need, lives, strict=True) if life.first <= t <= life.last)
        for t in times
    )
    start = _greedy(lives, need)
    top = max(a + n for a, n in zip(start, need, strict=True))
    status = OPTIMAL
    # Mostly the greedy plan meets the bound, and no solver is asked.
    if top > bound:
        model = new_model()
        height = model.new_int_var(bound, top, "height")
        at: list[IntVar] = []
        xs: list[IntervalVar] = []
        ys: list[IntervalVar] = []
        for life, size, hint in zip(lives, need, start, strict=True):
            a = model.new_int_var(0, top - size, life.name)
            # The greedy plan as a hint: the answer is never worse.
            model.add_hint(a, hint)
            model.add(a + size <= height)
            at.append(a)
            ys.append(model.new_fixed_size_interval_var(a, size, ""))
            xs.append(model.new_fixed_size_interval_var(life.first, life.last - life.first + 1, ""))
        # Rectangles of layers by bytes, without overlap.
        model.add_no_overlap_2d(xs, ys)
        model.minimize(height)
        found = solve(model, PARAMS)
        if found.status in (OPTIMAL, FEASIBLE):
            start = [int(found.value(a)) for a in at]
            top = max(a + n for a, n in zip(start, need, strict=True))
            bound = max(bound, round(found.bound or 0.0))
        status = OPTIMAL if top == bound else FEASIBLE
    offset = {life.name: a * unit for life, a in zip(lives, start, strict=True)}
    return Plan(offset, top * unit, bound * unit, status)


def _greedy(lives: Sequence[Life], need: Sequence[int]) -> list[int]:
    """The largest first, each as low as it fits."""
    out = [0] * len(lives)
    done: list[int] = []
    # Large ones first: small ones fit between them.
    for n in sorted(range(len(lives)), key=lambda n: (-need[n], n)):
        others = sorted(
            (out[m], out[m] + need[m]) for m in done
            if lives[m].first <= lives[n].last and lives[n].first <= lives[m].last
        )  # fmt: skip
        at = 0
        for low, high in others:
            # The first gap that is large enough.
            if low - at >= need[n]:
                break
            at = max(at, high)
        out[n] = at
        done.append(n)
    return out
