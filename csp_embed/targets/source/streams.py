"""A packed operand as streams of its tensor: what can be moved whole vectors at a time.

Takes: a `Place`.  Leaves: `Streams` (tensor into buffer) or `Results` (buffer into tensor), or None
where the layout is of another kind; then packing.py moves value by value.

Four neighbouring lanes of an operand are four streams of the tensor, each a constant away from the
first: a run of them is interleaved at once. Indices that leave the tensor are met by a copy of it
with a margin of zeros, and strides in its last dimension by laying that copy out in phases, so that
the runs themselves have neither conditions nor strides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from csp_embed.targets.source.places import Place
from csp_embed.targets.source.runs import Around, Margin, Results, Streams, Walk

STREAMS = 4  # lanes that are interleaved at a time: the bytes of a word
LANES = 16  # lanes of a packed result that are moved across at a time
TABLE = 4096  # most entries of a table of offsets
NONE = -(2**31)


def copy_name(buffer: str) -> str:
    """Of the copy with a margin that a buffer is packed from."""
    return f"{buffer}margin"


def walks_of(place: Place) -> list[Walk]:
    """All loops over a place's values that run more than once."""
    layout = place.layout
    f = layout.fused[0] if layout.fused else None
    out = [
        Walk(place.shape[d], place.low[d], place.strides[d],
             tuple(row[d] for row in layout.grid_coef), f.grid_coef[d] if f else 0, d)
        for d in range(len(place.shape))
    ]  # fmt: skip
    out += [
        Walk(digit.extent, 0, step, tuple(row.get(digit.name, 0) for row in layout.digit_coef),
             f.digit_coef.get(digit.name, 0) if f else 0, -1)
        for digit, step in place.digits
    ]  # fmt: skip
    return [w for w in out if w.extent > 1 or w.first]


def streams_of(place: Place) -> Streams | None:
    """How the tensor becomes the place's buffer."""
    layout = place.layout
    # Bytes only: words of four are what the helpers move.
    bytes_ = place.dtype in ("int8", "uint8") and place.tensor_shape
    if not bytes_ or len(layout.fused) > 1 or layout.equal or place.lanes[-1:] != (STREAMS,):
        return None
    walks = walks_of(place)
    # Digits within a word; all else moves whole words.
    inside = [w for w in walks if w.grid < 0 and w.step < STREAMS]
    outside = [w for w in walks if w not in inside]
    fused = [w.fused for w in walks]
    # Words must stay whole, and what lies outside must be zeros.
    if any(w.step % STREAMS for w in outside) or not _neutral_outside(place, walks):
        return None
    # Longer tables would not pay: other layouts serve such operators.
    if layout.fused and math.prod(layout.fused[0].extents) > TABLE:
        return None
    lanes = _lanes(inside, len(place.tensor_shape))
    last = [(tuple([0] * (len(place.tensor_shape) - 1) + [n]), 0) for n in range(STREAMS)]
    # The four bytes of a word lie side by side in the tensor, too.
    if lanes == last and not any(fused) and not any(w.index[-1] % STREAMS for w in outside):
        return _words(place, walks, outside)
    return _zip(place, walks, outside, lanes)


def _lanes(inside: list[Walk], rank: int) -> list[tuple[tuple[int, ...], int] | None]:
    """Of each stream what it adds to the indices and to the fused coordinate; None: no data."""
    out: list[tuple[tuple[int, ...], int] | None] = [None] * STREAMS
    for values in itertools.product(*(range(w.extent) for w in inside)):
        both = list(zip(values, inside, strict=True))
        index = tuple(sum(v * w.index[t] for v, w in both) for t in range(rank))
        out[sum(v * w.step for v, w in both)] = (index, sum(v * w.fused for v, w in both))
    return out


def _zip(
    place: Place,
    walks: list[Walk],
    outside: list[Walk],
    lanes: list[tuple[tuple[int, ...], int] | None],
) -> Streams | None:
    # A run must move the tensor's last index alone.
    fit = [w for w in outside if w.index[-1] > 0 and not any(w.index[:-1]) and not w.fused]
    # Side by side in the buffer where there is such a run, then the closest in the tensor.
    run = min(fit, key=lambda w: (w.step != STREAMS, w.index[-1], -w.extent), default=None)
    if run is None:
        return None
    phases, others = run.index[-1], [w for w in outside if w is not run]
    # Other loops must keep the phase: whole steps of the stride.
    if any(w.index[-1] % phases for w in others):
        return None
    fused = place.layout.fused[0] if place.layout.fused else None
    if fused and phases > 1 and any(lane and lane[0][-1] for lane in lanes):
        return None  # offsets of lanes and of the table would not add up
    z = _span(fused.const, [(w.fused, w) for w in walks]) if fused else (0, 0)
    beyond = fused is not None and (z[0] < 0 or z[1] >= math.prod(fused.extents))
    # Zeros are needed where a stream or a place has no data.
    spare = beyond or None in lanes
    source = _source(place, walks, phases, copied=spare)
    around, length = _joined(
        [Around(w.extent, w.step, source.moved(w.index), w.fused) for w in others],
        run.extent, run.step, 1,
    )  # fmt: skip
    # The run's length is known only now: so many zeros must stand behind.
    if spare:
        source = _source(place, walks, phases, copied=True, zeros=length)
    start = _start(place, outside)
    base = source.at(start)
    streams = tuple(
        None if lane is None else
        (source.at([c + i for c, i in zip(start, lane[0], strict=True)]) - base, lane[1])
        for lane in lanes
    )  # fmt: skip
    table = tuple(_offset(place, source, n) for n in range(z[0], z[1] + 1)) if fused else ()
    first = 0 if fused is None else fused.const + sum(w.first * w.fused for w in outside) - z[0]
    return Streams("zip", source, around, (length, run.step), (base, first), streams, table,
                   fills=_unwritten(place, outside))  # fmt: skip


