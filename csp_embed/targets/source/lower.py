"""An embedding as loops around a machine's templates.

Takes: Embedding of a contraction, Isa with templates.  Leaves: a `SourceProgram`. Steps with
padding are executed: the packed operands hold it, so that loops have no conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from csp_embed.ir.embedding import Counter, Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.machine.templates.spec import SourceMachine
from csp_embed.targets.source import correct, epilogue, output, tiles
from csp_embed.targets.source.names import variable
from csp_embed.targets.source.nest import Address, Block, Buffer, Call, Keep, Loop, Node, Sum
from csp_embed.targets.source.places import Place, place
from csp_embed.targets.source.streams import Results, Streams, copy_name, results_of, streams_of


@dataclass(frozen=True)
class SourceProgram:
    """What C is written from, and what the interpreter runs.

    places: operand -> its packed buffer ("dst" where the result is unpacked). prepare: nests that
    constants alone need; run: the others, in order. fixed: buffers whose content never changes.
    streams, results: how operands of every run are packed, and the result unpacked, where whole
    runs can be moved.
    """

    operator: Operator
    embedding: Embedding
    tiling: tiles.Tiling
    places: Mapping[str, Place]
    buffers: tuple[Buffer, ...]
    prepare: tuple[Node, ...]
    run: tuple[Node, ...]
    fixed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    main: tuple[Node, ...] = ()
    streams: Mapping[str, Streams] = field(default_factory=dict)
    results: Results | None = None


@dataclass(frozen=True)
class _Machine:
    """Names of the templates that a kernel is made of."""

    program: SourceMachine
    isa: Isa

    def name(self, kind: str, **wanted: str) -> str:
        found = self.program.find(kind, **wanted)
        assert found is not None, f"machine/templates/rules.py asks for {kind} {wanted}"
        return found.name


def lower(embedding: Embedding, isa: Isa, tiling: tiles.Tiling | None = None) -> SourceProgram:
    """The nests of an embedding. tiling: the best by the spec's rates where none is given."""
    program, op = isa.program, embedding.operator
    assert program is not None
    tiling = tiles.choose(embedding, isa) if tiling is None else tiling
    # Names of counters may be no names of C.
    names = {c.name: variable(c.name, n) for n, c in enumerate(embedding.counters)}
    places = places_of(embedding, isa, tiling)
    # Directly: results lie side by side as the tensor has them.
    direct = output.direct(places["dst"], embedding)
    buffers = [
        Buffer(p.buffer, p.dtype, p.elements, _role(op, p.layout.tensor))
        for r, p in places.items() if r != "dst" or direct is None
    ]  # fmt: skip
    # Streams move whole runs; operands that have none are packed value by value.
    streams = {
        r: found for r, p in places.items()
        if r != "dst" and not op.tensors[p.layout.tensor].constant
        and (found := streams_of(p)) is not None
    }  # fmt: skip
    buffers += [
        Buffer(copy_name(places[r].buffer), "int8", s.source.elements, "work")
        for r, s in streams.items() if s.source.copied
    ]  # fmt: skip
    # At most one factor is unsigned (rules.py).
    unsigned = [r for r in ("lhs", "rhs") if places[r].offset]
    prepare: tuple[Node, ...] = ()
    run: tuple[Node, ...] = ()
    fixed: dict[str, tuple[int, int]] = {}
    start = None
    if unsigned:
        correction = correct.correction(embedding, isa, places, unsigned[0], names)
        # A constant factor's correction is a constant, and computed once.
        role = _role(op, places[correction.signed].layout.tensor)
        buffers.append(Buffer(correct.BUFFER, "int32", correction.elements, role))
        prepare = correction.nest if role == "packed" else ()
        run = () if role == "packed" else correction.nest
        fixed[correct.UNIT] = (places[unsigned[0]].offset, places[unsigned[0]].lane_count)
        start = correction.at
    results = None
    if direct is None:
        direct = output.packed(places["dst"])
        results = results_of(places["dst"], np.dtype(op.out_dtype).itemsize)
    main = _Tiles(_Machine(program, isa), embedding, tiling, places, names, start, direct).nest()
    return SourceProgram(
        op, embedding, tiling, places, tuple(buffers), prepare, (*run, *main), fixed, main,
        streams, results,
    )  # fmt: skip


