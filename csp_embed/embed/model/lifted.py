"""The lifted model: options as Booleans, one constraint family per file, the cost on top.

Takes: Candidates, Params.  Leaves: answers, best first, with what the solver proved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from csp_embed.embed.model import objective
from csp_embed.embed.model.constraints import cover, lanes, pins, roles
from csp_embed.embed.model.greedy import structure_of, warm_start, worst_cost
from csp_embed.embed.model.nearby import nearby
from csp_embed.embed.model.reduce import within
from csp_embed.embed.model.variables import Vars
from csp_embed.embed.problem import Option
from csp_embed.embed.space.candidates import Candidates
from csp_embed.solver.cpsat import new_model, solve
from csp_embed.solver.params import Params
from csp_embed.solver.status import FEASIBLE, INFEASIBLE, OPTIMAL

# In posting order; each removes wrong or unwanted answers, none only copies.
FAMILIES = {"cover": cover, "roles": roles, "lanes": lanes, "pins": pins}

# Alternatives that cost more, in percent of the best, are not listed: schedules decide which wins,
# and overheads that the analytic cost leaves out rarely make up for more.
_WORSE = 200
# Products have weak linear relaxations: propagation alone proves faster (measured on DeepBench).
# Presolve takes seconds over products of large domains and saves nothing (gemm014: 6 s to 0.4 s).
_PARAMETERS = {"linearization_level": 0, "cp_model_presolve": False}


@dataclass(frozen=True)
class Found:
    """picked: one option per block, empty where nothing was found. objective and bound in the
    cost's units; status: what is proved about this answer among those with other structures than
    the ones before it. weighed: options that the solver saw (no optimum contains another)."""

    status: str
    picked: tuple[Option, ...] = ()
    objective: int = 0
    bound: int = 0
    weighed: int = 0
    seconds: float = 0.0


def search(space: Candidates, params: Params, top: int = 1) -> list[Found]:
    """The best answer, then up to top - 1 more, each the best of all other structures, at most
    twice as costly. The list for a smaller `top` is the beginning of that for a larger one. The
    list's first has no picked options where there is no answer (INFEASIBLE) or the limit came first
    (UNKNOWN)."""
    first = _solve(space, params)
    # One answer that is proved needs no list of others.
    if not first.picked or (top == 1 and first.status == OPTIMAL):
        return [first]
    near = nearby(space, first.objective * _WORSE // 100)
    if near.complete and first.status != OPTIMAL:
        # The enumeration proves what the solver's limit left open.
        best, cost = near.answers[0]
        # The solver's own answer where it is as good: the same one that a larger limit would give.
        picked = first.picked if cost == first.objective else best
        first = replace(first, status=OPTIMAL, picked=picked, objective=cost, bound=cost)
    found, taken = [first], structure_of(first.picked)
    for picked, cost in near.answers:
        if len(found) == top:
            break
        if structure_of(picked) != taken:
            status, bound = (OPTIMAL, cost) if near.complete else (FEASIBLE, first.bound)
            found.append(Found(status, picked, cost, bound, first.weighed))
    return found


def _solve(space: Candidates, params: Params) -> Found:
    """One CP-SAT run."""
    start, problem = warm_start(space), space.problem
    # A block without an option: every option of it broke a rule or a pin.
    if {o.block for o in space.options} != set(range(len(problem.blocks) + 1)):
        return Found(INFEASIBLE)
    limit = start[1] if start else worst_cost(space)
    # What costs more than a known answer need not be posed.
    options = within(space, limit)
    if {o.block for o in options} != set(range(len(problem.blocks) + 1)):
        return Found(INFEASIBLE)
    model = new_model()
    pairs = [(model.new_bool_var(f"x{n}"), o) for n, o in enumerate(options)]
    vars = Vars(pairs, model.new_bool_var("commuted"))
    for family in FAMILIES.values():
        family.post(model, vars, problem)
    objective.post(model, vars, problem, limit)
    if start:
        chosen = {id(o) for o in start[0]}
        # Half of the hints are "not taken": a full assignment is what CP-SAT can complete at once.
        for v, o in vars.pairs:
            model.add_hint(v, id(o) in chosen)
    answer = solve(model, params, extra=_PARAMETERS)
    if answer.interrupted:
        # Only now: the solver's threads have ended.
        raise KeyboardInterrupt
    if not answer.found:
        return Found(answer.status, weighed=len(options), seconds=answer.seconds)
    # By block, as everybody else expects them.
    picked = sorted((o for v, o in pairs if answer.value(v)), key=lambda o: o.block)
    return Found(
        answer.status,
        tuple(picked),
        round(answer.objective or 0),
        round(answer.bound),
        len(options),
        answer.seconds,
    )