def _words(place: Place, walks: list[Walk], outside: list[Walk]) -> Streams | None:
    """Four bytes lie side by side on both sides."""
    runs = [w for w in outside if w.index[-1] == STREAMS and not any(w.index[:-1])]
    run = min(runs, key=lambda w: w.step, default=None)
    if run is None:
        return None
    # Lanes across: each is a stream of words of its own.
    across = [w for w in outside if w is not run and w.grid < 0 and w.step == STREAMS]
    kind = "copy" if run.step == STREAMS else "words"
    across = across if kind == "words" else []
    if kind == "words" and (len(across) != 1 or across[0].index[-1]):
        return None
    left, ragged = None, ()
    if across:
        left, ragged = _left(place, walks, across[0])
    # A ragged end is met by fewer streams, not by a margin.
    source = _source(place, walks, 1, kept=ragged)
    others = [w for w in outside if w is not run and w not in across]
    around = [
        Around(w.extent, w.step, source.moved(w.index), 0, sum(w.index[t] for t in ragged))
        for w in others
    ]
    if kind == "copy":
        joined, length = _joined(around, run.extent, run.step, STREAMS)
    else:
        joined, length = _ordered(around), run.extent
    lanes = tuple((source.moved(w.index), w.extent) for w in across)
    base = source.at(_start(place, outside))
    return Streams(kind, source, joined, (length, run.step), (base, 0), lanes, (), left,
                   _unwritten(place, outside))  # fmt: skip


def _left(place: Place, walks: list[Walk], across: Walk) -> tuple[int | None, tuple[int, ...]]:
    """(streams that exist at the first step, the tensor dimension that ends early): a ragged end
    is met by fewer streams, for a copy of the whole tensor would cost more."""
    dims = [t for t, c in enumerate(across.index) if c]
    if len(dims) != 1 or across.index[dims[0]] != 1:
        return None, ()
    t = dims[0]
    low, high = _index_span(place, walks, t)
    others = [w for w in walks if w is not across and w.index[t]]
    # Only an end beyond the tensor, and loops that go forwards.
    if low < 0 or high < place.tensor_shape[t] or any(w.index[t] < 0 for w in others):
        return None, ()
    start = place.layout.const[t] + sum(w.first * w.index[t] for w in others)
    return place.tensor_shape[t] - start, (t,)


def results_of(place: Place, itemsize: int) -> Results | None:
    """How the buffer of packed results becomes the tensor."""
    layout = place.layout
    # Results of one byte and sixteen lanes: what the transposing helper takes.
    if itemsize != 1 or place.lane_count != LANES or layout.fused or layout.equal:
        return None
    walks = walks_of(place)
    inside, outside = ([w for w in walks if (w.grid < 0) == lane] for lane in (True, False))
    source = Margin((0,) * len(place.tensor_shape), place.tensor_shape, place.tensor_shape)
    runs = [w for w in outside if source.moved(w.index) == 1]
    if len(runs) != 1 or not _neutral_outside(place, walks):
        return None
    run, left, ragged = runs[0], None, ()
    # One ragged dimension at most, and that of the lanes.
    wrong = [t for t, n in enumerate(place.tensor_shape)
             if (s := _index_span(place, walks, t))[0] < 0 or s[1] >= n]  # fmt: skip
    if wrong:
        digit = [w for w in inside if w.index[wrong[0]]]
        if len(wrong) > 1 or len(digit) != 1 or digit[0].step != 1 or run.index[wrong[0]]:
            return None
        left, ragged = _left(place, walks, digit[0])
        if left is None or len(inside) != 1:
            return None
    around, length = _joined(
        [Around(w.extent, w.step, source.moved(w.index), 0, sum(w.index[t] for t in ragged))
         for w in outside if w is not run],
        run.extent, run.step, 1,
    )  # fmt: skip
    lanes: dict[int, int | None] = dict.fromkeys(range(LANES))
    for values in itertools.product(*(range(w.extent) for w in inside)):
        both = list(zip(values, inside, strict=True))
        lanes[sum(v * w.step for v, w in both)] = sum(v * source.moved(w.index) for v, w in both)
    used = math.prod(w.extent for w in inside)
    # The helper counts lanes from the first.
    if any(lanes[n] is None for n in range(used)):
        return None  # the lanes that are used are not the first ones
    offsets = tuple(lanes[n] or 0 for n in range(used))
    return Results(around, (length, run.step), source.at(_start(place, outside)), offsets, left)


