"""Names of digits are made in one place and never read apart: what they stand for is typed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from cases import CASES

from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.certificate.reuse import decisions_of, reuse
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.search import embeddings
from csp_embed.embed.space.candidates import candidates
from csp_embed.embed.space.digits import LOOP, Part, Place, expand, parts_of
from csp_embed.embed.space.options import lanes_of
from csp_embed.machine.load import load_isa

ROWS = ["matmul ragged", "conv2d stem", "conv1d dilated", "depthwise", "transposed", "max pool"]


@pytest.mark.parametrize("row", ROWS)
def test_decisions_come_back_from_every_option_of_a_block(row: str) -> None:
    """The inverse of `expand`, on block options of all kinds, loops and skews included."""
    problem = EmbedProblem.of(CASES[row](), load_isa("vta"))
    blocks: dict[int, list] = {}
    for option in candidates(problem).options:
        if not option.given and not option.commuted:
            blocks.setdefault(option.block, []).append(option)
    first = [options[0] for n, options in sorted(blocks.items()) if n < len(problem.blocks)]
    tried = 0
    for n, options in itertools.islice(sorted(blocks.items()), len(problem.blocks)):
        for option in options[:40]:
            picked = [*first[:n], option, *first[n + 1 :]]
            used = lanes_of([c for o in picked for c in o.carries])
            if any(used.get(d, 1) > size for d, size in problem.unit.size.items()):
                continue
            decisions = problem.decisions(picked)
            made = expand(problem.op, decisions)
            embedding = replace(
                embeddings_of_row(row),
                digits=made.digits, counters=made.counters,
                coordinates=made.coordinates, equal=made.equal,
            )  # fmt: skip
            assert expand(problem.op, decisions_of(embedding)) == made
            assert {p.place for p in parts_of(embedding).values()} <= set(Place)
            tried += 1
    assert tried > 5


def embeddings_of_row(row: str):
    if row not in _MADE:
        _MADE[row] = embeddings(EmbedProblem.of(CASES[row](), load_isa("vta")))[0]
    return _MADE[row]


_MADE: dict = {}


def test_parts_say_what_names_stand_for() -> None:
    found = embeddings_of_row("conv2d stem")
    parts = parts_of(found)
    assert {d.name for d in found.digits} <= set(parts)
    for digit in found.digits:
        assert parts[digit.name].dim == digit.dim
        assert any(parts[digit.name].axes == c.axes for c in found.coordinates)
    assert all(p.dim == LOOP for n, p in parts.items() if n in {c.name for c in found.counters})


def test_a_digit_of_another_hand_is_no_decision() -> None:
    """A certificate's names are data: one that no decision makes refuses, and does not crash."""
    found = embeddings_of_row("matmul ragged")
    odd = replace(found.digits[0], name="mine")
    strange = replace(found, digits=(odd, *found.digits[1:]))
    with pytest.raises(Reject, match="mine: no digit of the lifted model"):
        decisions_of(strange)
    assert reuse(strange, EmbedProblem.of(CASES["matmul ragged"](), load_isa("vta"))) is None


def test_a_part_is_told_by_its_place() -> None:
    assert Part(("k",), "o") != Part(("k",), "o", Place.OUTER)
