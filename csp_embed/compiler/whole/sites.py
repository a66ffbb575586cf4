"""The layers of one segment and the ways in which each can read and write its tensors.

Takes: a graph and what its layers were lowered to.  Leaves: `Site`s; for each the `Choice`s: an
embedding, the homes of its tensors, how its grids lie in them, and its price in cycles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.search.candidates import embeddings_of
from csp_embed.compiler.whole.homes import Fit, Grid, Home, alone, fit, grid_of, home_of, packed
from csp_embed.compiler.whole.idle import passes
from csp_embed.compiler.whole.pad import harmless
from csp_embed.compiler.whole.views import View
from csp_embed.errors import Infeasible
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.spec import Isa
from csp_embed.network.lower.lowered import Lowered
from csp_embed.network.quantised import graph as g

Ids = NDArray[np.int64]
FAR = np.int64(1) << 32  # between the element numbers of an operand's tensors
MOST = 8  # embeddings of a layer that are weighed
# An embedding, the role of x, the grids of x by root (None: the host packs it), that of the result.
Candidate = tuple[Embedding, str, list[Grid] | None, Grid]


@dataclass(frozen=True, eq=False)
class Site:
    """op: of the graph. roots: the stored tensors that it reads. ids: which element of them each
    index of x is, root n from n * FAR on; -1: the border. root: the stored tensor that its output
    is, or is a piece of; own: the elements of that which it is. result: the same at each index of
    the program's."""

    op: g.Operator
    made: Lowered
    roots: tuple[str, ...]
    ids: Ids
    root: str
    own: Ids
    result: Ids

    @property
    def border(self) -> bool:
        """Whether it reads elements that no layer stores."""
        return bool((self.ids < 0).any())

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Equal for sites whose programs read and write alike, but for constants and names."""
        return (*op_key(self.made.op), *self.places)

    @cached_property
    def places(self) -> tuple[object, ...]:
        """Equal for sites that read and write the same elements of so many tensors."""
        found = hashlib.blake2b(digest_size=32)
        for array in (self.ids, self.result):
            found.update(np.ascontiguousarray(array).data)
        return len(self.roots), found.digest()


@dataclass(frozen=True, eq=False)
class Choice:
    """embedding; role: the operand that holds x. inputs: the home of each root, None where the host
    packs x for this layer alone. fits: how x lies in each; output, out_fit: of the result. price:
    cycles, estimated."""

    embedding: Embedding
    role: str
    inputs: tuple[Home | None, ...]
    fits: tuple[Fit, ...]
    output: Home
    out_fit: Fit
    price: int


def site_of(op: g.Operator, made: Lowered, of: Mapping[str, View]) -> Site | str:
    """Raises nothing; a text where x has borders of two values."""
    seen = [of[n] for n in made.reads]
    roots = tuple(dict.fromkeys(v.root for v in seen))
    # One border, one value: it is filled in once for all.
    if any(v.value not in (None, made.fill) for v in seen):
        return "its input has a border of another value than its zero point"
    # Numbers of two tensors in one array: FAR keeps them apart.
    arrays = tuple(np.where(v.ids < 0, -1, v.ids + roots.index(v.root) * FAR) for v in seen)
    # The operand's own function places them: what it does to values it does to numbers.
    ids = made.operand(arrays, -1)
    own = of[op.output]
    result = made.arrange(own.ids)
    shape = made.op.tensors[made.op.out.tensor].shape
    return Site(op, made, roots, ids, own.root, own.ids, result.reshape(shape))


def op_key(op: Operator) -> tuple[object, ...]:
    """All of an operator that an embedding depends on."""
    return op.text(), *((n, t.shape) for n, t in sorted(op.tensors.items()))


@dataclass(frozen=True)
class Known:
    """What has been found of layers, by all that it depends on: networks repeat their layers, and a
    segment is built again where a layer does not fit. Grids, homes: equal ones are one object, so
    that what is found of one holds for all."""

    embeddings: dict[object, list[Embedding]] = field(default_factory=dict)
    candidates: dict[object, list[Candidate]] = field(default_factory=dict)
    both: dict[object, tuple[Grid | None, list[Grid] | None]] = field(default_factory=dict)
    grids: dict[bytes, Grid] = field(default_factory=dict)
    homes: dict[bytes, Home] = field(default_factory=dict)
    made: dict[object, Home | None] = field(default_factory=dict)
    fits: dict[tuple[bytes, bytes], Fit | None] = field(default_factory=dict)

    def grids_of(
        self, e: Embedding, isa: Isa, role: str, site: Site
    ) -> tuple[Grid | None, list[Grid] | None]:
        """Of the result, and of x by root where layers may have stored it; None where there is no
        such. role: the operand that is x."""
        op = site.made.op
        # Neither the epilogue nor its immediates move an element.
        key = (e.formula(), e.layout_mode, op.formula(), op_key(op)[1:], site.places)
        if key not in self.both:
            result = grid_of(e, isa, "dst", site.result)
            if result is not None:
                result = self._one(replace(result, ids=result.ids.astype(np.int32)))
            whole = None
            if result is not None and e.layout_mode == "strict":
                whole = grid_of(e, isa, role, site.ids)
            # Leftovers of other layers stand in empty lanes of what a layer stored.
            if whole is not None and not harmless(e, isa, role):
                whole = None
            parts = whole and [*map(self._one, _by_root(whole, len(site.roots)))]
            self.both[key] = result, parts
        return self.both[key]

    def _one(self, grid: Grid) -> Grid:
        return self.grids.setdefault(grid.key, grid)

    def fit(self, grid: Grid, home: Home) -> Fit | None:
        key = grid.key, home.key
        if key not in self.fits:
            self.fits[key] = fit(grid, home)
        return self.fits[key]

    def home(self, grid: Grid, lies: Fit, elements: int, size: int) -> Home | None:
        """A tensor's home of `size` bytes in which the grid lies so; None where it lacks elements
        or ends beyond."""
        key = grid.key, lies, elements, size
        if key not in self.made:
            found = home_of(grid, lies, elements, size)
            self.made[key] = found and self.homes.setdefault(found.key, found)
        return self.made[key]


class Explorer:
    """Embeddings, grids and homes of sites, each found once.

    sizes: elements of every root. written: roots that the host writes, which it packs as any layer
    likes. bordered: roots around which some layer reads a border, so that nothing may be stored
    beside them.
    """

    def __init__(
        self, isa: Isa, options: Options, sizes: Mapping[str, int], written: frozenset[str],
        bordered: frozenset[str], known: Known | None = None,
    ) -> None:  # fmt: skip
        self.known = known or Known()
        self.isa, self.options, self.sizes, self.written = isa, options, sizes, written
        self.bordered = bordered
        self.costs: Costs = costs_of(isa, options.memory or "")
        self.homes: dict[str, dict[bytes, Home]] = {}

    def embeddings(self, op: Operator, mode: str) -> list[Embedding]:
        """The best in that mode; strict ones with the channels alone in the lanes, too, however
        dear: all layers of a network can have those."""
        key = (mode, *op_key(op))
        if key not in self.known.embeddings:
            # Strict and relaxed answers are different searches.
            found = self._search(op, mode, ())[:MOST]
            seen = {e.formula() for e in found}
            # Both are the same where every block is whole.
            # Channels in the lanes: a home that every layer of a network can have.
            for pins in dict.fromkeys((self._channels(op, False), self._channels(op, True))):
                # Where the host packs x, only the result has to lie as the next layer reads it.
                for e in self._search(op, mode, pins if mode == "strict" else pins[1:])[:MOST]:
                    if e.formula() not in seen:
                        found.append(e)
                        seen.add(e.formula())
            self.known.embeddings[key] = found
        return self.known.embeddings[key]

    def _search(self, op: Operator, mode: str, pins: tuple[str, ...]) -> list[Embedding]:
        options = Options(layout=mode, memory=self.options.memory, pins=pins)
        # None in this mode: the other modes may have some.
        try:
            return embeddings_of(op, self.isa, options, self.costs)
        except Infeasible:
            return []

    def _channels(self, op: Operator, full: bool) -> tuple[str, ...]:
        """Pins: the last index of x in the lanes that are summed, that of y in the others. full: in
        all of the lanes, the last block cut, so that tensors that end elsewhere lie alike."""
        dst, lhs, rhs = self.isa.of_kind("contract").operands
        summed = [d for d in lhs.dims if d in rhs.dims and d not in dst.dims]
        kept = [d for d in rhs.dims if d in dst.dims]
        pairs = [(d, a.index[-1].terms) for ds, a in ((summed, op.lhs), (kept, op.out)) for d in ds]
        memories = [o.memory for o in (dst, lhs, rhs)]
        lanes = {
            d: n for m in memories
            for d, n in zip(self.isa.memory(m).lanes, self.isa.lane_shape(m), strict=True)
        }  # fmt: skip
        out: list[str] = []
        for d, terms in pairs:
            # A cut last block lies like those of tensors that end elsewhere.
            if len(terms) == 1:
                extent = op.axes[terms[0][0]]
                whole = full and extent > lanes[d] and extent % lanes[d]
                out.append(f"fix {d}={terms[0][0]}{f':{lanes[d]}' if whole else ''}")
        return tuple(out)

    def candidates(self, site: Site) -> list[Candidate]:
        """(embedding, role of x, grids of x by root or None where the host packs it, result)."""
        # The host packs it alone only if no layer writes it.
        private, bordered = set(site.roots) <= self.written, site.root in self.bordered
        key = (*site.key, private, bordered)
        if key not in self.known.candidates:
            self.known.candidates[key] = self._candidates(site, private, bordered)
        return self.known.candidates[key]

    def _candidates(self, site: Site, private: bool, bordered: bool) -> list[Candidate]:
        out: list[Candidate] = []
        for mode in ("strict", "relaxed") if private else ("strict",):
            for e in self.embeddings(site.made.op, mode):
                role = next(r for r, lay in e.layouts.items() if lay.tensor == "x")
                result, parts = self.known.grids_of(e, self.isa, role, site)
                # Around a bordered tensor nothing may be stored, idle lanes included.
                if result is None or (len(result.empty) and bordered):
                    continue
                if private:
                    out.append((e, role, None, result))
                if parts is not None:
                    out.append((e, role, parts, result))
        return out

    def offer(self, root: str, grid: Grid) -> None:
        """The homes that a grid makes for a tensor: its dimensions as they are, and the last one
        outermost."""
        dims = list(range(len(grid.shape)))
        # Two orders: channels innermost, as vectors are stored, or outermost.
        for order in (dims, [*dims[-1:], *dims[:-1]]):
            lies, size = packed(grid, order)
            home = self.known.home(grid, lies, self.sizes[root], size)
            if home is not None:
                self.homes.setdefault(root, {}).setdefault(home.key, home)

    def offer_alike(self, roots: Sequence[str], grids: Sequence[Grid]) -> None:
        """Offers each tensor the pitches that the others' homes have."""
        for n, home in [
            (n, h) for n, r in enumerate(roots) for h in self.homes.get(r, {}).values()
        ]:
            found = self.known.fit(grids[n], home)
            if found is None:
                continue
            for root, grid in zip(roots, grids, strict=True):
                # Inside the same bytes: else the tensors would overlap.
                made = self.known.home(grid, found, self.sizes[root], home.size)
                if made is not None:
                    self.homes.setdefault(root, {}).setdefault(made.key, made)

    def choices(self, site: Site) -> list[Choice]:
        """Every way in which the site fits the homes that were offered, the cheapest first."""
        out: list[Choice] = []
        for e, role, grids, result in self.candidates(site):
            price = price_of(e, site.made, self.isa, self.costs, role)
            homes = self.homes.get(site.root, {}).values()
            # The result must fit, and must not overwrite other layers' elements.
            outputs = [
                (h, f) for h in homes
                if (f := self.known.fit(result, h)) and alone(result, h, f)
            ]  # fmt: skip
            for inputs, fits in self._inputs(site, grids):
                out += [Choice(e, role, inputs, fits, h, f, price) for h, f in outputs]
        return sorted(out, key=lambda c: c.price)

    def _inputs(
        self, site: Site, grids: list[Grid] | None
    ) -> list[tuple[tuple[Home | None, ...], tuple[Fit, ...]]]:
        if grids is None:
            return [((None,) * len(site.roots), ())]
        found = [
            [(h, f) for h in self.homes.get(root, {}).values() if (f := self.known.fit(grid, h))]
            for root, grid in zip(site.roots, grids, strict=True)
        ]
        if len(found) == 1:
            return [((h,), (f,)) for h, f in found[0]]
        # Two tensors as one operand: they lie alike, and one dimension leads from one to the other.
        return [
            ((h1, h2), (f1, f2))
            for h1, f1 in found[0] for h2, f2 in found[1] if f1.pitch == f2.pitch
        ]  # fmt: skip


