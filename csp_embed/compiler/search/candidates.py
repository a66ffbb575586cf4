"""The embeddings that a compilation schedules: found, reused or pinned, and addressable.

Takes: Operator, Isa, Options.  Leaves: `Candidates`, best first under the analytic cost. Which of
them wins is decided by their schedules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.search.alike import distinct
from csp_embed.embed.certificate.reuse import reuse
from csp_embed.embed.explain.reasons import none as explain_none
from csp_embed.embed.pins.text import read_pins
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.search import embeddings
from csp_embed.errors import Infeasible, OperatorError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.spec import Isa
from csp_embed.schedule.choose import POOL

# Embeddings asked for, for each that is kept: some coverings are written in four ways.
WIDER = 4


@dataclass(frozen=True)
class Candidates:
    """Embeddings of one operator in one machine, the least analytic cost first."""

    embeddings: tuple[Embedding, ...]

    def show(self) -> str:
        """One line for each: its kind, its analytic cost in cycles, and the embedding."""
        return "\n".join(
            f"{n + 1:>3} {e.kind + (' commuted' if e.commuted else ''):<18}"
            f" {e.cost['objective']:>14,.0f}  {e.formula()}"
            for n, e in enumerate(self.embeddings)
        )

    def verify(self) -> list[str]:
        """What contradicts the statement above, in words; empty where it holds."""
        if not self.embeddings:
            return ["there is no embedding"]
        out: list[str] = []
        first = self.embeddings[0]
        for e in self.embeddings:
            # Each embedding's own statement first.
            out += [f"{e.formula()}: {text}" for text in e.verify()]
        # Proved to be least: then no later one is cheaper.
        least = first.cost["objective"]
        if first.proof.get("status") == "OPTIMAL":
            out += [
                f"{e.formula()} costs {e.cost['objective']:,.0f}, less than the first"
                for e in self.embeddings
                if e.cost["objective"] < least
            ]
        return out


def embeddings_of(
    op: Operator, machine: Isa, options: Options, costs: Costs | None = None
) -> list[Embedding]:
    """The embeddings that the options ask for, best first under the analytic cost.

    costs: those behind `options.memory`, where they are made already.
    Raises: Infeasible, InputError for pins that cannot be read.
    """
    problem = problem_of(op, machine, options, costs)
    if options.reuse is not None:
        # Applied, not searched; its cost is proved against the bound.
        return [_reused(options.reuse, problem, options.within)]
    try:
        # More than are scheduled: schedules may turn the order around. And more than are kept: many
        # are one covering, written in several ways.
        most = max(POOL, options.top)
        found = distinct(embeddings(problem, WIDER * most))[:most]
    except Infeasible as error:
        # Why there is none is found by other searches, only when asked.
        explanation = explain_none(op, machine, options.layout, options.pins)
        raise explanation.error(op, machine) from error
    # Pins may say how tensors lie, which no search decides.
    return [problem.pins.arrange(e) for e in found]


def problem_of(
    op: Operator, machine: Isa, options: Options, costs: Costs | None = None
) -> EmbedProblem:
    """The embedding problem that the options pose; costs: see `embeddings_of`.

    Raises: Infeasible, where the machine lacks the operation; InputError for unreadable pins.
    """
    # Costs are derived once where the caller has them.
    costs = costs or costs_of(machine, options.memory or "")
    problem = EmbedProblem.of(op, machine, options.layout, costs=costs)
    return problem.pinned(read_pins(problem, options.pins))


def _reused(embedding: Embedding, problem: EmbedProblem, within: float) -> Embedding:
    """The embedding for the shape of the problem. Raises: Infeasible, where it does not fit or
    costs more than `within` over what is proved to be least."""
    op, found = problem.op, reuse(embedding, problem, within=within)
    hint = "compile without reuse"
    if found is None:
        raise Infeasible(
            # None: a rule of the embedding fails at the new extents.
            f"the embedding cannot be reused for {op.name}",
            where=op.formula(),
            why=f"its structure breaks a rule there: {embedding.formula()}",
            hint=hint,
        )
    if found.gap > within:
        raise Infeasible(
            f"the reused embedding costs {found.gap:.2%} more than the least there",
            where=op.formula(),
            why=f"{within:.2%} is allowed; {found.cost:,.0f} cycles against {found.bound:,.0f}",
            # Rounded up, so that the hint works when it is pasted.
            hint=f"allow more (--within {math.ceil(1000 * found.gap) / 1000}), or {hint}",
        )
    return found.embedding


def addressable(found: tuple[Embedding, ...], isa: Isa) -> list[Embedding]:
    """Those whose packed operands the machine can address; empty where none is."""
    # A quick bound before anything is scheduled; addresses are exact later.
    limit = 1 << isa.limits.dram_bits
    return [e for e in found if device_bytes(e, isa) < limit]


def not_addressable(found: tuple[Embedding, ...], isa: Isa) -> OperatorError:
    """Why `addressable` leaves none."""
    op = found[0].operator
    return OperatorError(
        f"{op.name} needs {min(device_bytes(e, isa) for e in found):,} bytes of device memory",
        why=f"{isa.name} addresses {1 << isa.limits.dram_bits:,}",
        hint="split the operator into smaller ones",
    )


def device_bytes(embedding: Embedding, isa: Isa) -> int:
    """Bytes of all packed operands and the result."""
    return sum(v.elements * isa.memory(v.memory).elem_bytes for v in embedding.layouts.values())


def host_bytes(embedding: Embedding, isa: Isa) -> int:
    """Bytes of activations that the host packs per run."""
    op = embedding.operator
    return sum(
        layout.elements * isa.memory(layout.memory).elem_bytes
        for name, layout in embedding.layouts.items()
        # Constants are packed once; what counts is the work of every run.
        if name != "dst" and not op.tensors[layout.tensor].constant
    )
