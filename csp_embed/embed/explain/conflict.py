"""Which families and pins contradict each other: a minimal set, by assumption literals.

Takes: EmbedProblem, Pins.  Leaves: names, minimal by deletion.

The lifted model leaves out what breaks operand agreement before it is posted. Here such ways of
carrying an axis are candidates too, each barred by the literal of the rule that it breaks, so that
the conflict can name the rule. Factors are few: the least, and those that pins ask for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.explain.pareto_space import space_of
from csp_embed.embed.model.constraints import cover, lanes, roles
from csp_embed.embed.model.variables import Vars
from csp_embed.embed.problem import EmbedProblem, Option, Pins
from csp_embed.embed.space.digits import Carry
from csp_embed.embed.space.evaluate import measure, measure_fused
from csp_embed.embed.space.options import lanes_of, structure
from csp_embed.embed.space.rules import Rules
from csp_embed.ir.operator import Role
from csp_embed.solver.cpsat import new_model
from csp_embed.solver.enumerate import conflict as core_of
from csp_embed.solver.params import Params

RULES = {
    "cover": "every operator point is met exactly once",
    "roles": "the operator's factors play the same operands everywhere",
    "lanes": "the digits of a dimension fit into its lanes",
    "operand agreement": "lanes that share an operand element need the same tensor element",
    "one home per output": "a sum is not split over lanes, and different outputs share no lane",
    "operation kind": "the machine has the operation",
}
STRICT = "strict layout"
# Deterministic units: the same answer on every machine.
_LIMIT = Params(seed=0, workers=1, deterministic_limit=10.0)
_MOST_LOOSE = 4000

Candidate = tuple[Option, frozenset[str]]


def conflict(problem: EmbedProblem, pins: Pins) -> list[str]:
    """Names of RULES, "strict layout", and pins as written. Empty where there is no conflict.

    problem: without the pins, in the layout mode that was asked for."""
    mode, blocks = problem.mode, problem.blocks
    strictness = {n for n in pins.keeps if n.startswith("layout ") and pins.strict}
    strictness |= {STRICT} if mode == "strict" else set()
    found: list[Candidate] = []
    # Nothing is barred by pins or layout yet: options that break them are gated below.
    # Sizes that pins ask for stay on offer, or the pins would contradict each other for lack of
    # them.
    # "relaxed": no option is left out for its layout; strictness is one of the names.
    free = replace(problem, mode="relaxed", pins=Pins(factors=pins.factors))
    space = space_of(free, count_filled=False)
    for entry in space.entries:
        broken = _strictly(problem, entry.option, strictness)
        found.append((entry.option, broken | _pins(pins, entry.option)))
    # And what breaks the rules of operands, so that these can be named.
    for commuted in problem.commutations:
        rules = Rules(problem.op, problem.unit, commuted, pins.factors)
        for n, block in enumerate(blocks):
            for option, broken in _loose(rules, n, block):
                found.append((option, broken | strictness | _pins(pins, option)))
    # Thousands of options, of which the dominated ones explain nothing.
    found = _least(found)
    options = tuple(o for o, _ in found)
    model = new_model()
    pairs = [(model.new_bool_var(f"x{n}"), o) for n, o in enumerate(options)]
    # explain: every family gets an assumption literal, which the core names.
    vars = Vars(pairs, model.new_bool_var("commuted"), explain=True)
    for family in (cover, roles, lanes):
        family.post(model, vars, problem)
    # Barred by a literal each, so that the core can name the rule or pin that bars it.
    for (v, _), (_, broken) in zip(pairs, found, strict=True):
        for name in sorted(broken):
            vars.gated(model, name, model.add(v == 0))
    # Wishes go first where several sets would do: rules are not negotiable.
    # CP-SAT's core keeps those that come first among equals.
    order = sorted(vars.gates, key=lambda n: (n not in RULES, n))
    _, names = core_of(model, {n: vars.gates[n] for n in order}, _LIMIT)
    return names


def _pins(pins: Pins, option: Option) -> frozenset[str]:
    # A pin is named where it would throw this option out.
    return frozenset(name for name, keep in pins.keeps.items() if not keep(option))


def _strictly(problem: EmbedProblem, option: Option, names: set[str]) -> frozenset[str]:
    """The names that ask for a strict layout, if this option does not keep one."""
    if not names:
        return frozenset()
    # Without sizes of pins: those are a matter of their own.
    rules = Rules(problem.op, problem.unit, option.commuted)
    try:
        if option.block < len(problem.blocks):
            # Measured in strict mode: it raises where the layout is not kept.
            block = problem.blocks[option.block]
            measure(rules, block, option.carries, option.given, "strict")
        elif option.carries:
            measure_fused(rules, option.carries[0], "strict")
    except Reject:
        return frozenset(names)
    return frozenset()


def _loose(rules: Rules, n: int, block: Sequence[str]) -> Iterator[Candidate]:
    """Ways to carry a block that break operand agreement or the one home of an output."""
    ways: list[list[tuple[Carry, frozenset[str]]]] = []
    for axis in block:
        own: list[tuple[Carry, frozenset[str]]] = [(Carry((axis,)), frozenset())]
        extent = rules.op.axes[axis]
        for dim, size in rules.unit.size.items():
            # Factors that pins ask for must be there, or the pin alone would be in the way.
            wanted = {f for f in rules.pinned.get(axis, ()) if 1 < f <= min(extent, size)}
            # A factor of 2 breaks the same rules as any larger one.
            for factor in sorted({min(2, extent, size), *wanted} - {1}):
                own.append((Carry((axis,), ((dim, factor),)), _broken(rules, axis, dim)))
        ways.append(own)
    # Few ways per axis show the same conflicts.
    if math.prod(len(w) for w in ways) > _MOST_LOOSE:
        ways = [w[:3] for w in ways]
    for picked in itertools.product(*ways):
        broken = frozenset[str]().union(*(b for _, b in picked))
        # What breaks nothing is among the regular options already.
        if broken:
            carries = tuple(c for c, _ in picked)
            yield Option(n, rules.commuted, carries, lanes_of(carries), 1, {}, frozenset(),
                         structure(carries)), broken  # fmt: skip


def _broken(rules: Rules, axis: str, dim: str) -> frozenset[str]:
    out: set[str] = set()
    # Sums over lanes that keep outputs apart, or outputs over lanes that add up.
    if (axis in rules.reduced) != (dim in rules.unit.reduced):
        out.add("one home per output")
    # The axis moves operands that lack the dimension: all its lanes share one of their elements.
    if rules.moved[axis] & set(rules.unit.lacking(dim)) - {Role.DST}:
        out.add("operand agreement")
    return frozenset(out)


def _least(found: Sequence[Candidate]) -> list[Candidate]:
    """Per block and what is given, those that no other beats in lanes and in broken names."""
    groups: dict[tuple[object, ...], list[Candidate]] = {}
    for option, broken in found:
        kept = groups.setdefault((option.block, option.commuted, option.given), [])
        if any(_beats(c, (option, broken)) for c in kept):
            continue
        kept[:] = [c for c in kept if not _beats((option, broken), c)] + [(option, broken)]
    return [c for kept in groups.values() for c in kept]


def _beats(a: Candidate, b: Candidate) -> bool:
    # Fewer lanes are easier to keep, and fewer broken names blame less.
    lanes = all(n <= b[0].lanes.get(d, 1) for d, n in a[0].lanes.items())
    return lanes and a[1] <= b[1]
