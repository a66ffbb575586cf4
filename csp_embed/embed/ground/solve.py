"""The ground problem with the fewest steps: one covering, and what is proved about it.

Takes: Operator, Isa.  Leaves: `GroundAnswer`.

A counting bound from below (bounds.py), the lifted model's coverings (expand.py) and filling
(affine_search.py) from above, and CP-SAT for what lies between, on problems of few places: the
frames with fewer steps one by one, or the whole irregular model. Every covering that is returned
was judged by judge/embedding/covering.py. Nothing depends on time: limits count attempts and the
solver's own units.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from csp_embed.embed.ground.affine_search import MOST_ATTEMPTS, fill
from csp_embed.embed.ground.bounds import least_steps
from csp_embed.embed.ground.expand import expanded, lifted_embeddings, named_steps
from csp_embed.embed.ground.explain import DEFAULT, FAST, MOST_PLACES, conflicting_families
from csp_embed.embed.ground.model import build_model
from csp_embed.embed.ground.numerations import Frame, frames
from csp_embed.embed.ground.points import pose_ground
from csp_embed.embed.ground.variables import Vars, read_places
from csp_embed.ir.ground import Ground, Ints
from csp_embed.ir.operator import Operator
from csp_embed.judge.embedding.covering import Covering, covering_of, judge
from csp_embed.machine.spec import Isa
from csp_embed.solver.cpsat import solve
from csp_embed.solver.params import Params
from csp_embed.solver.status import FEASIBLE, INFEASIBLE, OPTIMAL, UNKNOWN

# Of filling, over all frames and steps; counted, so that the answer does not depend on time.
TOTAL_ATTEMPTS = 50_000


@dataclass(frozen=True)
class GroundAnswer:
    """status: OPTIMAL (no covering of the asked kind has fewer steps), FEASIBLE (bound <= steps),
    INFEASIBLE (none in the steps allowed) or UNKNOWN. steps: that the covering names. bound: proved
    least steps. at: step and lanes of each point; covering: the same, step by step. ground: the
    problem solved, commutation included. families: a minimal set in conflict, where INFEASIBLE and
    small enough to say. by: what found the covering, "lifted", "filling" or "CP-SAT". seconds: of
    CPU."""

    status: str
    steps: int | None
    bound: int
    ground: Ground
    at: Ints | None
    covering: Covering | None
    families: tuple[str, ...]
    by: str
    seconds: float


@dataclass(frozen=True)
class _Best:
    ground: Ground
    at: Ints
    by: str


def solve_ground(
    op: Operator,
    isa: Isa,
    *,
    regular: bool = True,
    commuted: bool | None = None,
    layout: str = "relaxed",
    steps: int | None = None,
    instruction: str | None = None,
    params: Params = DEFAULT,
    attempts: int = TOTAL_ATTEMPTS,
) -> GroundAnswer:
    """A covering of `op` with the fewest steps.

    regular: coverings that loops and strides express (rule 8), else all. commuted: None tries both.
    steps: the most that are allowed (None: as many as there are points). instruction: by name;
    otherwise that of the operator's kind. params: limits of each
    CP-SAT model. attempts: of filling, in all.
    Raises: SpecError where the machine has no instruction of the operator's kind; OperatorError
    where the operator has too many points to list.
    """
    started = time.process_time()
    # Without a second operand there is nothing to commute.
    kinds = [commuted] if commuted is not None else [False, True] if op.rhs is not None else [False]
    grounds = [
        pose_ground(op, isa, 1, commuted=c, layout=layout, instruction=instruction) for c in kinds
    ]
    points = len(grounds[0].points)
    most = points if steps is None else steps
    # By counting, for each way to commute; nothing has been searched yet.
    bounds = [least_steps(g) for g in grounds]
    best = _lifted(grounds, isa, layout, regular, most)
    # Only where the lifted model left a gap: filling costs attempts.
    if best is None or best.ground.steps > min(bounds):
        fewer = most if best is None else best.ground.steps - 1
        best = _filled(grounds, bounds, fewer, attempts) or best
    bound, proved = min(bounds), True
    # What is between the bound and the best is for the solver, where the problem is small enough.
    if best is None or best.ground.steps > bound:
        limit = most if best is None else best.ground.steps - 1
        between = _regular if regular else _irregular
        better, bound, proved = between(grounds, bounds, limit, params)
        best = better or best
    status, families = UNKNOWN, ()
    if best is not None:
        status = OPTIMAL if best.ground.steps <= bound else FEASIBLE
    elif bound > most or proved:
        # Below the counting bound nothing exists; above it only a proof says so.
        status = INFEASIBLE
        families = conflicting_families(
            replace(grounds[0], steps=most), regular=regular, params=params
        )
    ground = best.ground if best is not None else replace(grounds[0], steps=most)
    return GroundAnswer(
        status=status,
        steps=None if best is None else ground.steps,
        bound=bound,
        ground=ground,
        at=None if best is None else best.at,
        # The covering step by step is made once, from the places.
        covering=None if best is None else covering_of(ground, best.at),
        families=families,
        by="" if best is None else best.by,
        seconds=time.process_time() - started,
    )


def _lifted(grounds: list[Ground], isa: Isa, layout: str, regular: bool, most: int) -> _Best | None:
    """The lifted model's covering with the fewest steps that its counters name; irregular ones may
    leave out those in which nothing is met."""
    best: _Best | None = None
    for ground in grounds:
        if not ground.same_kind:
            # An instruction that does something else covers nothing.
            continue
        found = list(lifted_embeddings(ground, isa, layout))
        # Regular ones pay for every step that their counters name.
        counted = sorted(
            (named_steps(e) if regular else e.cost["steps"], n) for n, e in enumerate(found)
        )
        # Fewest steps first, so the first that is accepted is the best of this ground.
        for steps, n in counted:
            # No better than what another commutation has given.
            if steps > most or (best is not None and steps >= best.ground.steps):
                break
            at = expanded(ground, found[n])
            used = int(at[:, 0].max()) + 1
            posed = replace(ground, steps=int(named_steps(found[n]) if regular else used))
            # The judge decides, not the model that made it.
            if not judge(posed, covering_of(posed, at)):
                best = _Best(posed, at, "lifted")
                break
    return best


def _filled(grounds: list[Ground], bounds: list[int], most: int, attempts: int) -> _Best | None:
    """A covering by filling in the fewest steps where one is found. Where half of the attempts are
    used up, a tenth of those made for a frame so far has to do for each."""
    left = attempts
    # Upwards from the bound: the first covering found has the fewest steps.
    for steps in range(min(bounds), most + 1):
        # Early frames get all the attempts they want; late ones would else get none.
        share = MOST_ATTEMPTS if 2 * left > attempts else MOST_ATTEMPTS // 10
        for ground, bound in zip(grounds, bounds, strict=True):
            if steps < bound or not ground.same_kind or not _countable(ground, steps):
                continue
            posed = replace(ground, steps=steps)
            for frame in frames(posed, steps=steps):
                at, used = fill(posed, frame, min(share, left))
                left -= used
                if at is not None and not judge(posed, covering_of(posed, at)):
                    return _Best(posed, at, "filling")
                if left <= 0:
                    return None
    return None


def _countable(ground: Ground, steps: int) -> bool:
    """Whether no counter would have to be longer than every coordinate, which filling never
    uses: steps are a product of primes up to that length."""
    axes = ground.op.axes
    longest = max(*axes.values(), math.prod(axes[a] for a in ground.op.reduced_axes))
    # Divided by all primes that a coordinate can need.
    for p in range(2, longest + 1):
        while steps % p == 0:
            steps //= p
    return steps == 1


def _regular(
    grounds: list[Ground], bounds: list[int], limit: int, params: Params
) -> tuple[_Best | None, int, bool]:
    """The fewest steps up to the limit in any frame; steps below which nothing is; whether that was
    proved up to the limit."""
    # Upwards: what is proved infeasible raises the bound.
    for steps in range(min(bounds), limit + 1):
        for ground, bound in zip(grounds, bounds, strict=True):
            if steps < bound:
                continue
            # A model of more places takes minutes; what is below stays proved.
            if steps * ground.lanes > MOST_PLACES:
                return None, steps, False
            posed = replace(ground, steps=steps)
            for frame in frames(posed, steps=steps):
                status, at = _solved(posed, frame, params)
                if at is not None:
                    return _Best(posed, at, "CP-SAT"), steps, True
                # A limit ended it: nothing is known of this number of steps.
                if status != INFEASIBLE:
                    return None, steps, False
    # All steps up to the limit are proved infeasible.
    return None, max(min(bounds), limit + 1), True


def _irregular(
    grounds: list[Ground], bounds: list[int], limit: int, params: Params
) -> tuple[_Best | None, int, bool]:
    """The same over all coverings, step by step downwards."""
    best: _Best | None = None
    reached: list[int] = []
    for ground, bound in zip(grounds, bounds, strict=True):
        # Downwards: each covering found says how many steps are enough.
        while bound <= limit and limit * ground.lanes <= MOST_PLACES:
            posed = replace(ground, steps=limit)
            status, at = _solved(posed, None, params)
            # Nothing in this many steps: infeasible is a proof, a limit is none.
            if at is None:
                bound = limit + 1 if status == INFEASIBLE else bound
                break
            # Steps in which nothing stands are left out, the others renumbered.
            names = {step: n for n, step in enumerate(sorted(set(at[:, 0].tolist())))}
            at[:, 0] = [names[step] for step in at[:, 0].tolist()]
            best = _Best(replace(ground, steps=len(names)), at, "CP-SAT")
            limit = len(names) - 1
        reached.append(bound)
    return best, min(reached), min(reached) > limit


def _solved(ground: Ground, frame: Frame | None, params: Params) -> tuple[str, Ints | None]:
    vars = build_model(ground, frame)
    answer = solve(vars.model, params, extra=FAST)
    return answer.status, _read(vars, answer.value) if answer.found else None


def _read(vars: Vars, value: Callable[[Any], float]) -> Ints:
    table = {
        g: tuple(int(value(v)) for v in vars.value[g])
        for g, placed in enumerate(vars.placed)
        if value(placed)
    }
    return read_places(vars, table)
