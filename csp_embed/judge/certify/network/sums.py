"""What a layer's instructions store against its stated rounds, in the field.

Takes: a walk of the layer and the rounds' sums of random values.  Leaves: breaches of sums and of
steps. The rounds become a `Form` as the stream's steps did, and both are read as expressions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from csp_embed.judge.certify.compare import show, weighted_sums
from csp_embed.judge.certify.epilogue import HIGH, LOW, Expr, decide
from csp_embed.judge.certify.field import Ints, P, Values, add, mul
from csp_embed.judge.certify.forms import Form, Reader, read_forms
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.certify.network.meaning import Meaning, sum_ends
from csp_embed.judge.certify.network.statement import Layer, Steps, follow
from csp_embed.judge.certify.stream import Ran
from csp_embed.judge.certify.walk import SUM, shape_nodes
from csp_embed.machine.spec import Memory

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


@dataclass(frozen=True, eq=False)
class Stored:
    """Elements of the store's memory that hold elements of y: address of each, in bytes, ascending;
    who[element, lane]: flat index into y, or -1."""

    memory: Memory
    address: Ints
    who: Ints


@dataclass
class Found:
    """What was found of one layer. tests: comparisons on which an element's verdict rests."""

    wrong_sums: list[str] = field(default_factory=list[str])
    wrong_steps: list[str] = field(default_factory=list[str])
    tests: int = 1
    elements: int = 0


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

    def wanted(self, reader: Reader, who: Ints, places: Ints, weight: Values) -> Expr:
        """The expression of these elements; its numbers become the reader's known variables."""

        def at(values: Values) -> Values:
            out = np.zeros(len(places), np.uint64)
            weighted_sums(values, who, places, weight, out)
            return out

        writer = _Writer(self, reader, at, Form(np.zeros(len(places), np.uint64)))
        follow(self.layer, writer)
        return reader.read(writer.form, writer.reach)


class _Writer:
    """Follows rounds step by step. reach: of the form's number."""

    def __init__(self, rounds: Rounds, reader: Reader, at: Any, form: Form) -> None:
        self.rounds, self.reader, self.at, self.form = rounds, reader, at, form
        self.reach = (0, 0)
        self.kept = form, self.reach

    def contract(self, n: int) -> None:
        self._add(self.at(self.rounds.sums[n]), self.rounds.reach[n])

    def _add(self, values: Values, reach: tuple[int, int]) -> None:
        low, high = self.reach[0] + reach[0], self.reach[1] + reach[1]
        # Accumulators wrap around, so a range beyond int32 says nothing.
        self.reach = (low, high) if low >= LOW and high <= HIGH else (LOW, HIGH)
        self.form = Form(add(self.form.value, values), self.form.node)

    def run(self, steps: Steps, n: int) -> None:
        for function, amount in steps:
            if function == "add":
                self._add(self.at(self.rounds.bias[n]), self.rounds.bias_reach[n])
                continue
            # What a step changes is no linear form any more: it becomes a variable with its range.
            if self.form.value.any():
                self.reader.variable(self.form.value, self.reach)
            if isinstance(amount, str):
                other = Form(self.at(self.rounds.lanes[function][n]))
                self.reader.variable(other.value, self.rounds.lane_reach[function][n])
                self.form = self.form.then(function, None, other)
            else:
                self.form = self.form.then(function, amount)
            # A short shift to the left of a number is that number times 2^k, of any size.
            self.reach = (0, 0) if self.form.node is not None else (LOW, HIGH)

    def copy(self) -> None:
        self.kept = self.form, self.reach

    def add_copy(self) -> None:
        form, self.reach = self.kept
        self.form = _plus(form, self.form)


def _plus(a: Form, b: Form) -> Form:
    """Their sum, as `walk` makes it."""
    if a.node is None or b.node is None:
        return Form(add(a.value, b.value), a.node or b.node)
    return Form(np.zeros_like(a.value), ("add", None, a, b))


def _in_field(values: Ints) -> Values:
    return (values % P).astype(np.uint64)


def compare(
    rounds: Rounds, stored: Stored, machine: Machine, ran: Ran, last: Ints,
    spots: Ints, weights: dict[str, Values], found: Found,
) -> None:  # fmt: skip
    """Elements `spots`, which use one box of lanes. last: number of each element's last store."""
    _, lane_weight = machine.lanes(stored.memory, SUM, weights)
    shapes = shape_nodes(ran.nodes, len(ran.nodes) - 1)
    record = ran.stored[last[spots]]
    shape = ran.nodes["shape"][record["node"]]
    # Elements whose expressions have one shape are compared together, in arrays.
    for k in range(shapes + 1):
        mine = np.flatnonzero(shape == k)
        if not len(mine):
            continue
        places = spots[mine]
        form = read_forms(ran.nodes, record["node"][mine], record["value"][mine])
        reader = Reader(ran.ones)
        wanted = rounds.wanted(reader, stored.who, places, lane_weight)
        known = len(reader.known)
        read = reader.read(form)
        found.tests = max(found.tests, sum(v.size // len(places) for v in reader.known) ** 2)
        found.elements += len(places)
        # The stream's form would need a number that the rounds do not have.
        if len(reader.known) > known:
            found.wrong_sums.append(
                f"{len(places)} stored elements do not hold what its rounds sum"
            )
        elif not decide(reader.algebra, wanted, read):
            found.wrong_steps.append(
                f"the stream stores {show(read)}, its rounds give {show(wanted)}"
                f" ({len(places)} elements alike)"
            )
