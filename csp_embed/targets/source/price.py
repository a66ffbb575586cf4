"""What a kernel of C costs, in cycles, before it is written: loops around templates, and packing.

Takes: Embedding, Tiling, Isa.  Leaves: a `Price`. Rates of templates are the spec's. What packing
costs is stated here, for it is our own loops that move the values: fitted to layers of DeepBench on
a Zen 4 core (cycles of each phase by its time stamp counter), and meant to rank embeddings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from csp_embed.ir.embedding import Embedding
from csp_embed.machine.spec import Isa
from csp_embed.targets.source import output
from csp_embed.targets.source.live import live
from csp_embed.targets.source.lower import places_of
from csp_embed.targets.source.places import Place
from csp_embed.targets.source.streams import LANES, Margin, Results, Streams, results_of, streams_of
from csp_embed.targets.source.tiles import Tiling

CALL = 6.0  # of a run, whatever its length
ZIP_BLOCK, ZIP_APART, ZIP_VALUE = 5.5, 24.0, 4.0  # 16 words side by side, apart; one word by itself
COPY_BYTE = 1 / 24
WORDS_BLOCK, WORDS_STEP = 110.0, 20.0  # 16 steps of 16 streams at once; one step by itself
UNZIP_BLOCK, UNZIP_VALUE = 28.0, 1.0
VALUE = 1.8  # a value that is moved by itself
FUSED_VALUE = 4.0  # the same, whose place is found by divisions
CORRECTED = 1.5  # a factor's element in the sums that correct an unsigned one
BEYOND = 1 / 10  # a byte of packed operands that leave the last cache


@dataclass(frozen=True)
class Price:
    """Cycles. sums: the loops around the templates; pack: activations into lanes; unpack: packed
    results into the tensor; correct: what an unsigned factor needs in every run."""

    sums: float
    pack: float = 0.0
    unpack: float = 0.0
    correct: float = 0.0

    @property
    def total(self) -> float:
        return self.sums + self.pack + self.unpack + self.correct

    def show(self) -> str:
        """In words."""
        parts = (("packing", self.pack), ("unpacking", self.unpack), ("correcting", self.correct))
        more = "".join(f", {name} {n:,.0f}" for name, n in parts if n)
        return f"{self.total:,.0f} cycles predicted: sums {self.sums:,.0f}{more}"


def priced(embedding: Embedding, isa: Isa, tiling: Tiling) -> Price:
    """The price of an embedding with a tile."""
    assert isa.program is not None
    op = embedding.operator
    places = places_of(embedding, isa, tiling)
    pack, moved = 0.0, 0
    for role, p in places.items():
        if role != "dst" and not op.tensors[p.layout.tensor].constant:
            pack += _packed(p, streams_of(p))
            # Bytes that are written by packing and read by the sums.
            moved += p.elements * np.dtype(p.dtype).itemsize
    correct = 0.0
    for role, other in (("lhs", "rhs"), ("rhs", "lhs")):
        # A constant factor's correction is made once, with the constants.
        run_time = not op.tensors[places[other].layout.tensor].constant
        if places[role].offset and run_time:
            correct = CORRECTED * places[other].elements / places[other].lane_count
    unpack, dst = 0.0, places["dst"]
    if output.direct(dst, embedding) is None:
        unpack = _unpacked(dst, results_of(dst, np.dtype(op.out_dtype).itemsize))
        moved += dst.elements
    caches = isa.program.caches
    # What leaves the last cache is fetched again, at memory's rate.
    beyond = max(0, moved - caches[-1].size) * BEYOND if caches else 0.0
    cut = live(embedding, tiling)
    # What begins and ends a sum is counted as its steps are: close enough to rank by.
    sums = tiling.cycles if cut is None else tiling.cycles * cut.share
    return Price(sums, pack + beyond, unpack, correct)


def _packed(place: Place, s: Streams | None) -> float:
    # Value by value: no runs were found.
    if s is None:
        return (FUSED_VALUE if place.layout.fused else VALUE) * place.elements
    runs = math.prod(a.extent for a in s.around)
    n, step = s.run
    if s.kind == "copy":
        each = 4 * n * COPY_BYTE
    elif s.kind == "words":
        across = LANES if s.lanes[0] is None else s.lanes[0][1]
        # Whole blocks of 16 by 16; anything else goes step by step.
        whole = across == LANES and n >= 16
        each = n / 16 * WORDS_BLOCK if whole else n * WORDS_STEP * across / LANES
    elif n >= 16:
        each = math.ceil(n / 16) * (ZIP_BLOCK if step == 4 else ZIP_APART)
    else:
        each = n * ZIP_VALUE
    return runs * (CALL + each) + (_copied(s.source) if s.source.copied else 0.0)


def _copied(m: Margin) -> float:
    """Zeros, then rows."""
    rows = math.prod(m.shape[:-1])
    if m.phases == 1:
        return rows * CALL + m.elements * COPY_BYTE
    # Each phase is a run of its own.
    return rows * m.phases * CALL + m.elements / 16


def _unpacked(place: Place, r: Results | None) -> float:
    if r is None:
        return VALUE * place.elements
    runs, n = math.prod(a.extent for a in r.around), r.run[0]
    # Sixteen results at once, the last block overlapping.
    each = math.ceil(n / 16) * UNZIP_BLOCK if n >= 16 else n * len(r.lanes) * UNZIP_VALUE
    return runs * (CALL + each)
