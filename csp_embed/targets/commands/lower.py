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

from csp_embed.errors import Infeasible, SpecError
from csp_embed.ir.embedding import Embedding
from csp_embed.machine.commands import reach
from csp_embed.machine.commands.cycles import overlapped, stream_cycles
from csp_embed.machine.commands.spec import Command, CommandMachine
from csp_embed.machine.commands.tiles import Tile, operand_tiles
from csp_embed.machine.commands.transfers import Transfer, drains, stored_from, transfers
from csp_embed.machine.commands.words import encode
from csp_embed.machine.spec import Isa
from csp_embed.targets.commands.elements import Elements
from csp_embed.targets.commands.epilogue import Epilogue, epilogue_of
from csp_embed.targets.commands.extents import Cuts, Extents, extents_of
from csp_embed.targets.commands.order import (
    PARTS,
    Order,
    Steps,
    Table,
    Walk,
    order_of,
    walks,
)
from csp_embed.targets.commands.planner import Planner
from csp_embed.targets.commands.program import CommandProgram
from csp_embed.targets.commands.regions import Region, region
from csp_embed.targets.commands.residence import Residence, pools_of, reside
from csp_embed.targets.commands.turns import Turns
from csp_embed.targets.commands.writer import CONSTANT, Writer

Array = NDArray[Any]
# Every command is written out: beyond this a stream is gigabytes, and no walk is compared.
MOST_STEPS = 2_000_000
# Address 0 stays free, as on every machine here.
FIRST_ADDRESS = 0x1000


def lower(embedding: Embedding, isa: Isa, adds: Mapping[int, int]) -> CommandProgram:
    """adds: epilogue step -> largest magnitude of its tensor, where known or promised.

    Raises: Infeasible where the machine cannot compute the epilogue exactly, or the stream would be
    too long; SpecError where no command sets what another needs.
    """
    try:
        return _Lowering.of(embedding, isa, adds).run()
    except SpecError as error:  # of commands that cannot be fed: told by line, not by name
        raise SpecError(error.what, where=isa.where(error.where, "instructions"), why=error.why,
                        hint=error.hint) from error  # fmt: skip


