"""Token order, races and FIFO depths against brute force: transitive closure of "must precede" by
matrix, accesses as Python sets, FIFO depths by visiting every reachable state of the queues."""

import itertools

import numpy as np
import pytest

from csp_embed.ir.stream import Program
from csp_embed.judge.stream.table import make_table
from csp_embed.judge.stream.tokens import find_order
from csp_embed.machine.load import load_isa
from csp_embed.machine.words.bits import decode, decode_uops, encode
from csp_embed.sim.check import check_program
from tests.oracles.stream_sample import random_program

ISA = load_isa("vta", "1x4x4_small")
QUEUE = {0: "compute", 1: "load", 2: "load", 3: "compute", 4: "store", 5: "compute"}
NUMBER = {"load": 0, "compute": 1, "store": 2}
PORTS = {  # token field -> (neighbour offset, pop?)
    "pop_prev": (-1, True), "pop_next": (1, True), "push_prev": (-1, False), "push_next": (1, False)
}  # fmt: skip


def _queues(stream):
    names = [ISA.instructions[c].name for c in stream.code]
    memory = stream.fields["memory"]
    return [
        NUMBER["compute"] if n in ("GEMM", "ALU", "FINISH")
        else NUMBER["store"] if n == "STORE" else NUMBER[QUEUE[int(memory[k])]]
        for k, n in enumerate(names)
    ]  # fmt: skip


def _tokens(stream, queues, k):
    """(pops, pushes) of instruction k as pairs (from queue, to queue)."""
    pops, pushes = [], []
    for field, (offset, pop) in PORTS.items():
        other = queues[k] + offset
        if stream.fields[field][k] and 0 <= other <= 2:
            if pop:
                pops.append((other, queues[k]))
            else:
                pushes.append((queues[k], other))
    return pops, pushes


def _accesses(stream, program):
    """Per instruction: sets of (memory, element) read and written; micro-ops followed by hand."""
    image = {a: d for a, d in program.before}
    uop = {}
    found = []
    f = {name: values.tolist() for name, values in stream.fields.items()}
    for k, code in enumerate(stream.code):
        name = ISA.instructions[code].name
        reads, writes = set(), set()
        if name in ("LOAD", "STORE") and f["x_size"][k]:
            height = f["y_pad_0"][k] + f["y_size"][k] + f["y_pad_1"][k]
            width = f["x_pad_0"][k] + f["x_size"][k] + f["x_pad_1"][k]
            memory = {5: 3}.get(f["memory"][k], f["memory"][k])
            cells = {(memory, f["sram_base"][k] + e) for e in range(height * width)}
            if name == "STORE":
                reads = cells
            else:
                writes = cells
                if memory == 0:
                    data = image[f["dram_base"][k] * 4].view("<u4")
                    fields = decode_uops(ISA, data)
                    for e in range(f["x_size"][k]):
                        uop[f["sram_base"][k] + e] = {n: int(v[e]) for n, v in fields.items()}
        elif name in ("GEMM", "ALU"):
            loops = itertools.product(
                range(f["iter_out"][k]), range(f["iter_in"][k]),
                range(f["uop_bgn"][k], f["uop_end"][k]),
            )  # fmt: skip
            for i, j, u in loops:
                at = {
                    n: uop[u][n] + i * f[f"{n}_factor_out"][k] + j * f[f"{n}_factor_in"][k]
                    for n in ("dst", "src", "wgt")
                }
                reads.add((0, u))
                writes.add((3, at["dst"]))
                if name == "ALU" or not f["reset"][k]:
                    writes.add((4, at["dst"]))
                if name == "GEMM" and not f["reset"][k]:
                    reads |= {(2, at["src"]), (1, at["wgt"])}
                if name == "ALU" and not f["use_imm"][k]:
                    reads.add((3, at["src"]))
        found.append((reads, writes))
    return found


def _precedes(stream, queues):
    """bool[n, n]: a is done before b starts; and the instructions that can run at all."""
    n = len(stream)
    edge = np.zeros((n, n), bool)
    last, pushed, popped = {}, {}, {}
    for k in range(n):
        if queues[k] in last:
            edge[last[queues[k]], k] = True
        last[queues[k]] = k
        pops, pushes = _tokens(stream, queues, k)
        for fifo in pops:
            popped.setdefault(fifo, []).append(k)
        for fifo in pushes:
            pushed.setdefault(fifo, []).append(k)
    stuck = np.zeros(n, bool)
    for fifo, takers in popped.items():
        givers = pushed.get(fifo, [])
        for a, b in zip(givers, takers, strict=False):
            edge[a, b] = True
        stuck[takers[len(givers) :]] = True
    reach = edge.copy()
    for k in range(n):
        reach |= reach[:, k : k + 1] & reach[k : k + 1, :]
    stuck |= np.diag(reach)
    return reach, ~(stuck | (reach & stuck[:, None]).any(axis=0))