def places_of(embedding: Embedding, isa: Isa, tiling: tiles.Tiling) -> dict[str, Place]:
    """Where each operand lies."""
    op = embedding.operator
    contract, _, _ = tiles.templates(isa)
    memory = {r: isa.memory(contract.slot(r).memory) for r in ("dst", "lhs", "rhs")}
    columns = () if tiling.columns is None else (tiling.columns[0].name,)
    # Constants are packed in panels, in the order in which tiles read them.
    panel = (*(c.name for c in tiling.outer), *columns)
    places = {}
    for role, layout in embedding.layouts.items():
        at, constant = memory.get(role, memory["dst"]), op.tensors[layout.tensor].constant
        places[role] = place(
            embedding, role, f"{role}_", op.out_dtype if role == "dst" else at.dtype, at.lanes,
            isa.dims, outer=panel if constant else (), run_time=not constant,
            # int8 tensors lie in unsigned lanes as value + 128.
            offset=128 if at.dtype == "uint8" else 0,
        )  # fmt: skip
    return places


def _role(op: Operator, tensor: str) -> str:
    return "packed" if op.tensors[tensor].constant else "work"


@dataclass(frozen=True)
class _Tiles:
    """Writes the loops over tiles and the body of each."""

    machine: _Machine
    embedding: Embedding
    tiling: tiles.Tiling
    places: Mapping[str, Place]
    names: Mapping[str, str]
    start: Sum | None
    target: output.Target

    def nest(self) -> tuple[Node, ...]:
        nodes = self._columns()
        for counter in reversed(self.tiling.outer):
            nodes = (Loop(self.names[counter.name], counter.extent, nodes),)
        return nodes

    def _columns(self) -> tuple[Node, ...]:
        out: list[Node] = []
        # Columns outermost inside `outer`: a panel of weights stays for all rows.
        for columns, wrap in self._pieces(self.tiling.columns):
            inner: list[Node] = []
            for rows, wrap_rows in self._pieces(self.tiling.rows):
                # Whole tiles and the ragged end have bodies of their own, without conditions.
                inner += wrap_rows((self._body(rows, columns),))
            nodes = tuple(inner)
            for counter in reversed(self.tiling.middle):
                nodes = (Loop(self.names[counter.name], counter.extent, nodes),)
            out += wrap(nodes)
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

    def _at(self, at: Sum, *bound: Mapping[str, Sum]) -> Sum:
        """An address over counters as one over loop variables."""
        for values in bound:
            for name, value in values.items():
                at = at.bind(name, value)
        return Sum(at.const, tuple((self.names.get(v, v), c) for v, c in at.terms))

    def _body(self, rows: list[dict[str, Sum]], columns: list[dict[str, Sum]]) -> Block:
        m = self.machine
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
            if self.start is None or get_sums is None:
                begin.append(Call(reset.name, {reset.roles["dst"]: sums[r, c]}))
                continue
            at = Address(correct.BUFFER, self._at(self.start, rows[r], columns[c]))
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
            nest = (Loop(self.names[counter.name], counter.extent, nest, rolled=True),)
        # Behind the loop the sums are used as they are, without copies (emit.py, ROLLED).
        kept = (Keep(memory["dst"], tuple(sums.values())),)
        registers = [*((memory["dst"], n) for n in sums.values()), (memory["lhs"], "lhs_0"),
                     *((memory["rhs"], n) for n in factors)]  # fmt: skip
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
                if self.start is not None and get_sums is None:
                    at = Address(correct.BUFFER, self._at(self.start, rows[r], columns[c]))
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


def _call(m: _Machine, kind: str, register: str, at: Address, **wanted: str) -> Call:
    template = m.program.find(kind, **wanted)
    assert template is not None
    return Call(template.name, {template.roles["dst"]: register, template.roles["address"]: at})
