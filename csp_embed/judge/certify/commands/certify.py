"""Certifies a stream of commands: for every input, each element of the result is the formula's.

Four parts, as of every program (docs/certify.md). order: commands act one after the other. frame
and sums: `run`, against `formula` at a random point. epilogue: `steps`. Imports no builder; of a
program it knows words, HOST before the run, where the result lies, and what its claims say.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import CheckError, EncodeError
from csp_embed.ir.operator import Operator, Step
from csp_embed.judge.certify.certificate import ASSUMED, Certificate, Part
from csp_embed.judge.certify.commands.memory import Host
from csp_embed.judge.certify.commands.points import Broken, Undecided
from csp_embed.judge.certify.commands.run import Function, Runner
from csp_embed.judge.certify.commands.steps import equal_everywhere, span_of, span_of_steps
from csp_embed.judge.certify.compare import step_range, sum_range, tensor_range
from csp_embed.judge.certify.field import P, Values, add, mul, number
from csp_embed.judge.certify.formula import Symbols, step_values, sums
from csp_embed.machine.commands.words import Decoded, decode
from csp_embed.machine.spec import Isa

Array = NDArray[Any]
_LOW, _HIGH = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True)
class Claim:
    """Items of HOST from `address` on: item k is scale * tensor[which[k]] + offset, flat; where
    which[k] is -1 it is the file's own bytes."""

    tensor: str
    address: int
    dtype: str
    which: NDArray[np.int64]
    scale: int = 1
    offset: int = 0


@dataclass(frozen=True)
class Stated:
    """What a program of commands states. places: address of each element of the result. offset:
    what its stores are told to get beside the sums. tensors: the file's own values."""

    words: NDArray[np.uint64]
    before: Sequence[tuple[int, NDArray[np.uint8]]]
    places: NDArray[np.int64]
    claims: Sequence[Claim]
    offset: int
    tensors: Mapping[str, Array]

    def digest(self, op: Operator) -> str:
        """SHA-256 of all that is judged."""
        found = hashlib.sha256(np.ascontiguousarray(self.words).tobytes())
        for address, data in self.before:
            found.update(f"{address} {len(data)};".encode())
            found.update(np.ascontiguousarray(data).data)
        found.update(np.ascontiguousarray(self.places).data)
        for c in self.claims:
            said = [c.tensor, c.address, c.dtype, c.scale, c.offset, len(c.which)]
            found.update(json.dumps(said).encode())
            found.update(np.ascontiguousarray(c.which).data)
        found.update(f"{self.offset};{op.text()}".encode())
        return found.hexdigest()


def certify_commands(
    isa: Isa, stated: Stated, op: Operator, *, seed: int | None = None, rounds: int = 1
) -> Certificate:
    """What was proved; `.ok` where all of it was.

    Raises: CheckError where this judge cannot decide, which says nothing against the program.
    """
    begun = time.monotonic()
    digest = stated.digest(op)
    base = int(digest[:16], 16) if seed is None else seed
    if op.kind != "contract" or (op.rhs is not None and op.rhs.tensor == op.lhs.tensor):
        raise CheckError(
            f"{op.name} is not certified", where=op.formula(),
            why="it has no sums of products of two tensors",
            hint="csp-embed check FILE runs it and compares values",
        )  # fmt: skip
    try:
        decoded, order = _order(isa, stated)
        parts = [order]
        if decoded is not None and order.ok:
            parts += _Proof(isa, stated, op, decoded, base, rounds).parts()
    except Undecided as error:
        raise CheckError(
            f"{op.name} is not decided", where=op.formula(), why=str(error),
            hint="csp-embed check FILE runs it and compares values",
        ) from error  # fmt: skip
    return Certificate(
        digest=digest, machine=isa.name, formula=op.text(), parts=tuple(parts),
        log2_error=max((p.log2_error for p in parts if p.log2_error), default=0.0),
        seed=base, rounds=rounds, assumed=ASSUMED, seconds=round(time.monotonic() - begun, 3),
    )  # fmt: skip


