"""How the windows of a pool lie in the accumulators, so that maxima are taken where they stand.

Along a dimension that a window moves over, elements fall into *classes*: those that stand a whole
number of strides apart. The elements of a class lie side by side. A class that a single tap of the
window reads, its *centre*, has one element for each output, so the other taps are compared into it
and nothing is copied; where every class is read by several taps (stride 1), the outputs stand
apart. A window is reduced along one dimension after the other. Where there is one output alone, the
second half of its taps is compared into the first, and so on.

Takes: a Problem.  Leaves: `Loop`s, and what a tile of them takes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from csp_embed.machine.costs import Costs
from csp_embed.schedule.inputs import Problem

APART = -1  # the label of outputs that stand apart from all classes
Key = tuple[int, ...]
"""A label for each loop: a class, or APART."""


@dataclass(frozen=True)
class Loop:
    """A loop over outputs, with what its window reads. counter: of the outputs, -1: one output.
    dims: (dimension of the source, step of the counter). reduced: counter of the taps, or -1.
    residues: of every class, the index of its first element from that of output 0, tap 0, in
    elements of the source. taps: (class, outputs from an output's own element to the tap's)."""

    counter: int
    dims: tuple[tuple[int, int], ...]
    reduced: int = -1
    residues: tuple[int, ...] = (0,)
    taps: tuple[tuple[int, int], ...] = ((0, 0),)
    centre: int = 0

    @cached_property
    def first(self) -> tuple[int, ...]:
        """The least shift of each class."""
        return tuple(
            min(shift for k, shift in self.taps if k == c) for c in range(len(self.residues))
        )

    @cached_property
    def more(self) -> tuple[int, ...]:
        """Elements of each class beyond one for each output."""
        last = [max(shift for k, shift in self.taps if k == c) for c in range(len(self.residues))]
        return tuple(b - a for a, b in zip(self.first, last, strict=True))

    @property
    def whole(self) -> bool:
        """Nothing is to be reduced."""
        return len(self.taps) == 1

    def length(self, label: int, outputs: int) -> int:
        return outputs if label == APART else outputs + self.more[label]


def loops_of(problem: Problem, order: Sequence[int]) -> list[Loop] | None:
    """The loops over a tile, outermost first in `order` (dimensions of the result); None where a
    window moves over the source in another way than these."""
    steps = problem.lhs.step
    movers = [dict(m) for m in problem.lhs.movers]
    outs = {c for c, r in enumerate(problem.reduced) if not r}
    if any(s < 0 for m in movers for s in m.values()):
        return None
    # Where two counters of outputs move one index, what lies outside of the grid is no box.
    if any(len(outs & set(m)) > 1 or len(set(m) - outs) > 1 for m in movers):
        return None
    found: list[Loop] = []
    taken: set[int] = set()
    for d in order:
        for c in (c for c in outs if problem.out_dim[c] == d):
            dims = tuple((e, int(s)) for e, s in enumerate(steps[c]) if s)
            windows = [(e, r) for e, _ in dims for r in movers[e] if r not in outs]
            if not windows:
                found.append(Loop(c, dims))
                continue
            if len(dims) != 1:
                return None
            ((e, r),) = windows
            taken.add(r)
            found.append(_window(problem, c, r, e))
    alone = [r for r in range(len(problem.extents)) if problem.reduced[r] and r not in taken]
    for r in alone:
        dims = [e for e, s in enumerate(steps[r]) if s]
        if len(dims) != 1 or outs & set(movers[dims[0]]):
            return None
        found.insert(0, _window(problem, -1, r, dims[0]))
    # Each counter of taps moves one index only.
    if any(sum(1 for s in steps[r] if s) > 1 for r in taken):
        return None
    return found


def _window(problem: Problem, counter: int, reduced: int, dim: int) -> Loop:
    count, step = problem.extents[reduced], int(problem.lhs.step[reduced, dim])
    if counter < 0:
        # One output alone: its taps are one class.
        return Loop(-1, ((dim, step),), reduced, taps=tuple((0, t) for t in range(count)),
                    centre=APART)  # fmt: skip
    stride = int(problem.lhs.step[counter, dim])
    offsets = [divmod(step * t, stride) for t in range(count)]
    residues = sorted({rest for _, rest in offsets})
    taps = tuple((residues.index(rest), shift) for shift, rest in offsets)
    single = [k for k, _ in taps if sum(1 for other, _ in taps if other == k) == 1]

    def inside(k: int) -> bool:
        """Its elements lie in the grid for all outputs: nothing has to be filled in."""
        tap = next(t for t, (c, _) in enumerate(taps) if c == k)
        low = problem.lhs.origin[dim] + step * tap
        return low >= 0 and low + stride * (problem.extents[counter] - 1) < problem.lhs.grid[dim]

    # `first` of the centre is not always 0: a tap two strides on is as good as one in place.
    centre = min(single, key=lambda k: (not inside(k), k)) if single else APART
    return Loop(counter, ((dim, stride),), reduced, tuple(residues), taps, centre)


@dataclass(frozen=True)
class Reduction:
    """A way to reduce the windows of a tile: loops in `order`, one after the other.

    outputs: of each loop. final: the label of the results.
    """

    loops: tuple[Loop, ...]
    outputs: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def final(self) -> Key:
        return tuple(loop.centre for loop in self.loops)

    def labels(self, done: Sequence[int]) -> list[list[int]]:
        """Of every loop, once those of `done` are reduced."""
        return [
            [loop.centre] if n in done else list(range(len(loop.residues)))
            for n, loop in enumerate(self.loops)
        ]

    def shape(self, key: Key) -> tuple[int, ...]:
        return tuple(
            loop.length(label, n)
            for loop, label, n in zip(self.loops, key, self.outputs, strict=True)
        )

    def arrays(self) -> list[Key]:
        """Their labels, those of the source first; each once."""
        out = list(itertools.product(*self.labels(())))
        for at, n in enumerate(self.order):
            if self.loops[n].centre == APART:
                out += itertools.product(*self.labels(self.order[: at + 1]))
        return list(dict.fromkeys(out))

    def cells(self) -> int:
        """Accumulators of all arrays."""
        return sum(math.prod(self.shape(key)) for key in self.arrays())

    def work(self, costs: Costs) -> float:
        """Cycles of the compute queue."""
        sources = list(itertools.product(*self.labels(())))
        filled = sum(math.prod(self.shape(key)) for key in sources)
        total = filled * (costs.reset_step + costs.step) + costs.instruction * (len(sources) + 2)
        done: list[int] = []
        for n in self.order:
            loop = self.loops[n]
            apart = loop.centre == APART
            labels = self.labels(done)
            labels[n] = [loop.centre]
            tensor = len(loop.taps) - (not apart)
            for key in itertools.product(*labels):
                size = math.prod(self.shape(key))
                total += size * (tensor * costs.tensor_step + apart * costs.reset_step)
                nests = tensor if loop.counter >= 0 else min(tensor, tensor.bit_length() + 1)
                total += nests * costs.instruction
            done.append(n)
        return total


def reductions(loops: Sequence[Loop], outputs: Sequence[int], costs: Costs) -> Reduction:
    """The order of least work."""
    several = [n for n, loop in enumerate(loops) if not loop.whole]
    ways = [
        Reduction(tuple(loops), tuple(outputs), order) for order in itertools.permutations(several)
    ]
    return min(ways, key=lambda way: (way.work(costs), way.order))
