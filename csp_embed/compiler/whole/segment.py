"""Layers between two steps of the host as one program: chosen, placed, linked, emitted.

Takes: sites in order.  Leaves: `Segment`: the stream, where everything lies in DRAM, and which
instructions are whose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.setting import Tell
from csp_embed.compiler.search.measuring import engine_of
from csp_embed.compiler.whole.choose import Chosen, choose
from csp_embed.compiler.whole.memory import Life, Plan, plan
from csp_embed.compiler.whole.schedules import Layer, Scheduler, constants, placed, private
from csp_embed.compiler.whole.sites import Choice, Explorer, Known, Site, offered
from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.schedule import Schedule
from csp_embed.machine.costs import Costs
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import encode
from csp_embed.sim.cycles.engine import Engine
from csp_embed.targets.stream.building.link import Linked, Part, link
from csp_embed.targets.stream.building.sides import apart
from csp_embed.targets.stream.lower import Lowered, lower

Bytes = NDArray[np.uint8]
AHEAD = (3, 12)  # loads of constants that may come before a layer's activations


class Unfit(Infeasible):
    """One layer of a segment has no place in it; `layer` is its name."""

    def __init__(self, what: str, layer: str) -> None:
        super().__init__(what, where=layer)
        self.layer = layer


@dataclass(frozen=True, eq=False)
class Segment:
    """layers in order. reads, wanted: tensors that the host writes before and reads afterwards.
    chosen: what CP-SAT says of the layouts. memory: the plan of activations, which live for lives.
    start, sizes: byte
    address and bytes of every activation. held: constants by address. schedule, lowered, words:
    the stream. ends: instructions up to the last store of each layer. offers: of each layer, all
    ways that were weighed."""

    isa: Isa
    layers: tuple[Layer, ...]
    reads: frozenset[str]
    wanted: frozenset[str]
    chosen: Chosen
    memory: Plan
    lives: tuple[Life, ...]
    start: Mapping[str, int]
    sizes: Mapping[str, int]
    held: Mapping[int, Bytes]
    schedule: Schedule
    lowered: Lowered
    words: NDArray[np.uint64]
    ends: tuple[int, ...]
    offers: tuple[Sequence[Choice], ...] = ()

    @property
    def dram_bytes(self) -> int:
        """Micro-ops, constants and activations."""
        return (
            self.lowered.uop_words.nbytes + sum(map(len, self.held.values())) + self.memory.height
        )


def build_segment(
    sites: Sequence[Site], isa: Isa, options: Options, elements: Mapping[str, int],
    written: frozenset[str], wanted: frozenset[str], templates: Sequence[Site], tell: Tell,
    known: Known, scheduler: Scheduler,
) -> Segment:  # fmt: skip
    """elements: of every stored tensor. written: those that the host writes. wanted: those that it
    reads afterwards. templates: see `offered`. known, scheduler: what other segments found.

    Raises: Infeasible where no layouts go together, or a layer fits in no way.
    """
    # A border is filled once, before the program: one value for each tensor.
    fills: dict[str, Site] = {}
    for site in sites:
        for root in site.roots if site.border else ():
            first = fills.setdefault(root, site)
            if first.made.fill != site.made.fill:
                raise Unfit(
                    f"its input has a border of {site.made.fill}, that of {first.op.name} is"
                    f" {first.made.fill}",
                    site.op.name,
                )
    bordered = frozenset(fills)
    explorer = Explorer(isa, options, elements, written, bordered, known)
    for n, site in enumerate(sites):
        tell(f"layouts of {site.op.name}", n, len(sites))
        explorer.candidates(site)
    # Homes of all layers first: choices are made among those that neighbours share.
    offered(sites, explorer, templates)
    choices = [explorer.choices(site) for site in sites]
    for site, offers in zip(sites, choices, strict=True):
        if not offers:
            raise Unfit(
                "it has no layout in common with the layers that write and read its tensors",
                site.op.name,
            )
    chosen = choose(sites, choices)
    if not chosen.picked:
        # The layer at which layouts stop agreeing is the one to take off.
        raise Unfit("no layouts of the layers before it go together with its own",
                    sites[agreeing(sites, choices)].op.name)  # fmt: skip
    layers: list[Layer] = []
    for n, (site, offers, pick) in enumerate(zip(sites, choices, chosen.picked, strict=True)):
        tell(site.op.name, n, len(sites))
        try:
            layers.append(scheduler.layer(site, offers[pick]))
        except Infeasible as error:
            # A layer without a schedule goes to the host, and the rest is tried again.
            raise Unfit(error.what, site.op.name) from error
    tell("one stream of all layers", len(sites), len(sites))
    made = _linked(isa, tuple(layers), chosen, written, wanted, explorer.costs)
    return replace(made, offers=tuple(choices))


def _linked(
    isa: Isa, layers: tuple[Layer, ...], chosen: Chosen, written: frozenset[str],
    wanted: frozenset[str], costs: Costs,
) -> Segment:  # fmt: skip
    # Schedules may change with the layer before; homes stay.
    layers = _adapted(layers, isa, costs)
    there = _place(layers, written, wanted, isa)
    linked, lowered = there.joined(layers, isa)
    # Known only now, as micro-ops are shared between layers.
    if there.uops + lowered.uop_words.nbytes > 1 << isa.limits.dram_bits:
        raise _too_large(layers, there, lowered.uop_words.nbytes, isa)
    sizes = {life.name: life.size for life in there.lives}
    # Instruction numbers of the joined stream: that is what a run stops at.
    ends = tuple(int(lowered.ends[n - 1]) for n in linked.ends)
    return Segment(
        isa, layers, written, wanted, chosen, there.memory, there.lives, there.start, sizes,
        there.held, linked.schedule, lowered, encode(isa, lowered.stream), ends,
    )  # fmt: skip


def _too_large(layers: Sequence[Layer], there: _Placed, uops: int, isa: Isa) -> InputError:
    """Names the layer that takes most, and where the network could be cut."""
    limit = 1 << isa.limits.dram_bits
    own = [sum(len(there.held[a]) for a in mine.values()) for mine in there.where]
    # Its activations live while it runs; constants all the time.
    live = [
        sum(life.size for life in there.lives if life.first <= n <= life.last)
        for n in range(len(layers))
    ]
    n = max(range(len(layers)), key=lambda n: own[n] + live[n])
    name = layers[n].site.op.name
    hint = f"{name} alone is too large: fewer channels, a smaller image, or a plan that leaves it"
    hint += f" to a CPU (csp-embed partition MODEL --platform FILE --fix '{name}=DEVICE')"
    if own[n] + live[n] <= limit and len(layers) > 1:
        # Where half of the constants are behind.
        half = next(n for n, done in enumerate(accumulate(own)) if 2 * done >= sum(own))
        at = min(half, len(layers) - 2)
        hint = f"build two models, cut at the tensor {layers[at].site.op.output!r}, as ONNX"
        hint += " with onnx.utils.extract_model; or one of smaller layers"
    return InputError(
        f"the network needs {there.uops + uops:,} bytes of device memory",
        where=name,
        why=f"{isa.name} addresses {limit:,}; constants take {sum(own):,}, activations"
        f" {there.memory.height:,}, micro-ops {uops:,}; of the layers, {name} takes most:"
        f" {own[n]:,} of constants, {live[n]:,} of activations while it runs",
        hint=hint,
    )


@dataclass(frozen=True)
class _Placed:
    """Where the layers of a program have everything: lives, memory and start of the activations,
    which take the bytes `shared`; constants by address (held), addresses by layer and region
    (where); the first byte of the micro-ops."""

    lives: tuple[Life, ...]
    memory: Plan
    start: dict[str, int]
    shared: tuple[int, int]
    held: Mapping[int, Bytes]
    where: Sequence[Mapping[int, int]]
    uops: int

    def joined(self, layers: Sequence[Layer], isa: Isa) -> tuple[Linked, Lowered]:
        """The layers as one schedule, and its stream."""
        parts: list[Part] = []
        schedules = apart([layer.schedule for layer in layers], isa)
        for layer, own, mine in zip(layers, schedules, self.where, strict=True):
            schedule, x, dst = placed(replace(layer, schedule=own), self.start, isa)
            address = [mine.get(n, 0) for n in range(len(schedule.regions))]
            address[layer.x], address[layer.dst] = x, dst
            parts.append(Part(schedule, tuple(address), layer.ahead))
        linked = link(parts, isa, self.shared)
        return linked, lower(linked.schedule, isa, placed=(linked.address, self.uops))


def _place(
    layers: Sequence[Layer], written: frozenset[str], wanted: frozenset[str], isa: Isa
) -> _Placed:
    """Constants first, then activations, then micro-ops."""
    page = isa.limits.page_bytes
    lives = lives_of(layers, written, wanted, isa)
    # Address 0 stays free: nothing lies in the first page.
    at = page
    held: dict[int, Bytes] = {}
    where: list[dict[int, int]] = []
    for layer in layers:
        mine: dict[int, int] = {}
        for n, data in constants(layer, isa).items():
            elem = isa.memory(layer.schedule.regions[n].memory).elem_bytes
            # A load counts whole elements from its base.
            at = -(-at // elem) * elem
            held[at], mine[n] = data, at
            at += len(data)
        where.append(mine)
    at = -(-at // page) * page
    memory = plan(lives, page)
    start = {name: at + offset for name, offset in memory.offset.items()}
    end = at + memory.height
    # Micro-ops last: how many there are is known when all is linked.
    uops = -(-end // page) * page
    return _Placed(tuple(lives), memory, start, (at, end), held, where, uops)


def _adapted(layers: Sequence[Layer], isa: Isa, costs: Costs) -> tuple[Layer, ...]:
    """Each layer with the schedule, of those nearly as good as its best, that takes the fewest
    cycles together with the layer before: which rows it reads first decides how long it waits for
    that layer's last stores."""
    engine = engine_of(isa, costs)
    # From the front: each layer is fitted to the one before as chosen.
    out = [*layers[:1]]
    for layer in layers[1:]:
        offers = [layer] + [replace(layer, schedule=s, alone=c) for s, c in layer.others]
        if engine is not None:
            layer, least = _quickest(out[-1], offers, engine, isa)
            # Weights beyond the first ones may come while the layer before computes, or keep its
            # activations waiting.
            early, cycles = _quickest(
                out[-1], [replace(layer, ahead=n) for n in AHEAD], engine, isa
            )
            layer = early if cycles < least else layer
        out.append(layer)
    return tuple(out)


