"""The schedule of each chosen layer, its activations lying where the layers around it have them.

Takes: a site and its choice.  Leaves: a Schedule whose regions of activations have the pitches of
their homes, and the bytes of its constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.search.measuring import Meter
from csp_embed.compiler.whole.homes import by_pitch
from csp_embed.compiler.whole.idle import live_ranges, problem_of
from csp_embed.compiler.whole.sites import Choice, Site
from csp_embed.embed.algebra.packing import pack
from csp_embed.ir.operator import Step
from csp_embed.ir.schedule import Schedule
from csp_embed.machine.costs import Costs
from csp_embed.machine.spec import Isa
from csp_embed.schedule import bias_by_contract
from csp_embed.schedule.attempts import Decided
from csp_embed.schedule.choose import rebuild, search
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Problem
from csp_embed.targets.stream.image import constant_element, factor_elements, round_bytes

Bytes = NDArray[np.uint8]
WALKS = 6  # schedules of a layer that are tried behind the layer before it


@dataclass(frozen=True)
class Layer:
    """One layer of a segment: schedule with the pitches of its homes; x, dst: numbers of those
    regions; alone: cycles of its program by itself; others: schedules that are nearly as good and
    walk its results in another order, each with its cycles; ahead: loads of constants that come
    before its activations, beside those of its first product."""

    site: Site
    choice: Choice
    schedule: Schedule
    x: int
    dst: int
    alone: int | None
    others: tuple[tuple[Schedule, int], ...] = ()
    ahead: int = 0


class Scheduler:
    """Schedules layers; those that differ in their constants only share one search."""

    def __init__(self, isa: Isa, options: Options, costs: Costs) -> None:
        self.isa, self.options, self.costs = isa, options, costs
        self.meter = Meter(isa, costs)
        self._found: dict[object, list[tuple[Schedule, int | None]]] = {}
        self._decided: dict[object, tuple[Decided, ...]] = {}

    def layer(self, site: Site, choice: Choice) -> Layer:
        """Raises: Infeasible where no tile fits."""
        made, e, role = site.made, choice.embedding, choice.role
        problem = problem_of(e, self.isa, made)
        problem = replace(problem, live=live_ranges(problem, made))
        x = getattr(problem, role)
        pitch = choice.fits[0].pitch if choice.fits else None
        # The order of x's dimensions follows its home: only then are loads one rectangle.
        order = None if pitch is None else _order(pitch, x.grid, len(choice.fits))
        out = by_pitch(choice.out_fit.pitch, problem.dst.grid)
        problem = replace(
            problem, **{role: replace(x, order=order)}, dst=replace(problem.dst, order=out)
        )
        # What the operator promises of its constants holds in every round.
        ranges = {
            i: s.bias_range for i, s in enumerate(made.op.epilogue) if s.bias_range is not None
        }
        # All that a schedule depends on; constants' values do not count, and immediates and bounds
        # of constants not where the search is: how long a step takes does not depend on them.
        shapes = tuple(sorted((n, t.shape) for n, t in made.op.tensors.items()))
        bias = bias_by_contract.find(problem, ranges)
        alike = (made.op.formula(), shapes, *map(_kinds, (made.op.epilogue, *made.rounds)),
                 made.repeats, made.copies, made.kept, made.dropped, problem.live,
                 e.formula(), order, out, bias)  # fmt: skip
        key = (*alike, made.op.text(), str(made.rounds))
        if key not in self._found:
            # Layers of one shape are frequent in a network.
            self._found[key] = self._search(problem, ranges, alike)
        (schedule, alone), *others = self._found[key]
        numbers = {r.operand: n for n, r in enumerate(schedule.regions)}
        known = tuple((s, c) for s, c in others if c is not None)
        return Layer(site, choice, schedule, numbers[role], numbers["dst"], alone, known)

    def _search(
        self, problem: Problem, ranges: dict[int, int], alike: object
    ) -> list[tuple[Schedule, int | None]]:
        """The best schedule, then the best of other walks that are nearly as good. alike: equal for
        problems of which one is searched: the others take its decisions."""
        known = self._decided.get(alike)
        if known is None:
            best = search(
                [problem], self.meter, self.costs, ranges=ranges, count=self.options.schedules,
                refine=self.options.refine,
            )[0]  # fmt: skip
            found = {_walk(problem, best.config): best}
            # Near ones that walk otherwise: they may wait less behind the layer before.
            for near in best.near:
                if len(found) < WALKS:
                    found.setdefault(_walk(problem, near.config), near)
            made = [*found.values()]
            self._decided[alike] = tuple(f.config for f in made)
        else:
            again = [rebuild(0, problem, c, self.meter, self.costs, ranges) for c in known]
            # What was built for one is built for all that are alike.
            made = [f for f in again if f is not None]
        return [
            (f.schedule, int(f.measured.cycles) if getattr(f.measured, "counted", False) else None)
            for f in made
        ]


def _kinds(steps: Sequence[Step]) -> tuple[object, ...]:
    """Steps without the values of their immediates."""
    return tuple((s.op, s.imm is None, str(s.access)) for s in steps)


def _walk(problem: Problem, config: Decided) -> tuple[int, ...]:
    """The loops over tiles that have several parts, outermost first, and how far a part of that
    goes: which results come early, and which activations are read early."""
    if not isinstance(config, Config):
        return ()
    # A counter that is whole has no place in the order.
    loops = [c for c in config.order if config.tile[c] < problem.extents[c]]
    return (*loops, *(config.tile[c] for c in loops[:1]))


def _order(pitch: tuple[int, ...], shape: tuple[int, ...], tensors: int) -> tuple[int, ...]:
    """The dimension that leads from one tensor to the next stands outermost."""
    order = by_pitch(pitch, shape)
    if tensors == 1:
        return order
    # Two tensors as one operand: the way between them is known when they are placed.
    apart = [d for d in order if pitch[d] == 0 and shape[d] > 1]
    return (*apart, *(d for d in order if d not in apart))


def placed(layer: Layer, start: dict[str, int], isa: Isa) -> tuple[Schedule, int, int]:
    """(schedule with pitches, address of x, address of the result) for tensors that begin at
    `start`; x that the host packs lies row-major at start["x of <layer>"]."""
    choice, regions = layer.choice, list(layer.schedule.regions)
    dst = regions[layer.dst]
    elem = isa.memory(dst.memory).elem_bytes
    fit = choice.out_fit
    # Regions count elements, homes bytes.
    regions[layer.dst] = replace(dst, pitch=tuple(fit.pitch[d] // elem for d in dst.order))
    to = start[layer.site.root] + fit.base
    if not choice.fits:
        return replace(layer.schedule, regions=tuple(regions)), start[private(layer)], to
    x = regions[layer.x]
    elem = isa.memory(x.memory).elem_bytes
    pitch = list(choice.fits[0].pitch)
    begins = [start[r] + f.base for r, f in zip(layer.site.roots, choice.fits, strict=True)]
    if len(begins) > 1:
        # One dimension has no pitch yet: it leads from one tensor to the other.
        (apart,) = (d for d, p in enumerate(pitch) if p == 0 and x.grid[d] == len(begins))
        pitch[apart] = begins[1] - begins[0]
    regions[layer.x] = replace(x, pitch=tuple(pitch[d] // elem for d in x.order))
    return replace(layer.schedule, regions=tuple(regions)), begins[0], to


def private(layer: Layer) -> str:
    """The name under which a tensor lies that the host packs for one layer."""
    return f"x of {layer.site.op.name}"


def constants(layer: Layer, isa: Isa) -> dict[int, Bytes]:
    """DRAM bytes of every region that holds constants, box by box and round by round."""
    schedule, made, e = layer.schedule, layer.site.made, layer.choice.embedding
    # Activations have no bytes before the program runs.
    trick = schedule.bias_trick
    out: dict[int, Bytes] = {}
    for n, region in enumerate(schedule.regions):
        if not region.by_box or not region.boxes:
            continue
        if region.operand == "const":
            out[n] = constant_element(schedule, region, isa)
            continue
        layout = e.layouts[region.operand]
        packed: dict[int, NDArray[Any]] = {}
        # Each round's boxes hold that round's constants.
        for turn in set(region.rounds) or {0}:
            array = made.constants[turn][layout.tensor]
            elements = pack(layout, e, isa, array)
            if trick is not None and region.operand == _added(layer, trick.step):
                elements = factor_elements(elements, trick, region, e, isa)
            packed[turn] = elements
        out[n] = round_bytes(region, packed)
    return out


def _added(layer: Layer, step: int) -> str:
    number = sum(1 for s in layer.site.made.op.epilogue[:step] if s.access is not None)
    return f"add{number}"
