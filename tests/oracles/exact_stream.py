"""What a stream leaves in DRAM and in which orders it can run, without any of the judges' code.

Values: every lane is a Python integer modulo 2^89 - 1, or such a number and what was done to it
afterwards; two of the latter are compared by doing it to many 32-bit integers. Every element of a
tensor has a random number of its own, found by walking the claims point by point. Order: the
closure of program order and tokens, as sets of instructions, and every pair of instructions that
touch one element.

Slow: for programs of some thousands of steps. Two programs of one machine that leave the same in
their results, and whose orders are right, do the same for all inputs (but for the odds of 2^-80).
"""

from __future__ import annotations

import itertools
import math
import random

import numpy as np

from csp_embed.machine.words.bits import decode, decode_uops

P = (1 << 89) - 1


def claimed(claims, op):
    """{byte address: (tensor, index, part, bytes)}; the last one counts where two name a byte."""
    found = {}
    for c in claims:
        parts = c.get("parts", {"weights": [1], "index": [0, [0] * len(c["loops"])]})
        for counters in itertools.product(*(range(n) for n, _ in c["loops"])):

            def value(row, counters=counters):
                return row[0] + sum(k * v for k, v in zip(row[1], counters, strict=True))

            index = [value(row) for row in c["index"]]
            fine = True
            for w in c.get("within", []):
                z = value(w["value"])
                fine &= 0 <= z < math.prod(w["extents"])
                for size, moves in zip(reversed(w["extents"]), reversed(w["index"]), strict=True):
                    z, digit = divmod(z, size)
                    index = [i + m * digit for i, m in zip(index, moves, strict=True)]
            part = value(parts["index"])
            fine &= 0 <= part < len(parts["weights"])
            shape = op.tensors[c["tensor"]].shape
            if fine and all(0 <= i < n for i, n in zip(index, shape, strict=True)):
                at = c["addr"] + sum(s * v for (_, s), v in zip(c["loops"], counters, strict=True))
                assert at not in found, "two claims for one byte"
                found[at] = (c["tensor"], tuple(index), part, c["item_bytes"])
    return found


def _add(a, b):
    """A sum; a lane is a number, or (number, steps), a step (function, immediate, number)."""
    if isinstance(a, int) and isinstance(b, int):
        return (a + b) % P
    if isinstance(a, int):
        a, b = b, a
    return (a[0], (*a[1], ("add", None, b)))


def _step(function, use, a, b):
    if function == "add" and (use or isinstance(b, int)):
        return _add(a, b % P if use else b)
    if function == "shr" and use and b & 31 == 0:
        return a
    step = (function, b, None) if use else (function, None, b)
    return (a, (step,)) if isinstance(a, int) else (a[0], (*a[1], step))


