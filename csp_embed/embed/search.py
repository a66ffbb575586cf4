"""Finds embeddings: lists the options of a problem, solves for them, builds what was picked.

Takes: EmbedProblem.  Leaves: list of Embedding, best first under the analytic cost.
"""

from __future__ import annotations

import math
from dataclasses import replace

from csp_embed.embed.algebra.cost import UNIT
from csp_embed.embed.build import build
from csp_embed.embed.model.lifted import FAMILIES, Found, search
from csp_embed.embed.problem import NO_PINS, EmbedProblem, Pins
from csp_embed.embed.space.candidates import Candidates, candidates
from csp_embed.errors import Infeasible, InputError, TimeLimit
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import Costs
from csp_embed.machine.spec import Isa
from csp_embed.solver.params import Params
from csp_embed.solver.status import INFEASIBLE

# Deterministic: the same answer on every machine. Any DeepBench layer needs far less.
DEFAULT = Params(seed=0, workers=1, deterministic_limit=8.0)
MODES = ("relaxed", "strict")


def embed(
    op: Operator,
    isa: Isa,
    *,
    layout: str = "relaxed",
    top: int = 1,
    params: Params = DEFAULT,
    pins: Pins = NO_PINS,
    costs: Costs | None = None,
) -> list[Embedding]:
    """The best embeddings of `op`: poses the problem and calls `embeddings`, which see.

    layout: "relaxed" (run-time tensors may be duplicated and clipped) or "strict" (a permutation
        with padding). costs: what is minimised (machine/costs.py); behind the first memory
        interface of the spec by default.
    Raises: as `embeddings`; InputError for an unknown layout mode.
    """
    if layout not in MODES:
        raise InputError(f"layout `{layout}` is not known", hint=f"one of {', '.join(MODES)}")
    return embeddings(EmbedProblem.of(op, isa, layout, costs=costs, pins=pins), top, params)


def embeddings(problem: EmbedProblem, top: int = 1, params: Params = DEFAULT) -> list[Embedding]:
    """The best embedding under the analytic cost, then the best of other structures.

    top: how many at most; each carries other axes in other dimensions, and costs at most twice as
        much as the first. Fewer are the beginning of more.
    Returns: at least one; `cost` holds the figures of algebra.cost.figures, `proof` the status
        (OPTIMAL or FEASIBLE), objective and bound in cycles of the analytic cost, among those of
        other structures than the ones before; `least` says the same of the first.
    Raises: Infeasible, where no embedding keeps the rules; TimeLimit, where the limit ended the
        search before an answer.
    """
    if top < 1:
        raise InputError(f"top {top} asks for no embedding", hint="top 1 is the best alone")
    space = candidates(problem)
    found = search(space, params, top)
    if not found[0].picked:
        raise _none(space, found[0], params)
    return [_built(space, f, params, rank, found[0]) for rank, f in enumerate(found)]


def _built(space: Candidates, found: Found, params: Params, rank: int, first: Found) -> Embedding:
    problem = space.problem
    embedding = build(problem, problem.decisions(found.picked))
    # The model's linear objective and the cost of the layouts are counted by different code.
    claimed, counted = found.objective / UNIT, embedding.cost["objective"]
    assert math.isclose(claimed, counted, rel_tol=1e-12), f"model {claimed}, layouts {counted}"
    proof = {
        "status": found.status,
        "objective_cycles": claimed,
        "bound_cycles": found.bound / UNIT,
        "rank": rank,
        "least": {
            "status": first.status,
            "objective_cycles": first.objective / UNIT,
            "bound_cycles": first.bound / UNIT,
        },
        "memory": problem.costs.memory,
        "families": list(FAMILIES),
        "options": len(space.options),
        "options_posted": found.weighed,
        "pins": list(problem.pins.keeps),
        "seed": params.seed,
        "workers": params.workers,
        "deterministic_limit": params.deterministic_limit,
    }
    return replace(embedding, proof=proof)


def _none(space: Candidates, found: Found, params: Params) -> Infeasible | TimeLimit:
    problem = space.problem
    what = f"{problem.op.name} has no embedding in {problem.isa.name}.{problem.unit.instruction}"
    where = problem.op.formula()
    # A limit proves nothing: no reason may be told as one.
    if found.status != INFEASIBLE:
        return TimeLimit(
            f"no embedding of {problem.op.name} found within the limit",
            where=where,
            why=f"the deterministic limit of {params.deterministic_limit} ended the search",
        )
    # A block without any option is the reason; else the options exclude each other.
    have = {o.block for o in space.options}
    empty = [", ".join(b) for n, b in enumerate(problem.blocks) if n not in have]
    reasons = [f"{family}: {'; '.join(v)}" for family, v in space.rejected.items() if v]
    if problem.pins.keeps:
        reasons.append(f"pins: {', '.join(problem.pins.keeps)}")
    why = (f"axes {' and '.join(empty)} cannot be carried; " if empty else "") + " | ".join(reasons)
    hint = "try the relaxed layout" if problem.mode == "strict" else "loosen the pins"
    return Infeasible(what, where=where, why=why, hint=hint)