def _order(isa: Isa, stated: Stated) -> tuple[Decoded | None, Part]:
    """Words are commands within their bounds, one after the other, and the last one closes."""
    machine = isa.commands
    assert machine is not None
    try:
        decoded = decode(machine, stated.words)
    except EncodeError as error:
        return None, Part("order", (error.what,), "")
    bad = [
        f"{c.name}: {name} = {int(column.max())}, at most {bits.most}"
        for c in machine.commands for name, bits in c.fields.items()
        if len(column := decoded.fields[c.name][name]) and int(column.max()) > bits.most
    ]  # fmt: skip
    last = [n for n, c in enumerate(machine.commands) if c.acts.kind == "finish"]
    if last and (not len(decoded.code) or int(decoded.code[-1]) not in last):
        bad.append(f"the stream does not end in {machine.commands[last[0]].name}")
    return decoded, Part(
        "order", tuple(bad), f"{len(decoded.code):,} commands, each acts before the next begins"
    )


@dataclass
class _Proof:
    isa: Isa
    stated: Stated
    op: Operator
    decoded: Decoded
    seed: int
    rounds: int

    def parts(self) -> list[Part]:
        """frame, sums, epilogue, example; those behind one that does not hold are left out."""
        example = self._example()
        found: list[Part] = []
        for n in range(self.rounds):
            found = self._round(n)
            if not all(p.ok for p in found):
                break
        return [*found, example]

    def _round(self, n: int) -> list[Part]:
        """All that one random point says."""
        symbols = Symbols(self.op, {}, [self.seed, n])
        try:
            host, runner = self._run(symbols)
        except Broken as broken:
            return [Part("frame", (str(broken),), "")]
        said = (f"{host.count:,} values stored, all of the result and nothing beside it; nothing is"
                " read that was not written, nor loaded that was stored")  # fmt: skip
        frame = Part("frame", self._frame(host), said)
        if not frame.ok:
            return [frame]
        found, functions, first = self._stored(host)
        wanted, shift, rest, span = self._linear(symbols)
        bad = np.flatnonzero(found != wanted)
        if len(bad):
            text = (f"{len(bad):,} of {len(found):,} elements do not hold what the formula sums,"
                    f" the first is {self._name(int(bad[0]))}")  # fmt: skip
            return [frame, Part("sums", (text,), "")]
        said = f"{len(found):,} elements hold the formula's sums at {self.rounds} random points"
        error = self.rounds * math.log2(symbols.degree / P)
        epilogue = self._epilogue(runner, functions, first, shift, rest, span)
        return [frame, Part("sums", (), said, error), epilogue]

    def _elements(self, symbols: Symbols, tensor: str) -> Values:
        """The random value of each element of a tensor, flat."""
        known = self.op.values.get(tensor)
        if known is not None:
            return (np.asarray(known).reshape(-1).astype(np.int64) % P).astype(np.uint64)
        tables = symbols.tables[tensor][: len(self.op.tensors[tensor].shape)]
        out = np.array([symbols.whole[tensor]], np.uint64)
        for table in tables:
            out = mul(out[:, None], table[None, :]).reshape(-1)
        return out

    def _run(self, symbols: Symbols) -> tuple[Host, Runner]:
        machine = self.isa.commands
        assert machine is not None
        host = Host(self.stated.before)
        for c in self.stated.claims:
            values = self._elements(symbols, c.tensor)
            if c.which.size and (c.which.max() >= len(values) or c.which.min() < -1):
                raise Broken(f"a claim names an element that {c.tensor} does not have")
            self._fits(c)
            picked = mul(values[np.maximum(c.which, 0)], number(c.scale))
            host.claim(c.address, c.dtype, c.which >= 0, add(picked, number(c.offset)))
        runner = Runner.of(machine, self.isa.dims, host)
        runner.run(self.decoded)
        # Coefficients stay integers below P: each product has at most 2^14, each load 2^32.
        if runner.sums * (1 << 14) + runner.loaded * (1 << 32) >= 1 << 59:
            raise Undecided("coefficients of a stream as long as this could reach P")
        return host, runner

    def _fits(self, claim: Claim) -> None:
        """Every value that the formula allows lies whole in an item. int32 ones may wrap around, as
        sums do: shifts in front of which they could are not decided."""
        if claim.dtype == "int32":
            return
        ends = [v * claim.scale + claim.offset for v in tensor_range(self.op, claim.tensor)]
        info = np.iinfo(claim.dtype)
        if min(ends) < info.min or max(ends) > info.max:
            raise Broken(f"{claim.dtype} does not hold {claim.tensor} as it is claimed")

    def _frame(self, host: Host) -> tuple[str, ...]:
        """All of the result is stored, each element within one item; nothing else is written."""
        op, places = self.op, self.stated.places
        size = np.dtype(op.out_dtype).itemsize
        if places.shape != op.tensors[op.out.tensor].shape:
            return (f"places of {op.out.tensor} have shape {places.shape}",)
        at = places.reshape(-1, 1) - host.low + np.arange(size)
        if at.min(initial=0) < 0 or at.max(initial=0) >= len(host.owner):
            return (f"an element of {op.out.tensor} lies outside HOST",)
        if len(np.unique(at)) < at.size:
            return (f"two elements of {op.out.tensor} share bytes",)
        owners = host.owner[at]
        missing = np.flatnonzero((owners < 0).any(axis=1))
        if len(missing):
            return (f"{self._name(int(missing[0]))} is never stored",)
        torn = np.flatnonzero((owners != owners[:, :1]).any(axis=1))
        if len(torn):
            return (f"{self._name(int(torn[0]))} is stored in parts",)
        mine = np.zeros(len(host.owner), bool)
        for address, data in self.stated.before:
            span = slice(address - host.low, address - host.low + len(data))
            # Ranges of the result may have room beside it; those of operands may not be written.
            mine[span] |= bool(np.isin(at, np.arange(span.start, span.stop)).any())
        stray = np.flatnonzero((host.owner >= 0) & ~mine)
        found = [f"HOST {int(stray[0]) + host.low:#x} is written, and is no result"] if len(stray) \
            else []  # fmt: skip
        claimed = (host.owner >= 0) & (host.kind > 1)
        if claimed.any():
            found.append(
                f"HOST {int(np.argmax(claimed)) + host.low:#x} is an operand's, and written"
            )
        return tuple(found)

    def _stored(self, host: Host) -> tuple[Values, NDArray[np.int64], NDArray[np.int64]]:
        """Of each element: the sum that its store was applied to, the function, the byte of the
        stored item where it begins."""
        at = self.stated.places.reshape(-1) - host.low
        owner = host.owner[at]
        first = np.concatenate([s[0] for s in host.stores])[owner]
        values = np.concatenate([s[1] for s in host.stores])[owner]
        functions = np.repeat([s[2] for s in host.stores], [len(s[0]) for s in host.stores])
        return values, functions[owner], at - first

    def _linear(self, symbols: Symbols) -> tuple[Values, int, list[Step], tuple[int, int]]:
        """(what the stores' sums have to be, shift behind them, other steps, range of the sums
        without the stated offset). `(x >> s) + b` is `(x + (b << s)) >> s` where nothing wraps."""
        op = self.op
        total, (low, high), shift = sums(symbols), sum_range(op), 0
        wraps = low < _LOW or high > _HIGH
        taken = 0
        for step in op.epilogue:
            if step.op == "shr" and step.access is None and (step.imm or 0) >= 0:
                shift += step.imm or 0
            elif step.op == "add":
                if step.access is None:
                    extra, reach = number((step.imm or 0) << shift), (step.imm or 0,) * 2
                    total = add(total, np.full_like(total, extra))
                else:
                    reach = step_range(op, step)
                    total = add(total, mul(step_values(symbols, step.access), number(1 << shift)))
                low, high = low + (reach[0] << shift), high + (reach[1] << shift)
                wraps = wraps or low < _LOW or high > _HIGH
            else:
                break
            taken += 1
            if shift > 31 or (wraps and shift):
                raise Undecided(f"sums in {low}..{high} may wrap around in front of a shift")
        rest = list(op.epilogue[taken:])
        if any(s.access is not None for s in rest):
            raise Undecided("a tensor is applied behind the first step that is no sum")
        total = add(total, np.full_like(total, number(self.stated.offset)))
        return total, shift, rest, ((_LOW, _HIGH) if wraps else (low, high))

    def _epilogue(
        self, runner: Runner, functions: NDArray[np.int64], bytes_: NDArray[np.int64], shift: int,
        rest: list[Step], span: tuple[int, int],
    ) -> Part:  # fmt: skip
        size = np.dtype(self.op.out_dtype).itemsize
        said: list[str] = []
        pairs: set[tuple[int, int]] = set(zip(functions.tolist(), bytes_.tolist(), strict=True))
        for number_, byte in sorted(pairs):
            f = runner.functions[number_]
            how, why = self._same(f, byte, size, shift, rest, span)
            if why:
                return Part("epilogue", (f"{f.command}: {why}",), "")
            said.append(f"{f.command}: {how}")
        return Part("epilogue", (), "; ".join(said))

    def _same(
        self, f: Function, byte: int, size: int, shift: int, rest: list[Step],
        span: tuple[int, int],
    ) -> tuple[str, str]:  # fmt: skip
        offset, (low, high) = self.stated.offset, span
        item = np.dtype(f.dtype).itemsize
        # The sum as it is, and low bytes of a shift by whole bytes: equal for any int32.
        plain = getattr(f.value, "id", None) == "acc" and byte + size <= item
        if plain and not rest and shift == 8 * byte and not offset:
            return f"byte {byte} of the sum as it is", ""
        if low + offset < _LOW or high + offset > _HIGH:
            return "", f"sums with {offset} may wrap around"

        def store(x: tuple[Any, Any]) -> tuple[Any, Any]:
            a, b = span_of(f.value, (x[0] + offset, x[1] + offset), f.named)
            # Only a store that holds its value whole has a byte that is a shift of it.
            return (a, b) if not byte else (np.asarray(a, np.int64) >> 8 * byte,
                                            np.asarray(b, np.int64) >> 8 * byte)  # fmt: skip

        def formula(x: tuple[Any, Any]) -> tuple[Any, Any]:
            return span_of_steps(rest, shift, x)

        if not rest and not shift and plain:
            return "", f"the sum with {offset} is stored as it is"
        return equal_everywhere(store, formula, low, high, 8 * size)

    def _example(self) -> Part:
        """The file's own values lie in HOST as its claims say."""
        bad: list[str] = []
        for c in self.stated.claims:
            known = self.op.values.get(c.tensor, self.stated.tensors.get(c.tensor))
            data = next((d[c.address - a :] for a, d in self.stated.before
                         if a <= c.address < a + len(d)), None)  # fmt: skip
            if known is None or data is None:
                bad.append(f"{c.tensor} is claimed at {c.address:#x}, and the file lacks it")
                continue
            item = np.dtype(c.dtype).itemsize
            raw = np.ascontiguousarray(data[: len(c.which) * item])
            if len(raw) < len(c.which) * item:
                bad.append(f"{c.tensor} is claimed at {c.address:#x} beyond the file's bytes")
                continue
            held = raw.view(np.dtype(c.dtype).newbyteorder("<")).astype(np.int64)
            inside = c.which >= 0
            flat = np.asarray(known).reshape(-1).astype(np.int64)
            if not np.array_equal(held[inside], flat[c.which[inside]] * c.scale + c.offset):
                bad.append(f"{c.tensor} at {c.address:#x} does not lie as the claims say")
        names = ", ".join(dict.fromkeys(c.tensor for c in self.stated.claims))
        return Part("example", tuple(bad), f"tensors {names} lie in HOST as the claims say")

    def _name(self, flat: int) -> str:
        shape = self.op.tensors[self.op.out.tensor].shape
        index = np.unravel_index(flat, shape) if shape else ()
        return f"{self.op.out.tensor}[{','.join(str(int(i)) for i in index)}]"


__all__ = ["Claim", "Stated", "certify_commands"]
