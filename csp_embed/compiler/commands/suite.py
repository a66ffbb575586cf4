"""What `csp-embed isa check` does for a machine that is fed commands.

Takes: an Isa with commands.  Leaves: outcomes. Words: random fields written and read back.
Meanings: every command on random contents, point by point and all points at once. Operators: small
ones, compiled and run point by point, against NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import ops
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.file import content
from csp_embed.compiler.outcome import Outcome
from csp_embed.errors import CspEmbedError, Infeasible, SimError
from csp_embed.machine.commands.interpreter import HostMemory, Machine, codes
from csp_embed.machine.commands.spec import Command, CommandMachine
from csp_embed.machine.commands.tiles import operand_tiles
from csp_embed.machine.commands.words import decode, encode
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors

Array = NDArray[Any]
# Random fields hit few edges a round, but each round costs a run by points.
ROUNDS = 4


def run(isa: Isa, seed: int = 0) -> list[Outcome]:
    """All checks, in a fixed order."""
    machine = isa.commands
    assert machine is not None
    found: list[Outcome] = []
    # One line for every command: the spec's own order.
    for n, command in enumerate(machine.commands):
        where = isa.where(f"instructions.{command.name}", "instructions")
        found.append(_words(machine, n, seed, where))
        found.append(_meaning(isa, machine, n, seed, where))
    return [*found, *_operators(isa, seed)]


def _words(machine: CommandMachine, n: int, seed: int, where: str) -> Outcome:
    command, rng = machine.commands[n], np.random.default_rng(seed)
    rows = [
        # The largest value is included: overlaps show at the top bits.
        tuple(int(rng.integers(0, b.most, endpoint=True)) for b in command.fields.values())
        for _ in range(ROUNDS)
    ]
    back = decode(machine, encode(machine, [(n, r) for r in rows]))
    got = [tuple(back.values(machine, k).values()) for k in range(ROUNDS)]
    kind = "equal" if got == rows and (back.code == n).all() else "wrong"
    text = f"{ROUNDS} random words read back" if kind == "equal" else "other fields are read back"
    return Outcome(f"words of {command.name}", kind, text, where)


def _meaning(isa: Isa, machine: CommandMachine, n: int, seed: int, where: str) -> Outcome:
    command = machine.commands[n]
    name = f"meaning of {command.name}"
    code = codes(machine)[n]
    # Nothing to compare with; the interpreter then walks the points in any case.
    if code.whole is None:
        return Outcome(name, "cannot", "it is run point by point only", where)
    rng = np.random.default_rng(seed)
    ran, left = 0, ""
    for _ in range(ROUNDS):
        # The same state twice: both runs change it.
        fields = _random_fields(machine, command, rng)
        base = _random_state(isa, machine, rng)
        ends: list[Machine | str] = []
        for whole in (False, True):
            state = _copied(isa, machine, base)
            try:
                code.run(state, dict(fields), whole=whole)
            except SimError as error:
                ends.append(type(error).__name__)
                left = error.what
            else:
                ends.append(state)
        first, second = ends
        if isinstance(first, str) or isinstance(second, str):
            # Both refused is the same answer; random fields often name an address outside.
            if first != second and (isinstance(first, str) != isinstance(second, str)):
                return Outcome(name, "wrong", f"one of both ways is refused at {fields}", where)
            continue
        ran += 1
        if not _alike(first, second):
            return Outcome(name, "wrong", f"points and all at once differ at {fields}", where)
    if not ran:
        text = f"no random round stays inside its memories: {left}"
        return Outcome(name, "cannot", text, where)
    return Outcome(name, "equal", f"{ran} rounds, by points and all at once", where)


def _random_fields(machine: CommandMachine, c: Command, rng: np.random.Generator) -> dict[str, int]:
    """Fields that keep addresses inside small memories, mostly."""
    # Addresses stay small, so that most rounds run to the end.
    bases = {p.base.name for p in (c.acts.dst, c.acts.lhs, c.acts.rhs) if hasattr(p, "base")}
    bases |= {s.source.base.name for s in c.acts.loads.values() if hasattr(s.source, "base")}
    host, unit = ("", 1) if c.acts.host is None else (c.acts.host.base.name, c.acts.host.base.times)
    out: dict[str, int] = {}
    for name, bits in c.fields.items():
        if name == host:
            # In steps of 64 bytes, which any alignment of HOST takes.
            out[name] = (_HOST + 64 * int(rng.integers(0, 8))) // unit
        elif name in bases:
            out[name] = int(rng.integers(0, min(bits.most, 8) + 1))
        else:
            out[name] = int(rng.integers(0, min(bits.most, 64) + 1))
    return out


_HOST = 0x1000


def _random_state(isa: Isa, machine: CommandMachine, rng: np.random.Generator) -> Machine:
    """Memories, lanes and HOST full of random values; numbers of state small."""
    host = HostMemory([(_HOST, rng.integers(0, 256, 1 << 15).astype(np.uint8))])
    state = Machine(machine, isa.dims, host)
    for name, array in (state.rows | state.arrays).items():
        info = np.iinfo(array.dtype)
        array[...] = rng.integers(info.min, info.max, array.shape, endpoint=True)
        # All is written: reading before writing is judged elsewhere.
        state.written[name][...] = True
    for s in machine.state.values():
        if not s.dims:
            # Small numbers: a size in state is a loop's bound.
            small = int(rng.integers(0, 4))
            state.numbers[s.name] = np.float32(small / 64) if s.dtype == "float32" else small
    return state


def _copied(isa: Isa, machine: CommandMachine, base: Machine) -> Machine:
    host = HostMemory([(base.host.low, base.host.bytes.copy())])
    state = Machine(machine, isa.dims, host)
    for name, array in (base.rows | base.arrays).items():
        (state.rows if name in state.rows else state.arrays)[name][...] = array
        state.written[name][...] = True
    state.numbers = dict(base.numbers)
    return state


def _alike(a: Machine, b: Machine) -> bool:
    same = all(np.array_equal(x, b.rows[n]) for n, x in a.rows.items())
    same = same and all(np.array_equal(x, b.arrays[n]) for n, x in a.arrays.items())
    # What was written where is part of the result.
    same = same and all(np.array_equal(x, b.written[n]) for n, x in a.written.items())
    return same and a.numbers == b.numbers and np.array_equal(a.host.bytes, b.host.bytes)


def _operators(isa: Isa, seed: int) -> Iterator[Outcome]:
    """Small operators, a few lanes more than one step has."""
    # Just beyond one step in each dimension, so that padding occurs in all of them.
    assert isa.commands is not None
    contract = next(c for c in isa.commands.commands if c.acts.kind == "contract")
    # By what the factors share, whatever the machine calls its dimensions.
    of = {r: set(t.dims) for r, t in operand_tiles(contract.acts, isa.commands.commands).items()}
    lanes = (of["dst"] & of["lhs"], of["dst"] & of["rhs"], of["lhs"] & of["rhs"] - of["dst"])
    b, o, i = (math.prod(isa.dims[d] for d in some) for some in lanes)
    trials = {
        "matmul": ops.matmul(m=o + 1, n=b, k=i),
        "matmul, clip": ops.matmul(m=o, n=3, k=i + 1, clip=(-128, 127)),
        "matmul, shift, bias, ReLU": ops.matmul(m=o, n=2, k=i, shift=5, bias=True, bias_range=900,
                                                clip=(0, 127)),
        "convolution with padding": ops.conv2d(n=1, c=3, h=3, w=3, k=min(o, 9), r=2, s=2, pad=1),
    }  # fmt: skip
    where = isa.where("instructions")
    for name, op in trials.items():
        try:
            # Point by point: the meanings as they stand are the oracle.
            kernel = compile_commands(op, isa, {})
            problems = content(kernel, random_tensors(op, seed)).problems(whole=False)
        except Infeasible as error:
            yield Outcome(name, "cannot", f"{error.what}: {error.why}", where)
            continue
        except CspEmbedError as error:
            yield Outcome(name, "wrong", f"{error.what}: {error.why}", error.where or where)
            continue
        kind, text = ("wrong", problems[0]) if problems else ("equal", "interpreted equal NumPy's")
        yield Outcome(name, kind, text, where)