def _by_root(grid: Grid, count: int) -> list[Grid]:
    ids = np.where(grid.ids < 0, -1, grid.ids % FAR).astype(np.int32)
    if count == 1:
        return [replace(grid, ids=ids)]
    owner = np.where(grid.ids < 0, 0, grid.ids // FAR)
    return [
        Grid(grid.shape, grid.elem, grid.cell[owner == n], grid.lane[owner == n],
             ids[owner == n], grid.empty)
        for n in range(count)
    ]  # fmt: skip


def price_of(e: Embedding, made: Lowered, isa: Isa, costs: Costs, role: str) -> int:
    """Cycles of an embedding in rounds: the slowest of compute, reads and writes, and a share of
    their sum."""
    # Rounds beyond the first make the products again, in part where constants are 0.
    more = passes(e, made, isa) - 1
    # What a tensor has for each lane takes longer than an immediate.
    steps = sum(
        costs.immediate_step if s.access is None else costs.tensor_step
        for each in made.rounds for s in each
    )  # fmt: skip
    other = next((r for r in ("lhs", "rhs") if r != role), "rhs")
    # What is kept takes a reset and a tensor step, adding it again another one.
    again = (
        len(made.kept) * (costs.reset_step + costs.tensor_step) + made.copies * costs.tensor_step
    )
    compute = e.cost["compute_cycles"] + (steps + again) * e.cost["vectors"]
    compute += costs.step * more * e.cost["steps"]
    # Constants of further rounds are loaded too, unless they are the same.
    constants = 0.0 if made.repeats else more * e.cost.get(f"{other}_bytes", 0.0)
    read = e.cost["read_cycles"] + constants / costs.read_bytes
    write = e.cost["write_cycles"]
    # The slowest, and a 32nd of all: ties go to what uses less of the rest.
    return round(max(compute, read, write) + (compute + read + write) / 32)


def offered(
    sites: Sequence[Site], explorer: Explorer, templates: Sequence[Site] = ()
) -> None:  # fmt: skip
    """Offers the homes that the layers of a segment make for the tensors between them. templates:
    of tensors that no layer stores as a whole: where one could."""
    for site in (*sites, *templates):
        for _, _, grids, result in explorer.candidates(site):
            explorer.offer(site.root, result)
            for root, grid in zip(site.roots, grids or [], strict=False):
                if root in explorer.sizes:
                    explorer.offer(root, grid)
    # Tensors that are one operand together lie alike: what one may have, the other may, too.
    pairs = [site for site in sites if len(site.roots) > 1]
    # Offers may make new ones fit: until nothing is added.
    for _ in pairs:
        before = sum(map(len, explorer.homes.values()))
        for site in pairs:
            for _, _, grids, _ in explorer.candidates(site):
                if grids is not None:
                    explorer.offer_alike(site.roots, grids)
        if sum(map(len, explorer.homes.values())) == before:
            return