@dataclass
class _Lowering:
    embedding: Embedding
    isa: Isa
    machine: CommandMachine
    tiles: Mapping[str, Tile]
    moves: dict[str, Transfer]
    begins: list[Transfer]
    adders: list[Transfer]
    epilogue: Epilogue
    drain: Command | None
    resets: list[Transfer]
    regions: dict[str, Region] = field(default_factory=dict[str, Region])

    @staticmethod
    def of(embedding: Embedding, isa: Isa, adds: Mapping[int, int]) -> _Lowering:
        machine, op = isa.commands, embedding.operator
        assert machine is not None
        contract = next(c for c in machine.commands if c.acts.kind == "contract")
        tiles = operand_tiles(contract.acts, machine.commands)
        # Lanes of a row that a tile uses; copies move only these.
        width = {r: 1 + sum(s * (isa.dims[d] - 1) for d, s in t.lanes.items())
                 for r, t in tiles.items()}  # fmt: skip
        memory = tiles["dst"].memory
        stores = [t for place in stored_from(machine, memory)
                  for t in transfers(machine, "copy_out", place, width["dst"])
                  if t.apart(width["dst"])]  # fmt: skip
        epilogue = epilogue_of(op, machine, stores, adds)
        source = epilogue.store.command.acts.dst.memory
        # Direct stores come first; others have a command in front that brings sums there.
        drain = next((c for c in drains(machine, memory) if c.acts.to.memory == source), None)
        resets = [t for t in transfers(machine, "reset", memory, width["dst"])]
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
            # The operand's own type: other copies convert on the way.
            moves[role] = chosen([t for t in found if t.dtype == dtype and t.apart(width[role])])
        begins = transfers(machine, "copy_in", memory, width["dst"])
        adders = transfers(machine, "copy_in", memory, width["dst"], adds=True)
        # One row of HOST may fill all rows of a tile: a bias needs no more.
        begins, adders = (
            [t for t in x if t.dtype == "int32" and (t.repeats or t.apart(width["dst"]))]
            for x in (begins, adders)
        )
        # Sums begin with a copy in where the machine has one.
        if begins:
            moves[CONSTANT] = chosen(begins)
        moves["dst"] = epilogue.store
        made = _Lowering(embedding, isa, machine, tiles, moves, begins, adders, epilogue,
                         None if source == memory else drain, resets)  # fmt: skip
        for role in embedding.layouts:
            if role.startswith("add"):
                made._begins(op.text())
                # The first added tensor is what sums begin with; more must be added by the machine.
                if role != "add0" and not adders:
                    raise Infeasible(f"{op.name} adds two tensors", where=op.text(),
                                     why=f"{isa.name} has no copy that adds to sums",
                                     hint="add the tensors in two operators")  # fmt: skip
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
        # Before anything is laid out: a stream of gigabytes helps nobody.
        if steps > MOST_STEPS:
            raise Infeasible(
                f"{e.operator.name} takes {steps:,} steps", where=e.operator.formula(),
                why=f"every command is written out; {MOST_STEPS:,} steps at most",
                hint="split the operator",
            )  # fmt: skip
        for role in e.layouts:
            tile = self.tiles.get(role, self.tiles["dst"])
            factor = role in ("lhs", "rhs")
            # Two groups must fit: one is used while the other is filled.
            tiles = reach.rows(self.machine, tile.memory) // tile.height(self.isa.dims)
            most = tiles // 2 if factor else tiles
            self.regions[role] = self._region(role, tile, most, factor)
        pools, slots = self._pools()
        # The walk with the fewest loads; each is stopped once it exceeds the best.
        best: tuple[Walk, Order, Steps, Extents, Residence] | None = None
        least = 0.0
        dims = self.isa.dims
        cuts = Cuts.of(self.machine, dims, self.tiles["dst"], self.moves["dst"],
                       whole=self.drain is not None)  # fmt: skip
        turns = Turns(self.machine, dims)
        whole = next(walks(e, slots["sums"]))
        elements = Elements(e, self.regions)
        tables, live = elements.tables(whole)  # all walks have the same parts
        extents = self._extents(cuts, elements.steps(order_of(whole), tables, live))
        floor = turns.floor(extents)
        for walk in walks(e, slots["sums"], rows_fastest=turns.rows_fastest(extents)):
            order = order_of(walk)
            steps = elements.steps(order, tables, live)
            lying = pools_of(steps.groups, pools, slots)
            extents = self._extents(cuts, steps)
            cost = turns.total(steps, extents)
            # The fewest loads win; of equally many, the fewest cycles of steps.
            limit = None if best is None else best[-1].count - (cost >= least)
            found = reside(lying, limit)
            if found is not None:
                best, least = (walk, order, steps, extents, found), cost
            assert best is not None, "the first walk has no limit"
            once = sum(p.distinct() for p in lying)
            if best[-1].count == once and least <= floor:
                break  # everything is loaded once, which no other walk can beat
        assert best is not None, "there is always a walk"
        return self._emitted(*best, tables, pools)

    def _extents(self, cuts: Cuts, steps: Steps) -> Extents:
        return extents_of(cuts, self.isa.dims, self.tiles, self.regions, steps)

    def _region(self, role: str, tile: Tile, most: int, factor: bool) -> Region:
        """Where the operand lies, by the copy that was chosen; of a tensor that is added by another
        one where that repeats a row, and rows differ."""
        found: Infeasible | None = None
        others = () if not role.startswith("add") else self.begins if role == "add0" \
            else self.adders  # fmt: skip
        for t in (self.moves[role], *others):
            try:
                lies = region(self.embedding, self.isa, role, tile, t, most_group=most,
                              reduced_first=factor)  # fmt: skip
            except Infeasible as error:
                found = found or error
            else:
                self.moves[role] = t
                return lies
        assert found is not None, "a loop that never returned has raised"
        raise found

    def _pools(self) -> tuple[dict[str, str], dict[str, int]]:
        """(role -> pool of slots, pool -> how many slots it has; "sums": tiles of sums)."""
        pools = {r: self.tiles[r].memory for r in ("lhs", "rhs")}
        slots: dict[str, int] = {}
        for memory in pools.values():
            within = reach.rows(self.machine, memory)
            slots[memory] = within // self._slot_rows(memory)
            # Two slots at least: one is used while the other is filled.
            if slots[memory] < 2:
                raise Infeasible(f"{memory} holds less than two groups of tiles",
                                 where=self.isa.where(f"memories.{memory}"),
                                 why=f"all commands can name {within} of its rows",
                                 hint=f"more `rows` of {memory} in the specification")  # fmt: skip
        dst = self.tiles["dst"]
        within = reach.rows(self.machine, dst.memory)
        slots["sums"] = within // dst.height(self.isa.dims)
        if not slots["sums"]:
            raise Infeasible(f"{dst.memory} holds no tile of sums",
                             where=self.isa.where(f"memories.{dst.memory}"),
                             why=f"all commands can name {within} of its rows",
                             hint="wider fields, or more rows")  # fmt: skip
        return pools, slots

    def _slot_rows(self, memory: str) -> int:
        """Rows of a slot: of the largest group that lies in that memory."""
        # A group may be larger than the region: then the region is the group.
        groups = [
            min(r.group, r.blocks) * r.height
            for role, r in self.regions.items() if role in ("lhs", "rhs")
            and self.tiles[role].memory == memory
        ]  # fmt: skip
        return max(groups)

    def _emitted(
        self, walk: Walk, order: Order, steps: Steps, extents: Extents, residence: Residence,
        tables: Mapping[str, Table], pools: Mapping[str, str],
    ) -> CommandProgram:  # fmt: skip
        reset = self._place(steps, walk)
        planner = Planner(self.machine, self.isa.dims)
        writer = Writer(
            self.regions, self.moves, list(self.epilogue.settings.items()), planner, steps,
            residence, tables, {r: self._slot_rows(pool) for r, pool in pools.items()}, extents,
            self.drain, reset,
        )  # fmt: skip
        begins = order.ends.tolist()
        # Block by block: the writer begins, adds and stores each.
        for k, (begin, end) in enumerate(itertools.pairwise(steps.ends)):
            whole = slice(begins[k], begins[k + 1])
            writer.block(begin, end, {p: x[whole] for p, x in order.at.items()})
        planner.finish()
        words = encode(self.machine, planner.out)
        names = [c.name for c in self.machine.commands]
        totals = np.bincount([c for c, _ in planner.out], minlength=len(names))
        counts = {n: int(t) for n, t in zip(names, totals, strict=True) if t}
        cost = self.machine.costs
        compute = stream_cycles(self.machine, planner.out)
        moved = (writer.loaded + writer.stored) / cost["bytes_per_cycle"]
        fed = cost["command"] * len(planner.out)
        return CommandProgram(
            self.embedding, walk, self.epilogue, dict(self.regions), dict(self.moves), words,
            counts, len(steps.dst), writer.loaded, writer.stored,
            overlapped(compute, moved, fed),
        )  # fmt: skip

    def _place(self, steps: Steps, walk: Walk) -> Transfer | None:
        """Adds the constant where sums begin with one, and gives every region an address. Returns:
        the reset by which sums begin, where they do."""
        dst = self.regions["dst"]
        tensors = any(r.startswith("add") for r in self.regions)
        # Sums that no step reaches must still be stored, as zeros or the constant.
        empty = len(np.unique(steps.dst)) < self._sums(walk)
        anew = all(c.acts.keeps is None for c in self.machine.commands if c.acts.kind == "contract")
        zeroed = not tensors and (empty or anew) and not self.epilogue.offset and self.resets
        if not zeroed and not tensors and (self.epilogue.offset or empty or anew):
            self._begins(self.embedding.operator.text())
            t = self.moves[CONSTANT]
            place = replace(dst.place, low=(), shape=(), order=())
            rows = 1 if t.strided() or t.repeats else dst.height
            # A strided copy may repeat one row: then the constant is one row.
            self.regions[CONSTANT] = Region(CONSTANT, place, dst.tile, dst.height, dst.width, None,
                                            t.strided(), rows, 1, t.item,
                                            pitch=t.pitch(dst.width))  # fmt: skip
        at = FIRST_ADDRESS
        align = math.lcm(self.machine.align, *(t.unit for t in self.moves.values()))
        # The result last: its address does not move when constants grow.
        for role in [r for r in self.regions if r != "dst"] + ["dst"]:
            at = -(-at // align) * align
            self.regions[role] = replace(self.regions[role], address=at)
            at += self.regions[role].size
        most = reach.host_bytes(self.machine)
        if at > most:
            raise Infeasible(f"{self.embedding.operator.name} needs {at:,} bytes of HOST",
                             where=self.isa.where("memories.HOST"),
                             why=f"all commands can name {most:,}",
                             hint="a smaller operator, or more `bytes` of HOST")  # fmt: skip
        return self.resets[0] if zeroed else None

    def _sums(self, walk: Walk) -> int:
        return math.prod(walk.count(p) for p in PARTS if p != "reduced")
