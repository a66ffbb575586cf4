"""Why this embedding, and why none: costs of the best alternatives by kind, conflicts, relaxations.

Takes: Operator, Isa, layout mode, pins.  Leaves: `by_kind`, the best embedding of each kind, proved
by sweeping all answers; `none`, an `Explanation` of an infeasible problem.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from csp_embed.embed.build import build, kind_of
from csp_embed.embed.explain.conflict import RULES, conflict
from csp_embed.embed.explain.pareto_space import space_of, sweep
from csp_embed.embed.model.greedy import cost_of
from csp_embed.embed.pins.layouts import layout_pin
from csp_embed.embed.pins.text import read_pins
from csp_embed.embed.problem import EmbedProblem, Option
from csp_embed.embed.space.unit import unit_for
from csp_embed.errors import CspEmbedError, Infeasible
from csp_embed.ir.affine import Affine
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator, Tensor
from csp_embed.machine.spec import Isa

STRICT = "strict layout"


def by_kind(problem: EmbedProblem) -> list[Embedding]:
    """The embedding of least analytic cost of every kind, straight and commuted; cheapest first.

    Complete for the lifted model: no cheaper one of its kind exists. Empty where there is none.
    """
    space = space_of(problem, count_filled=False)
    best: dict[tuple[str, bool], tuple[int, tuple[Option, ...]]] = {}
    for picked in sweep(space, kinds=True).answers:
        # Best of each kind, straight and commuted apart: which is which matters to people.
        key = (kind_of(problem.decisions(picked)), picked[0].commuted)
        cost = cost_of(problem, picked)
        if key not in best or cost < best[key][0]:
            best[key] = (cost, picked)
    ranked = sorted(best.values(), key=lambda v: v[0])
    pins = problem.pins
    return [pins.arrange(build(problem, problem.decisions(picked))) for _, picked in ranked]


def because(chosen: Embedding, other: Embedding) -> str:
    """What an alternative costs more, in words: the greatest factors first."""
    words: list[tuple[float, str]] = []
    for name, label in (
        ("compute_cycles", "compute"), ("read_cycles", "reading"), ("write_cycles", "writing"),
        ("host_bytes", "host bytes"),
    ):  # fmt: skip
        mine, theirs = chosen.cost[name], other.cost[name]
        # Half a per cent is no reason.
        if theirs > 1.005 * mine:
            # From nothing to something there is no factor.
            words.append((theirs / mine if mine else math.inf, f"{label} x{theirs / mine:.2f}"
                          if mine else f"{label} {theirs:,.0f}"))  # fmt: skip
    words.sort(key=lambda w: -w[0])
    return ", ".join(text for _, text in words) or "no part costs more"


@dataclass(frozen=True)
class Explanation:
    """Why no embedding exists. conflict: names of families and pins, minimal: without any one of
    them there is an embedding. reasons: name -> why, in words. relaxations: single changes (or
    pairs, where no single one helps), each of which makes the problem feasible. proved: the sweep
    of all answers found none either."""

    conflict: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    relaxations: tuple[str, ...] = ()
    proved: bool = True

    @property
    def why(self) -> str:
        """One line."""
        # Wishes can be given up, rules cannot: they are told apart.
        pins = [n for n in self.conflict if n not in RULES]
        # "cover" and "roles" are what an embedding is: they explain nothing.
        rules = [n for n in self.conflict if n in RULES and n not in ("cover", "roles")]
        text = " and ".join(pins + rules) or "the rules alone"
        said = [self.reasons[n] for n in pins if n in self.reasons]
        said += [self.reasons.get(n, f"{n}: {RULES[n]}") for n in rules]
        verb = "contradict each other" if len(pins + rules) > 1 else "cannot be kept"
        return f"{text} {verb}" + (f" ({'; '.join(said)})" if said else "")

    def error(self, op: Operator, isa: Isa) -> Infeasible:
        """As an error with exit code 3."""
        wishes = [n for n in self.conflict if n not in RULES]
        kept = f" that keeps {' and '.join(wishes)}" if wishes else ""
        return Infeasible(
            f"{op.name} has no embedding in {isa.name}{kept}", where=op.formula(), why=self.why,
            hint="; or ".join(self.relaxations) or "loosen the pins",
        )  # fmt: skip


def none(op: Operator, isa: Isa, mode: str, texts: Sequence[str]) -> Explanation:
    """Explains why no embedding keeps `mode` and the pins.

    Where the machine has no such instruction or operation, the conflict is "operation kind".
    """
    # Without the operation there is no problem to pose.
    try:
        problem = EmbedProblem.of(op, isa, mode)
    except Infeasible as error:
        return Explanation(
            ("operation kind",), {"operation kind": error.why}, _kinds(op, isa, texts)
        )
    pins = read_pins(problem, texts)
    names = conflict(problem, pins)
    reasons = {n: pins.reasons[n] for n in names if n in pins.reasons}
    # Asked of the sweep as well, which shares no code with the solver's core.
    proved = not _answered(problem.pinned(pins))
    return Explanation(tuple(names), reasons, tuple(_relaxations(problem, texts, names)), proved)


def possible(op: Operator, isa: Isa, mode: str, texts: Sequence[str]) -> bool:
    """Whether some embedding keeps the mode and the pins, by sweeping all."""
    problem = EmbedProblem.of(op, isa, mode)
    return _answered(problem.pinned(read_pins(problem, texts)))


def _answered(problem: EmbedProblem) -> bool:
    return bool(sweep(space_of(problem, count_filled=False), kinds=True).answers)


def _kinds(op: Operator, isa: Isa, texts: Sequence[str]) -> tuple[str, ...]:
    """Epilogue steps whose absence would help."""
    out: list[str] = []
    for n, step in enumerate(op.epilogue):
        rest = replace(op, epilogue=op.epilogue[:n] + op.epilogue[n + 1 :])
        try:
            # Only steps whose absence alone helps are named.
            unit_for(rest, isa)
        except Infeasible:
            continue
        out.append(f"leave out the step `{step}`")
    return tuple(out) or ("use a machine that has the operation",)


def _relaxations(
    problem: EmbedProblem, texts: Sequence[str], names: Sequence[str]
) -> Iterator[str]:
    """The smallest changes first: padding, a blocked layout, then giving up wishes."""
    op, isa, mode = problem.op, problem.isa, problem.mode
    found = [text for text, changed in _changes(problem, texts) if _works(*changed, isa, mode)]
    # Only what stands in the conflict is worth giving up.
    wishes = [n for n in names if n in texts or n == STRICT]
    # One wish if that is enough, else two.
    for count in (1, 2):
        for dropped in itertools.combinations(wishes, count):
            rest = [t for t in texts if t not in dropped]
            if _works(op, rest, isa, "relaxed" if STRICT in dropped else mode):
                said = ["allow the relaxed layout" if d == STRICT else f"drop {_option(d)}"
                        for d in dropped]  # fmt: skip
                found.append(" and ".join(said))
        if found:
            break
    # The same change may come from several pins.
    yield from dict.fromkeys(found)


def _works(op: Operator, texts: Sequence[str], isa: Isa, mode: str) -> bool:
    try:
        return possible(op, isa, mode, texts)
    except CspEmbedError:
        return False  # a pin that names what the changed problem lacks


def _option(pin: str) -> str:
    verb, _, rest = pin.partition(" ")
    return f"--{verb} '{rest}'"


def _changes(
    problem: EmbedProblem, texts: Sequence[str]
) -> Iterator[tuple[str, tuple[Operator, Sequence[str]]]]:
    """Candidates: (words, (operator, pins))."""
    op, unit = problem.op, problem.unit
    for n, text in enumerate(texts):
        if not text.startswith("layout "):
            continue
        wish = text.removeprefix("layout ")
        pin = layout_pin(problem, wish)
        if pin.pad is not None:
            axis, extent = pin.pad
            words = f"pad {axis} from {op.axes[axis]} to {extent}"
            larger = padded(op, axis, extent)
            if larger is not None:
                yield words, (larger, texts)
        # A layout that is blocked already has no weaker form to offer.
        if any(ch.isdigit() for ch in wish) or "," in wish:
            continue
        order = wish.partition("=")[2].lower()
        rows = unit.size.get("b", 1)
        blocks = f"{rows}{order[0]}" if rows > 1 and order else ""
        weaker = f"layout {wish}{blocks}{max(unit.size.values())}{wish[-1].lower()}"
        yield f"allow {_option(weaker)}", (op, [*texts[:n], weaker, *texts[n + 1 :]])


def padded(op: Operator, axis: str, extent: int) -> Operator | None:
    """The same operator with a longer axis; None where the axis meets others in an index."""
    shapes: dict[str, Tensor] = dict(op.tensors)
    accesses = [op.out, op.lhs, op.rhs, *(s.access for s in op.epilogue)]
    for access in accesses:
        if access is None:
            continue
        tensor = op.tensors[access.tensor]
        shape = list(tensor.shape)
        for t, ix in enumerate(access.index):
            if not ix.coef(axis):
                continue
            # The axis shares this index with others, or is strided: a longer one would move them
            # too.
            if ix != Affine(((axis, 1),), 0):
                return None
            shape[t] = extent
        shapes[tensor.name] = replace(tensor, shape=tuple(shape))
    return replace(op, axes={**op.axes, axis: extent}, tensors=shapes)
