"""The schedule that won, out of all candidates: searched, or rebuilt from an earlier search.

Takes: Candidates and a Setting.  Leaves: `Scheduled`, with what the search measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from csp_embed.compiler.request.setting import Setting
from csp_embed.compiler.search import cache
from csp_embed.compiler.search.candidates import Candidates, addressable, host_bytes
from csp_embed.compiler.search.measuring import Measured
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.schedule import Schedule
from csp_embed.schedule.bias_in_lanes import spared
from csp_embed.schedule.choose import Found, search
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import build as build_problem


@dataclass(frozen=True)
class Scheduled:
    """tried: (embedding, cycles with its penalty) of every candidate that was scheduled, fewest
    first: the first is the one that won."""

    embedding: Embedding
    schedule: Schedule
    measured: Measured
    tried: tuple[tuple[Embedding, float], ...]

    def show(self) -> str:
        """What `--print-after schedule` prints."""
        unit = "cycles" if self.measured.counted else "estimated (the spec states no costs)"
        count = f"scheduled: {len(self.tried)} of the candidates"
        return "\n".join(
            [
                self.schedule.show(),
                f"  of {self.embedding.formula()}",
                f"  {self.measured.cycles:,.0f} {unit}; {count}",
            ]
        )

    def verify(self) -> list[object]:
        """What contradicts the statement above; empty where it holds."""
        out: list[object] = list(self.schedule.verify())
        # The first must be the least, and the one that is compiled.
        cycles = [c for _, c in self.tried]
        if cycles != sorted(cycles) or self.tried[0][0] is not self.embedding:
            out.append("another embedding was found to take fewer cycles")
        return out


def schedule_of(candidates: Candidates, setting: Setting) -> Scheduled:
    """Raises: Infeasible where no tile of any candidate fits."""
    options, isa = setting.options, setting.isa
    # Too large for the machine's addresses: not even tried.
    embeddings = addressable(candidates.embeddings, isa)
    # The host packs this operator's activations for it alone: idle lanes are free for a bias.
    problems = [spared(build_problem(e, isa), setting.ranges) for e in embeddings]
    op = embeddings[0].operator
    name = "" if options.cache is None else cache.key(op, isa, options, setting.ranges)
    # A hit is rebuilt and measured again, so that its cycles are of today's engine.
    found: list[Found] = cache.recall(
        options.cache, name, embeddings, problems, setting.meter, setting.ranges
    )
    if not found:
        found = search(
            problems,
            setting.meter,
            setting.costs,
            ranges=setting.ranges,
            # Bytes that the host packs in every run, weighed as the user wishes.
            penalties=[options.host_weight * host_bytes(e, isa) for e in embeddings],
            top=options.top,
            count=options.schedules,
            refine=options.refine,
        )
        winner = found[0]
        # Schedules without a Config (elementwise ones) are found at once.
        if options.cache is not None and isinstance(winner.config, Config):
            cache.save(options.cache, name, embeddings[winner.number].formula(), winner.config)
    best = found[0]
    assert isinstance(best.measured, Measured)  # by our own meter
    tried = tuple((embeddings[f.number], f.cycles) for f in found)
    return Scheduled(embeddings[best.number], best.schedule, best.measured, tried)
