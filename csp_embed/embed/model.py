"""The lifted model: options as Booleans, one constraint family per file, the cost on top.

Takes: Problem, Params.  Leaves: answers, best first, with what the solver proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from csp_embed.embed import objective
from csp_embed.embed.choice import Choice
from csp_embed.embed.constraints import cover, lanes, pins, roles
from csp_embed.embed.greedy import warm_start, worst_cost
from csp_embed.embed.problem import Option, Problem
from csp_embed.embed.reduce import within
from csp_embed.embed.variables import Vars
from csp_embed.solver.cpsat import new_model, solve
from csp_embed.solver.params import Params
from csp_embed.solver.status import INFEASIBLE

# In posting order; each removes wrong or unwanted answers, none only copies.
FAMILIES = {"cover": cover, "roles": roles, "lanes": lanes, "pins": pins}

# Alternatives that cost more, in percent of the best, are not looked for, nor longer than this
# (deterministic units): that there is no further one is proved in vain, schedules decide anyway.
_WORSE = 130
_PATIENCE = 0.25
_UNLIMITED = 1 << 58
# Products have weak linear relaxations: propagation alone proves faster (measured on DeepBench).
# Presolve takes seconds over products of large domains and saves nothing (gemm014: 6 s to 0.4 s).
_PARAMETERS = {"linearization_level": 0, "cp_model_presolve": False}


@dataclass(frozen=True)
class Found:
    """picked: one option per block, empty where nothing was found. objective and bound in the
    cost's units; status: what is proved about this answer among those with other structures than
    the ones before it. posted: options that the solver saw (the others cannot be in an optimum)."""

    status: str
    picked: tuple[Option, ...] = ()
    objective: int = 0
    bound: int = 0
    posted: int = 0
    seconds: float = 0.0

    def choice(self, problem: Problem) -> Choice:
        """The decisions that the picked options mean, in operator axis order."""
        order = {a: n for n, a in enumerate(problem.op.axes)}
        carries = [c for o in self.picked for c in o.carries]
        carries.sort(key=lambda c: order[c.axes[0]])
        return Choice(self.picked[0].commuted, tuple(carries))


def search(problem: Problem, params: Params, top: int = 1) -> list[Found]:
    """The best answer, then up to top - 1 more, each the best of all other structures that was
    found in a short search, at most a third as costly again. The list's first has no picked options
    where there is no answer (INFEASIBLE) or the limit came first (UNKNOWN)."""
    found = [_solve(problem, params, (), _UNLIMITED)]
    limit = min(params.deterministic_limit or _PATIENCE, _PATIENCE)
    patience = replace(params, deterministic_limit=limit)
    while found[0].picked and len(found) < top:
        more = _solve(
            problem, patience, [f.picked for f in found], found[0].objective * _WORSE // 100
        )
        if not more.picked:
            break
        found.append(more)
    return found


def _solve(
    problem: Problem, params: Params, barred: Sequence[Sequence[Option]], ceiling: int
) -> Found:
    """One CP-SAT run; `barred`: answers whose structure is taken."""
    start = warm_start(problem, barred)
    if {o.block for o in problem.options} != set(range(len(problem.blocks) + 1)):
        return Found(INFEASIBLE)
    limit = min(start[1] if start else worst_cost(problem), ceiling)
    options = within(problem, limit)
    if {o.block for o in options} != set(range(len(problem.blocks) + 1)):
        return Found(INFEASIBLE)
    model = new_model()
    pairs = [(model.new_bool_var(f"x{n}"), o) for n, o in enumerate(options)]
    vars = Vars(pairs, model.new_bool_var("commuted"))
    for family in FAMILIES.values():
        family.post(model, vars, problem)
    for picked in barred:
        _bar(model, vars, picked)
    objective.post(model, vars, problem, limit)
    if start and start[1] <= limit:
        chosen = {id(o) for o in start[0]}
        for v, o in vars.pairs:
            model.add_hint(v, id(o) in chosen)
    answer = solve(model, params, extra=_PARAMETERS)
    if answer.interrupted:
        raise KeyboardInterrupt
    if not answer.found:
        return Found(answer.status, posted=len(options), seconds=answer.seconds)
    picked = sorted((o for v, o in pairs if answer.value(v)), key=lambda o: o.block)
    return Found(
        answer.status,
        tuple(picked),
        round(answer.objective or 0),
        round(answer.bound),
        len(options),
        answer.seconds,
    )


def _bar(model: Any, vars: Vars, picked: Sequence[Option]) -> None:
    """Some block must have another structure than in `picked`."""
    taken = {(o.block, o.commuted, o.shape, o.given) for o in picked}
    same = [v for v, o in vars.pairs if (o.block, o.commuted, o.shape, o.given) in taken]
    model.add(sum(same) <= len(picked) - 1)
