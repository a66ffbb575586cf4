"""Parts 2 and 3: what is stored against the formula, one look at a time.

Elements whose nodes look alike are compared together. What comes before the first step that is no
sum is compared as numbers of the field, the steps as functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator, Step
from csp_embed.jit import njit
from csp_embed.judge.certify.dram import Result
from csp_embed.judge.certify.epilogue import HIGH, LOW, Expr, decide
from csp_embed.judge.certify.field import Ints, Values, add, mul, number, plus, times
from csp_embed.judge.certify.forms import Form, Reader, read_forms
from csp_embed.judge.certify.formula import Symbols, step_values, sums, taps
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.certify.stream import Ran
from csp_embed.judge.certify.walk import MOST_LEFT, SUM, shape_nodes

Reach = tuple[int, int]
_NEUTRAL = {"max": -128, "min": 127}


@njit(cache=True, nogil=True)
def weighted_sums(values: Values, who: Ints, spots: Ints, weight: Values, out: Values) -> None:
    """Weighted sums over the lanes of elements `spots`."""
    for k in range(len(spots)):
        total = np.uint64(0)
        for lane in range(len(weight)):
            if weight[lane]:
                total = plus(total, times(weight[lane], values[who[spots[k], lane]]))
        out[k] = total


class Comparison:
    """Collects what holds of all stored elements. tests: comparisons of random numbers on which
    the verdict of one element rests, at most."""

    def __init__(self, op: Operator, result: Result) -> None:
        self.op, self.result = op, result
        self.tests = 0
        self.wrong_sums: list[str] = []
        self.wrong_steps: list[str] = []
        self.methods: dict[str, int] = {}
        self.elements = 0

    def begin(self, symbols: Symbols) -> None:
        """A round with these random values."""
        self.symbols = symbols
        op = self.op
        self.start = [] if op.kind in _NEUTRAL else [sums(symbols)]
        self.steps = {
            n: step_values(symbols, s.access)
            for n, s in enumerate(op.epilogue)
            if s.access is not None
        }

    def stored(self, ran: Ran) -> tuple[str, ...]:
        """Part 4, stores: all of the result is stored, and nothing beside it. Keeps who stored
        what last; all stores run in one queue, in program order."""
        r = self.result
        byte = ran.stored["byte"]
        out = np.flatnonzero((byte < r.first) | (byte >= r.end))
        if len(out):
            return (f"{len(out)} elements are stored outside the result, the first at"
                    f" {int(byte[out[0]]):#x}",)  # fmt: skip
        self.last = np.full(len(r.who), -1, np.int64)
        # NumPy assigns in order, so the last store of an element stays.
        self.last[(byte - r.first) // r.memory.elem_bytes] = np.arange(len(byte))
        missing = np.flatnonzero((self.last < 0) & (r.who >= 0).any(axis=1))
        if len(missing):
            return (f"{len(missing)} elements of the result are never stored, the first at"
                    f" {r.first + int(missing[0]) * r.memory.elem_bytes:#x}",)  # fmt: skip
        return ()

    def compare(
        self, machine: Machine, ran: Ran, spots: tuple[bool, NDArray[np.int64]],
        weights: dict[str, Values],
    ) -> None:  # fmt: skip
        """All elements that use one box of lanes."""
        pad, places = spots
        _, lane_weight = machine.lanes(self.result.memory, SUM, weights)
        # An element of pads alone need not be stored, unless the file promises bytes there.
        if pad and (self.last[places] < 0).any():
            self.wrong_steps.append("the file states pad lanes that are never stored")
        places = places[self.last[places] >= 0]
        # Thousands of elements have a few shapes; each is compared as one expression over arrays.
        shapes = shape_nodes(ran.nodes, len(ran.nodes) - 1)
        record = ran.stored[self.last[places]]
        shape = ran.nodes["shape"][record["node"]]
        for k in range(shapes + 1):
            mine = np.flatnonzero(shape == k)
            if not len(mine):
                continue
            form = read_forms(ran.nodes, record["node"][mine], record["value"][mine])
            # Start values of a maximum: with int8 inputs they cannot change it.
            neutral = _NEUTRAL.get(self.op.kind)
            reader = Reader(ran.ones, neutral)
            if pad:
                self._pad(reader, reader.read(form), places[mine], lane_weight)
                continue
            # Of a stream that adds a tensor before the shift behind which the formula adds it.
            folded = _folds(self.op) and not self._summed(reader, form, places[mine], lane_weight)
            reader = Reader(ran.ones, neutral)
            self._value(reader, form, places[mine], lane_weight, folded)

    def _summed(
        self, reader: Reader, form: Form, places: NDArray[np.int64], weight: Values
    ) -> bool:
        """Whether the stream holds no number that the formula, as it is written, does not."""
        self._wanted(reader, places, weight, False)
        known = len(reader.known)
        reader.read(form)
        return len(reader.known) == known

    def _value(
        self, reader: Reader, form: Form, places: NDArray[np.int64], weight: Values, folded: bool
    ) -> None:
        wanted = self._wanted(reader, places, weight, folded)
        known = len(reader.known)
        found = reader.read(form)
        # Every number of an element may be compared with every other; a union bound needs their
        # pairs.
        self.tests = max(self.tests, sum(v.size // len(places) for v in reader.known) ** 2)
        self.elements += len(places)
        # The stream holds a number that the formula does not: some sum is wrong, and steps need not
        # be looked at.
        if len(reader.known) > known:
            self.wrong_sums.append(self._different(reader, known, places))
            return
        how = decide(reader.algebra, wanted, found)
        if how:
            self.methods[how] = self.methods.get(how, 0) + len(places)
        else:
            text = f"{self._name(places[0])}: {show(found)} is not {show(wanted)}"
            self.wrong_steps.append(f"{text} ({len(places)} elements alike)")

    def _pad(self, reader: Reader, found: Expr, places: NDArray[np.int64], weight: Values) -> None:
        """Pad lanes hold what the file states, whatever the inputs."""
        stated = self.result.stated[places][:, weight != 0]
        # Bytes are stored: only the low eight bits can be promised.
        if found[0] != "num" or (stated != found[1] & 255).any():
            at = self.result.first + int(places[0]) * self.result.memory.elem_bytes
            self.wrong_steps.append(
                f"a pad lane of the element at {at:#x} holds {show(found)}, the file states"
                f" {int(stated[0, 0])}"
            )

    def _wanted(
        self, reader: Reader, places: NDArray[np.int64], weight: Values, folded: bool
    ) -> Expr:
        """The formula's expression for these elements; its numbers become the known variables.
        folded: with the first tensor added before the shift, as `_folds` allows."""

        def gather(values: Values) -> Values:
            out = np.zeros(len(places), np.uint64)
            weighted_sums(values, self.result.who, places, weight, out)
            return out

        op, (low, high) = self.op, sum_range(self.op)
        if self.start:
            form = Form(gather(self.start[0]))
        else:
            bare = number(_NEUTRAL[op.kind])
            columns = [
                gather(add(v, np.where(inside, np.uint64(0), bare)))
                for v, inside in taps(self.symbols)
            ]
            form = Form(
                np.zeros(len(places), np.uint64), (op.kind, None, np.stack(columns, 1), None)
            )
        before = form
        for n, step in enumerate(op.epilogue):
            if step.access is None:
                if step.op == "add" and form.node is None:
                    # An addition before anything else belongs to the sum.
                    # As the stream has it: a constant in every lane, weighted.
                    extra = mul(number(step.imm or 0), reader.ones)
                    form = Form(add(form.value, np.broadcast_to(extra, form.value.shape)))
                    low, high = low + (step.imm or 0), high + (step.imm or 0)
                    continue
                # A short shift to the left of a sum is part of it, as in `walk`.
                if step.op == "shr" and -MOST_LEFT <= (step.imm or 0) <= 0 and form.node is None:
                    low, high = low << -(step.imm or 0), high << -(step.imm or 0)
                form = form.then(step.op, step.imm)
            else:
                other = Form(gather(self.steps[n]))
                reach = step_range(op, step)
                if folded and n == 1:
                    # (S >> s) + b = (S + b 2^s) >> s
                    power = 1 << (op.epilogue[0].imm or 0)
                    low, high = low + power * reach[0], high + power * reach[1]
                    whole = add(before.value, mul(other.value, number(power)))
                    form = Form(whole).then("shr", op.epilogue[0].imm)
                    continue
                if step.op == "add" and form.node is None:
                    low, high = low + reach[0], high + reach[1]
                else:
                    reader.variable(other.value, reach)
                form = form.then(step.op, None, other)
        # The accumulators wrap around, so a range beyond int32 says nothing.
        if low < LOW or high > HIGH:
            low, high = LOW, HIGH
        return reader.read(form, (low, high))

    def _different(self, reader: Reader, known: int, places: NDArray[np.int64]) -> str:
        """Which element's sum is not the formula's: the first that differs from the nearest."""
        new = reader.known[known]
        same = [_rows(o, new) for o in reader.known[:known] if o.shape == new.shape]
        # The formula's number that agrees in most elements is the one that was meant.
        best = max(same, key=lambda s: int(s.sum()), default=None)
        count = len(places) if best is None else int((~best).sum())
        first = 0 if best is None or best.all() else int(np.flatnonzero(~best)[0])
        return (
            f"{count} of {len(places)} stored elements do not hold what the formula sums, the"
            f" first has {self._name(places[first])}"
        )

    def _name(self, place: Any) -> str:
        who = self.result.who[place]
        shape = self.op.tensors[self.op.out.tensor].shape
        index = np.unravel_index(int(who[who >= 0][0]), shape) if shape else ()
        return f"{self.op.out.tensor}[{','.join(str(int(i)) for i in index)}]"

    def methods_said(self) -> Iterator[str]:
        """How many elements were decided in which way."""
        for how, count in sorted(self.methods.items()):
            yield f"{count:,} stored elements {how}"


def _folds(op: Operator) -> bool:
    """Whether the formula shifts its sum right and then adds a tensor, and may as well add it
    first, shifted: neither the sum nor the sum with it leaves int32."""
    first, second = (*op.epilogue, None, None)[:2]
    if first is None or second is None or op.kind != "contract" or first.imm is None:
        return False
    if first.op != "shr" or not 0 < first.imm < 32 or second.op != "add" or second.access is None:
        return False
    low, high = sum_range(op)
    least, most = (v << first.imm for v in step_range(op, second))
    return low >= LOW and high <= HIGH and low + least >= LOW and high + most <= HIGH


def _rows(a: Values, b: Values) -> NDArray[np.bool_]:
    return a == b if a.ndim == 1 else (a == b).all(axis=1)


def sum_range(op: Operator) -> Reach:
    """What the accumulators can hold when the epilogue begins, by the operands' types."""
    lo, hi = _type_range(op, op.lhs.tensor)
    if op.kind != "contract":
        return lo, hi
    assert op.rhs is not None
    terms = int(np.prod([op.axes[a] for a in op.reduced_axes], dtype=object))
    a, b = _type_range(op, op.rhs.tensor)
    ends = [x * y * terms for x in (lo, hi) for y in (a, b)]
    return min(0, *ends), max(0, *ends)


