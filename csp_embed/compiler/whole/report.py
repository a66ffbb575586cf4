"""What a reader wants to know of every operator: where it runs, how, how long, and whether right.

Takes: a plan and the values of its runs.  Leaves: `LayerReport`s. Cycles are those of the whole
program: a layer's begin where the last store of the one before has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.search.measuring import engine_of
from csp_embed.compiler.whole.partition import Plan
from csp_embed.compiler.whole.segment import Segment
from csp_embed.machine.costs import costs_of
from csp_embed.machine.spec import Isa
from csp_embed.network.quantised import graph as g
from csp_embed.ops.bound import bound_cycles
from csp_embed.sim.cycles.engine import CycleReport

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerReport:
    """where: "accelerator", "host", or "none" for what moves nothing. why: what was proved, or the
    reason for the host. recipe: how sums are requantised. embedding: which lanes carry what.
    begin, end: cycles of the segment's program. bound_cycles: of the plain formula with one round.
    extra_cycles: estimated, of further rounds. elements, differences: of its tensor over all
    inputs, compared with the reference."""

    name: str
    kind: str
    where: str
    why: str
    macs: int
    elements: int
    differences: int
    segment: int | None = None
    recipe: str = ""
    embedding: str = ""
    begin: int | None = None
    end: int | None = None
    bound_cycles: int | None = None
    extra_cycles: int | None = None

    @property
    def cycles(self) -> int | None:
        if self.begin is None or self.end is None:
            return None
        return self.end - self.begin

    def document(self) -> dict[str, Any]:
        return {**self.__dict__, "cycles": self.cycles, "exact": self.differences == 0}


def cycle_report(segment: Segment, options: Options) -> CycleReport | None:
    """The run of a segment in cycles; None where the spec states no costs."""
    engine = engine_of(segment.isa, costs_of(segment.isa, options.memory or ""))
    return None if engine is None else engine.report(segment.lowered.stream, trace=True)


def ends_of(segment: Segment, options: Options) -> list[int | None]:
    """The cycle at which each layer's last store has ended, all before it included; the last one
    with the whole program. None where the spec states no costs."""
    ran = cycle_report(segment, options)
    if ran is None or ran.trace is None:
        return [None for _ in segment.ends]
    # The running maximum, so that what overlaps is counted once: with the layer before.
    return [*(int(ran.trace.end[:count].max()) for count in segment.ends[:-1]), ran.total]


def layer_reports(
    graph: g.Graph, isa: Isa, plan: Plan, options: Options, found: Sequence[Mapping[str, Array]],
    wanted: Sequence[Mapping[str, Array]],
) -> list[LayerReport]:  # fmt: skip
    """One report per operator, in order."""
    times: dict[str, dict[str, Any]] = {}
    costs = costs_of(isa, options.memory or "")
    for number, segment in enumerate(plan.segments):
        # The first layer begins with the program.
        before: int | None = 0
        for layer, end in zip(segment.layers, ends_of(segment, options), strict=True):
            made = layer.site.made
            steps = layer.choice.embedding.cost["steps"] / layer.choice.embedding.cost["vectors"]
            vectors = layer.choice.embedding.cost["vectors"]
            times[layer.site.op.name] = {
                "segment": number,
                "recipe": made.recipe.name,
                "embedding": layer.choice.embedding.formula(),
                "begin": None if end is None else before,
                "end": end,
                # The formula without rounds: what exactness costs stands beside it.
                "bound_cycles": int(bound_cycles(made.op, isa, costs)),
                "extra_cycles": int(vectors * made.recipe.extra(steps)),
                "why": made.proof,
            }
            before = end
    out: list[LayerReport] = []
    for op in graph.operators:
        t = graph.tensors[op.output]
        wrong = sum(
            # All inputs together: one difference anywhere is one too many.
            int((np.asarray(v[op.output]) != w[op.output]).sum())
            for v, w in zip(found, wanted, strict=True)
        )
        here = times.get(op.name)
        where = "accelerator" if here else "none" if op.name in plan.views else "host"
        more = here or {"why": plan.host.get(op.name, "it moves nothing: another view of a tensor")}
        out.append(
            LayerReport(
                op.name, op.kind, where, macs=graph.macs(op), elements=t.elements * len(found),
                differences=wrong, **more,
            )
        )  # fmt: skip
    return out
