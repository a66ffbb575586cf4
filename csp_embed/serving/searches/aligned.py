"""Which stages make up a plan: a small integer program over stage patterns.

A plan here is one chain of stages of rate F, with stretches where a track of rate r runs beside a
track of rate F - r, each in stages of its own (their cuts need not meet inside a stretch). The
program chooses how many of each pattern so that the layers add up to L and no class of machines is
used up; the value F is found by bisection. Order and machines are chosen later (assign.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from csp_embed.serving.searches.patterns import Class, Stage
from csp_embed.solver import cpsat
from csp_embed.solver.params import Params

EFFORT = 3.0  # deterministic units of CP-SAT for one program


@dataclass(frozen=True)
class Chain:
    """The stages chosen: `whole` of rate F, then stretches of (thin track, thick track)."""

    whole: tuple[Stage, ...]
    stretches: tuple[tuple[tuple[Stage, ...], tuple[Stage, ...]], ...] = ()

    @property
    def rate(self) -> float:
        """The least rate of any layer."""
        low = [s.rate for s in self.whole]
        for thin, thick in self.stretches:
            low.append(min(s.rate for s in thin) + min(s.rate for s in thick))
        return min(low)


Extra = Callable[[Any, Sequence[tuple[Stage, Any]]], None]


def choose(
    classes: Sequence[Class],
    layers: int,
    whole: Sequence[Stage],
    pairs: Sequence[tuple[Sequence[Stage], Sequence[Stage]]] = (),
    extra: Extra | None = None,
    seed: int | None = None,
    effort: float = EFFORT,
    seconds: float | None = None,
) -> Chain | None:
    """Stages that hold all layers within the machines there are; None where there are none (or the
    limit came first: nothing is concluded from None).

    pairs: stages for (thin, thick) tracks, one pair for each way to divide the rate. extra: posts
    more constraints on (stage, how many of it). seed: prefer some stages at random, so that another
    seed gives another answer. effort, seconds: limits, the latter on the wall clock."""
    if not whole and not pairs:
        return None
    model = cpsat.new_model()
    used: list[list[Any]] = [[] for _ in classes]
    chosen: list[tuple[Stage, Any]] = []

    def variables(stages: Sequence[Stage]) -> list[tuple[Stage, Any]]:
        rows = []
        for stage in stages:
            # As many as the machines of its scarcest class, and as the layers, allow.
            top = min(len(classes[c].members) // n for c, n in stage.counts)
            top = min(top, layers // stage.layers)
            if top > 0:
                y = model.new_int_var(0, top, "")
                rows.append((stage, y))
                for c, n in stage.counts:
                    used[c].append(n * y)
        chosen.extend(rows)
        return rows

    main = variables(whole)
    sides = [(variables(thin), variables(thick)) for thin, thick in pairs]
    for c, cl in enumerate(classes):
        if used[c]:
            model.add(sum(used[c]) <= len(cl.members))
    held = sum(s.layers * y for s, y in main)
    for thin, thick in sides:
        beside = sum(s.layers * y for s, y in thin)
        # Two tracks of a stretch hold the same layers.
        model.add(beside == sum(s.layers * y for s, y in thick))
        held = held + beside
    # Exactly all layers: more would be held twice.
    model.add(held == layers)
    if extra is not None:
        extra(model, main)
    options: dict[str, Any] = {}
    if seed is not None:
        draw = random.Random(seed)
        # Few machines side by side, then chance: another seed, another answer.
        model.minimize(sum((s.width * 4 + draw.randrange(16)) * y for s, y in chosen))
        options["stop_after_first_solution"] = True  # near that random goal is enough
    params = Params(seed or 0, deterministic_limit=effort, time_limit=seconds)
    answer = cpsat.solve(model, params, extra=options)
    if answer.interrupted:
        raise KeyboardInterrupt
    # Not found within the limit is not "there is none".
    if not answer.found:
        return None

    def picked(rows: Sequence[tuple[Stage, Any]]) -> tuple[Stage, ...]:
        return tuple(s for s, y in rows for _ in range(int(answer.value(y))))

    stretches = [(picked(thin), picked(thick)) for thin, thick in sides]
    # A stretch without a thin track has no thick one either.
    return Chain(picked(main), tuple(s for s in stretches if s[0]))
