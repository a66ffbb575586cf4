"""Certifies the program of a network: every stored tensor is its layer's, for every input.

Layer by layer in program order, which has to be a legal order: the elements that a layer reads get
fresh random values, wherever they lie, so what a layer proves holds whatever came before, and what
it stores is what later layers are found to read. Nothing but the file is used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.stream import Program
from csp_embed.judge.certify.certificate import ASSUMED, Certificate, LayerVerdict, Part
from csp_embed.judge.certify.compare import Findings
from csp_embed.judge.certify.dram import Result, lane_bytes
from csp_embed.judge.certify.field import P
from csp_embed.judge.certify.images import UNKNOWN, images
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.certify.network.elements import CONSTANTS, Elements
from csp_embed.judge.certify.network.meaning import Meaning, meaning
from csp_embed.judge.certify.network.memory import Owners, both_ways, stored_bytes
from csp_embed.judge.certify.network.rounds import proof
from csp_embed.judge.certify.network.rules import Undecided
from csp_embed.judge.certify.network.statement import Layer, Operator, Statement, read_statement
from csp_embed.judge.certify.network.sums import Rounds, compare
from csp_embed.judge.certify.run import digest_of, order_part
from csp_embed.judge.certify.stream import Walk, room, stopped
from csp_embed.judge.certify.walk import CODE, IMAGE
from csp_embed.judge.stream.audit import micro_ops
from csp_embed.judge.stream.table import FINISH, LOAD, STORE, Table, make_table
from csp_embed.judge.stream.tokens import find_order
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import decode

Ints = NDArray[np.int64]
Tell = Callable[[str, int, int], None]
DEGREE = 3  # of what is compared: a value, and two weights of a lane
HOST = (
    "what the host writes before the program and computes outside it is outside the proof; it keeps"
    " to the ranges that the file states",
)


@dataclass
class _State:
    """What is carried on from layer to layer. low, high: of every element, as proved or stated.
    code: bytes of the micro-ops, and their ranges."""

    isa: Isa
    program: Program
    s: Statement
    e: Elements
    machine: Machine
    table: Table
    owners: Owners
    low: NDArray[np.int8]
    high: NDArray[np.int8]
    code: tuple[Any, Any]
    uops: Ints | None = None
    frame: list[str] = field(default_factory=list[str])
    sums: list[str] = field(default_factory=list[str])
    steps: list[str] = field(default_factory=list[str])
    values: list[str] = field(default_factory=list[str])
    tests: int = 1
    stored: int = 0


def certify_network(
    isa: Isa, program: Program, where: str, *, seed: int | None = None, rounds: int = 1,
    tell: Tell | None = None,
) -> Certificate:  # fmt: skip
    """What was proved of a network's program; `.ok` where all of every layer was.

    where: the file, for errors. seed, rounds: as in `certify`.
    Raises: InputError for a statement that cannot be understood; CheckError for a machine that
    this judge does not know.
    """
    begin = time.monotonic()
    s = read_statement(program.meta, program.tensors, where)
    digest = digest_of(program)
    base = int(digest[:16], 16) if seed is None else seed
    parts = [order_part(isa, program, tell)]
    layers: list[LayerVerdict] = []
    error = 0.0
    # Without an order in which all accesses are settled there is no value to speak of.
    if parts[0].ok:
        state = _begin(isa, program, s)
        layers = _layers(state, base, rounds, tell)
        error = rounds * math.log2(min(1.0, DEGREE * state.tests / P))
        parts += _parts(state, layers, rounds, error)
    good = sum(layer.ok for layer in layers)
    return Certificate(
        digest=digest, machine=f"{isa.name} {isa.config_name}",
        formula=f"network {s.name}, {len(s.layers)} layers of the machine", parts=tuple(parts),
        log2_error=error, seed=base, rounds=rounds, assumed=(*ASSUMED, *HOST),
        seconds=round(time.monotonic() - begin, 3), layers=tuple(layers),
        verdict=f"all {good} layers certified for all inputs, and what they hand on",
    )  # fmt: skip


def _begin(isa: Isa, program: Program, s: Statement) -> _State:
    e = Elements(s)
    low, high = np.full(e.total + 256, -128, np.int8), np.full(e.total + 256, 127, np.int8)
    low[e.total :] = high[e.total :] = CONSTANTS
    # Of the host's tensors the stated range is an assumption, told in the certificate.
    for name in e.written:
        low[e.ids[name]], high[e.ids[name]] = s.tensors[name].reach
    table = make_table(isa, decode(isa, program.insn))
    owners = Owners(isa, program, s, e)
    # Micro-ops do not change, so that their bytes are taken from the file once for all layers.
    code = micro_ops(isa, program, table)
    return _State(isa, program, s, e, Machine.of(isa), table, owners, low, high, code)


def _layers(st: _State, base: int, rounds: int, tell: Tell | None) -> list[LayerVerdict]:
    # Layers follow one another in the stream; a legal order makes them follow in time.
    order = find_order(st.isa, st.table).order
    count = len(st.table)
    if not np.array_equal(order, np.arange(count)):
        st.frame.append("program order is no order in which its queues can run")
        return []
    ends = [0, *(layer.end for layer in st.s.layers)]
    # Without gaps: an instruction that belongs to no layer would be judged by none.
    for layer, before in zip(st.s.layers, ends, strict=False):
        if not before == layer.begin <= layer.end <= count:
            st.frame.append(f"the instructions of {layer.name} do not follow those before it")
            return []
    if (st.table.c.kind[ends[-1] :] != FINISH).any():
        st.frame.append("instructions behind the last layer's are none of its layers'")
        return []
    code = _code(st)
    if code:
        st.frame.append(code)
        return []
    operators = {op.name: op for op in st.s.operators}
    out: list[LayerVerdict] = []
    for n, layer in enumerate(st.s.layers):
        if tell is not None:
            tell(layer.name, n, len(st.s.layers))
        out.append(_layer(st, n, layer, operators[layer.name], base, rounds))
    for name in st.s.outputs:
        if name in st.e.ids:
            _kept(st, name)
    return out


def _code(st: _State) -> str:
    """Micro-ops are constants: nothing is written where they lie."""
    for interval in st.code[1]:
        held = st.owners.at(np.arange(int(interval["start"]), int(interval["end"])))
        if (held >= 0).any():
            return f"the host writes elements where micro-ops lie, at {int(interval['start']):#x}"
    return ""


def _kept(st: _State, name: str) -> None:
    """What the host reads at the end is still there."""
    ids = st.e.ids[name].reshape(-1)
    # An output may be a piece of several tensors that were only moved.
    for tensor, first in st.e.first.items():
        mine = ids[(ids >= first) & (ids < first + st.s.tensors[tensor].elements)]
        if len(mine) and tensor in st.s.places:
            place = st.s.places[tensor].reshape(-1)[mine - first]
            lost = int((st.owners.at(place) != mine).sum())
            if lost:
                st.frame.append(f"{lost} elements of {name} are overwritten before the end")


def _layer(
    st: _State, n: int, layer: Layer, op: Operator, base: int, rounds: int
) -> LayerVerdict:  # fmt: skip
    """One layer: its meaning, its rounds, its instructions; then what it leaves in DRAM."""
    faults = _faults(st)
    y = st.s.tensors[op.output]
    clamp, said, why = (-128, 127), "", ""
    try:
        m = meaning(st.s, st.e, layer, op)
        clamp = m.clamp
        reach = _reach(st, m)
        # Each round of the certificate draws new values; they share nothing but the seed.
        for k in range(rounds):
            _walked(st, layer, op, m, reach, [base, k, n])
        found = proof(layer, m, reach)
        said = found.said
        if found.problem:
            st.values.append(f"{layer.name}: {found.problem}")
    except Undecided as error:
        why = str(error)
    # Also where the proof failed: later layers are judged on what really lies in DRAM.
    _has_loaded(st, layer)
    _has_stored(st, layer, op)
    wrong = faults != _faults(st)
    if not wrong and not why:
        # Later proofs may use that this layer clamps.
        ids = st.e.ids[op.output]
        st.low[ids], st.high[ids] = clamp
        st.stored += y.elements
    return LayerVerdict(layer.name, not wrong and not why, why or ("refused" if wrong else said))


def _faults(st: _State) -> tuple[int, ...]:
    return tuple(map(len, (st.frame, st.sums, st.steps, st.values)))


def _reach(st: _State, m: Meaning) -> tuple[int, int]:
    """Of the values that a layer reads; a border that may not win is looked at apart."""
    ids = m.windows if m.kind != "most" else m.windows[m.windows >= 0]
    return int(st.low[ids].min(initial=127)), int(st.high[ids].max(initial=-128))


def _walked(
    st: _State, layer: Layer, op: Operator, m: Meaning, reach: tuple[int, int], seed: list[int]
) -> None:  # fmt: skip
    """The instructions of a layer against its rounds, at one random point."""
    sequence = np.arange(layer.begin, layer.end)
    byte = both_ways(st.machine, st.table, sequence)
    if byte >= 0:
        st.frame.append(f"{layer.name} loads {byte:#x}, where it stores")
        return
    if not room(st.machine, st.table, sequence):
        raise Undecided("a layer so long that coefficients could be as large as the field")
    stored = _places(st, layer, op)
    if stored is None:
        return
    rng = np.random.Generator(np.random.PCG64DXSM(seed))
    x = np.concatenate([
        rng.integers(1, P, st.e.total, dtype=np.uint64), (CONSTANTS % P).astype(np.uint64)
    ])  # fmt: skip
    stated, found = Rounds(layer, m, x, reach), Findings()
    for number, (box, _, places) in enumerate(stored.boxes(st.machine)):
        weights = st.machine.weights(box, [*seed, number])
        dram = images(
            st.machine, st.program.before, st.table, sequence, st.owners.lanes, x,
            [*seed, number], weights,
        )  # fmt: skip
        # Micro-ops that an earlier layer loaded are still there; everything else is loaded anew.
        held = None if st.uops is None else st.uops.copy()
        walk = Walk(st.machine, st.table, st.code, np.zeros(2, np.int64), weights, held)
        ran = walk.run(sequence, dram)
        # The walk stops at what it has no field arithmetic for.
        why = stopped(st.isa, st.program, walk.state)
        if not why and walk.state[5] & walk.state[6]:
            why = "it multiplies elements with elements: that is no linear form"
        last, _ = stored.last(ran.stored["byte"])
        if not why and (last < 0).any():
            why = f"{int((last < 0).sum())} pieces of {op.output} are never stored"
        if why:
            st.frame.append(f"{layer.name}: {why}")
            return
        compare(stated, stored, st.machine, ran, last, places, weights, found)
    st.tests = max(st.tests, found.tests)
    st.sums += [f"{layer.name}: {text}" for text in found.wrong_sums]
    st.steps += [f"{layer.name}: {text}" for text in found.wrong_steps]


def _places(st: _State, layer: Layer, op: Operator) -> Result | None:
    """Which elements of the store's memory hold which elements of y."""
    c = st.table.c
    mine = slice(layer.begin, layer.end)
    named = np.unique(c.named[mine][(c.kind[mine] == STORE) & (st.table.elements[mine] > 0)])
    place = st.s.places.get(op.output)
    if len(named) != 1 or place is None:
        st.frame.append(f"{layer.name}: where it stores {op.output} cannot be told")
        return None
    # Lanes, not elements, are what y's elements lie in.
    memory = st.isa.memories[int(named[0])]
    elem, unit = memory.elem_bytes, lane_bytes(st.isa, memory)
    flat = place.reshape(-1)
    address, row = np.unique(flat // elem * elem, return_inverse=True)
    who = np.full((len(address), elem // unit), -1, np.int64)
    lane = flat % elem // unit
    who[row.reshape(-1), lane] = np.arange(len(flat))
    if (flat % unit).any() or (flat < 0).any() or int((who >= 0).sum()) != len(flat):
        st.frame.append(f"{layer.name}: two elements of {op.output} are said to lie in one place")
        return None
    nothing = np.full(who.shape, -1, np.int16)
    return Result(op.output, place.shape, memory, address, who, nothing)


def _has_loaded(st: _State, layer: Layer) -> None:
    """Micro-ops on chip behind a layer; they stay for the next ones."""
    c = st.table.c
    sequence = np.arange(layer.begin, layer.end)
    known = c.memory[sequence] >= 0
    # Loads of operands are left out: every layer is shown to load its own.
    roles = st.machine.roles[np.where(known, c.memory[sequence], 0)]
    loads = (c.kind[sequence] == LOAD) & known & (roles == CODE)
    none = {d: np.zeros(st.isa.dims[d], np.uint64) for d in st.machine.dims}
    walk = Walk(st.machine, st.table, st.code, np.zeros(2, np.int64), none, st.uops)
    empty = np.zeros(0, IMAGE), np.zeros(0, np.uint64), np.zeros(0, np.int64)
    walk.run(sequence[loads], empty)
    st.uops = walk.uops


def _has_stored(st: _State, layer: Layer, op: Operator) -> None:
    """What lies in DRAM behind a layer: its result, and where it stored beside it, nobody knows."""
    byte = stored_bytes(st.machine, st.table, np.arange(layer.begin, layer.end))
    if not st.owners.set(byte, UNKNOWN):
        st.frame.append(f"{layer.name} stores where the file has no bytes")
    for interval in st.code[1]:
        if ((byte >= int(interval["start"])) & (byte < int(interval["end"]))).any():
            st.frame.append(f"{layer.name} stores where micro-ops lie")
    place = st.s.places.get(op.output)
    if place is not None:
        flat = place.reshape(-1)
        if not np.isin(flat, byte).all():
            st.frame.append(f"{layer.name} does not store all of {op.output}")
        st.owners.set(flat, st.e.ids[op.output].reshape(-1))


def _parts(st: _State, layers: list[LayerVerdict], rounds: int, error: float) -> list[Part]:
    good = sum(layer.ok for layer in layers)
    frame = (
        f"each of {good} layers stores all of its tensor ({st.stored:,} elements in all) and loads"
        " what it reads from where the layers before, or the host, left it; micro-ops are constants"
    )
    sums = (
        f"linear forms equal at {rounds} random points modulo 2^61 - 1, at most {st.tests}"
        " comparisons for an element"
    )
    return [
        Part("frame", tuple(st.frame), frame),
        Part("sums", tuple(st.sums), sums, error),
        Part("steps", tuple(st.steps), "of every stored element those of its layer's rounds"),
        Part(
            "requantisation", tuple(st.values), "of every layer the operator's rule, over integers"
        ),
    ]
