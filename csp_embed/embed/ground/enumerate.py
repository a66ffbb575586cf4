"""All solutions of a ground problem, by CP-SAT.

Takes: Ground.  Leaves: `Solutions`: keys of problem.py, and how complete they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from csp_embed.embed.ground.check import covering_of, judge
from csp_embed.embed.ground.frames import Frame, frames
from csp_embed.embed.ground.model import build_model
from csp_embed.embed.ground.problem import Ground, Ints, Key, key
from csp_embed.embed.ground.variables import Vars, read_places
from csp_embed.solver.enumerate import all_solutions
from csp_embed.solver.params import Params
from csp_embed.solver.status import OPTIMAL, UNKNOWN

DEFAULT = Params(seed=0, workers=1, deterministic_limit=60.0)
MOST = 200_000


@dataclass(frozen=True)
class Solutions:
    """keys: distinct solutions. raw: coverings or maps that the solver counted, copies included.
    frames: models solved. status: OPTIMAL where nothing is missing, else UNKNOWN."""

    keys: frozenset[Key]
    raw: int
    frames: int
    status: str
    seconds: float


def irregular_solutions(
    ground: Ground, params: Params = DEFAULT, *, broken: bool = True
) -> Solutions:
    """Every covering, regular or not."""
    return _gather(ground, [None], params, broken)


def regular_solutions(
    ground: Ground, params: Params = DEFAULT, *, broken: bool = True, by_rows: bool = False
) -> Solutions:
    """Every covering that is affine over some frame (see frames.py)."""
    return _gather(ground, list(frames(ground)), params, broken, by_rows)


def _gather(
    ground: Ground,
    every: list[Frame] | list[None],
    params: Params,
    broken: bool,
    by_rows: bool = False,
) -> Solutions:
    started = time.perf_counter()
    keys: set[Key] = set()
    raw, status = 0, OPTIMAL
    for frame in every:
        vars = build_model(ground, frame, broken=broken, by_rows=by_rows)
        found, ended = all_solutions(vars.model, _watched(vars), params, MOST)
        if ended == UNKNOWN:
            status = UNKNOWN
        places = set()
        for values in found:
            places.add(values[: len(vars.placed) * (1 + len(ground.op.axes))])
            raw += 1
        for values in places:
            at = _read(vars, values)
            assert not judge(ground, covering_of(ground, at)), "the model breaks a rule"
            keys.add(key(ground, at))
    return Solutions(frozenset(keys), raw, len(every), status, time.perf_counter() - started)


def _watched(vars: Vars) -> list[object]:
    return [*vars.placed, *(v for values in vars.value for v in values)]


def _read(vars: Vars, values: tuple[int, ...]) -> Ints:
    places, axes = len(vars.placed), len(vars.ground.op.axes)
    table = {
        g: values[places + g * axes : places + (g + 1) * axes] for g in range(places) if values[g]
    }
    return read_places(vars, table)
