"""How much of each tile takes part: at a ragged end a tile holds less than the machine's lanes.

Takes: where operands lie, the factors of every step, the commands' bounds.  Leaves: counts for
every step, and rows and lanes of every tile that copies have to move. A dimension is cut only where
a field or state bounds it in all commands that walk it; what they cannot leave out is moved whole,
as zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.machine.commands.acts import Acts, Lanes, Limit, Load, Param, Rows
from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.machine.commands.tiles import Tile
from csp_embed.machine.commands.transfers import Transfer
from csp_embed.targets.commands.order import Steps
from csp_embed.targets.commands.regions import Region

Ints = NDArray[np.int64]
# (dimension, how many of its values): hashable, so that plans are found again by it.
Counts = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Sizes:
    """Of each element of an operand, by its number. counts: dimension -> values that take part;
    rows, lanes: that hold them."""

    counts: Mapping[str, Ints]
    rows: Ints
    lanes: Ints

    def of(self, element: int) -> Counts:
        """The counts of one element."""
        return tuple((d, int(n[element])) for d, n in self.counts.items())


@dataclass(frozen=True)
class Extents:
    """kinds: distinct counts of steps; of_step: which of them each step has. sizes: of "lhs",
    "rhs", "dst" (all that steps touch) and "stored" (the results among it)."""

    kinds: tuple[Counts, ...]
    of_step: Ints
    sizes: Mapping[str, Sizes]


@dataclass(frozen=True)
class Cuts:
    """Dimensions that commands can cut short: steps, and the reads of each factor."""

    steps: frozenset[str]
    reads: Mapping[str, frozenset[str]]

    @staticmethod
    def of(
        machine: CommandMachine, dims: Iterable[str], tile: Tile, store: Transfer, *, whole: bool
    ) -> Cuts:
        """What every contraction of the machine, every load of its factors and the copy out can
        cut. tile: of sums. whole: another command reads all of it."""
        contracts = [c.acts for c in machine.commands if c.acts.kind == "contract"]
        # A store that moves whole tiles reads all of them: steps have to write all.
        kept = set(tile.dims) if whole else set[str]()
        kept |= set[str]() if store.rows is None else set(tile.rows)
        kept |= set[str]() if store.across(1, 2, 1) == 1 else set(tile.lanes)
        # Of two dimensions in one line the outer one alone: else there would be gaps in the line.
        for line in (tile.rows, tile.lanes):
            kept |= set(sorted(line, key=lambda d, n=line: -n[d])[1:])
        steps = frozenset(
            d for d in dims if d not in kept
            and all(_cut(a.loops, a.limits, d, a.begins) for a in contracts)
        )  # fmt: skip
        reads = {
            role: frozenset(
                d for d in dims
                if all(d in steps if isinstance(s, Rows) else _zeroed(machine, s, d)
                       for s in (getattr(a, role) for a in contracts))
            ) for role in ("lhs", "rhs")
        }  # fmt: skip
        return Cuts(steps, reads)


def _cut(
    loops: Mapping[str, Param], limits: Iterable[Limit], v: str, others: Mapping[str, Param]
) -> bool:
    """Whether a loop can end early, by a bound that no other loop has."""
    bounds = [*_bounds(loops, limits, v)]
    shared = [b for w in {*loops, *others} - {v} for b in _bounds(loops, limits, w)]
    shared += [p for w, p in others.items() if w != v]
    return bool(bounds) and not set(bounds) & set(shared)


def _bounds(loops: Mapping[str, Param], limits: Iterable[Limit], v: str) -> Iterator[Param]:
    if v in loops and loops[v].kind != "const":
        yield loops[v]
    for limit in limits:
        # A condition on several loops together bounds none of them alone.
        if set(limit.steps) == {v} and limit.bound.kind != "const":
            yield limit.bound


def _zeroed(machine: CommandMachine, source: Lanes, d: str) -> bool:
    """Whether lanes of state beyond a bound become 0 wherever they are filled from rows."""
    axes = axes_of(machine)
    found = False
    for c in machine.commands:
        for state, load in c.acts.loads.items():
            if state not in axes or not isinstance(load.source, Rows) or d not in axes[state]:
                continue
            if source.state != state and state not in _feeding(machine, source.state):
                continue
            v = load.at[axes[state].index(d)]
            found = True
            if not load.zeroed or not _cut({}, load.limits, v, {}) or (
                any(p.kind != "const" for p in load.loops.values())
            ) or _shares(load, v):  # fmt: skip
                return False
    return found


def _shares(load: Load, v: str) -> bool:
    """Whether the bound of a loop bounds another one as well."""
    own = {b for b in _bounds({}, load.limits, v)}
    return any(own & set(_bounds({}, load.limits, w)) for w in load.loops if w != v)


def _feeding(machine: CommandMachine, state: str) -> set[str]:
    """State from which this one is filled."""
    found: set[str] = set()
    open_ = [state]
    while open_:
        name = open_.pop()
        for c in machine.commands:
            load = c.acts.loads.get(name)
            source = None if load is None else load.source
            if isinstance(source, Lanes) and source.state not in found:
                found.add(source.state)
                open_.append(source.state)
    return found


def axes_of(machine: CommandMachine) -> dict[str, tuple[str, ...]]:
    """Lanes of state -> the contraction's dimension of each of its own."""
    found: dict[str, tuple[str, ...]] = {}
    for c in machine.commands:
        a: Acts = c.acts
        if a.kind == "contract":
            found |= {s.state: s.at for s in (a.lhs, a.rhs) if isinstance(s, Lanes)}
    open_ = list(found)
    while open_:
        state = open_.pop()
        for c in machine.commands:
            load = c.acts.loads.get(state)
            if load is None or not isinstance(load.source, Lanes) or load.source.state in found:
                continue
            # The same loop's name in both: the same dimension.
            found[load.source.state] = tuple(found[state][load.at.index(v)] for v in load.source.at)
            open_.append(load.source.state)
    return found


