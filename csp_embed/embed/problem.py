"""The lifted embedding problem as data: blocks, their options, what each option costs.

Takes: Operator, Isa, layout mode.  Leaves: `Problem`.

Axes that meet in one tensor index of some operand form a *block* (an output row and its filter
row); indices of different blocks are independent, so steps and packed elements are products over
blocks. An *option* says how all axes of a block are carried. Reduced axes may be *given* to the
fused coordinate, which is a block of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.space.digits import Carry
from csp_embed.embed.space.evaluate import Measure, measure, measure_fused, operands
from csp_embed.embed.space.options import Rules, block_options, fused_options, lanes_of, structure
from csp_embed.embed.space.unit import Unit, unit_for
from csp_embed.ir.operator import Operator
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


@dataclass(frozen=True)
class Problem:
    """options: of every block; the last block is the fused coordinate (its option without axes
    fuses nothing). rejected: family -> options that it removed, with one reason each.
    pins: what the user pins, as predicates that every picked option satisfies."""

    op: Operator
    isa: Isa
    unit: Unit
    mode: str
    blocks: tuple[tuple[str, ...], ...]
    options: tuple[Option, ...]
    costs: Costs
    rejected: Mapping[str, list[str]] = field(default_factory=dict)
    pins: Mapping[str, Callable[[Option], bool]] = field(default_factory=dict)


def blocks_of(op: Operator) -> tuple[tuple[str, ...], ...]:
    """Axes grouped by common tensor indices, in axis order."""
    accesses = [op.out, op.lhs, *([op.rhs] if op.rhs else [])]
    accesses += [s.access for s in op.epilogue if s.access is not None]
    groups: list[set[str]] = [{a} for a in op.axes]
    for access in accesses:
        for ix in access.index:
            touched = {a for a, _ in ix.terms}
            joined = set().union(*(g for g in groups if g & touched)) if touched else set()
            if joined:
                groups = [g for g in groups if not g & touched] + [joined]
    order = {a: n for n, a in enumerate(op.axes)}
    out = [tuple(sorted(g, key=order.__getitem__)) for g in groups]
    return tuple(sorted(out, key=lambda g: order[g[0]]))


def pose(
    op: Operator,
    isa: Isa,
    mode: str = "relaxed",
    *,
    pins: Mapping[str, Callable[[Option], bool]] | None = None,
    factors: Mapping[str, Iterable[int]] | None = None,
    costs: Costs | None = None,
) -> Problem:
    """The lifted problem of embedding `op` in the machine's instruction of its kind.

    Options that another of the same structure dominates are left out: no answer needs them. What
    breaks a pin is left out before that. factors: axis -> lanes that pins ask for. costs: those
    behind the first memory interface of the spec where none are given.
    Raises: Infeasible, where the machine has no such instruction.
    """
    unit = unit_for(op, isa)
    blocks, keeps = blocks_of(op), dict(pins or {})
    options: list[Option] = []
    rejected: dict[str, list[str]] = {}
    for commuted in (False, True) if op.rhs is not None else (False,):
        rules = Rules(op, unit, commuted, factors, every=bool(keeps), mode=mode)
        for n, block in enumerate(blocks):
            found = _evaluated(rules, n, block, mode, rejected)
            options += _undominated(_kept(found, keeps, rejected))
        options += _kept(_fused(rules, len(blocks), mode, rejected), keeps, rejected)
    weighed = costs or costs_of(isa)
    return Problem(op, isa, unit, mode, blocks, tuple(options), weighed, rejected, keeps)


def _kept(
    options: Iterable[Option],
    keeps: Mapping[str, Callable[[Option], bool]],
    rejected: dict[str, list[str]],
) -> Iterator[Option]:
    for option in options:
        broken = [name for name, keep in keeps.items() if not keep(option)]
        for name in broken:
            rejected.setdefault(f"pin {name}", [])
        if not broken:
            yield option


def _evaluated(
    rules: Rules, n: int, block: Sequence[str], mode: str, rejected: dict[str, list[str]]
) -> Iterator[Option]:
    for carries, given in block_options(rules, block):
        try:
            found = measure(rules, block, carries, given, mode)
        except Reject as reject:
            _note(rejected, reject)
            continue
        yield _option(rules, n, carries, given, found)


def _fused(rules: Rules, n: int, mode: str, rejected: dict[str, list[str]]) -> Iterator[Option]:
    for carry in fused_options(rules):
        carries = () if carry is None else (carry,)
        try:
            found = measure_fused(rules, carry, mode) if carry else _nothing(rules)
        except Reject as reject:
            _note(rejected, reject)
            continue
        given = frozenset(carry.axes if carry else ())
        yield _option(rules, n, carries, given, found)


def _nothing(rules: Rules) -> Measure:
    return Measure(1, dict.fromkeys(operands(rules), 1))


def _note(rejected: dict[str, list[str]], reject: Reject) -> None:
    reasons = rejected.setdefault(reject.family, [])
    if reject.why not in reasons:
        reasons.append(reject.why)


def _option(
    rules: Rules, n: int, carries: tuple[Carry, ...], given: frozenset[str], found: Measure
) -> Option:
    return Option(
        block=n,
        commuted=rules.commuted,
        carries=carries,
        lanes=lanes_of(carries),
        steps=found.steps,
        elements=found.elements,
        given=given,
        shape=structure(carries),
    )


def _undominated(options: Iterable[Option]) -> list[Option]:
    """The options that no other of the same structure dominates, in order."""
    kept: dict[tuple[object, ...], list[Option]] = {}
    for option in options:
        rivals = kept.setdefault((option.shape, option.given), [])
        if any(r.dominates(option) for r in rivals):
            continue
        rivals[:] = [r for r in rivals if not option.dominates(r)] + [option]
    return [o for rivals in kept.values() for o in rivals]
