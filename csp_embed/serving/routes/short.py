"""A route of few seconds for both phases: a beam over layers.

Each layer keeps the BEAM best beginnings of a route that end there; what is still to come is
estimated by the shortest path that may use a machine twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from csp_embed.serving.instance import Delays, Instance
from csp_embed.serving.routes.bound import path_groups

BEAM = 24


@dataclass(frozen=True)
class _Start:
    """The beginning of a route. used: machines; spans: their intervals."""

    seconds: float
    spans: tuple[tuple[int, int, int], ...]  # (machine, first, end)


def short_route(
    instance: Instance, late: Delays, without: set[int], stop: Callable[[], bool] = lambda: False
) -> dict[int, tuple[int, int]] | None:
    """Intervals of one route that uses none of `without`; None where none was found. stop: asked
    often; ends the search without a route."""
    assert instance.phases is not None
    layers, rest = instance.layers, max(0.0, instance.phases.output - 1)
    # Groups for the estimate, single machines for the route.
    groups = path_groups(instance, "both")
    # From the end: least time from a layer on, machines used as often as one likes.
    least = [math.inf] * layers + [0.0]
    for layer in range(layers - 1, -1, -1):
        for group in groups:
            for k, seconds in enumerate(group.seconds[: layers - layer], start=1):
                tail = group.end if layer + k == layers else 0.0
                hop = group.start if layer == 0 else group.hop
                least[layer] = min(least[layer], hop + seconds + tail + least[layer + k])

    def wait(capacity: float, delay: float) -> float:
        if capacity <= 0:
            return math.inf
        # One token a step: a request alone fills no batch.
        return delay + instance.phases.prompt / capacity + rest * (delay + 1 / capacity)  # type: ignore[union-attr]

    beams: list[list[_Start]] = [[] for _ in range(layers + 1)]
    beams[0].append(_Start(0.0, ()))
    for layer in range(layers):
        # Sorted here, not when put in: each layer is visited once.
        for start in sorted(beams[layer], key=lambda s: (s.seconds, s.spans))[:BEAM]:
            if stop():
                return None
            # A machine holds one interval only.
            used = without | {i for i, _, _ in start.spans}
            last = start.spans[-1][0] if start.spans else None
            for group in groups:
                reach = [
                    (
                        wait(float(instance.start[i]), float(late.start[i]))
                        if last is None
                        else wait(float(instance.link[last, i]), float(late.link[last, i])),
                        i,
                    )
                    for i in group.members
                    if i not in used
                ]
                # Of a group's members the one that is reached soonest: the others take as long.
                enter, i = min(reach, default=(math.inf, -1))
                if enter == math.inf:
                    continue
                for k, seconds in enumerate(group.seconds[: layers - layer], start=1):
                    end = layer + k
                    total = start.seconds + enter + seconds
                    if end == layers:
                        total += wait(float(instance.end[i]), float(late.end[i]))
                    # From here no path reaches the end.
                    if total + least[end] < math.inf:
                        beams[end].append(_Start(total, (*start.spans, (i, layer, end))))
        # Beginnings of earlier layers are no longer needed.
        beams[layer] = []
    if not beams[layers]:
        return None
    found = min(beams[layers], key=lambda s: (s.seconds, s.spans))
    return {i: (a, b) for i, a, b in found.spans}
