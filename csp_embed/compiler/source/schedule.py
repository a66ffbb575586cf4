"""Which embedding and which register tile a kernel of C gets: the least price, packing included.

Takes: embeddings of one operator, Isa.  Leaves: `SourceScheduled`, with what was weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.contracts import contracted
from csp_embed.machine.spec import Isa
from csp_embed.targets.source import tiles
from csp_embed.targets.source.price import Price, priced


@dataclass(frozen=True)
class Choice:
    """An embedding with its best tile, and what it costs."""

    embedding: Embedding
    tiling: tiles.Tiling
    price: Price


@dataclass(frozen=True)
class SourceScheduled:
    """tried: every candidate with its best tile, the least price first: that one won. Empty where
    the operator is plain loops, for the reason `why`."""

    operator: Operator
    tried: tuple[Choice, ...]
    why: str = ""

    def show(self) -> str:
        """Tile, loops, price, embedding."""
        if not self.tried:
            return f"plain loops, since {self.why}"
        best = self.tried[0]
        return "\n".join([
            best.tiling.show(), f"  of {best.embedding.formula()}", f"  {best.price.show()}",
            f"  the least of {len(self.tried)} candidates",
        ])  # fmt: skip

    def verify(self) -> list[str]:
        """What contradicts the statement above; empty where it holds."""
        prices = [c.price.total for c in self.tried]
        out = [] if prices == sorted(prices) else ["another candidate costs less"]
        return [*out, *(b for c in self.tried[:1] for b in c.tiling.verify())]


def schedule_source(embeddings: Sequence[Embedding], isa: Isa, top: int = 0) -> SourceScheduled:
    """top: how many embeddings are weighed, in order of analytic cost; 0: all."""
    tried: list[Choice] = []
    # Embeddings come in order of analytic cost: the first ones are weighed.
    for e in embeddings[: top or None]:
        machine = contracted(isa, e.instruction)
        # Each embedding with its best tile: prices are compared at their best.
        tiling = tiles.choose(e, machine)
        tried.append(Choice(e, tiling, priced(e, machine, tiling)))
    # A stable sort: of equal prices the least analytic cost comes first.
    tried.sort(key=lambda c: c.price.total)
    return SourceScheduled(embeddings[0].operator, tuple(tried))


__all__ = ["Choice", "SourceScheduled", "priced", "schedule_source"]
