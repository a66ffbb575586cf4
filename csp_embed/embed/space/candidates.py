"""The lifted problem as data: every block's options that some answer may need.

Takes: EmbedProblem.  Leaves: `Candidates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from csp_embed.embed.algebra.grid import STRICT
from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.problem import EmbedProblem, Option, Pins
from csp_embed.embed.space.digits import Carry
from csp_embed.embed.space.evaluate import Measure, measure, measure_fused, operands
from csp_embed.embed.space.options import block_options, lanes_of, structure
from csp_embed.embed.space.reduced import fused_options
from csp_embed.embed.space.rules import Rules


@dataclass(frozen=True)
class Candidates:
    """options: of every block; the last block is the fused coordinate (its option without axes
    fuses nothing). rejected: family -> options that it removed, with one reason each."""

    problem: EmbedProblem
    options: tuple[Option, ...]
    rejected: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])


def candidates(problem: EmbedProblem) -> Candidates:
    """The options of every block.

    Options that another of the same structure dominates are left out: no answer needs them. What
    breaks a pin is left out before that.
    """
    options: list[Option] = []
    rejected: dict[str, list[str]] = {}
    # Pins before dominance: an option that a pin forbids must not drive out one that it allows.
    pins = problem.pins
    for commuted in problem.commutations:
        rules = problem.rules(commuted)
        for n, block in enumerate(problem.blocks):
            found, refused = _evaluated(_Block(_reads(rules, n, block), rules, n, block))
            for reject in refused:
                _note(rejected, reject)
            # Within a block and a structure alone: across structures the rules may combine
            # differently with other blocks.
            options += _undominated(_kept(found, pins, rejected))
        fused = _fused(rules, len(problem.blocks), problem.mode, rejected)
        options += _kept(fused, pins, rejected)
    return Candidates(problem, tuple(options), rejected)


def _kept(
    options: Iterable[Option], pins: Pins, rejected: dict[str, list[str]]
) -> Iterator[Option]:
    for option in options:
        broken = [name for name, keep in pins.keeps.items() if not keep(option)]
        for name in broken:
            # An empty entry still counts: an infeasible answer names the pins that took something
            # away.
            rejected.setdefault(f"pin {name}", [])
        if not broken:
            yield option


@dataclass(frozen=True)
class _Block:
    """Axes of a block and its number, with the rules that they keep. key: all of those that its
    options depend on, so that layers of a network, and pins, share what is found of a block."""

    key: tuple[object, ...]
    rules: Rules = field(compare=False)
    number: int = field(compare=False)
    axes: tuple[str, ...] = field(compare=False)


def _reads(rules: Rules, number: int, block: tuple[str, ...]) -> tuple[object, ...]:
    """Of the operator, its machine and the pins, what the options of a block are made from."""
    op, unit = rules.op, rules.unit
    own, first = set(block), block[0] == next(iter(op.axes))
    accesses: list[tuple[object, ...]] = []
    for role, access in operands(rules).items():
        tensor = op.tensors[access.tensor]
        # Other blocks' extents of a tensor decide nothing here.
        shape = [
            n for n, ix in zip(tensor.shape, access.index, strict=True)
            if own & {a for a, _ in ix.terms} or (first and not ix.terms)
        ]  # fmt: skip
        accesses.append((role, str(access), tensor.constant, tuple(shape)))
    return (
        number, block, first, rules.commuted, rules.strict, len(rules.reduced),
        str((unit.kind, unit.dims, unit.memory, unit.size)), tuple(accesses),
        tuple((op.axes[a], a in rules.reduced) for a in block),
        tuple((a, frozenset(rules.pinned.get(a, ()))) for a in block),
    )  # fmt: skip


@lru_cache(maxsize=512)
def _evaluated(block: _Block) -> tuple[tuple[Option, ...], tuple[Reject, ...]]:
    """The options of a block, and what refused the others."""
    options: list[Option] = []
    refused: dict[tuple[str, str], Reject] = {}
    rules, mode = block.rules, STRICT if block.rules.strict else "relaxed"
    for carries, given in block_options(rules, block.axes):
        try:
            found = measure(rules, block.axes, carries, given, mode)
        except Reject as reject:
            refused.setdefault((reject.family, reject.why), reject)
            continue
        options.append(_option(rules, block.number, carries, given, found))
    return tuple(options), tuple(refused.values())


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
    # The same reason comes from thousands of options; one of each is what people read.
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
        # `given` belongs to the key: the fused coordinate needs exactly these axes from this block.
        rivals = kept.setdefault((option.shape, option.given), [])
        if any(r.dominates(option) for r in rivals):
            continue
        # Both ways, so that the order in which options come decides nothing but their order.
        rivals[:] = [r for r in rivals if not option.dominates(r)] + [option]
    return [o for rivals in kept.values() for o in rivals]
