"""A layer as one contraction in rounds, with everything that a program of it needs.

Takes: a contraction without epilogue, its weights by channel, a recipe.  Leaves: `Lowered`: the
operator with its epilogue, the steps between its rounds, and the constants of each round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator, Step
from csp_embed.network.lower.recipe import Recipe
from csp_embed.network.lower.thresholds import Ints
from csp_embed.network.quantised.graph import Pair
from csp_embed.ops import parse_formula

Array = NDArray[Any]
INT32 = (-(1 << 31), (1 << 31) - 1)
# (op, rounds, constants, kept, dropped, weights), as in `Lowered`
Made = tuple[
    Operator, tuple[tuple[Step, ...], ...], tuple[Mapping[str, Array], ...],
    tuple[tuple[int, int], ...], frozenset[int], tuple[Array, ...],
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Lowered:
    """op: the last round, with the epilogue. rounds: steps after each earlier round; their tensors
    are read as those of the epilogue. constants: of each round, by tensor name. reads: names of the
    graph's tensors that `operand` takes, in order. operand: their arrays, of any type, as the
    program's x; `fill` stands wherever no element does. arrange: an array in the shape of the
    graph's output in that of the program's. fill: the stored value that `operand` fills in. recipe:
    how it is requantised. proof: what was proved, in words. refused: other recipes, and why they
    were not taken. copies: so many rounds after the first one make no products: each adds what was
    kept last. kept: (round, steps) pairs: the sums are kept as they are after so many steps of that
    round. dropped: steps of the epilogue whose tensor is 0 in the last round. weights: of each
    round, [channels, products], as the graph orders them."""

    op: Operator
    rounds: tuple[tuple[Step, ...], ...]
    constants: tuple[Mapping[str, Array], ...]
    reads: tuple[str, ...]
    operand: Callable[[tuple[Array, ...], int], Array]
    arrange: Callable[[Array], Array]
    fill: int
    recipe: Recipe
    proof: str
    refused: tuple[str, ...] = ()
    copies: int = 0
    kept: tuple[tuple[int, int], ...] = ()
    dropped: frozenset[int] = frozenset()
    weights: tuple[Array, ...] = ()

    @property
    def repeats(self) -> bool:
        """Whether every round has the same factors."""
        return self.recipe.repeats

    @property
    def bounds(self) -> dict[int, int]:
        """Epilogue step -> largest magnitude of its tensor in any round."""
        out: dict[int, int] = {}
        for i, step in enumerate(self.op.epilogue):
            if step.access is not None:
                name = step.access.tensor
                held = [c[name] for c in self.constants if name in c]
                # A constant step with no tensor in any round has no bound to keep.
                out[i] = max(int(np.abs(v.astype(np.int64)).max(initial=0)) for v in held)
        return out


@dataclass(frozen=True, eq=False)
class Contraction:
    """What is lowered. base: the formula without epilogue; its channel is the result's last index.
    weights: [channels, products] as in the rule's sums. place: weights of that form as the
    formula's constant. name: of that constant. bias: added to the products, by channel. steps: of
    the machine that one vector's products take, about. turns: of each round, its own weights, where
    they are no digits of one. places: results of one channel, for all of which
    its weights are loaded once; none: so many that loads do not count."""

    base: Operator
    weights: Ints
    place: Callable[[Ints], Array]
    name: str
    bias: Ints
    steps: int
    turns: tuple[Ints, ...] = ()
    places: int | None = None


def contracted(task: Contraction, recipe: Recipe, clamp: Pair, copies: int) -> Made | str:
    """(op, rounds, constants, what is kept, dropped steps, weights), or why sums might wrap."""
    weights, biases = _rounds(task, recipe)
    amount = _shifts(recipe)
    last = recipe.amount - amount  # what the steps between the rounds have shifted already
    why = _wraps(weights, biases, recipe)
    if why:
        return why
    for n in range(copies, 0, -1) if not recipe.kept else ():
        # The copy keeps what was added before, so that only the difference is added.
        biases[n] = biases[n] - biases[n - 1]
    # Channels share the lanes; steps by channel are read along that axis.
    channel = task.base.out.index[-1]
    used = {kind for steps in recipe.between for kind, _ in steps} - {"max_lanes", "min_lanes"}
    # One shift for all is an immediate, which costs half (shared/facts: 1 cycle against 2).
    lanes = np.unique(last).size > 1 or any(kind.endswith("lanes") for kind in used)
    # The smallest range of whole bits that holds every round's bias.
    within = (1 << int(max(np.abs(b).max(initial=0) for b in biases)).bit_length()) - 1
    steps = [f"add b[{channel}] within {within}"]
    if lanes:
        steps.append(f"shr s[{channel}]")
    elif last[0]:
        steps.append(f"shr {last[0]}")
    # The clamp always comes last: it makes the result fit int8.
    limits, ceilings = bool(recipe.lanes), bool(recipe.ceilings)
    steps.append(f"max d[{channel}]" if limits else f"max {clamp[0]}")
    steps.append(f"min e[{channel}]" if ceilings else f"min {clamp[1]}")
    base = task.base
    some = {"s": lanes, "d": limits, "e": ceilings}
    names = (task.name, "b", *(name for name, there in some.items() if there))
    op = parse_formula(
        "; ".join([base.formula(), *steps]),
        {n: t.shape for n, t in base.tensors.items()} | dict.fromkeys(names[1:], last.shape),
        extents=dict(base.axes),
        constants=names,
        notes=base.notes,
        name=base.name,
    )
    between: list[tuple[Step, ...]] = []
    for bias, after in zip(biases, recipe.between, strict=False):
        # A bias of zeros needs no step.
        made = [op.epilogue[0]] if bias.any() else []
        for kind, imm in after:
            # What a lane takes is read from the epilogue's own tensor.
            own = op.epilogue[{"max_lanes": -2, "min_lanes": -1}.get(kind, 1)]
            made.append(own if kind.endswith("lanes") else Step(kind, imm))
        between.append(tuple(made))
    # Rounds with the same weights share one array: a layer may have dozens.
    same = {id(w): (task.place(w), w.astype(np.int8)) for w in weights}
    constants: list[dict[str, Array]] = [
        {task.name: same[id(w)][0], "b": b.astype(np.int32)}
        for w, b in zip(weights, biases, strict=True)
    ]
    if lanes:
        for held in constants:
            held["s"] = last.astype(np.int32)
    for n, shifts in enumerate(recipe.shifts):
        if shifts is not None:
            constants[n]["s"] = shifts.astype(np.int32)
    if "sign_lanes" in used:
        # A sign step reads the same tensor in the first round, with other amounts.
        assert recipe.bits is not None
        constants[0]["s"] = (30 - recipe.bits).astype(np.int32)
    for n, held in enumerate(constants if limits else ()):
        lane = recipe.lanes[n] if n < len(recipe.lanes) else np.full(last.shape, clamp[0])
        if lane is not None:
            held["d"] = np.where(recipe.live, lane, min(0, clamp[0])).astype(np.int32)
    for n, held in enumerate(constants if ceilings else ()):
        lane = recipe.ceilings[n] if n < len(recipe.ceilings) else np.full(last.shape, clamp[1])
        if lane is not None:
            held["e"] = np.where(recipe.live, lane, max(0, clamp[1])).astype(np.int32)
    # What is kept is completed first: an addition leads the steps of its round.
    kept = tuple((n, until + bool(biases[n].any())) for n, until in recipe.kept or
                 [(n, 0) for n in range(copies)])  # fmt: skip
    alike = copies == len(recipe.between) > 0 and not biases[-1].any()
    dropped = frozenset([0]) if alike else frozenset[int]()
    flat = tuple(same[id(w)][1] for w in weights)
    return op, tuple(between), tuple(constants), kept, dropped, flat


def _shifts(recipe: Recipe) -> int:
    """Bits that the steps between the rounds of digits shift by."""
    return 8 * (recipe.digits - 1) if recipe.digits else 0


def _rounds(task: Contraction, recipe: Recipe) -> tuple[list[Ints], list[Ints]]:
    """Weights and biases of every round; channels of one value have no weights."""
    live, count = recipe.live, recipe.rounds
    amount = recipe.amount - _shifts(recipe)
    # Given as they are: differences of places, or what tells pairs, and digits.
    if task.turns:
        weights, biases = [*task.turns], [task.bias + o for o in recipe.offsets]
    elif recipe.kept:
        weights = [np.where(live[:, None], task.weights, 0)] * count
        first, *others = recipe.offsets
        biases = [np.where(live, b, 0) for b in (task.bias + first, *others)]
    elif recipe.hits is not None:
        sums = len(recipe.hits)
        weights = [np.where(live[:, None], task.weights, 0)] * sums
        biases = [np.where(live, task.bias + o, 0) for o in recipe.offsets[:sums]]
        for m, offset, digits in (
            *([(c.factor, c.offset, c.digits)] if (c := recipe.coarse) else []),
            (recipe.factor, recipe.offsets[-1], recipe.digits),
        ):
            weights += split(np.where(live[:, None], task.weights * m[:, None], 0), digits)
            biases += split(np.where(live, task.bias * m + offset, 0), digits)
    elif not recipe.digits:
        weights = [np.where(live[:, None], task.weights, 0)] * count
        biases = [np.where(live, task.bias + o, 0) for o in recipe.offsets]
    else:
        scaled = np.where(live[:, None], task.weights * recipe.factor[:, None], 0)
        added = np.where(live, task.bias * recipe.factor + recipe.offsets[0], 0)
        weights, biases = split(scaled, recipe.digits), split(added, recipe.digits)
        # Lowest digits first, as shifts go down: coarse product, then the fine one.
        if recipe.coarse is not None:  # what tells odd from even comes first
            near = np.where(live, recipe.coarse.factor, 0)
            one = np.where(live, task.bias * near + recipe.coarse.offset, 0)
            wide = task.weights * near[:, None]
            weights = [*split(wide, recipe.coarse.digits), *weights]
            biases = [*split(one, recipe.coarse.digits), *biases]
        elif recipe.digits < count:  # the round of the sign
            weights = [np.where(live[:, None], task.weights, 0), *weights]
            biases = [np.where(live, task.bias, 0), *biases]
    # A channel of one value: its bias, shifted back, is that value.
    biases[-1] = np.where(live, biases[-1], recipe.constant << amount)
    return weights, biases


def split(values: Ints, count: int) -> list[Ints]:
    """Digits in -128 .. 127, the lowest first; the highest takes what is left."""
    out: list[Ints] = []
    for _ in range(count - 1):
        # Signed digits: int8 holds -128 .. 127, so a digit above 127 borrows from the next.
        digit = ((values + 128) & 255) - 128
        out.append(digit)
        values = (values - digit) >> 8
    return [*out, values]


def _wraps(weights: list[Ints], biases: list[Ints], recipe: Recipe) -> str:
    if recipe.kept:
        return _wraps_first(weights[0], biases[0], recipe) or _wraps_kept(biases, recipe)
    return _wraps_any(weights, biases, recipe)


def _wraps_first(weights: Ints, bias: Ints, recipe: Recipe) -> str:
    """Of the first round alone."""
    one = replace(recipe, between=(), kept=())
    return _wraps_any([weights], [bias], one)


def _wraps_kept(biases: list[Ints], recipe: Recipe) -> str:
    """Of rounds that add what was kept: each addition is one sum, known from its ends."""
    assert recipe.ends is not None
    low, high = (end * recipe.live for end in recipe.ends)
    kept = low, high
    wraps = f"{recipe.name}: its sums may wrap around int32"
    for n, bias in enumerate(biases):
        offset = recipe.offsets[0] * recipe.live if n == 0 else bias
        if n:
            low, high = low + kept[0], high + kept[1]
        low, high = low + offset, high + offset
        if (low < INT32[0]).any() or (high > INT32[1]).any():
            return wraps
        for at, (kind, imm) in enumerate(recipe.between[n] if n < len(recipe.between) else ()):
            kept = (low, high) if (n, at) in recipe.kept else kept
            # Only a shift that leaves one bit may wrap.
            if (
                kind == "shr"
                and -31 < imm < 0
                and ((low << -imm < INT32[0]) | (high << -imm > INT32[1])).any()
            ):
                return wraps
            low, high = _stepped(low, high, (kind, imm), n, recipe)
        if n < len(recipe.between) and (n, len(recipe.between[n])) in recipe.kept:
            kept = low, high
    return ""


def _wraps_any(weights: list[Ints], biases: list[Ints], recipe: Recipe) -> str:
    """Why a sum may leave int32 where it must not; "" where none does."""
    # Ends of what the accumulator holds, carried from round to round: x is -128 .. 127.
    nothing: Ints = np.zeros(len(weights[0]), np.int64)
    low, high, above, below = nothing, nothing, nothing, nothing
    for n, (w, b) in enumerate(zip(weights, biases, strict=True)):
        # Rounds that take a copy of the sums have the weights of the round before; what was moved
        # there is a sum that can occur, too.
        if n == 0 or w is not weights[n - 1]:
            if w.min(initial=0) < -128 or w.max(initial=0) > 127:
                return f"{recipe.name}: a digit of the weights leaves int8"
            small = w.astype(np.int8)
            above = np.maximum(small, 0).sum(axis=1, dtype=np.int64)
            below = above - small.sum(axis=1, dtype=np.int64)
        # Sums of a round come in any order: all that lower them may come first.
        low = low - 128 * above - 127 * below - np.abs(b)
        high = high + 127 * above + 128 * below + np.abs(b)
        if (low < INT32[0]).any() or (high > INT32[1]).any():
            return f"{recipe.name}: its sums may wrap around int32"
        for kind, imm in recipe.between[n] if n < len(recipe.between) else ():
            low, high = _stepped(low, high, (kind, imm), n, recipe)
    return ""


def _stepped(
    low: Ints, high: Ints, step: tuple[str, int], n: int, recipe: Recipe
) -> tuple[Ints, Ints]:  # fmt: skip
    """Ends of what a step of round n leaves."""
    kind, imm = step
    if kind == "shr":
        return _shifted(low, high, imm)
    if kind == "max":
        return np.maximum(low, imm), np.maximum(high, imm)
    if kind == "min":
        return np.minimum(low, imm), np.minimum(high, imm)
    if kind == "max_lanes":
        lane = recipe.lanes[n]
        assert lane is not None
        return np.maximum(low, lane), np.maximum(high, lane)
    if kind == "min_lanes":
        lane = recipe.ceilings[n]
        assert lane is not None
        return np.minimum(low, lane), np.minimum(high, lane)
    if kind == "shr_lanes" and recipe.shifts and (by := recipe.shifts[n]) is not None:
        return low >> by, high >> by
    # By amounts of the lane, that are no less than 0: towards 0, or towards -1.
    return np.minimum(low, 0), np.maximum(high, 0)


def _shifted(low: Ints, high: Ints, imm: int) -> tuple[Ints, Ints]:
    """Ends of what a shift leaves; a left shift may wrap, on purpose."""
    if imm >= 0:
        return low >> imm, high >> imm
    low, high = low << -imm, high << -imm
    # Of a shift by 31 only the lowest bit is left.
    wraps = (low < INT32[0]) | (high > INT32[1])
    most = 0 if imm == -31 else INT32[1]
    return np.where(wraps, INT32[0], low), np.where(wraps, most, high)