def extents_of(
    cuts: Cuts, dims: Mapping[str, int], tiles: Mapping[str, Tile], regions: Mapping[str, Region],
    steps: Steps,
) -> Extents:  # fmt: skip
    """The extents of steps in this order."""
    elements = {r: getattr(steps, r) for r in ("dst", "lhs", "rhs")}
    used = {r: {d: np.maximum(n, 1) for d, n in regions[r].used.items()} for r in elements}
    # By dimension: a number where nothing is cut, so that whole tiles cost no time here.
    counts: dict[str, Ints | int] = {}
    for d in sorted({d for t in tiles.values() for d in t.dims}):
        # What is no result need not be summed; what either factor lacks adds nothing.
        roles = ["dst"] if d in tiles["dst"].dims else ["lhs", "rhs"]
        roles = [r for r in roles if (used[r][d] < dims[d]).any()]
        found = [used[r][d][elements[r]] for r in roles]
        counts[d] = np.minimum.reduce(found) if found else dims[d]
    sizes: dict[str, Sizes] = {}
    for role in ("lhs", "rhs"):
        most: dict[str, Ints] = {}
        for d in tiles[role].dims:
            most[d] = np.zeros(len(used[role][d]), np.int64)
            read = counts[d] if d in cuts.reads[role] else dims[d]
            if isinstance(read, int):
                most[d][elements[role]] = read
            else:  # an element is read by many steps: by the one that reads most of it too
                np.maximum.at(most[d], elements[role], read)
        sizes[role] = _sizes(tiles[role], most)
    stored = used["dst"]
    touched = {d: n if d in cuts.steps else np.full_like(n, dims[d]) for d, n in stored.items()}
    sizes |= {"dst": _sizes(tiles["dst"], touched), "stored": _sizes(tiles["dst"], stored)}
    cut = {d: n if d in cuts.steps else dims[d] for d, n in counts.items()}
    kinds, of_step = _kinds(cut, len(steps.dst))
    return Extents(kinds, of_step, sizes)


def _sizes(tile: Tile, counts: Mapping[str, Ints]) -> Sizes:
    def span(steps: Mapping[str, int]) -> Ints:
        some = next(iter(counts.values()))
        out = np.ones(len(some), np.int64)
        for d, step in steps.items():
            out += step * (counts[d] - 1)
        # Elements that no step meets are not moved at all.
        return np.where(some > 0, out, 0)

    return Sizes(counts, span(tile.rows), span(tile.lanes))


def _kinds(cut: Mapping[str, Ints | int], steps: int) -> tuple[tuple[Counts, ...], Ints]:
    """(distinct counts, which of them each step has)."""
    key = np.zeros(steps, np.int64)
    for n in cut.values():
        if not isinstance(n, int):
            key = key * (int(n.max(initial=0)) + 1) + n
    _, first, of_step = np.unique(key, return_index=True, return_inverse=True)
    kinds = tuple(
        tuple((d, n if isinstance(n, int) else int(n[k])) for d, n in cut.items())
        for k in first.tolist()
    )
    return kinds, of_step.astype(np.int64)
