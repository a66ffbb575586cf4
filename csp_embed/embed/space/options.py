"""Every way to carry one block's axes that keeps the rules: the domain of the lifted model.

Takes: Operator, Unit, block.  Leaves: tuples of carries, not yet evaluated (see evaluate.py).

This is a subset of the complete space (tests/oracles/complete.py: all affine maps). What is left
out, and why it never costs less ("steps" and "elements" are what the cost counts):
- Factors that are not the least for their number of steps (9 of 16 lanes for 18 channels in two
  steps): more lanes are pad. Where a tensor is held whole (strict), those that are least for its
  blocks count too.
- Offsets and reversed digits: renaming an axis' values moves its pad to another end. Values that
  no point has (dead taps) are not enumerated (`digits.live`). In a window the pad of lanes may
  cost less in front, where blocks then begin early (`Carry.early`).
- Other numerations (a digit outside its counter, several counters, digits in another order) of an
  axis that shares no tensor index with another: a permutation of its values changes neither steps
  nor elements. In a window an output axis may have outer digits, and an inner counter that the
  window absorbs (`Rules.beats`).
- Shears: a digit that moves two axes which no operand adds up makes some elements stand for fewer
  values. Those that an operand adds up are skews, by one digit or by a whole axis of few outputs
  (`Rules.shears`).
- Outer digits of a reduced axis without such an offset: seen to cost at most 0.1 %.
- A diagonal of two result dimensions for an axis that either could carry alone.
- Diagonals and fusions with several digits, and several fusions: rarely cheaper, by a few elements.
tests/unit/ground/test_ground_lifted.py and scripts/bench_complete compare least costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

from csp_embed.embed.space.digits import LOOP, Carry, inner_scale
from csp_embed.embed.space.outputs import output_ways
from csp_embed.embed.space.reduced import offset_ways, reduced_ways
from csp_embed.embed.space.rules import Rules, Skew
from csp_embed.embed.space.unit import Unit

T = TypeVar("T")


def block_options(
    rules: Rules, block: Sequence[str]
) -> Iterator[tuple[tuple[Carry, ...], frozenset[str]]]:
    """Carries of all axes of a block but the given ones, and those."""
    outs = [a for a in block if a not in rules.reduced]
    reds = [a for a in block if a in rules.reduced]
    # Coupled: the block has a window. Elsewhere outer digits only permute values (see above).
    ways = [list(output_ways(rules, a, len(block) > 1)) for a in outs]
    for halves in _fitting(rules.unit, ways, lambda half: [half.carry], []):
        needs: dict[str, list[tuple[str, str, int, Skew, Fraction]]] = {}
        for axis, half in zip(outs, halves, strict=True):
            weight = inner_scale(half.carry)
            for dim, factor, skew in half.skews:
                coef = weight[dim] * skew.multiplier
                needs.setdefault(skew.reduced, []).append((axis, dim, factor, skew, coef))
        shears = {h.shear[0]: (a, h.shear[1]) for a, h in zip(outs, halves, strict=True) if h.shear}
        # One offset for each output is one axis' doing.
        if len(shears) < sum(h.shear is not None for h in halves) or shears.keys() & needs.keys():
            continue
        # Multipliers may be fractions (stride 2 over dilation 3); whole only where lanes are far
        # enough apart.
        if any(c.denominator > 1 for need in needs.values() for *_, c in need):
            continue  # a lane would stand between two taps
        carried = [h.carry for h in halves]
        # Loops alone gain nothing by offsets: they make the same steps in a worse order.
        laned = {c.axes[0] for c in carried if c.inner or c.outer or c.diagonal}
        choices = [
            list(offset_ways(rules, a, *shears[a], shears[a][0] in laned) if a in shears
                 else reduced_ways(rules, a, needs.get(a, [])))
            for a in reds
        ]  # fmt: skip
        # Reduced axes see what the outputs have taken of each dimension, and what these need of
        # them.
        for picked in _fitting(rules.unit, choices, lambda c: [c] if c else [], carried):
            given = frozenset(a for a, c in zip(reds, picked, strict=True) if c is None)
            yield tuple([*carried, *(c for c in picked if c is not None)]), given


def _fitting(
    unit: Unit,
    choices: Sequence[Sequence[T]],
    carries: Callable[[T], list[Carry]],
    taken: list[Carry],
) -> Iterator[tuple[T, ...]]:
    """Tuples of the product of `choices` whose digits fit with those taken; pruned early."""
    if not choices:
        yield ()
        return
    # Depth first with a check at every level: most prefixes are too wide already, and the product
    # never gets enumerated.
    for first in choices[0]:
        so_far = [*taken, *carries(first)]
        if _fits(unit, so_far):
            for rest in _fitting(unit, choices[1:], carries, so_far):
                yield (first, *rest)


def _fits(unit: Unit, carries: Sequence[Carry]) -> bool:
    used = lanes_of(carries)
    return all(used.get(d, 1) <= n for d, n in unit.size.items())


def lanes_of(carries: Sequence[Carry]) -> dict[str, int]:
    """Dimension -> product of the digits on it."""
    used: dict[str, int] = {}
    for c in carries:
        for dim, extent in (*c.inner, *c.outer):
            if dim != LOOP:
                used[dim] = used.get(dim, 1) * extent
        if c.diagonal:
            for dim in c.diagonal[:2]:
                used[dim] = used.get(dim, 1) * c.diagonal[2]
    return used


def structure(carries: Sequence[Carry]) -> tuple[object, ...]:
    """Who is carried where, without factors and without the order of digit and counter."""
    out: list[object] = []
    for c in carries:
        dims = tuple(sorted(d for d, _ in (*c.inner, *c.outer)))
        # Carries that do nothing are left out, so that options differ only where it matters.
        if dims or c.diagonal or c.skew or len(c.axes) > 1:
            out.append((c.axes, dims, c.diagonal[:2] if c.diagonal else (), c.skew))
    return tuple(out)
