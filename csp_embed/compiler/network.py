"""A quantised network as programs of the machine, run on the simulator and compared.

Takes: a graph.  Leaves: `Built`: segments (one where no step of the host stands between layers of
the machine), each one program; every tensor that they store, compared with the reference's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.setting import Tell, silent
from csp_embed.compiler.whole import image
from csp_embed.compiler.whole.joins import with_copies
from csp_embed.compiler.whole.partition import Plan, plan_of
from csp_embed.compiler.whole.report import LayerReport, layer_reports
from csp_embed.compiler.whole.segment import Segment
from csp_embed.ir.stream import Program
from csp_embed.machine.spec import Isa
from csp_embed.network.lower.signed import read_back, signed, stored_values
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.reference import run as reference

Array = NDArray[Any]

# Searches of a network's layers are shorter than those of a layer compiled alone: it has many.
OPTIONS = Options(schedules=4, refine=24)


@dataclass(frozen=True)
class Built:
    """graph: what was built. segments: its programs in order. layers: every operator, where it runs
    and what it takes. values: of each input, every tensor by name, as machine and host made it.
    wanted: of each input, every tensor as the reference has it."""

    graph: g.Graph
    isa: Isa
    options: Options
    plan: Plan
    layers: tuple[LayerReport, ...]
    values: tuple[Mapping[str, Array], ...]
    wanted: tuple[Mapping[str, Array], ...]
    seconds: float

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.plan.segments

    @property
    def differences(self) -> int:
        return sum(layer.differences for layer in self.layers)

    def document(self) -> dict[str, Any]:
        """What `csp-embed build --json` prints. status: equal, unequal, or host where no layer is
        the accelerator's and so nothing was compared."""
        # Only what the machine computes is compared: the host's steps are the reference's own.
        on = [layer for layer in self.layers if layer.where == "accelerator"]
        cycles = [layer.cycles for layer in on]
        return {
            "status": "unequal" if self.differences else "equal" if on else "host",
            "model": self.graph.name,
            "profile": self.graph.profile,
            "machine": f"{self.isa.name} {self.isa.config_name}",
            "one_program": len(self.segments) == 1,
            "inputs": len(self.values),
            "elements": sum(layer.elements for layer in on),
            "differences": self.differences,
            "cycles": sum(c for c in cycles if c is not None),
            "bound_cycles": sum(layer.bound_cycles or 0 for layer in on),
            "macs": sum(layer.macs for layer in self.layers),
            "macs_on_accelerator": sum(layer.macs for layer in on),
            "segments": len(self.segments),
            "instructions": sum(len(s.words) for s in self.segments),
            "dram_bytes": sum(s.dram_bytes for s in self.segments),
            "activation_bytes": sum(s.memory.height for s in self.segments),
            "activation_bound_bytes": sum(s.memory.bound for s in self.segments),
            "memory_status": [s.memory.status for s in self.segments],
            "layout_cycles": sum(s.chosen.objective for s in self.segments),
            "layout_bound_cycles": sum(s.chosen.bound for s in self.segments),
            "layout_status": [s.chosen.status for s in self.segments],
            "seconds": round(self.seconds, 2),
            "notes": list(self.graph.notes),
            "layers": [layer.document() for layer in self.layers],
        }

    def programs(self) -> list[Program]:
        """One program file's content per segment, for the first input."""
        # Files hold the machine's int8, whatever the network's type.
        values, wanted = stored_values(self.values[0]), stored_values(self.wanted[0])
        return [
            image.program(s, self.graph, {n: values[n] for n in sorted(s.reads)}, wanted, s.wanted)
            for s in self.segments
        ]


def build(
    graph: g.Graph,
    isa: Isa,
    inputs: Sequence[Mapping[str, Array]],
    *,
    options: Options | None = None,
    progress: Tell | None = None,
) -> Built:
    """Builds a network and runs it on each of `inputs` (arrays by the names of graph.inputs, in the
    model's own batch).

    The machine's layers read what the machine stored before, so that an error would travel as it
    does on a board; every layer's tensor is compared with the reference's.
    Raises: InputError for inputs that do not fit; as `compile` for what it refuses.
    """
    start = time.perf_counter()
    tell = progress or silent
    # A part of several concatenations is copied, so that each part lies in one place.
    graph = with_copies(graph)
    wanted: list[dict[str, Array]] = []
    for n, feeds in enumerate(inputs):
        tell("the reference", n, len(inputs))
        # It sees the graph as the file has it, types included.
        wanted.append(reference.run(graph, feeds))
    plan = plan_of(signed(graph), isa, options or OPTIONS, tell)
    found: list[dict[str, Array]] = []
    for n, feeds in enumerate(inputs):
        tell("simulating", n, len(inputs))
        found.append(run(graph, plan, {k: np.asarray(feeds[k]) for k in graph.inputs}, tell))
    layers = layer_reports(graph, isa, plan, options or OPTIONS, found, wanted)
    seconds = time.perf_counter() - start
    # Options as used, for whoever repeats the build.
    chosen = options or OPTIONS
    return Built(graph, isa, chosen, plan, tuple(layers), tuple(found), tuple(wanted), seconds)


def run(graph: g.Graph, plan: Plan, values: dict[str, Array], tell: Tell) -> dict[str, Array]:
    """Every tensor, the host's steps done as soon as what they read is there. graph: with its own
    types; values: of its inputs."""
    waiting = [op for op in graph.operators if op.name in plan.host or op.name in plan.views]
    # None first: steps of the host before the first segment.
    for segment in [None, *plan.segments]:
        if segment is not None:
            reads = stored_values({n: values[n] for n in sorted(segment.reads)})
            made = image.run(segment, graph, reads, tell)
            values |= {n: read_back(v, graph.tensors[n].dtype) for n, v in made.items()}
        for op in list(waiting):
            # Constants are always there; an empty name is a missing operand.
            if all(n in values or not n or graph.tensors[n].data is not None for n in op.inputs):
                values[op.output] = reference.step(graph, op, values)
                waiting.remove(op)
    return values