def _start(place: Place, outside: list[Walk]) -> list[int]:
    """The tensor's index at the first value of every loop, where the buffer begins."""
    return [
        c + sum(w.first * w.index[t] for w in outside) for t, c in enumerate(place.layout.const)
    ]


def _joined(
    around: list[Around], length: int, step: int, source: int
) -> tuple[tuple[Around, ...], int]:
    """(the loops that are left, the length of the run that others continue on both sides)."""
    while True:
        # A loop that continues the run on both sides makes it longer.
        whole = (step * length, source * length, 0, 0)
        same = [a for a in around if (a.step, a.source, a.fused, a.left) == whole]
        if not same:
            return _ordered(around), length
        around.remove(same[0])
        length *= same[0].extent


def _ordered(around: list[Around]) -> tuple[Around, ...]:
    """As they lie in the buffer, the greatest steps outermost."""
    return tuple(sorted(around, key=lambda a: -a.step))


def _unwritten(place: Place, outside: list[Walk]) -> bool:
    """Whether lanes beyond the words of the runs stay unwritten."""
    words = math.prod(w.extent for w in outside if w.grid < 0)
    return words * STREAMS < place.lane_count


def _span(const: int, parts: Sequence[tuple[int, Walk]]) -> tuple[int, int]:
    """Least and greatest value of a sum over loops."""
    ends = [(c * w.first, c * (w.first + w.extent - 1)) for c, w in parts]
    return const + sum(min(e) for e in ends), const + sum(max(e) for e in ends)


def _index_span(place: Place, walks: list[Walk], t: int) -> tuple[int, int]:
    """Least and greatest value of a tensor index, fused coordinates in their range."""
    layout = place.layout
    low, high = _span(layout.const[t], [(w.index[t], w) for w in walks])
    for f in layout.fused:
        for axis, n in zip(f.axes, f.extents, strict=True):
            reach = f.axis_coef[axis][t] * (n - 1)
            low, high = low + min(0, reach), high + max(0, reach)
    return low, high


def _neutral_outside(place: Place, walks: list[Walk]) -> bool:
    """Whether a grid index outside the layout's grid always leaves the tensor: only then a margin
    of zeros means the same."""
    # Values just outside of each loop's range stand for all beyond.
    for w in walks:
        size = place.layout.grid[w.grid] if w.grid >= 0 else w.extent
        for v in (-1, size):
            if not w.first <= v < w.first + w.extent:
                continue
            others, left = [x for x in walks if x is not w], False
            for t, extent in enumerate(place.tensor_shape):
                low, high = (b + w.index[t] * v for b in _index_span(place, others, t))
                # Further out it moves on in the same direction.
                away = w.index[t] * (1 if v > 0 else -1)
                left = left or (high < 0 and away < 0) or (low >= extent and away > 0)
            if not left:
                return False
    return True


def _source(
    place: Place,
    walks: list[Walk],
    phases: int,
    *,
    copied: bool = False,
    zeros: int = 0,
    kept: tuple[int, ...] = (),
) -> Margin:
    """What is read. copied: a copy is needed anyway. kept: dimensions whose ragged end is met
    otherwise."""
    rank = len(place.tensor_shape)
    spans = [_index_span(place, walks, t) for t in range(rank)]
    wide = [
        ((lo < 0 or hi >= n) and t not in kept) or (phases > 1 and t == rank - 1)
        for t, (n, (lo, hi)) in enumerate(zip(place.tensor_shape, spans, strict=True))
    ]
    # One dimension that needs a margin makes the whole a copy.
    copied = copied or any(wide)
    # A copy leaves out the rows between strides.
    every = [_distance(place, walks, t) if copied and t < rank - 1 else 1 for t in range(rank)]
    low, shape = [], []
    for t, n in enumerate(place.tensor_shape):
        first, last = spans[t] if wide[t] or every[t] > 1 else (0, n - 1)
        low.append(first)
        shape.append((last - first) // every[t] + 1)
    return Margin(tuple(low), tuple(shape), place.tensor_shape, phases, copied, zeros, tuple(every))


def _distance(place: Place, walks: list[Walk], t: int) -> int:
    """The greatest common divisor of what moves a tensor index; 1 where nothing does."""
    moves = [w.index[t] for w in walks]
    moves += [c[t] for f in place.layout.fused for c in f.axis_coef.values()]
    return math.gcd(*moves) or 1


def _offset(place: Place, source: Margin, z: int) -> int:
    """What a fused coordinate moves in what is read; NONE where it has no data."""
    fused, const = place.layout.fused[0], place.layout.const
    if not 0 <= z < math.prod(fused.extents):
        return NONE
    index, rest = list(const), z
    for axis, n in zip(reversed(fused.axes), reversed(fused.extents), strict=True):
        rest, value = divmod(rest, n)
        index = [i + c * value for i, c in zip(index, fused.axis_coef[axis], strict=True)]
    return source.at(index) - source.at(const)
