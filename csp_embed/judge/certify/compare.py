"""Parts 2 and 3: what is stored against the formula, one look at a time.

Elements whose nodes look alike are compared together. What comes before the first step that is no
sum is compared as numbers of the field, the steps as functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator, Step
from csp_embed.jit import njit
from csp_embed.judge.certify.dram import Result
from csp_embed.judge.certify.epilogue import HIGH, LOW, Expr, decide
from csp_embed.judge.certify.field import Ints, Values, mul, number, plus, times
from csp_embed.judge.certify.forms import Form, Reader, Writer, read_forms
from csp_embed.judge.certify.formula import Symbols, step_values, sums, taps
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.certify.stream import Ran
from csp_embed.judge.certify.walk import SUM, shape_nodes

Reach = tuple[int, int]
_NEUTRAL = {"max": -128, "min": 127}


def weighted_sums(values: Values, who: Ints, places: Ints, weight: Values) -> Values:
    """Weighted sums over the lanes of elements `places`. values: flat over the result."""
    out = np.zeros(len(places), np.uint64)
    _add_up(values, who, places, weight, out)
    return out


@njit(cache=True, nogil=True)
def _add_up(values: Values, who: Ints, places: Ints, weight: Values, out: Values) -> None:
    for k in range(len(places)):
        for lane in range(len(weight)):
            if weight[lane]:
                out[k] = plus(out[k], times(weight[lane], values[who[places[k], lane]]))


@dataclass
class Findings:
    """What holds of stored elements. tests: comparisons of random numbers on which the verdict of
    one element rests, at most. methods: how steps were decided, and of how many elements."""

    tests: int = 1
    wrong_sums: list[str] = field(default_factory=list[str])
    wrong_steps: list[str] = field(default_factory=list[str])
    methods: Counter[str] = field(default_factory=Counter[str])

    def compare(
        self, reader: Reader, wanted: Expr, form: Form, places: Ints, name: Callable[[int], str]
    ) -> None:  # fmt: skip
        """What stores left of the elements `places`, which have one Form, with what was wanted."""
        known, count = len(reader.known), len(places)
        found = reader.read(form)
        # Every number of an element may be compared with every other; a union bound needs their
        # pairs.
        self.tests = max(self.tests, sum(v.size // count for v in reader.known) ** 2)
        # The stream holds a number that the formula does not: some sum is wrong, and steps need not
        # be looked at.
        if len(reader.known) > known:
            new = reader.known[known]
            same = [_rows(o, new) for o in reader.known[:known] if o.shape == new.shape]
            # The formula's number that agrees in most elements is the one that was meant.
            best = max(same, key=lambda s: int(s.sum()), default=np.zeros(count, np.bool_))
            self.wrong_sums.append(
                f"{int((~best).sum())} of {count} stored elements do not hold what the formula"
                f" sums, the first has {name(int(places[int(np.argmin(best))]))}"
            )
            return
        how = decide(reader.algebra, wanted, found)
        if how:
            self.methods[how] += count
        else:
            text = f"{name(int(places[0]))}: {show(found)} is not {show(wanted)}"
            self.wrong_steps.append(f"{text} ({count} elements alike)")


def shapes(ran: Ran, stores: Ints) -> Iterator[tuple[Ints, Form]]:
    """Which of these stores left nodes that look alike, and their Form."""
    count = shape_nodes(ran.nodes, len(ran.nodes) - 1)
    record = ran.stored[stores]
    shape = ran.nodes["shape"][record["node"]]
    # Thousands of elements have a few shapes; each is compared as one expression over arrays.
    for k in range(count + 1):
        mine = np.flatnonzero(shape == k)
        if len(mine):
            yield mine, read_forms(ran.nodes, record["node"][mine], record["value"][mine])


class Comparison:
    """A formula and its result, at one random point."""

    def __init__(self, op: Operator, result: Result, symbols: Symbols, found: Findings) -> None:
        self.op, self.result, self.found = op, result, found
        self.neutral = _NEUTRAL.get(op.kind)
        # Of a maximum: each number under the window, and where there is one.
        self.sums = sums(symbols) if self.neutral is None else None
        self.taps = [] if self.neutral is None else [*taps(symbols)]
        self.steps = [s.access and step_values(symbols, s.access) for s in op.epilogue]

    def stored(self, ran: Ran) -> tuple[str, ...]:
        """Part 4, stores: all of the result is stored, and nothing beside it. Keeps who stored
        what last."""
        r = self.result
        self.last, stray = r.last(ran.stored["byte"])
        if len(stray):
            return (f"{len(stray)} elements are stored outside the result, the first at"
                    f" {int(ran.stored['byte'][stray[0]]):#x}",)  # fmt: skip
        missing = np.flatnonzero((self.last < 0) & (r.who >= 0).any(axis=1))
        if len(missing):
            return (f"{len(missing)} elements of the result are never stored, the first at"
                    f" {int(r.address[missing[0]]):#x}",)  # fmt: skip
        return ()

    def compare(
        self, machine: Machine, ran: Ran, pad: bool, places: Ints, weights: dict[str, Values]
    ) -> None:
        """All elements that use one box of lanes."""
        _, weight = machine.lanes(self.result.memory, SUM, weights)
        # An element of pads alone need not be stored, unless the file promises bytes there.
        if pad and (self.last[places] < 0).any():
            self.found.wrong_steps.append("the file states pad lanes that are never stored")
        places = places[self.last[places] >= 0]
        for mine, form in shapes(ran, self.last[places]):
            # Start values of a maximum: with int8 inputs they cannot change it.
            reader = Reader(ran.ones, self.neutral)
            if pad:
                self._pad(reader.read(form), places[mine], weight)
                continue
            wanted = self._wanted(reader, places[mine], weight, False)
            if _folds(self.op):
                # Of a stream that adds a tensor before the shift behind which the formula adds it:
                # it holds a number that the formula, as it is written, does not.
                known = len(reader.known)
                reader.read(form)
                folded = len(reader.known) > known
                reader = Reader(ran.ones, self.neutral)
                wanted = self._wanted(reader, places[mine], weight, folded)
            self.found.compare(reader, wanted, form, places[mine], self.result.name)

    def _pad(self, found: Expr, places: Ints, weight: Values) -> None:
        """Pad lanes hold what the file states, whatever the inputs."""
        stated = self.result.stated[places][:, weight != 0]
        # Bytes are stored: only the low eight bits can be promised.
        if found[0] != "num" or (stated != found[1] & 255).any():
            self.found.wrong_steps.append(
                f"a pad lane of the element at {int(self.result.address[places[0]]):#x} holds"
                f" {show(found)}, the file states {int(stated[0, 0])}"
            )

    def _wanted(self, reader: Reader, places: Ints, weight: Values, folded: bool) -> Expr:
        """The formula's expression for these elements; its numbers become the known variables.
        folded: with the first tensor added before the shift, as `_folds` allows."""

        def at(values: Values) -> Values:
            return weighted_sums(values, self.result.who, places, weight)

        op = self.op
        if self.sums is not None:
            form = Form(at(self.sums))
        else:
            # Where no element is, a maximum has what cannot win.
            bare = number(self.neutral or 0)
            columns = [at(np.where(inside, v, bare)) for v, inside in self.taps]
            none = np.zeros(len(places), np.uint64)
            form = Form(none, (op.kind, None, np.stack(columns, 1), None))
        to = Writer(reader, form, sum_range(op))
        steps = list(zip(op.epilogue, self.steps, strict=True))
        if folded:
            # (S >> s) + b = (S + b 2^s) >> s
            (shift, _), (step, values), *steps = steps
            assert values is not None
            low, high = step_range(op, step)
            by = shift.imm or 0
            to.add(mul(at(values), number(1 << by)), (low << by, high << by))
            to.step("shr", by)
        for step, values in steps:
            if values is None and step.op == "add":
                # A constant in every lane, weighted, as the stream has it.
                whole = np.full(len(places), mul(number(step.imm or 0), reader.ones))
                to.add(whole, (step.imm or 0, step.imm or 0))
            elif values is None:
                to.step(step.op, step.imm)
            elif step.op == "add":
                to.add(at(values), step_range(op, step))
            else:
                to.step(step.op, None, at(values), step_range(op, step))
        return to.read()


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


def tensor_range(op: Operator, tensor: str) -> Reach:
    """What a tensor's elements can be, wherever the formula reads it."""
    steps = [s for s in op.epilogue if s.access is not None and s.access.tensor == tensor]
    if not steps or tensor in (op.lhs.tensor, op.rhs and op.rhs.tensor):
        return _type_range(op, tensor)
    # A tensor has one value for all steps: all their promises hold of it.
    ranges = [step_range(op, s) for s in steps]
    return max(low for low, _ in ranges), min(high for _, high in ranges)


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
