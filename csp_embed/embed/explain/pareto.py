"""The non-dominated embeddings of an operator, over five criteria; complete for the lifted model.

Takes: EmbedProblem.  Leaves: `Front`.

Criteria, all to be small:
    cycles        the analytic cost without its host term: max(compute, read, write) + 1/32 of their
                  sum (the members' scheduled cycles come from the driver)
    input_bytes   packed bytes of run-time operands, per run
    host_bytes    bytes that packing them moves: tensor elements read, packed bytes written
    weight_bytes  packed bytes of constants
    zero_fill     bytes of packed factors that hold no tensor element
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.cost import UNIT, elementwise, objective, parts
from csp_embed.embed.build import build
from csp_embed.embed.explain.pareto_space import Space, Swept, front, space_of, sweep
from csp_embed.embed.problem import EmbedProblem
from csp_embed.errors import Infeasible
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import FACTORS

CRITERIA = ("cycles", "input_bytes", "host_bytes", "weight_bytes", "zero_fill")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Member:
    """criteria: by name, see CRITERIA. scheduled: cycles by the cycle engine, where computed."""

    embedding: Embedding
    criteria: Mapping[str, float]
    scheduled: float | None = None


@dataclass(frozen=True)
class Front:
    """members: fewest analytic cycles first, one for each vector of criteria. complete: proved,
    no embedding of the lifted model is better than a member in one criterion and nowhere worse.
    weighed: options of all blocks that were swept."""

    members: tuple[Member, ...]
    complete: bool
    weighed: int

    @property
    def status(self) -> str:
        """In words."""
        if self.complete:
            return "complete: every embedding of the lifted model was weighed"
        return "incomplete: the sweep was cut at its limit; members are right, others may miss"


def pareto(problem: EmbedProblem) -> Front:
    """Raises: Infeasible, where no embedding keeps the mode and the pins."""
    op, isa, space = problem.op, problem.isa, space_of(problem)
    swept = sweep(space)
    if not swept.answers:
        raise Infeasible(
            f"{op.name} has no embedding in {isa.name} that keeps the layout and the pins",
            where=op.formula(), hint="csp-embed explain names what is in conflict",
        )  # fmt: skip
    table = criteria(space, swept)
    # Lexical order of all criteria; `front` keeps the first of equal rows.
    order = np.lexsort(table.T[::-1])
    kept = order[front(table[order])]
    members: list[Member] = []
    for n in kept:
        embedding = build(problem, problem.decisions(swept.answers[int(n)]))
        # No rank and no bound: a sweep has no single objective.
        proof = {"status": "OPTIMAL" if swept.complete else "FEASIBLE", "rank": 0,
                 "objective_cycles": embedding.cost["objective"], "bound_cycles": 0.0,
                 "families": ["sweep"], "options": len(space.entries)}  # fmt: skip
        values = {name: float(v) for name, v in zip(CRITERIA, table[n], strict=True)}
        members.append(Member(replace(embedding, proof=proof), values))
    return Front(tuple(members), swept.complete, len(space.entries))


def criteria(space: Space, swept: Swept) -> Floats:
    """[answer, criterion]."""
    isa, unit, w = space.problem.isa, space.problem.unit, space.problem.weights
    column = dict(zip(swept.columns, swept.values.T, strict=True))
    # No host term here: host bytes are a criterion of their own.
    compute, read, write, _ = parts(w, column["steps"], column, False)
    cycles = objective(compute, read, write, 0, slowest=elementwise) / UNIT
    commuted = np.array([picked[0].commuted for picked in swept.answers])
    zero = np.zeros(len(cycles))
    out = dict.fromkeys(CRITERIA, zero) | {"cycles": cycles}
    for role in w.read:
        packed = w.packed[role] * column[role]
        # Commuting exchanges the operands, and with them which of the two is a constant.
        run_time = np.where(commuted, w.host(role, True) > 0, w.host(role, False) > 0)
        # Run-time operands are packed every run, constants once.
        out["input_bytes"] = out["input_bytes"] + np.where(run_time, packed, 0)
        out["weight_bytes"] = out["weight_bytes"] + np.where(run_time, 0, packed)
        filled = packed  # what is added in the epilogue is copied whole
        if role in FACTORS:
            memory = unit.memory[role]
            # Bytes of one lane: packed bytes of an element over its lanes.
            lane_bytes = w.packed[role] / math.prod(isa.lane_shape(memory))
            filled = column[f"filled {role}"] * lane_bytes
            out["zero_fill"] = out["zero_fill"] + packed - filled
        # Packing reads what is there and writes the whole.
        out["host_bytes"] = out["host_bytes"] + np.where(run_time, packed + filled, 0)
    return np.stack([out[name] for name in CRITERIA], axis=1)