def _conflict(a, b):
    return a[1] & (b[0] | b[1]) or a[0] & b[1]


def _mutate(program, rng):
    """The program with some token bits dropped or added, and an instruction or two moved."""
    stream = decode(ISA, program.insn)
    fields = {n: v.copy() for n, v in stream.fields.items()}
    for _ in range(int(rng.integers(0, 4))):
        field = rng.choice(list(PORTS))
        k = rng.integers(len(stream))
        fields[field][k] ^= 1
    words = encode(ISA, type(stream)(stream.code, fields))
    if rng.random() < 0.3:
        k = rng.integers(1, len(words) - 2)
        words[[k, k + 1]] = words[[k + 1, k]]
    return Program(program.meta, words, program.before, program.after, {})


def _drop_pairs(program, rng):
    """Drops the k-th push of a FIFO together with its k-th pop: no deadlock, but perhaps a race."""
    stream = decode(ISA, program.insn)
    queues = _queues(stream)
    fields = {n: v.copy() for n, v in stream.fields.items()}
    for _ in range(int(rng.integers(1, 4))):
        field, opposite, side = [
            ("push_next", "pop_prev", 1), ("push_prev", "pop_next", -1)
        ][rng.integers(2)]  # fmt: skip
        q = int(rng.integers(3))
        givers = [k for k in range(len(stream)) if queues[k] == q and fields[field][k]]
        takers = [k for k in range(len(stream)) if queues[k] == q + side and fields[opposite][k]]
        if givers and len(givers) == len(takers):
            k = rng.integers(len(givers))
            fields[field][givers[k]] = 0
            fields[opposite][takers[k]] = 0
    words = encode(ISA, type(stream)(stream.code, fields))
    return Program(program.meta, words, program.before, program.after, {})


@pytest.mark.parametrize("change", [_mutate, _drop_pairs])
def test_races_and_deadlocks_equal_brute_force(change):
    seen = {"race": 0, "deadlock": 0, "clean": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        program = change(random_program(ISA, rng, 8), rng)
        stream = decode(ISA, program.insn)
        queues = _queues(stream)
        reach, runs = _precedes(stream, queues)
        order = find_order(ISA, make_table(ISA, stream))
        assert sorted(order.order) == np.flatnonzero(runs).tolist()
        accesses = _accesses(stream, program)
        races = {
            (a, b)
            for a, b in itertools.combinations(np.flatnonzero(runs).tolist(), 2)
            if queues[a] != queues[b] and not reach[a, b] and not reach[b, a]
            and _conflict(accesses[a], accesses[b])
        }  # fmt: skip
        problems = check_program(ISA, program, values=False)
        assert any(p.kind == "deadlock" for p in problems) == (not runs.all()), seed
        named = {p.insn for p in problems if p.kind == "race"}
        assert bool(named) == bool(races), (seed, races)
        position = {int(k): t for t, k in enumerate(order.order)}
        assert named == {max(pair, key=position.__getitem__) for pair in races}, seed
        seen["race" if races else "deadlock" if not runs.all() else "clean"] += 1
    assert seen["clean"] > 5
    assert seen["race" if change is _drop_pairs else "deadlock"] > 5


def test_fifo_depths_equal_all_interleavings():
    depths = set()
    for seed in range(25):
        rng = np.random.default_rng(1000 + seed)
        program = _mutate(_drop_pairs(random_program(ISA, rng, 5), rng), rng)
        stream = decode(ISA, program.insn)
        queues = _queues(stream)
        tokens = [_tokens(stream, queues, k) for k in range(len(stream))]
        mine = [[k for k in range(len(stream)) if queues[k] == q] for q in range(3)]
        most, todo, known = {}, [(0, 0, 0)], {(0, 0, 0)}
        while todo:
            at = todo.pop()
            level = {}
            for q in range(3):
                for k in mine[q][: at[q]]:
                    for fifo in tokens[k][1]:
                        level[fifo] = level.get(fifo, 0) + 1
                    for fifo in tokens[k][0]:
                        level[fifo] = level.get(fifo, 0) - 1
            for fifo, value in level.items():
                most[fifo] = max(most.get(fifo, 0), value)
            for q in range(3):
                if at[q] < len(mine[q]):
                    pops = tokens[mine[q][at[q]]][0]
                    following = tuple(a + (r == q) for r, a in enumerate(at))
                    if following not in known and all(level.get(f, 0) > 0 for f in pops):
                        known.add(following)
                        todo.append(following)
        order = find_order(ISA, make_table(ISA, stream))
        for left in range(2):
            assert order.most[left, 0] == most.get((left, left + 1), 0)
            assert order.most[left, 1] == most.get((left + 1, left), 0)
        depths |= set(order.most.reshape(-1).tolist())
    assert max(depths) >= 3
