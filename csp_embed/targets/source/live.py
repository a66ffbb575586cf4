"""Steps that meet padding alone, and are left out: pieces of an output axis with their taps.

Takes: an Embedding, its Tiling.  Leaves: a `Live`. Conditions inside of loops would cost more than
they save. So the loop over one output counter is cut into a few pieces, and in each of them the
loop over one reduced counter runs only over taps that meet data for some value of the piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from csp_embed.ir.embedding import Counter, Embedding, Layout
from csp_embed.targets.source.tiles import Tiling

# Each piece is a body of its own in the text: beginning, middle and end of the axis.
MOST = 3
# Below this share of all steps the text is not worth its length.
LEAST = 0.02


@dataclass(frozen=True)
class Piece:
    """Values first … first + count - 1 of the output counter meet taps begin … begin + taps - 1.
    taps 0: nothing but padding."""

    first: int
    count: int
    begin: int
    taps: int

    @property
    def window(self) -> tuple[int, int]:
        """(begin, taps)"""
        return self.begin, self.taps


@dataclass(frozen=True)
class Live:
    """output: the counter whose loop is cut; reduced: the one that is shortened, None where sums
    are whole or nothing. share: of all steps, those that are left."""

    output: str
    reduced: str | None
    pieces: tuple[Piece, ...]
    share: float

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """The pieces' different windows that have steps, in order."""
        return tuple(dict.fromkeys(p.window for p in self.pieces if p.taps))


def live(embedding: Embedding, tiling: Tiling) -> Live | None:
    """The cut that leaves out most steps; None where none is worth it.

    Only counters with a loop of their own are cut: values that are taken several at once meet
    different taps.
    """
    best: Live | None = None
    outputs = (*tiling.outer, *tiling.middle)
    for role in ("lhs", "rhs"):
        layout = embedding.layouts.get(role)
        if layout is None:
            continue
        for output in outputs:
            for reduced in (*tiling.inner, None):
                found = _cut(embedding, layout, output, reduced)
                # Of equal shares the first stays.
                if found is not None and (best is None or found.share < best.share):
                    best = found
    # Where nothing is met at all, steps stay: a kernel without any has nothing to pack.
    return best if best is not None and 0 < best.share <= 1 - LEAST else None


def _cut(
    embedding: Embedding, layout: Layout, output: Counter, reduced: Counter | None
) -> Live | None:
    """By one grid dimension of a factor: what lies outside of the grid is neutral (Layout)."""
    taps = 1 if reduced is None else reduced.extent
    met: list[list[bool]] | None = None
    for d, size in enumerate(layout.grid):
        moves = {
            c.name: layout.step[c.name][d] for c in embedding.counters if c.name in layout.step
        }
        by_output = moves.get(output.name, 0)
        by_tap = 0 if reduced is None else moves.get(reduced.name, 0)
        if not by_output or (reduced is not None and not by_tap):
            continue
        low = high = layout.origin[d]
        # Others may move the same dimension: outside for all of their values.
        for c in embedding.counters:
            if c is not output and c is not reduced:
                reach = moves.get(c.name, 0) * (c.extent - 1)
                low, high = low + min(reach, 0), high + max(reach, 0)
        ends = [by_output * v + by_tap * tap
                for v in (0, output.extent - 1) for tap in (0, taps - 1)]  # fmt: skip
        # Products have thousands of rows, and none outside.
        if min(ends) + high >= 0 and max(ends) + low < size:
            continue
        met = met or [[True] * taps for _ in range(output.extent)]
        for value, row in enumerate(met):
            for tap in range(taps):
                at = by_output * value + by_tap * tap
                row[tap] &= at + high >= 0 and at + low < size
    if met is None:
        return None
    windows = [_hull(row) for row in met]
    pieces = _pieces(windows)
    left = sum(p.count * p.taps for p in pieces)
    name = None if reduced is None else reduced.name
    return Live(output.name, name, pieces, left / (output.extent * taps))


def _hull(row: Sequence[bool]) -> tuple[int, int]:
    """(first tap that is met, one behind the last); (0, 0) where none is."""
    met = [tap for tap, there in enumerate(row) if there]
    return (met[0], met[-1] + 1) if met else (0, 0)


def _pieces(windows: Sequence[tuple[int, int]]) -> tuple[Piece, ...]:
    """At most MOST pieces with the fewest steps; of equal ones fewer pieces."""
    # Runs of equal windows first: cuts inside of one gain nothing.
    runs: list[tuple[int, int, tuple[int, int]]] = []
    for value, window in enumerate(windows):
        if runs and runs[-1][2] == window:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, window)
        else:
            runs.append((value, 1, window))

    def joined(some: Sequence[tuple[int, int, tuple[int, int]]]) -> Piece:
        full = [w for _, _, w in some if w[0] < w[1]]
        begin = min((w[0] for w in full), default=0)
        end = max((w[1] for w in full), default=0)
        return Piece(some[0][0], sum(n for _, n, _ in some), begin, end - begin)

    # best[n]: (steps, pieces) of the first n runs, for each number of pieces in turn.
    best: dict[int, tuple[int, tuple[Piece, ...]]] = {0: (0, ())}
    answer: tuple[int, tuple[Piece, ...]] | None = None
    for _ in range(MOST):
        then: dict[int, tuple[int, tuple[Piece, ...]]] = {}
        for end in range(1, len(runs) + 1):
            for begin, (steps, made) in best.items():
                if begin >= end:
                    continue
                piece = joined(runs[begin:end])
                total = steps + piece.count * piece.taps
                if end not in then or total < then[end][0]:
                    then[end] = total, (*made, piece)
        best = then
        if len(runs) in best and (answer is None or best[len(runs)][0] < answer[0]):
            answer = best[len(runs)]
    assert answer is not None, "one piece is always possible"
    return answer[1]
