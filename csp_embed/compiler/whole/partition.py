"""Which operators the machine computes, and which of those are one program.

Takes: a graph.  Leaves: `Plan`: segments in order; what the host computes, with the reason; what
needs no step at all, because it only names elements in another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.setting import Tell
from csp_embed.compiler.whole.joins import template
from csp_embed.compiler.whole.schedules import Scheduler
from csp_embed.compiler.whole.segment import Segment, Unfit, build_segment
from csp_embed.compiler.whole.sites import Known, Site, site_of
from csp_embed.compiler.whole.views import MOVES, View, is_view, joinable, views
from csp_embed.machine.costs import costs_of
from csp_embed.machine.spec import Isa
from csp_embed.network.lower.groups import with_joined_groups
from csp_embed.network.lower.layer import lower
from csp_embed.network.lower.lowered import Lowered
from csp_embed.network.quantised import graph as g


@dataclass(frozen=True)
class Plan:
    """segments: programs in order. host: operator -> why the host computes it. views: operators
    that move nothing."""

    segments: tuple[Segment, ...]
    host: Mapping[str, str]
    views: frozenset[str]


class _Apart(Exception):
    """Parts of a joined concatenation do not stand in one program; `args[0]` is its tensor."""


@dataclass
class _Draft:
    """What is decided so far. host: why, by operator; made: what the others were lowered to.
    joined: concatenations by address. stored: views that a layer or the host stores after all.
    widened: layers whose groups were joined."""

    graph: g.Graph
    host: dict[str, str]
    made: dict[str, Lowered]
    joined: set[str]
    stored: set[str]
    widened: set[str]

    def views(self) -> Mapping[str, View]:
        return views(self.graph, self.joined, self.stored)

    def take_back(self, name: str, why: str) -> None:
        """Another try for a layer that fits in no way: first without what is special about its
        tensors, then on the host."""
        # Tried in this order: wider groups, no joins, a view stored, the host.
        op = next(o for o in self.graph.operators if o.name == name)
        of = self.views()
        wider = None if name in self.widened else with_joined_groups(self.graph, op)
        if wider is not None:
            self.widened.add(name)
            # Widened weights are another layer, lowered anew.
            found = lower(*wider)
            if not isinstance(found, str):
                self.made[name] = found
                return
        for concat in self.graph.operators:
            roots = {of[n].root for n in (*op.inputs, op.output) if n in of}
            # The join that the layer itself stands in is given up first.
            if concat.name in self.joined and of[concat.output].root in roots:
                self.part(concat.output, f"{name}: {why}")
                return
        before = {o.output for o in self.graph.operators[: self.graph.operators.index(op) + 1]}
        for concat in self.graph.operators:
            # One whose parts stand before it may be what no layouts agree with.
            if concat.name in self.joined and not before.isdisjoint(concat.inputs):
                self.part(concat.output, f"{name}: {why}")
                return
        moving = {o.output: o for o in self.graph.operators if isinstance(o, MOVES)}
        size = {n: self.graph.tensors[of[n].root].elements for n in op.inputs if n in moving}
        found = [moving[n] for n in size if not of[n].plain(size[n])]
        # A flattened image in its own order may still lie in other lanes than the layer reads.
        found += [moving[n] for n in size if moving[n] not in found]
        if found:
            # Stored in its own order; a chain of views from its last one on.
            self.store(found[0], f"{name} cannot read its elements where they lie")
            return
        self.host[name] = why
        # The last resort costs speed, never correctness.
        del self.made[name]

    def part(self, output: str, why: str) -> None:
        """A concatenation is no longer joined, with those that it is a piece of."""
        of = self.views()
        for o in self.graph.operators:
            # All with that root: pieces of pieces hang together.
            if o.name in self.joined and of[o.output].root == of[output].root:
                self.joined.discard(o.name)
                self.host[o.name] = f"its parts cannot lie side by side; {why}"

    def store(self, op: g.Operator, why: str) -> None:
        """A view becomes a layer, of the machine where that has a form for it."""
        self.stored.add(op.name)
        found = lower(self.graph, op)
        if isinstance(found, str):
            self.host[op.name] = why
        else:
            self.made[op.name] = found


@dataclass(frozen=True)
class Searched:
    """What has been found of layers, for networks that share them."""

    known: Known
    scheduler: Scheduler

    @staticmethod
    def of(isa: Isa, options: Options) -> Searched:
        return Searched(Known(), Scheduler(isa, options, costs_of(isa, options.memory or "")))


def plan_of(
    graph: g.Graph, isa: Isa, options: Options, tell: Tell, searched: Searched | None = None
) -> Plan:
    """searched: what other plans for this machine and these options have found.

    Raises: InputError where the network needs more DRAM than the machine addresses.
    """
    # Lowering first: it does not depend on what is joined.
    draft = _Draft(graph, {}, {}, set(), set(), set())
    of = draft.views()
    for n, op in enumerate(graph.operators):
        tell(f"requantisation of {op.name}", n, len(graph.operators))
        if is_view(graph, op, of) or isinstance(op, g.Concat):
            continue
        found = lower(graph, op) if _contracts(isa) else f"{isa.name} has no contraction"
        if isinstance(found, str):
            draft.host[op.name] = found
        else:
            draft.made[op.name] = found
    stored = {op.output for op in graph.operators if op.name in draft.made}
    # Joins are tried from the most down: each failure takes one back.
    draft.joined.update(joinable(graph, stored))
    for op in graph.operators:
        if isinstance(op, g.Concat) and op.name not in draft.joined:
            draft.host[op.name] = "a part of it is no tensor that a layer of the machine stores"
    # Most layers are the same in the next round: what was found of them is kept.
    kept = searched or Searched.of(isa, options)
    # Each round takes something back, so that it ends.
    while True:
        of = draft.views()
        try:
            sites = _sites(draft, of)
            segments = _segments(draft, isa, options, of, sites, tell, kept.known, kept.scheduler)
        except Unfit as error:  # the rest is tried again
            draft.take_back(error.layer, error.what)
            continue
        except _Apart as error:
            draft.part(error.args[0], "they are not all in one program")
            continue
        still = frozenset(
            op.name for op in graph.operators if is_view(graph, op, of, draft.joined, draft.stored)
        )
        return Plan(tuple(segments), draft.host, still)


def _contracts(isa: Isa) -> bool:
    return any(i.kind == "contract" for i in isa.instructions)


def _sites(draft: _Draft, of: Mapping[str, View]) -> dict[str, Site]:
    """Raises: Unfit for a layer whose input is no array of stored elements and one border."""
    sites: dict[str, Site] = {}
    for op in draft.graph.operators:
        if op.name in draft.made:
            found = site_of(op, draft.made[op.name], of)
            if isinstance(found, str):
                raise Unfit(found, op.name)
            sites[op.name] = found
    return sites


def _templates(draft: _Draft, of: Mapping[str, View], roots: set[str]) -> list[Site]:
    """Of the joined concatenations among these tensors."""
    out: list[Site] = []
    for op in draft.graph.operators:
        if op.name in draft.joined and of[op.output].root == op.output and op.output in roots:
            alone, copy = template(draft.graph, op.output)
            made = lower(alone, copy)
            if not isinstance(made, str):
                site = site_of(copy, made, views(alone))
                if not isinstance(site, str):
                    out.append(site)
    return out


def _segments(
    draft: _Draft, isa: Isa, options: Options, of: Mapping[str, View], sites: Mapping[str, Site],
    tell: Tell, known: Known, scheduler: Scheduler,
) -> list[Segment]:  # fmt: skip
    """Layers stand in the first segment in which all that they read is there."""
    graph, host = draft.graph, draft.host
    # A segment's layers read what is ready before it begins.
    number: dict[str, int] = dict.fromkeys(graph.inputs, 0)  # of the segment a tensor is ready for
    parts: list[list[Site]] = []
    for op in graph.operators:
        # The latest of all that is read decides.
        at = max((number[of[n].root] for n in op.inputs if n in of), default=0)
        if op.name in sites:
            root = sites[op.name].root
            # A piece that would be stored in another program cannot share its tensor.
            if number.setdefault(root, at) != at:
                raise _Apart(root)
            while len(parts) <= at:
                parts.append([])
            parts[at].append(sites[op.name])
        elif op.name in host:
            made = {s.root: n for n, part in enumerate(parts) for s in part}
            # What the host reads must have left the machine.
            number[op.output] = max(
                (number[r] + (r in made) for r in (of[n].root for n in op.inputs if n in of)),
                default=0,
            )
    sizes = {n: t.elements for n, t in graph.tensors.items()}
    out: list[Segment] = []
    for n, part in enumerate(parts):
        if not part:
            continue
        mine = {s.root for s in part}
        reads = frozenset(r for s in part for r in s.roots if r not in mine)
        # What later segments, the host or the caller read must survive the program.
        later = {r for other in parts[n + 1 :] for s in other for r in s.roots}
        later |= {of[i].root for op in graph.operators if op.name in host
                  for i in op.inputs if i in of}  # fmt: skip
        later |= {of[name].root for name in graph.outputs}
        out.append(build_segment(part, isa, options, sizes, reads, frozenset(mine & later),
                                 _templates(draft, of, mine), tell, known, scheduler))  # fmt: skip
    return out