def _quickest(
    before: Layer, offers: Sequence[Layer], engine: Engine, isa: Isa
) -> tuple[Layer, int]:  # fmt: skip
    """Of a layer's forms the one that takes the fewest cycles behind another layer, and these."""
    totals: list[int] = []
    for offer in offers:
        pair = (before, offer)
        outputs = frozenset(one.site.root for one in pair)
        read = frozenset(r for one in pair for r in one.site.roots) - outputs
        # Both alone, in one program: enough to see who waits for whom.
        _, lowered = _place(pair, read, outputs, isa).joined(pair, isa)
        totals.append(engine.total(lowered.stream))
    n = totals.index(min(totals))
    return offers[n], totals[n]


def agreeing(sites: Sequence[Site], choices: Sequence[Sequence[Choice]]) -> int:
    """How many of the first layers have layouts that go together."""
    # Bisection: layouts that agree for n layers agree for fewer.
    low, high = 1, len(sites) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if choose(sites[:middle], choices[:middle]).picked else (
            low, middle - 1)  # fmt: skip
    return low


def lives_of(
    layers: Sequence[Layer], written: frozenset[str], wanted: frozenset[str], isa: Isa
) -> list[Life]:
    """When each activation must keep its values; one with a border, that no layer writes, all the
    time."""
    out: dict[str, Life] = {}

    def seen(name: str, size: int, first: int, last: int, whole: bool) -> None:
        old = out.get(name)
        if old is not None:
            first, last = min(first, old.first), max(last, old.last)
            # Once alive all the time, always so.
            whole = whole or (old.first, old.last) == (0, len(layers))
        if whole:
            first, last = 0, len(layers)
        out[name] = Life(name, size, first, last)

    for n, layer in enumerate(layers):
        site, choice = layer.site, layer.choice
        border = site.border
        if not choice.fits:
            # The host writes it before the program begins.
            region = layer.schedule.regions[layer.x]
            size = int(np.prod(region.grid)) * isa.memory(region.memory).elem_bytes
            seen(private(layer), size, 0, n, False)
        for root, home in zip(site.roots, choice.inputs, strict=True):
            if home is not None:
                # Written by the host: alive from the start.
                first = 0 if root in written else n
                seen(root, home.size, first, n, border)
        last = len(layers) if site.root in wanted else n
        seen(site.root, choice.output.size, n, last, False)
    return list(out.values())
