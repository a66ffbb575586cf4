"""What a layer's instructions store against its stated rounds, in the field.

Takes: a walk of the layer and the rounds' sums of random values.  Leaves: breaches of sums and of
steps. The rounds become a `Form` as the stream's steps did, and both are read as expressions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from csp_embed.judge.certify.compare import Findings, shapes, weighted_sums
from csp_embed.judge.certify.dram import Result
from csp_embed.judge.certify.epilogue import Expr
from csp_embed.judge.certify.field import Ints, P, Values, add, mul
from csp_embed.judge.certify.forms import Form, Reader, Writer
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.certify.network.meaning import Meaning, sum_ends
from csp_embed.judge.certify.network.rules import Undecided
from csp_embed.judge.certify.network.statement import Layer, Steps, follow
from csp_embed.judge.certify.stream import Ran
from csp_embed.judge.certify.walk import SUM

LIMB = 21  # bits of a value that a float64 product with an int8, summed, keeps exact


def products(m: Meaning, weights: Ints, x: Values) -> Values:
    """Of a round, the sum of weights times values at every element of y, flat, in the field.

    In three parts of the values, each as a product of float64 matrices: exact while an element
    sums fewer than 2^25 products.
    """
    groups, pixels, count = m.windows.shape
    each = m.out.shape[2]
    factors = weights.reshape(groups, each, count).transpose(0, 2, 1).astype(np.float64)
    flat = np.zeros(m.out.size, np.uint64)
    # Rows at a time: windows repeat each value as often as a filter has places.
    step = max(1, (1 << 22) // max(1, groups * count))
    for at in range(0, pixels, step):
        values = x[m.windows[:, at : at + step]]
        total = np.zeros((groups, values.shape[1], each), np.uint64)
        for k in range(3):
            limb = (values >> np.uint64(LIMB * k)) & np.uint64((1 << LIMB) - 1)
            part = np.matmul(limb.astype(np.float64), factors).astype(np.int64) % P
            total = add(total, mul(part.astype(np.uint64), np.uint64(1 << (LIMB * k))))
        flat[m.out[:, at : at + step]] = total
    return flat


class Rounds:
    """The stated rounds of a layer with random values: what each element of y has to be."""

    def __init__(self, layer: Layer, m: Meaning, x: Values, reach: tuple[int, int]) -> None:
        self.layer = layer
        rounds = range(len(layer.weights))
        self.sums: list[Values] = []
        self.reach: list[tuple[int, int]] = []
        for n in rounds:
            w = layer.weights[n]
            # Rounds mostly repeat the weights; products are most of this judge's time.
            # Rounds that take a copy make no products, whatever their weights are.
            again = n > 0 and (n <= layer.copies or np.array_equal(w, layer.weights[n - 1]))
            self.sums.append(self.sums[-1] if again else products(m, w, x))
            low, high = sum_ends(w, reach)
            self.reach.append((int(low.min(initial=0)), int(high.max(initial=0))))
        self.bias = [_in_field(m.by_element(b)) for b in layer.bias]
        self.bias_reach = [(int(b.min()), int(b.max())) for b in layer.bias]
        # By function: what its tensor holds in each round.
        self.lanes = {
            function: [None if s is None else _in_field(m.by_element(s)) for s in each]
            for function, each in layer.lanes.items()
        }
        # Limits may lie below 0, so that their range is told beside them; of shifts it is known.
        self.lane_reach = {
            function: [(0, 0) if s is None else (int(s.min()), int(s.max())) for s in each]
            for function, each in layer.lanes.items()
        } | {"shr": [(0, 31)] * len(layer.shift)}

    def wanted(self, reader: Reader, at: Callable[[Values], Values], count: int) -> Expr:
        """The expression of `count` elements; its numbers become the reader's known variables.
        at: of values by element of y, those of these elements' lanes."""
        writer = _Follower(self, Writer(reader, Form(np.zeros(count, np.uint64)), (0, 0)), at)
        follow(self.layer, writer)
        return writer.to.read()


class _Follower:
    """Writes down rounds step by step."""

    def __init__(self, rounds: Rounds, to: Writer, at: Callable[[Values], Values]) -> None:
        self.rounds, self.to, self.at = rounds, to, at
        self.kept = to.form, to.reach

    def contract(self, n: int) -> None:
        self.to.add(self.at(self.rounds.sums[n]), self.rounds.reach[n])

    def run(self, steps: Steps, n: int) -> None:
        r = self.rounds
        for function, amount in steps:
            if function == "add":
                self.to.add(self.at(r.bias[n]), r.bias_reach[n])
            elif isinstance(amount, str):
                held = r.lanes[function][n]
                if held is None:
                    raise Undecided(f"{function} by numbers of channels that no round has")
                self.to.step(function, None, self.at(held), r.lane_reach[function][n])
            else:
                self.to.step(function, amount)

    def copy(self) -> None:
        self.kept = self.to.form, self.to.reach

    def add_copy(self) -> None:
        self.to.join(*self.kept)


def _in_field(values: Ints) -> Values:
    return (values % P).astype(np.uint64)


def compare(
    rounds: Rounds, stored: Result, machine: Machine, ran: Ran, last: Ints, places: Ints,
    weights: dict[str, Values], found: Findings,
) -> None:  # fmt: skip
    """Elements `places`, which use one box of lanes. last: number of each one's last store."""
    _, weight = machine.lanes(stored.memory, SUM, weights)
    for mine, form in shapes(ran, last[places]):
        reader, spots = Reader(ran.ones), places[mine]
        at = partial(weighted_sums, who=stored.who, places=spots, weight=weight)
        wanted = rounds.wanted(reader, at, len(spots))
        found.compare(reader, wanted, form, spots, stored.name)
