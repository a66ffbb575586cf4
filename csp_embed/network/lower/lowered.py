"""A layer as one contraction in rounds, with everything that a program of it needs.

Takes: a contraction without epilogue, its weights by channel, a recipe.  Leaves: `Lowered`: the
operator with its epilogue, the steps between its rounds, and the constants of each round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
# (op, rounds, constants, dropped, weights), as in `Lowered`
Made = tuple[
    Operator, tuple[tuple[Step, ...], ...], tuple[Mapping[str, Array], ...], frozenset[int],
    tuple[Array, ...],
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Lowered:
    """op: the last round, with the epilogue. rounds: steps after each earlier round; their tensors
    are read as those of the epilogue. constants: of each round, by tensor name. reads: names of the
    graph's tensors that `operand` takes, in order. operand: their arrays, of any type, as the
    program's x; `fill` stands wherever no element does. arrange: an array in the shape of the
    graph's output in that of the program's. fill: the stored value that `operand` fills in. recipe:
    how it is requantised. proof: what was proved, in words. refused: other recipes, and why they
    were not taken. copies: instead of a second round, the steps after the first one change a copy
    of the sums, which is added to them. dropped: steps of the epilogue whose tensor is 0 in the
    last round. weights: of each round, [channels, products], as the graph orders them."""

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
    copies: bool = False
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
    they are no digits of one."""

    base: Operator
    weights: Ints
    place: Callable[[Ints], Array]
    name: str
    bias: Ints
    steps: int
    turns: tuple[Ints, ...] = ()


def contracted(task: Contraction, recipe: Recipe, clamp: Pair, copies: bool) -> Made | str:
    """(op, rounds, constants, dropped steps, weights), or why the sums might wrap around int32."""
    weights, biases = _rounds(task, recipe)
    amount = _shifts(recipe)
    last = recipe.amount - amount  # what the steps between the rounds have shifted already
    why = _wraps(weights, biases, recipe)
    if why:
        return why
    if copies:  # the sum keeps what was added first
        # Both rounds start from the same sums, so the second adds only the difference.
        biases[-1] = biases[-1] - biases[0]
    # Channels share the lanes; steps by channel are read along that axis.
    channel = task.base.out.index[-1]
    used = {kind for steps in recipe.between for kind, _ in steps}
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
    steps += [f"max {clamp[0]}", f"min {clamp[1]}"]
    base = task.base
    names = (task.name, "b", *(["s"] if lanes else []))
    op = parse_formula(
        "; ".join([base.formula(), *steps]),
        {n: t.shape for n, t in base.tensors.items()} | {"b": last.shape},
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
            # The lane's shift is read from the epilogue's own tensor.
            made.append(op.epilogue[1] if kind.endswith("lanes") else Step(kind, imm))
        between.append(tuple(made))
    constants: list[dict[str, Array]] = [
        {task.name: task.place(w), "b": b.astype(np.int32)}
        for w, b in zip(weights, biases, strict=True)
    ]
    if lanes:
        for held in constants:
            held["s"] = last.astype(np.int32)
    if "sign_lanes" in used:
        # A sign step reads the same tensor in the first round, with other amounts.
        assert recipe.bits is not None
        constants[0]["s"] = (30 - recipe.bits).astype(np.int32)
    dropped = frozenset([0]) if copies and not biases[-1].any() else frozenset[int]()
    flat = tuple(w.astype(np.int8) for w in weights)
    return op, tuple(between), tuple(constants), dropped, flat


def _shifts(recipe: Recipe) -> int:
    """Bits that the steps between the rounds of digits shift by."""
    return 8 * (recipe.digits - 1) if recipe.digits else 0


def _rounds(task: Contraction, recipe: Recipe) -> tuple[list[Ints], list[Ints]]:
    """Weights and biases of every round; channels of one value have no weights."""
    live, count = recipe.live, recipe.rounds
    amount = recipe.amount - _shifts(recipe)
    # Given as they are: differences of places, no digits.
    if task.turns:
        weights, biases = [*task.turns], [task.bias] * count
    elif not recipe.digits:
        weights = [np.where(live[:, None], task.weights, 0)] * count
        biases = [np.where(live, task.bias + o, 0) for o in recipe.offsets]
    else:
        scaled = np.where(live[:, None], task.weights * recipe.factor[:, None], 0)
        added = np.where(live, task.bias * recipe.factor + recipe.offsets[0], 0)
        weights, biases = _split(scaled, recipe.digits), _split(added, recipe.digits)
        # Lowest digits first, as shifts go down: coarse product, then the fine one.
        if recipe.coarse is not None:  # what tells odd from even comes first
            near = np.where(live, recipe.coarse.factor, 0)
            one = np.where(live, task.bias * near + recipe.coarse.offset, 0)
            wide = task.weights * near[:, None]
            weights = [*_split(wide, recipe.coarse.digits), *weights]
            biases = [*_split(one, recipe.coarse.digits), *biases]
        elif recipe.digits < count:  # the round of the sign
            weights = [np.where(live[:, None], task.weights, 0), *weights]
            biases = [np.where(live, task.bias, 0), *biases]
    # A channel of one value: its bias, shifted back, is that value.
    biases[-1] = np.where(live, biases[-1], recipe.constant << amount)
    return weights, biases


def _split(values: Ints, count: int) -> list[Ints]:
    """Digits in -128 .. 127, the lowest first; the highest takes what is left."""
    out: list[Ints] = []
    for _ in range(count - 1):
        # Signed digits: int8 holds -128 .. 127, so a digit above 127 borrows from the next.
        digit = ((values + 128) & 255) - 128
        out.append(digit)
        values = (values - digit) >> 8
    return [*out, values]


def _wraps(weights: list[Ints], biases: list[Ints], recipe: Recipe) -> str:
    """Why a sum may leave int32 where it must not; "" where none does."""
    # An upper bound of |sum|, carried from round to round: x is at most 128 in magnitude.
    carried: Any = 0
    for n, (w, b) in enumerate(zip(weights, biases, strict=True)):
        if np.abs(w).max(initial=0) > 128 or w.min(initial=0) < -128 or w.max(initial=0) > 127:
            return f"{recipe.name}: a digit of the weights leaves int8"
        carried = carried + 128 * np.abs(w).sum(axis=1) + np.abs(b)
        if (carried > INT32[1]).any():
            return f"{recipe.name}: its sums may wrap around int32"
        for kind, imm in recipe.between[n] if n < len(recipe.between) else ():
            if kind == "shr":
                carried = _shifted(carried, imm)
            elif kind == "max" and imm < 0:
                # Between MIN 0 and MAX imm a value lies in imm .. 0.
                carried = -imm  # behind a MIN 0
    return ""


def _shifted(bound: Any, imm: int) -> Any:
    """A bound on the magnitude of what a shift leaves; a left shift may wrap, on purpose."""
    if imm < 0:
        return np.minimum(np.asarray(bound, np.int64) << -imm, 1 << 31)
    return (np.asarray(bound, np.int64) >> imm) + 1
