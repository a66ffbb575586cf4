"""Which operators the machine computes, and which of those are one program.

Takes: a graph.  Leaves: `Plan`: segments in order; what the host computes, with the reason; what
needs no step at all, because it only names elements in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from csp_embed.compiler.options import Options
from csp_embed.compiler.whole.segment import Segment, Unfit, build_segment
from csp_embed.compiler.whole.sites import Site, site_of
from csp_embed.compiler.whole.views import View, is_view, views
from csp_embed.machine.spec import Isa
from csp_embed.network.lower.layer import lower
from csp_embed.network.lower.lowered import Lowered
from csp_embed.network.quantised import graph as g

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """segments: programs in order. host: operator -> why the host computes it. views: operators
    that move nothing."""

    segments: tuple[Segment, ...]
    host: Mapping[str, str]
    views: frozenset[str]


def plan_of(graph: g.Graph, isa: Isa, options: Options, tell: Tell) -> Plan:
    """Raises: InputError where the network needs more DRAM than the machine addresses."""
    of = views(graph)
    host: dict[str, str] = {}
    made: dict[str, Lowered] = {}
    still = frozenset(op.name for op in graph.operators if is_view(graph, op, of))
    for n, op in enumerate(graph.operators):
        tell(f"requantisation of {op.name}", n, len(graph.operators))
        if op.name in still:
            continue
        found = lower(graph, op) if _contracts(isa) else f"{isa.name} has no contraction"
        if isinstance(found, str):
            host[op.name] = found
        else:
            made[op.name] = found
    while True:
        sites = _sites(graph, of, made, host)
        try:
            segments = _segments(graph, isa, options, of, sites, host, tell)
        except Unfit as error:  # this layer is the host's, and the rest is tried again
            host[error.layer] = error.what
            del made[error.layer]
            continue
        return Plan(tuple(segments), host, still)


def _contracts(isa: Isa) -> bool:
    return any(i.kind == "contract" for i in isa.instructions)


def _sites(
    graph: g.Graph, of: Mapping[str, View], made: dict[str, Lowered], host: dict[str, str]
) -> dict[str, Site]:
    sites = {}
    for op in graph.operators:
        if op.name in made:
            found = site_of(graph, op, made[op.name], of)
            if isinstance(found, str):
                host[op.name] = found
                del made[op.name]
            else:
                sites[op.name] = found
    return sites


def _segments(
    graph: g.Graph, isa: Isa, options: Options, of: Mapping[str, View], sites: Mapping[str, Site],
    host: Mapping[str, str], tell: Tell,
) -> list[Segment]:  # fmt: skip
    """Layers stand in the first segment in which all that they read is there."""
    number: dict[str, int] = dict.fromkeys(graph.inputs, 0)  # of the segment a tensor is ready for
    parts: list[list[Site]] = []
    for op in graph.operators:
        at = max((number[of[n].root] for n in op.inputs if n in of), default=0)
        if op.name in sites:
            while len(parts) <= at:
                parts.append([])
            parts[at].append(sites[op.name])
            number[op.output] = at
        elif op.name in host:
            made = {s.op.output: n for n, part in enumerate(parts) for s in part}
            # What the host reads must have left the machine.
            number[op.output] = max(
                (number[r] + (r in made) for r in (of[n].root for n in op.inputs if n in of)),
                default=0,
            )
    sizes = {n: t.elements for n, t in graph.tensors.items()}
    out = []
    for n, part in enumerate(parts):
        mine = {s.op.output for s in part}
        reads = frozenset(r for s in part for r in s.roots if r not in mine)
        later = {r for other in parts[n + 1 :] for s in other for r in s.roots}
        later |= {of[i].root for op in graph.operators if op.name in host
                  for i in op.inputs if i in of}  # fmt: skip
        later |= {of[name].root for name in graph.outputs}
        out.append(build_segment(part, isa, options, sizes, reads, frozenset(mine & later), tell))
    return out
