"""The loops over tiles of sums, and what a tile does: begin, steps, epilogue, store.

Takes: an Embedding, its Tiling, where operands lie.  Leaves: nests of `Loop` and `Block`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from csp_embed.ir.embedding import Counter, Embedding
from csp_embed.machine.spec import Isa
from csp_embed.machine.templates.spec import SourceMachine
from csp_embed.targets.source import correct, epilogue, output, tiles
from csp_embed.targets.source.live import Live, Piece
from csp_embed.targets.source.nest import Address, Block, Call, Keep, Loop, Node, Sum
from csp_embed.targets.source.places import Place


@dataclass(frozen=True)
class Machine:
    """Names of the templates that a kernel is made of."""

    program: SourceMachine
    isa: Isa

    def name(self, kind: str, **wanted: str) -> str:
        found = self.program.find(kind, **wanted)
        assert found is not None, f"machine/templates/rules.py asks for {kind} {wanted}"
        return found.name


@dataclass(frozen=True)
class Tiles:
    """Writes the loops over tiles and the body of each."""

    machine: Machine
    embedding: Embedding
    tiling: tiles.Tiling
    places: Mapping[str, Place]
    names: Mapping[str, str]
    start: correct.Correction | None
    target: output.Target
    cut: Live | None

    def nest(self) -> tuple[Node, ...]:
        return self._around(self.tiling.outer, self._columns, None)

    def _around(
        self,
        counters: Sequence[Counter],
        inside: Callable[[Piece | None], tuple[Node, ...]],
        piece: Piece | None,
    ) -> tuple[Node, ...]:
        """Loops over these counters, outermost first; one that is cut gives several."""
        if not counters:
            return inside(piece)
        counter, *rest = counters
        var = self.names[counter.name]
        if self.cut is None or counter.name != self.cut.output:
            return (Loop(var, counter.extent, self._around(rest, inside, piece)),)
        out: tuple[Node, ...] = ()
        for part in self.cut.pieces:
            # One value needs no loop.
            wrap = _Wrap(var if part.count > 1 else "", part.count)
            out += wrap(self._around(rest, inside, part))
        return out

    def _columns(self, piece: Piece | None) -> tuple[Node, ...]:
        out: list[Node] = []
        # Columns outermost inside `outer`: a panel of weights stays for all rows.
        for columns, wrap in self._pieces(self.tiling.columns):

            def rows_of(
                piece: Piece | None, columns: list[dict[str, Sum]] = columns
            ) -> tuple[Node, ...]:
                inner: tuple[Node, ...] = ()
                for rows, wrap_rows in self._pieces(self.tiling.rows):
                    # Whole tiles and the ragged end have bodies of their own, without conditions.
                    inner += wrap_rows((self._body(rows, columns, piece),))
                return inner

            out += wrap(self._around(self.tiling.middle, rows_of, piece))
        return tuple(out)

    def _pieces(
        self, split: tuple[Counter, int] | None
    ) -> list[tuple[list[dict[str, Sum]], _Wrap]]:
        """(what each sum of the tile binds the counter to, the loop around) of the whole tiles and
        of the ragged end."""
        if split is None:
            return [([{}], _Wrap("", 1))]
        counter, size = split
        var = self.names[counter.name]
        whole, rest = divmod(counter.extent, size)
        out: list[tuple[list[dict[str, Sum]], _Wrap]] = []
        # One whole tile needs no loop.
        if whole == 1:
            out.append(([{counter.name: Sum(j)} for j in range(size)], _Wrap("", 1)))
        elif whole:
            bound = [{counter.name: Sum(j, ((var, size),))} for j in range(size)]
            out.append((bound, _Wrap(var, whole)))
        if rest:
            bound = [{counter.name: Sum(whole * size + j)} for j in range(rest)]
            out.append((bound, _Wrap("", 1)))
        return out

    def _cut_at(self, piece: Piece | None) -> dict[str, Sum]:
        """What the loops of a piece bind the counters of the cut to."""
        if self.cut is None or piece is None:
            return {}
        var, taps = self.names[self.cut.output], self.cut.reduced
        bound = {self.cut.output: Sum(piece.first, ((var, 1),) if piece.count > 1 else ())}
        if taps is not None:
            bound[taps] = Sum(piece.begin, ((self.names[taps], 1),))
        return bound

    def _count(self, counter: Counter, piece: Piece | None) -> int:
        """Rounds of the loop over a reduced counter."""
        if self.cut is None or piece is None or counter.name != self.cut.reduced:
            return counter.extent
        return piece.taps

    def _start(self, piece: Piece | None) -> Sum | None:
        """Where a sum's first value lies; None: it begins at 0."""
        if self.start is None or self.cut is None or piece is None:
            return None if self.start is None else self.start.at
        if not piece.taps:
            return None
        return self.start.at.plus(Sum(self.cut.windows.index(piece.window) * self.start.size))

    def _at(self, at: Sum, *bound: Mapping[str, Sum]) -> Sum:
        """An address over counters as one over loop variables."""
        for values in bound:
            for name, value in values.items():
                at = at.bind(name, value)
        return Sum(at.const, tuple((self.names.get(v, v), c) for v, c in at.terms))

    def _body(
        self, rows: list[dict[str, Sum]], columns: list[dict[str, Sum]], piece: Piece | None
    ) -> Block:
        m, start = self.machine, self._start(piece)
        # All addresses meet the counters of the cut.
        cut = self._cut_at(piece)
        rows = [{**cut, **values} for values in rows]
        columns = [{**cut, **values} for values in columns]
        contract, get_lhs, get_rhs = tiles.templates(m.isa)
        memory = {r: contract.slot(r).memory for r in ("dst", "lhs", "rhs")}
        tile = [(r, c) for r in range(len(rows)) for c in range(len(columns))]
        sums = {(r, c): f"acc_{r}_{c}" for r, c in tile}
        factors = [f"rhs_{c}" for c in range(len(columns))]
        begin: list[Node] = []
        # Sums that cannot be loaded begin at 0, and where they should begin is added at their end.
        get_sums = m.program.find("copy_in", dst=memory["dst"], address="int32")
        reset = m.program.find("reset", dst=memory["dst"])
        assert reset is not None
        for r, c in tile:
            if start is None or get_sums is None:
                begin.append(Call(reset.name, {reset.roles["dst"]: sums[r, c]}))
                continue
            at = Address(correct.BUFFER, self._at(start, rows[r], columns[c]))
            begin.append(_call(m, "copy_in", sums[r, c], at, dst=memory["dst"], address="int32"))
        steps: list[Node] = []
        # Factors of columns first: they stay for all rows of the tile.
        for c, values in enumerate(columns):
            at = Address(self.places["rhs"].buffer, self._at(self.places["rhs"].at(), values))
            steps.append(Call(get_rhs.name, {get_rhs.roles["dst"]: factors[c],
                                             get_rhs.roles["address"]: at}))  # fmt: skip
        for r, values in enumerate(rows):
            # One register for the rows' factor: it is used at once, and loaded again.
            at = Address(self.places["lhs"].buffer, self._at(self.places["lhs"].at(), values))
            steps.append(Call(get_lhs.name, {get_lhs.roles["dst"]: "lhs_0",
                                             get_lhs.roles["address"]: at}))  # fmt: skip
            roles = contract.roles
            steps += [
                Call(contract.name, {roles["dst"]: sums[r, c], roles["lhs"]: "lhs_0",
                                     roles["rhs"]: factors[c]})
                for c in range(len(columns))
            ]  # fmt: skip
        nest: tuple[Node, ...] = tuple(steps)
        for counter in reversed(self.tiling.inner):
            # Kept rolled: unrolled, gcc would spill the sums.
            nest = (Loop(self.names[counter.name], self._count(counter, piece), nest, rolled=True),)
        # Behind the loop the sums are used as they are, without copies (emit.py, ROLLED).
        kept = (Keep(memory["dst"], tuple(sums.values())),)
        registers = [(memory["dst"], n) for n in sums.values()]
        if piece is not None and not piece.taps:
            # Padding alone: sums stay as they begin.
            nest = ()
        else:
            registers += [(memory["lhs"], "lhs_0"), *((memory["rhs"], n) for n in factors)]
        results = tiles.results_memory(m.isa)
        after = epilogue.Epilogue(m.program, results, self.embedding.operator)
        convert = m.program.find("convert", dst=results, source=memory["dst"])
        if results != memory["dst"]:
            registers.append((results, "result_0"))
        end: list[Node] = []
        for c in range(len(columns)):
            for r in range(len(rows)):
                adds = {
                    role: self._at(p.at(), rows[r], columns[c])
                    for role, p in self.places.items() if role.startswith("add")
                }  # fmt: skip
                register = sums[r, c]
                # Sums that cannot be stored are converted, one after the other, in one register.
                if results != memory["dst"]:
                    assert convert is not None
                    register = "result_0"
                    into, source = convert.roles["dst"], convert.roles["source"]
                    end.append(Call(convert.name, {into: register, source: sums[r, c]}))
                # The correction is added at the end where sums cannot begin with it.
                if start is not None and get_sums is None:
                    at = Address(correct.BUFFER, self._at(start, rows[r], columns[c]))
                    end += after.added(register, at)
                end += after.steps(register, adds)
                at = self._at(self.target.at, rows[r], columns[c])
                # A ragged end stores fewer lanes.
                count = self.target.lanes(lambda s, r=r, c=c: self._at(s, rows[r], columns[c]))
                put = m.program.find("copy_out", dst=results, address=self.target.dtype)
                assert put is not None
                end.append(
                    Call(put.name, {put.roles["dst"]: register,
                                    put.roles["address"]: Address(self.target.buffer, at),
                                    put.roles["count"]: count})
                )  # fmt: skip
        return Block((*registers, *after.registers), (*begin, *nest, *kept, *after.begin, *end))


@dataclass(frozen=True)
class _Wrap:
    """A loop around nodes, or none where it would run once."""

    var: str
    count: int

    def __call__(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        return (Loop(self.var, self.count, nodes),) if self.var else nodes


def _call(m: Machine, kind: str, register: str, at: Address, **wanted: str) -> Call:
    template = m.program.find(kind, **wanted)
    assert template is not None
    return Call(template.name, {template.roles["dst"]: register, template.roles["address"]: at})
