"""An embedding as a stream of commands and the image of HOST memory that it works on.

Takes: an Embedding of a contraction, an Isa with commands, what is known of added tensors.
Leaves: `CommandProgram`: the order of steps with the least bytes and commands, and its words.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible
from csp_embed.ir.embedding import Embedding
from csp_embed.machine.command_tiles import Tile, operand_tiles
from csp_embed.machine.command_words import encode
from csp_embed.machine.commands import CommandMachine
from csp_embed.machine.spec import Isa
from csp_embed.targets.commands.epilogue import Epilogue, epilogue_of
from csp_embed.targets.commands.order import Residence, Steps, Walk, reside, values, walks
from csp_embed.targets.commands.planner import Factor, Planner
from csp_embed.targets.commands.regions import Region, region
from csp_embed.targets.commands.transfers import Transfer, Wants, transfers

Array = NDArray[Any]
# Every command is written out: beyond this a stream is gigabytes, and no walk is compared.
MOST_STEPS = 2_000_000
FIRST_ADDRESS = 0x1000
CONSTANT = "constant"


@dataclass(frozen=True)
class CommandProgram:
    """regions: operand ("lhs", "rhs", "dst", "add0", …, "constant") -> where it lies. moves: the
    copies that bring it. words: the stream. loaded, stored: bytes that copies move. counts:
    commands by name."""

    embedding: Embedding
    walk: Walk
    epilogue: Epilogue
    regions: Mapping[str, Region]
    moves: Mapping[str, Transfer]
    words: NDArray[np.uint64]
    counts: Mapping[str, int]
    steps: int
    loaded: int
    stored: int
    cycles: float

    def image(self, tensors: Mapping[str, Array]) -> list[tuple[int, NDArray[np.uint8]]]:
        """Byte ranges of HOST before the run."""
        found = []
        for role, r in self.regions.items():
            if role == "dst":
                continue
            if role == CONSTANT:
                data = np.full(r.size // r.item, self.epilogue.offset, self.moves[role].dtype)
                found.append((r.address, data.view(np.uint8)))
                continue
            tensor = np.asarray(tensors[r.place.layout.tensor])
            if role.startswith("add"):
                tensor = tensor.astype(np.int64) << self.epilogue.shift
                # The constant of the epilogue comes with the first tensor that sums begin with.
                if role == "add0":
                    tensor = tensor + self.epilogue.offset
            found.append((r.address, r.image(tensor, self.moves[role].dtype)))
        return found


def lower(embedding: Embedding, isa: Isa, adds: Mapping[int, int]) -> CommandProgram:
    """adds: epilogue step -> largest magnitude of its tensor, where known or promised.

    Raises: Infeasible where the machine cannot compute the epilogue exactly, or the stream would be
    too long.
    """
    return _Lowering.of(embedding, isa, adds).run()


@dataclass
class _Lowering:
    embedding: Embedding
    isa: Isa
    machine: CommandMachine
    tiles: Mapping[str, Tile]
    moves: dict[str, Transfer]
    adders: list[Transfer]
    epilogue: Epilogue
    regions: dict[str, Region] = field(default_factory=dict[str, Region])

    @staticmethod
    def of(embedding: Embedding, isa: Isa, adds: Mapping[int, int]) -> _Lowering:
        machine, op = isa.commands, embedding.operator
        assert machine is not None
        contract = next(c for c in machine.commands if c.acts.kind == "contract")
        tiles = operand_tiles(contract.acts, machine.commands)
        width = {r: 1 + sum(s * (isa.dims[d] - 1) for d, s in t.lanes.items())
                 for r, t in tiles.items()}  # fmt: skip
        memory = tiles["dst"].memory
        stores = transfers(machine, "copy_out", memory, width["dst"])
        epilogue = epilogue_of(op, machine, stores, adds)
        moves: dict[str, Transfer] = {}
        taken: set[str] = set()

        def chosen(found: list[Transfer]) -> Transfer:
            # Copies that read other state than the ones before: then nothing is set anew.
            best = min(found, key=lambda t: (-t.blocks, len(t.states() & taken)))
            taken.update(best.states())
            return best

        for role in ("lhs", "rhs"):
            dtype = machine.memories[tiles[role].memory].dtype
            found = transfers(machine, "copy_in", tiles[role].memory, width[role])
            moves[role] = chosen([t for t in found if t.dtype == dtype])
        begins = transfers(machine, "copy_in", memory, width["dst"])
        adders = transfers(machine, "copy_in", memory, width["dst"], adds=True)
        begins, adders = ([t for t in x if t.dtype == "int32"] for x in (begins, adders))
        if begins:
            moves[CONSTANT] = chosen(begins)
        moves["dst"] = epilogue.store
        made = _Lowering(embedding, isa, machine, tiles, moves, adders, epilogue)
        for role in embedding.layouts:
            if role.startswith("add"):
                made._begins(op.text())
                if role != "add0" and not adders:
                    raise Infeasible(f"{op.name} adds two tensors", where=op.text(),
                                     why=f"{isa.name} has no copy that adds to sums")  # fmt: skip
                moves[role] = moves[CONSTANT] if role == "add0" else adders[0]
        return made

    def _begins(self, where: str) -> None:
        """Raises: Infeasible where sums cannot begin with numbers from HOST."""
        if CONSTANT not in self.moves:
            raise Infeasible(
                "sums must begin with numbers from HOST", where=where,
                why=f"{self.isa.name} copies none into {self.tiles['dst'].memory}",
                hint="another epilogue",
            )  # fmt: skip

    def run(self) -> CommandProgram:
        e = self.embedding
        steps = math.prod(c.extent for c in e.counters)
        if steps > MOST_STEPS:
            raise Infeasible(
                f"{e.operator.name} takes {steps:,} steps", where=e.operator.formula(),
                why=f"every command is written out; {MOST_STEPS:,} steps at most",
                hint="split the operator",
            )  # fmt: skip
        for role in e.layouts:
            tile = self.tiles.get(role, self.tiles["dst"])
            self.regions[role] = region(e, self.isa, role, tile, self.moves[role],
                                        reduced_first=role in ("lhs", "rhs"))  # fmt: skip
        pools, slots = self._pools()
        best: tuple[int, Walk, Steps, Residence] | None = None
        for walk in walks(e, slots["sums"]):
            ordered = self._steps(walk)
            found = reside(ordered, pools, slots, None if best is None else best[0] - 1)
            if found is not None:
                best = found.count, walk, ordered, found
        assert best is not None, "the first walk has no limit"
        return self._emitted(*best[1:], pools)

    def _pools(self) -> tuple[dict[str, str], dict[str, int]]:
        """(role -> pool of slots, pool -> how many slots it has; "sums": tiles of sums)."""
        pools = {r: self.tiles[r].memory for r in ("lhs", "rhs")}
        slots: dict[str, int] = {}
        for memory in pools.values():
            slots[memory] = self.machine.memories[memory].rows // self._slot_rows(memory)
            if slots[memory] < 2:
                raise Infeasible(f"{memory} holds less than two groups of tiles",
                                 where=self.isa.where(f"memories.{memory}"))  # fmt: skip
        dst = self.tiles["dst"]
        slots["sums"] = self.machine.memories[dst.memory].rows // dst.height(self.isa.dims)
        return pools, slots

    def _slot_rows(self, memory: str) -> int:
        """Rows of a slot: of the largest group that lies in that memory."""
        groups = [
            min(r.group, r.blocks) * r.height
            for role, r in self.regions.items() if role in ("lhs", "rhs")
            and self.tiles[role].memory == memory
        ]  # fmt: skip
        return max(groups)

    def _index(self, role: str, at: Mapping[str, Array]) -> Array:
        """Indices in the region's box, [steps, rank]."""
        layout, low = self.embedding.layouts[role], self.regions[role].place.low
        n = len(next(iter(at.values()), np.zeros(1)))
        out = np.tile(np.array(layout.origin, np.int64) - np.array(low, np.int64), (n, 1))
        for name, step in layout.step.items():
            if any(step):
                out += at[name][:, None] * np.array(step, np.int64)
        return out.reshape(n, len(low))

    def _steps(self, walk: Walk) -> Steps:
        parts: dict[str, list[Array]] = {r: [] for r in ("dst", "lhs", "rhs")}
        ends = [0]
        for at in values(walk):
            live: Array = np.ones(len(next(iter(at.values()), np.zeros(1))), bool)
            index = {r: self._index(r, at) for r in parts}
            for r in ("lhs", "rhs"):
                shape = np.array(self.regions[r].place.shape, np.int64)
                live &= ((index[r] >= 0) & (index[r] < shape)).all(axis=1)
            # A sum of nothing is made by the constant that it begins with.
            for r, found in parts.items():
                outer, within = self.regions[r].element(index[r][live])
                found.append(outer * self.regions[r].blocks + within)
            ends.append(ends[-1] + int(live.sum()))
        flat = {r: np.concatenate(x) for r, x in parts.items()}
        groups = {}
        for r in ("lhs", "rhs"):
            reg = self.regions[r]
            outer, within = np.divmod(flat[r], reg.blocks)
            groups[r] = outer * -(-reg.blocks // reg.group) + within // reg.group
        return Steps(flat["dst"], flat["lhs"], flat["rhs"], groups, tuple(ends))

    def _emitted(
        self, walk: Walk, steps: Steps, residence: Residence, pools: Mapping[str, str]
    ) -> CommandProgram:
        self._place(steps, walk)
        planner = Planner(self.machine, self.isa.dims)
        writer = _Writer(self, planner, steps, residence, pools)
        for block, at in zip(itertools.pairwise(steps.ends), values(walk), strict=True):
            writer.block(*block, at)
        planner.finish()
        words = encode(self.machine, planner.out)
        names = [c.name for c in self.machine.commands]
        totals = np.bincount([c for c, _ in planner.out], minlength=len(names))
        counts = {n: int(t) for n, t in zip(names, totals, strict=True) if t}
        cost = self.machine.costs
        compute = cost["step"] * len(steps.dst)
        moved = (writer.loaded + writer.stored) / cost["bytes_per_cycle"]
        fed = cost["command"] * len(planner.out)
        slowest = max(compute, moved, fed)
        return CommandProgram(
            self.embedding, walk, self.epilogue, dict(self.regions), dict(self.moves), words,
            counts, len(steps.dst), writer.loaded, writer.stored,
            slowest + (compute + moved + fed) / 32,
        )  # fmt: skip

    def _place(self, steps: Steps, walk: Walk) -> None:
        """Adds the constant where sums begin with one, and gives every region an address."""
        dst = self.regions["dst"]
        tensors = any(r.startswith("add") for r in self.regions)
        empty = len(np.unique(steps.dst)) < self._sums(walk)
        anew = all(c.acts.keeps is None for c in self.machine.commands if c.acts.kind == "contract")
        if not tensors and (self.epilogue.offset or empty or anew):
            self._begins(self.embedding.operator.text())
            t = self.moves[CONSTANT]
            place = replace(dst.place, low=(), shape=(), order=())
            rows = 1 if t.strided() else dst.height
            self.regions[CONSTANT] = Region(CONSTANT, place, dst.tile, dst.height, dst.width, None,
                                            t.strided(), rows, 1, t.item)  # fmt: skip
        at = FIRST_ADDRESS
        for role in [r for r in self.regions if r != "dst"] + ["dst"]:
            at = -(-at // self.machine.align) * self.machine.align
            self.regions[role] = replace(self.regions[role], address=at)
            at += self.regions[role].size
        if at > self.machine.host_bytes:
            raise Infeasible(f"{self.embedding.operator.name} needs {at:,} bytes of HOST",
                             where=self.isa.where("memories.HOST"))  # fmt: skip

    def _sums(self, walk: Walk) -> int:
        free = (*walk.batch, *walk.rows, *walk.columns)
        return math.prod(c.extent for c in free)


class _Writer:
    """Writes one block of sums after the other."""

    def __init__(
        self, of: _Lowering, planner: Planner, steps: Steps, residence: Residence,
        pools: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.of, self.planner, self.steps, self.residence = of, planner, steps, residence
        self.slot_rows = {r: of._slot_rows(pools[r]) for r in ("lhs", "rhs")}
        self.loaded = self.stored = 0
        self.lists = {r: getattr(steps, r).tolist() for r in ("dst", "lhs", "rhs")}
        self.lists |= {f"{r} slot": v.tolist() for r, v in residence.slots.items()}

    def block(self, begin: int, end: int, at: Mapping[str, Array]) -> None:
        """All steps of a block: sums begin, are added to, are stored."""
        of = self.of
        dst = of.regions["dst"]
        index = of._index("dst", at)
        sums, beside = dst.element(index)
        numbers = sums * dst.blocks + beside
        tiles, first = np.unique(numbers, return_index=True)
        order = np.argsort(first)
        rows = {int(tiles[k]): n * dst.height for n, k in enumerate(order)}
        begun: set[int] = set()
        for role in of.regions:
            if role == CONSTANT or role.startswith("add"):
                where = of._index(role, at) if role != CONSTANT else None
                for k in order:
                    outer, within = 0, 0
                    if where is not None:
                        found = of.regions[role].element(where[first[k]][None])
                        outer, within = int(found[0][0]), int(found[1][0])
                    self._load(role, outer, within, rows[int(tiles[k])], 1)
                    begun.add(int(tiles[k]))
        lists = self.lists
        for n in range(begin, end):
            for role, group, slot in self.residence.loads.get(n, ()):
                self._group(role, group, slot)
            tile = lists["dst"][n]
            self.planner.contract(
                rows[tile], self._factor("lhs", n), self._factor("rhs", n), tile in begun
            )
            begun.add(tile)
        for k in order:
            self._store(int(tiles[k]), rows[int(tiles[k])])

    def _factor(self, role: str, n: int) -> Factor:
        r = self.of.regions[role]
        element = self.lists[role][n]
        within = element % r.blocks % r.group
        row = self.lists[role + " slot"][n] * self.slot_rows[role] + within * r.height
        return Factor(row, (role, element))

    def _group(self, role: str, group: int, slot: int) -> None:
        r = self.of.regions[role]
        outer, part = divmod(group, -(-r.blocks // r.group))
        begin = part * r.group
        self._load(role, outer, begin, slot * self.slot_rows[role], min(r.group, r.blocks - begin))

    def _load(self, role: str, outer: int, within: int, row: int, blocks: int) -> None:
        r, t = self.of.regions[role], self.of.moves[role]
        host = r.at(outer, within)
        # Elements one after the other are more rows of one.
        rows, blocks = (r.height, blocks) if r.beside else (r.height * blocks, 1)
        self._moved(t, row, host, rows, r, blocks)
        kept = 1 if r.rows < r.height else rows
        self.loaded += kept * r.row_bytes * blocks

    def _store(self, tile: int, row: int) -> None:
        r, t = self.of.regions["dst"], self.of.moves["dst"]
        settings = list(self.of.epilogue.settings.items())
        self._moved(t, row, r.at(*divmod(tile, r.blocks)), r.height, r, 1, settings)
        self.stored += r.height * r.row_bytes

    def _moved(
        self, t: Transfer, row: int, host: int, rows: int, r: Region, blocks: int,
        settings: Wants | None = None,
    ) -> None:  # fmt: skip
        each = t.rows or min(rows, t.most_rows)
        for done in range(0, rows, each):
            n = each if t.rows else min(each, rows - done)
            wants = t.wants(row + done, host + done * r.stride, n, r.width, r.stride, blocks,
                            r.height)  # fmt: skip
            self.planner.copy(t.command, wants + (settings or []))
