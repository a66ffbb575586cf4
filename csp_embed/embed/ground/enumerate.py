"""All solutions of a ground problem, by CP-SAT.

Takes: Ground.  Leaves: `Solutions`: keys of points.py, and how complete they are.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from csp_embed.embed.ground.model import build_model
from csp_embed.embed.ground.numerations import Frame, frames
from csp_embed.embed.ground.points import Key, key
from csp_embed.embed.ground.symmetry import Map, movers
from csp_embed.embed.ground.variables import Vars, read_places
from csp_embed.ir.ground import Ground, Ints
from csp_embed.ir.operator import Role
from csp_embed.judge.embedding.covering import covering_of, judge
from csp_embed.solver.enumerate import all_solutions
from csp_embed.solver.params import Params
from csp_embed.solver.status import OPTIMAL, UNKNOWN

# Generous: an enumeration that is cut short proves nothing.
DEFAULT = Params(seed=0, workers=1, deterministic_limit=60.0)
MOST = 200_000


@dataclass(frozen=True)
class Solutions:
    """keys: distinct solutions. raw: assignments that the solver counted. coverings: placements of
    the points among them, copies of one solution included (irregular: over all of them). maps: the
    affine maps (see symmetry.py); empty where irregular. frames: models solved. branches: the
    solver's, in all. status: OPTIMAL where nothing is missing, else UNKNOWN. seconds: of CPU."""

    keys: frozenset[Key]
    raw: int
    coverings: int
    maps: frozenset[Map]
    frames: int
    branches: int
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
    """Every covering that is affine over some frame (see numerations.py)."""
    return _gather(ground, list(frames(ground)), params, broken, by_rows)


def _gather(
    ground: Ground,
    every: list[Frame] | list[None],
    params: Params,
    broken: bool,
    by_rows: bool = False,
) -> Solutions:
    started = time.process_time()
    keys: set[Key] = set()
    maps: set[Map] = set()
    raw, coverings, branches, status = 0, 0, 0, OPTIMAL
    # A model for each frame: their solutions are told apart by the map.
    for frame in every:
        vars = build_model(ground, frame, broken=broken, by_rows=by_rows)
        # Which step meets which element counts only where steps are ordered.
        strict = sorted(ground.strict) if ground.ordered else []
        # All that tells coverings apart; everything else follows.
        watched = [*vars.placed, *(v for values in vars.value for v in values)]
        parts = [watched, *([*vars.element[r]] for r in strict)]
        moving = [] if frame is None else movers(frame)
        parts.append([*vars.const, *(c[n] for c in vars.columns for n in moving)])
        found = all_solutions(vars.model, [v for part in parts for v in part], params, MOST)
        raw, branches = raw + len(found.values), branches + found.branches
        # One model that was cut short makes the whole list incomplete.
        if found.status == UNKNOWN:
            status = UNKNOWN
        places: dict[tuple[int, ...], dict[Role, list[int]]] = {}
        for values in found.values:
            # The solver's values come in one row: cut into the parts that were watched.
            rest = iter(values)
            placed, *elements, numbers = [tuple(itertools.islice(rest, len(p))) for p in parts]
            # Several assignments may be one covering: its elements are numbered by first use.
            places[placed] = {r: _numbered(e) for r, e in zip(strict, elements, strict=True)}
            if frame is not None:
                # Maps are kept for the comparison with symmetry.py's copies.
                maps.add(Map.of(frame, numbers))
        coverings += len(places)
        for values, elements in places.items():
            at = _read(vars, values)
            breaches = judge(ground, covering_of(ground, at, elements))
            # Each solution is judged: a list with a wrong one would be worthless.
            assert not breaches, f"the model breaks {breaches}"
            keys.add(key(ground, at))
    seconds = time.process_time() - started
    return Solutions(
        frozenset(keys), raw, coverings, frozenset(maps), len(every), branches, status, seconds
    )


def _numbered(elements: Sequence[int]) -> list[int]:
    """Memory elements (first steps that meet them) as addresses in the order of first use."""
    return [sorted(set(elements)).index(e) for e in elements]


def _read(vars: Vars, values: tuple[int, ...]) -> Ints:
    # Axis values of placed points only; pads have none.
    places, axes = len(vars.placed), len(vars.ground.op.axes)
    table = {
        g: values[places + g * axes : places + (g + 1) * axes] for g in range(places) if values[g]
    }
    return read_places(vars, table)
