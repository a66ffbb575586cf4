"""The lifted problem as data: every block's options that some answer may need.

Takes: EmbedProblem.  Leaves: `Candidates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
            found = _evaluated(rules, n, block, problem.mode, rejected)
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