def _values(lane, numbers, rng, sample):
    """The lane as int32 on sample points; numbers are given values as they come up."""
    if isinstance(lane, int):
        if lane not in numbers:
            small = min(lane, P - lane) < 1 << 40
            known = np.int64(lane if lane < P // 2 else lane - P) if small else None
            numbers[lane] = sample(rng) if known is None else np.full(1 << 12, known)
        return numbers[lane].astype(np.int32)
    value = _values(lane[0], numbers, rng, sample)
    for function, imm, other in lane[1]:
        b = np.int64(imm) if other is None else _values(other, numbers, rng, sample)
        if function == "shr":
            amount = int(np.unique(b)[0])
            assert np.size(np.unique(b)) == 1, "shifts by tensors are not known here"
            low = amount & 31 if amount >= 0 else (-amount) & 31
            value = value >> low if amount >= 0 else (value.astype(np.int64) << low)
        else:
            f = {"add": np.add, "min": np.minimum, "max": np.maximum, "mul": np.multiply}[function]
            value = f(value.astype(np.int64), b)
        value = value.astype(np.int32)
    return value


def same_lane(a, b) -> bool:
    """Whether two lanes hold the same low 8 bits: as numbers, or on 2^15 sample points, of small
    values and of all of int32."""
    if a == b:
        return True
    samples = (
        lambda rng: np.arange(1 << 12, dtype=np.int64) * rng.choice([1, 7, 16]) - (1 << 11),
        lambda rng: np.array([rng.randrange(-(1 << 15), 1 << 15) for _ in range(1 << 12)]),
        lambda rng: np.array([rng.randrange(-(1 << 7), 1 << 7) for _ in range(1 << 12)]),
        lambda rng: np.array([rng.randrange(-(1 << 31), 1 << 31) for _ in range(1 << 12)]),
    )
    for n, sample in enumerate(samples):
        numbers, rng = {}, random.Random(n)
        one, other = (_values(x, numbers, rng, sample).astype(np.int8) for x in (a, b))
        if not np.array_equal(one, other):
            return False
    return True


_sums = np.frompyfunc(_add, 2, 1)


class Stream:
    """One program over numbers. where: as `claimed` says it."""

    def __init__(self, isa, program, where, out):
        self.isa, self.program = isa, program
        self.stream = decode(isa, program.insn)
        self.bytes = {}
        for address, data in program.before:
            self.bytes.update(enumerate(data.tolist(), address))
        self.where, self.out = where, out
        self.memory = {}
        self.result = {}
        self.values = {}

    def lane(self, memory, address):
        """The number of a lane in DRAM: an element's, or the file's constant."""
        if address in self.where and self.where[address][0] != self.out:
            element = self.where[address][:3]
            if element not in self.values:
                self.values[element] = random.Random(repr(element)).randrange(P)
            return self.values[element]
        size = np.dtype(memory.dram_dtype).itemsize
        raw = bytes(self.bytes[address + k] for k in range(size))
        return int.from_bytes(raw, "little", signed=True) % P

    def run(self):
        """{byte address of a stored lane: what it is}, in an order that tokens allow."""
        for n in closure(self.isa, self.stream)[0]:
            instruction = self.isa.instructions[self.stream.code[n]]
            getattr(self, f"_{instruction.kind}")(n, instruction)
        return self.result

    def part(self, n, instruction, role):
        name = instruction.roles.get(role)
        return int(self.stream.fields[name][n]) if name else 0

    def _geometry(self, n, instruction):
        return {r: self.part(n, instruction, r) for r in (
            "memory", "sram", "dram", "y_size", "x_size", "x_stride", "y_pad_0", "y_pad_1",
            "x_pad_0", "x_pad_1")}  # fmt: skip

    def _load(self, n, instruction):
        g = self._geometry(n, instruction)
        memory = self.isa.memory_by_id(g["memory"])
        name = memory.alias_of or memory.name
        lanes = self.isa.lane_shape(memory.name) if memory.name != self.isa.uop_memory else ()
        size = memory.elem_bytes // math.prod(lanes)
        if not g["x_size"]:
            return
        at = g["sram"]
        for y in range(g["y_pad_0"] + g["y_size"] + g["y_pad_1"]):
            for x in range(g["x_pad_0"] + g["x_size"] + g["x_pad_1"]):
                y0, x0 = y - g["y_pad_0"], x - g["x_pad_0"]
                cell = np.zeros(lanes or (1,), dtype=object)
                inside = 0 <= y0 < g["y_size"] and 0 <= x0 < g["x_size"]
                element = g["dram"] + y0 * g["x_stride"] + x0
                if memory.name == self.isa.uop_memory:
                    raw = bytes(self.bytes[element * 4 + k] for k in range(4)) if inside else b""
                    cell = decode_uops(self.isa, np.array([int.from_bytes(raw, "little")],
                                                          np.uint32))  # fmt: skip
                    cell = {k: int(v[0]) for k, v in cell.items()}
                elif inside:
                    flat = [self.lane(memory, element * memory.elem_bytes + k * size)
                            for k in range(math.prod(lanes))]  # fmt: skip
                    cell = np.array([*flat, None], dtype=object)[:-1].reshape(lanes or (1,))
                self.memory[name, at] = cell
                at += 1

    def _store(self, n, instruction):
        g = self._geometry(n, instruction)
        memory = self.isa.memory_by_id(g["memory"])
        # `stale_shadow`: the mirror keeps what compute steps wrote; else it is a view.
        source = memory.name if self.isa.limits.stale_shadow else memory.shadow_of or memory.name
        for y in range(g["y_size"]):
            for x in range(g["x_size"]):
                cell = self.memory[source, g["sram"] + y * g["x_size"] + x]
                address = (g["dram"] + y * g["x_stride"] + x) * memory.elem_bytes
                flat = np.asarray(cell, dtype=object).reshape(-1)
                for k, v in enumerate(flat):
                    self.result[address + k * (memory.elem_bytes // len(flat))] = v

    def _steps(self, n, instruction):
        low, high = (self.part(n, instruction, r) for r in ("uop_begin", "uop_end"))
        memory = self.isa.uop_memory
        for i in range(self.part(n, instruction, "iter_out")):
            for j in range(self.part(n, instruction, "iter_in")):
                for u in range(low, high):
                    fields = self.memory[memory, u]
                    yield [
                        fields[o.uop_field] + i * int(self.stream.fields[o.factor_out][n])
                        + j * int(self.stream.fields[o.factor_in][n])
                        for o in instruction.operands
                    ]  # fmt: skip

    def _contract(self, n, instruction):
        dst, lhs, rhs = instruction.operands
        dims = {d: "abcdefgh"[k] for k, d in enumerate({**dict.fromkeys(lhs.dims),
                                                         **dict.fromkeys(rhs.dims),
                                                         **dict.fromkeys(dst.dims)})}  # fmt: skip
        text = ["".join(dims[d] for d in self.isa.memory(o.memory).lanes) for o in (dst, lhs, rhs)]
        reset = self.part(n, instruction, "reset")
        # A single value is an array of one: NumPy takes tuples for arrays.
        shape = self.isa.lane_shape(dst.memory) or (1,)
        left, right = (self.isa.lane_shape(o.memory) for o in (lhs, rhs))
        for d, s, w in self._steps(n, instruction):
            if reset:
                self.memory[dst.memory, d] = np.zeros(shape, dtype=object)
                continue
            a = self.memory[lhs.memory, s].reshape(left)
            b = self.memory[rhs.memory, w].reshape(right)
            product = np.einsum(f"{text[1]},{text[2]}->{text[0]}", a, b)
            self._keep(
                dst.memory, d, _sums(self.memory[dst.memory, d], np.reshape(product % P, shape))
            )

    def _keep(self, memory, d, cell):
        """A computed element, and the mirror that stores read: a reset leaves that as it is."""
        self.memory[memory, d] = cell
        for m in self.isa.memories:
            if m.shadow_of == memory:
                self.memory[m.name, d] = cell

    def _map(self, n, instruction):
        dst = instruction.operands[0]
        code = self.part(n, instruction, "op")
        function = next((o.function for o in instruction.ops if o.code == code), None)
        imm, use = (self.part(n, instruction, r) for r in ("imm", "use_imm"))
        apply = np.frompyfunc(lambda a, b: _step(function, bool(use), a, b), 2, 1)
        for step in self._steps(n, instruction):
            d, s = step[0], step[1]
            a, b = self.memory[dst.memory, d], imm if use else self.memory[dst.memory, s]
            self._keep(dst.memory, d, apply(a, b))

    def _finish(self, n, instruction):
        pass


def left_by(isa, op, program, claims) -> dict:
    """{(tensor, index) of the result: what is stored there, or None}. claims: as documents."""
    out = op.out.tensor
    where = claimed(claims, op)
    stored = Stream(isa, program, where, out).run()
    return {w[:2]: stored.get(a) for a, w in where.items() if w[0] == out}


def difference(one: dict, other: dict) -> str:
    """Why what another program left (`left_by`) is not what one left, or ""."""
    if any(v is None for v in other.values()):
        return "not all of the result is stored"
    wrong = [w for w, v in one.items() if w not in other or not same_lane(other[w], v)]
    return f"{wrong[0][0]}{list(wrong[0][1])} differs" if wrong else ""


def same_result(isa, op, one, other, claims, other_claims) -> str:
    """Why two programs leave different results, or "". claims: of each, as documents."""
    return difference(left_by(isa, op, one, claims), left_by(isa, op, other, other_claims))


def closure(isa, stream):
    """(an order that tokens allow, per instruction the set of those before it in every order)."""
    queue, pops, pushes = _tokens(isa, stream)
    n = len(stream)
    before, order, last, waiting = [0] * n, [], {}, {}
    lines = {q: [i for i in range(n) if queue[i] == q] for q in range(len(isa.queues))}
    progress = True
    while progress:
        progress = False
        for q, line in lines.items():
            while line and all(waiting.get(f) for f in pops[line[0]]):
                i = line.pop(0)
                if q in last:
                    before[i] |= before[last[q]] | 1 << last[q]
                for f in pops[i]:
                    p = waiting[f].pop(0)
                    before[i] |= before[p] | 1 << p
                for f in pushes[i]:
                    waiting.setdefault(f, []).append(i)
                last[q], progress = i, True
                order.append(i)
    return order, before


def order_fault(isa, program) -> str:
    """Why some order of the queues could go wrong, or "": by closure over all pairs."""
    stream = decode(isa, program.insn)
    order, before = closure(isa, stream)
    if len(order) < len(stream):
        return "it hangs"
    queue = _tokens(isa, stream)[0]
    touched = _touched(isa, stream, program, order)
    for i, j in itertools.combinations(range(len(stream)), 2):
        if queue[i] == queue[j] or before[j] >> i & 1 or before[i] >> j & 1:
            continue
        (r, w), (s, v) = touched[i], touched[j]
        if w & v or w & s or r & v:
            return f"{i} and {j} may run in either order"
    return ""


def _tokens(isa, stream):
    queue, pops, pushes = [], [], []
    for n in range(len(stream)):
        instruction = isa.instructions[stream.code[n]]
        name = instruction.queue
        if name is None:
            number = int(stream.fields[instruction.roles["memory"]][n])
            memory = isa.memory_by_id(number)
            name = memory and (memory.load_queue if instruction.kind == "load"
                               else memory.store_queue)  # fmt: skip
            if name is None:
                every = [m.load_queue if instruction.kind == "load" else m.store_queue
                         for m in isa.memories]  # fmt: skip
                name = min(filter(None, every), key=isa.queues.index)
        q = isa.queues.index(name)

        def has(role, n=n, instruction=instruction):
            field = instruction.roles.get(role)
            return field is not None and bool(stream.fields[field][n])

        queue.append(q)
        pops.append([f for role, f in (("pop_prev", (q - 1, q)), ("pop_next", (q + 1, q)))
                     if has(role) and 0 <= f[0] < len(isa.queues)])  # fmt: skip
        pushes.append([f for role, f in (("push_prev", (q, q - 1)), ("push_next", (q, q + 1)))
                       if has(role) and 0 <= f[1] < len(isa.queues)])  # fmt: skip
    return queue, pops, pushes


def _touched(isa, stream, program, order):
    """Per instruction (read, written) elements of every memory and bytes of DRAM."""
    run = Stream(isa, program, {}, "")
    out = [(set(), set())] * len(stream)
    for n in order:
        instruction = isa.instructions[stream.code[n]]
        if instruction.kind in ("load", "store"):
            out[n] = _moved(isa, run, n, instruction)
        elif instruction.kind in ("contract", "map"):
            reads = instruction.kind == "map" or not run.part(n, instruction, "reset")
            read, written = set(), set()
            for step in run._steps(n, instruction):
                names = [(o.memory, a) for o, a in zip(instruction.operands, step, strict=True)]
                # A reset leaves the mirror as it is (isa_specs/README.md, shadow_of).
                shadows = [m.name for m in isa.memories if reads and m.shadow_of == names[0][0]]
                written |= {names[0], *((s, names[0][1]) for s in shadows)}
                read |= set(names if reads else [])
            out[n] = read, written
    return out


def _moved(isa, run, n, instruction):
    """The elements of a load or store; micro-ops are loaded, for what comes after."""
    g = run._geometry(n, instruction)
    memory = isa.memory_by_id(g["memory"])
    if memory is None or not g["x_size"]:
        return set(), set()
    if memory.name == isa.uop_memory:
        run._load(n, instruction)
    height = g["y_pad_0"] + g["y_size"] + g["y_pad_1"]
    count = height * (g["x_pad_0"] + g["x_size"] + g["x_pad_1"])
    chip = {(memory.alias_of or memory.name, g["sram"] + k) for k in range(count)}
    eb = memory.elem_bytes
    far = {
        ("DRAM", b) for y in range(g["y_size"])
        for b in range((g["dram"] + y * g["x_stride"]) * eb,
                       (g["dram"] + y * g["x_stride"] + g["x_size"]) * eb)
    }  # fmt: skip
    return (far, chip) if instruction.kind == "load" else (chip, far)
