"""Programs of pieces of one network on one machine, their cycles by layer, and their values.

Takes: a quantised graph and a machine.  Leaves: `Chain`s: a piece as one program, layouts kept from
layer to layer, with the cycles that the cycle engine counts. Equal pieces are built once, and what
was found of a layer (embeddings, schedules) serves every piece that has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.chains.floor import floor_cycles
from csp_embed.compiler.chains.pieces import piece
from csp_embed.compiler.network import OPTIONS, run
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.setting import Tell, silent
from csp_embed.compiler.whole import image
from csp_embed.compiler.whole.joins import with_copies
from csp_embed.compiler.whole.partition import Plan, Searched, plan_of
from csp_embed.compiler.whole.report import ends_of
from csp_embed.errors import InputError
from csp_embed.ir.stream import Program
from csp_embed.machine.costs import costs_of
from csp_embed.machine.spec import Isa
from csp_embed.network.lower.signed import signed, stored_values
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.reference import run as reference

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Chain:
    """A piece of a network, built. graph: the piece, with copies for joined concatenations. cycles:
    of its programs together; layers: of each operator in them, from the end of the one before to
    its own, so that they add up to `cycles`. floors: of each operator, cycles that it takes in any
    program. host: operators that it leaves to the host, and why."""

    graph: g.Graph
    plan: Plan
    cycles: int
    layers: Mapping[str, int]
    floors: Mapping[str, float]

    @property
    def host(self) -> Mapping[str, str]:
        return self.plan.host

    @property
    def whole(self) -> bool:
        """Whether the machine computes all of it in one go; views alone need no program."""
        return not self.host and len(self.plan.segments) <= 1

    @property
    def digest(self) -> str:
        """sha256 of its instructions, micro-ops and constants: which program it is."""
        found = hashlib.sha256()
        for segment in self.plan.segments:
            found.update(segment.words.tobytes())
            found.update(segment.lowered.uop_words.tobytes())
            for at, data in sorted(segment.held.items()):
                found.update(at.to_bytes(8, "little"))
                found.update(data.tobytes())
        return found.hexdigest()

    @property
    def instructions(self) -> int:
        return sum(len(s.words) for s in self.plan.segments)

    def run(self, values: Mapping[str, Array], tell: Tell | None = None) -> dict[str, Array]:
        """Every tensor of the piece as the functional simulator stores it. values: stored values of
        `graph.inputs`. Raises: SimError where the program cannot run."""
        given = {n: np.ascontiguousarray(values[n]) for n in self.graph.inputs}
        return run(self.graph, self.plan, given, tell or silent)

    def program(self, values: Mapping[str, Array]) -> Program | None:
        """A program file's content with these inputs and what the reference makes of them; None
        where nothing is computed."""
        if not self.plan.segments:
            return None
        (segment,) = self.plan.segments
        feeds = {n: np.asarray(values[n]) for n in self.graph.inputs}
        wanted = stored_values(reference.run(self.graph, feeds))
        reads = {n: wanted[n] for n in sorted(segment.reads)}
        return image.program(segment, self.graph, reads, wanted, segment.wanted)


class Chains:
    """Builds pieces of one graph, which has the types of the file."""

    def __init__(
        self, graph: g.Graph, isa: Isa, options: Options = OPTIONS, tell: Tell | None = None
    ) -> None:
        self.graph, self.isa, self.options, self.tell = graph, isa, options, tell or silent
        self.order = tuple(op.name for op in graph.operators)
        self._searched = Searched.of(isa, options)
        self._built: dict[frozenset[str], Chain] = {}

    @property
    def built(self) -> int:
        """How many pieces were built so far."""
        return len(self._built)

    def whole(self) -> Chain:
        """The whole network."""
        return self.chain(self.order)

    def chain(self, names: Collection[str]) -> Chain:
        """Raises: InputError where the machine states no costs, or lacks the memory."""
        key = frozenset(names)
        if key not in self._built:
            self._built[key] = self._build(key)
        return self._built[key]

    def _build(self, names: frozenset[str]) -> Chain:
        graph = with_copies(piece(self.graph, names))
        plan = plan_of(signed(graph), self.isa, self.options, self.tell, self._searched)
        layers: dict[str, int] = {}
        floors: dict[str, float] = {}
        costs = costs_of(self.isa, self.options.memory or "")
        for segment in plan.segments:
            before = 0
            for layer, end in zip(segment.layers, ends_of(segment, self.options), strict=True):
                if end is None:
                    raise InputError(
                        f"{self.isa.name} has no cycles",
                        where=self.isa.source,
                        why="its spec states no costs, so that its layers have no price",
                        hint="write costs into the spec (isa_specs/vta.yaml explains them)",
                    )
                name = layer.site.op.name
                if name in names:
                    floors[name] = floor_cycles(layer.site.made, self.isa, costs)
                else:
                    # A copy was made for the concatenation that reads it. Another cut needs none.
                    name = next(o.name for o in graph.operators if layer.site.op.output in o.inputs)
                layers[name] = layers.get(name, 0) + end - before
                before = end
        return Chain(graph, plan, sum(layers.values()), layers, floors)
