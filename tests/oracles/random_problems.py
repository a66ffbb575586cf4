"""Random small problems on which the search is compared with the complete lifted space.

Takes: a random.Random.  Leaves: problems whose affine maps are few enough to try, and the least
analytic cost of the search. Operators with an output that no effective point adds to are left out:
a frame names the steps of effective points alone, such an output needs a step of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from csp_embed import ops
from csp_embed.embed.ground.expand import lifted_embeddings, named_steps
from csp_embed.embed.ground.numerations import bound, frames
from csp_embed.embed.ground.points import pose_ground
from csp_embed.errors import CspEmbedError
from csp_embed.ir.ground import Ground
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from tests.oracles.affine import Maps
from tests.oracles.complete import own_lanes
from tests.oracles.corpus import machines

_MOST_POINTS, _MOST_STEPS, _MOST_COLUMNS, _MOST_MAPS = 40, 6, 3000, 100_000


def random_operator(rng: random.Random) -> Operator:
    """A small operator of a random kind. Raises: CspEmbedError, where the extents do not fit."""
    low = rng.randint
    kind = rng.choice(["matmul", "conv1d", "conv1d", "conv1d", "conv2d", "depthwise", "pool"])
    if kind == "matmul":
        return ops.matmul(m=low(1, 5), n=low(1, 4), k=low(1, 5))
    if kind == "conv1d":
        return ops.conv1d(n=low(1, 2), c=low(1, 3), w=low(2, 7), k=low(1, 3), r=low(1, 4),
                          stride=low(1, 3), dilation=low(1, 2), pad=low(0, 1))  # fmt: skip
    if kind == "conv2d":
        return ops.conv2d(n=1, c=low(1, 2), h=low(1, 3), w=low(1, 4), k=low(1, 2), r=low(1, 2),
                          s=low(1, 3), stride=low(1, 2))  # fmt: skip
    shape = {"n": 1, "c": low(1, 4), "h": 1, "w": low(1, 5), "r": 1, "s": low(1, 3)}
    if kind == "depthwise":
        return ops.depthwise_conv2d(**shape, stride=low(1, 2))
    return ops.max_pool2d(**shape)


def random_window(rng: random.Random) -> Operator:
    """A window of few outputs: strides, dilations and padding that do not fit each other.
    Raises: CspEmbedError, where the extents do not fit."""
    low = rng.randint
    return ops.conv1d(n=1, c=low(1, 2), w=low(2, 8), k=low(1, 2), r=low(2, 4), stride=low(1, 3),
                      dilation=low(1, 2), pad=low(0, 2))  # fmt: skip


def random_problems(
    rng: random.Random, draw: Callable[[random.Random], Operator] = random_operator
) -> Iterator[tuple[Ground, Isa, str, float]]:
    """(problem, machine, layout mode, the search's least cost), small enough to enumerate."""
    every = machines()
    while True:
        try:
            op = draw(rng)
        except CspEmbedError:
            continue
        machine, mode = rng.choice(sorted(every)), rng.choice(["relaxed", "relaxed", "strict"])
        commuted = op.rhs is not None and rng.random() < 0.5
        if math.prod(op.axes.values()) > _MOST_POINTS:
            continue
        isa = every[machine]
        ground = pose_ground(op, isa, 1, commuted=commuted)
        found = list(lifted_embeddings(ground, isa, mode))
        if not found or len(set(ground.elements["dst"].tolist())) < ground.counts["dst"]:
            continue
        best = min(found, key=lambda e: e.cost["objective"])
        steps = named_steps(best) + rng.randint(0, 1)
        ground = pose_ground(op, isa, steps, commuted=commuted)
        if steps <= _MOST_STEPS and candidates(ground) <= _MOST_MAPS:
            yield ground, isa, mode, best.cost["objective"]


def candidates(ground: Ground) -> float:
    """A rough count of the affine maps to try."""
    total = 0.0
    for frame in frames(ground):
        if math.prod(2 * bound(ground, c) + 1 for c in frame.coordinates) > _MOST_COLUMNS:
            return math.inf
        maps = Maps(ground, frame, lambda f, n, v: own_lanes(ground, f, n, v))
        total += math.prod(maps.extents.tolist()) * math.prod(
            len(maps.columns_of(n)) / 2 for n in maps.order
        )
    return total