def step_range(op: Operator, step: Step) -> Reach:
    """What a step's tensor can hold: its promise, or its type."""
    assert step.access is not None
    low, high = _type_range(op, step.access.tensor)
    most = step.bias_range
    return (low, high) if most is None else (max(low, -most), min(high, most))


def _type_range(op: Operator, tensor: str) -> Reach:
    if tensor in op.values:
        known = np.asarray(op.values[tensor])
        return min(0, int(known.min())), max(0, int(known.max()))
    bounds = np.iinfo(op.tensors[tensor].dtype)
    return int(bounds.min), int(bounds.max)


def show(e: Expr) -> str:
    """An expression for people; v0, v1, … are the formula's numbers in the order of its steps."""
    kind = e[0]
    if kind in ("var", "num"):
        return f"v{e[1]}" if kind == "var" else str(e[1])
    if kind == "sum":
        return "(" + " + ".join(map(show, e[1:])) + ")"
    if kind in ("shr", "shl"):
        return f"({show(e[2])} {'>>' if kind == 'shr' else '<<'} {e[1]})"
    if kind == "clamp":
        low, high = ("" if x in (LOW, HIGH) else str(x) for x in e[1:3])
        return f"clip({show(e[3])}, {low}..{high})"
    return f"{kind}({', '.join(map(show, e[1:]))})"
