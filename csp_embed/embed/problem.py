"""What is to be embedded, where, weighed how, and what the user pins: built once for a compilation.

Takes: Operator, Isa, layout mode, Costs, Pins.  Leaves: `EmbedProblem`, which search, explanation,
Pareto sweep, reuse and certificate carry on; nobody derives its parts again.

Axes that meet in one tensor index of some operand form a *block* (an output row and its filter
row); indices of different blocks are independent, so steps and packed elements are products over
blocks. An *option* says how all axes of a block are carried. Reduced axes may be *given* to the
fused coordinate, which is a block of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from csp_embed.embed.algebra.cost import Weights, weights
from csp_embed.embed.space.digits import Carry, Decisions
from csp_embed.embed.space.rules import Rules
from csp_embed.embed.space.unit import Unit, unit_for
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.ir.union import joined
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.spec import Isa


@dataclass(frozen=True)
class Option:
    """One way to carry the axes of a block.

    lanes: dimension -> lanes used. steps: micro-op steps, trimmed. elements: operand -> packed
    elements; both are this block's factor of the whole. given: axes left to the fused coordinate.
    shape: the structure without numbers (who is carried where), by which answers are told apart.
    """

    block: int
    commuted: bool
    carries: tuple[Carry, ...]
    lanes: Mapping[str, int]
    steps: int
    elements: Mapping[str, int]
    given: frozenset[str]
    shape: tuple[object, ...]

    def dominates(self, other: Option) -> bool:
        """No more lanes, steps or elements anywhere (same block, same structure)."""
        return (
            self.steps <= other.steps
            and all(n <= other.lanes.get(d, 1) for d, n in self.lanes.items())
            and all(n <= other.elements[r] for r, n in self.elements.items())
        )


Keep = Callable[[Option], bool]


@dataclass(frozen=True)
class Pins:
    """What the user pins (pins/text.py reads it).

    keeps: pin as written -> predicate that every picked option satisfies. factors: axis or a*b ->
    lanes that a pin asks for, beyond the least ones that the search weighs. strict: some pin asks
    for a strict layout. reasons: pin -> why no option can keep it, where that is plain from the
    text. arrangers: pin -> the embedding with its lanes in the order that the pin asks for."""

    keeps: Mapping[str, Keep] = field(default_factory=dict[str, Keep])
    factors: Mapping[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    strict: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    arrangers: Mapping[str, Callable[[Embedding], Embedding]] = field(
        default_factory=dict[str, Callable[[Embedding], Embedding]]
    )

    def arrange(self, embedding: Embedding) -> Embedding:
        """The same embedding with its lanes in the order that layout pins ask for."""
        for name in self.keeps:
            if name in self.arrangers:
                embedding = self.arrangers[name](embedding)
        return embedding

    def keep(self, option: Option) -> bool:
        """Whether the option keeps every pin."""
        return all(keep(option) for keep in self.keeps.values())


NO_PINS = Pins()


@dataclass(frozen=True)
class EmbedProblem:
    """One operator on one machine. unit: the instruction that does it; mode: "relaxed" or "strict"
    layouts; costs: what is minimised; blocks: see the module's text; weights: the costs of one of
    everything that the objective counts."""

    op: Operator
    isa: Isa
    unit: Unit
    costs: Costs
    mode: str
    blocks: tuple[tuple[str, ...], ...]
    weights: Weights
    pins: Pins = NO_PINS

    @staticmethod
    def of(
        op: Operator,
        isa: Isa,
        mode: str = "relaxed",
        *,
        costs: Costs | None = None,
        pins: Pins = NO_PINS,
    ) -> EmbedProblem:
        """costs: those behind the first memory interface of the spec where none are given.

        Raises: Infeasible, where the machine has no instruction that does the operator.
        """
        unit, costs = unit_for(op, isa), costs or costs_of(isa)
        # Once: the objective is linear in these, and every builder reads them.
        one_each = weights(op, isa, unit, costs)
        return EmbedProblem(op, isa, unit, costs, mode, blocks_of(op), one_each).pinned(pins)

    def pinned(self, pins: Pins) -> EmbedProblem:
        """The same problem with other pins; some of them ask for strict layouts."""
        return replace(self, pins=pins, mode="strict" if pins.strict else self.mode)

    @property
    def commutations(self) -> tuple[bool, ...]:
        """Whether the operator's factors may play each other's operands."""
        # A single factor has nobody to change places with.
        return (False, True) if self.op.rhs is not None else (False,)

    def rules(self, commuted: bool) -> Rules:
        """What its operands allow an axis to do."""
        return Rules(self.op, self.unit, commuted, self.pins.factors, self.mode)

    def decisions(self, picked: Sequence[Option]) -> Decisions:
        """The decisions that one option per block means, in operator axis order."""
        order = {a: n for n, a in enumerate(self.op.axes)}
        carries = [c for o in picked for c in o.carries]
        return Decisions(picked[0].commuted, tuple(sorted(carries, key=lambda c: order[c.axes[0]])))


def blocks_of(op: Operator) -> tuple[tuple[str, ...], ...]:
    """Axes grouped by common tensor indices, in axis order."""
    accesses = [op.out, op.lhs, *([op.rhs] if op.rhs else [])]
    accesses += [s.access for s in op.epilogue if s.access is not None]
    together = [{a for a, _ in ix.terms} for access in accesses for ix in access.index if ix.terms]
    # Axes that no index names (extent 1, or summed for nothing) are blocks of their own.
    groups = joined([*({a} for a in op.axes), *together])
    order = {a: n for n, a in enumerate(op.axes)}
    out = [tuple(sorted(g, key=order.__getitem__)) for g in groups]
    # By first axis, so that block numbers do not depend on how sets were joined.
    return tuple(sorted(out, key=lambda g: order[g[0]]))
