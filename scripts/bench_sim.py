"""Giga-MACs per second of the functional engine, beside a per-micro-op baseline in the same run.

The baseline is what a straightforward simulator does: compiled scalar loops, one micro-op after the
other, over int8 operands, contractions only (its loads and elementwise steps cost nothing). All
times are processor time, the best of a few runs, after compiling; `engine` is the whole run:
decoding, checks of addresses, loads, elementwise steps, stores, comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
from numba import njit

import csp_embed
from csp_embed.files import atomic
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.machine.words.bits import decode, decode_uops
from csp_embed.ops.deepbench import layer
from csp_embed.sim.functional.memory import image
from csp_embed.sim.functional.run import run
from csp_embed.sim.tvm.native import run_native

DEFAULT = ("conv012", "conv018", "conv024", "conv036", "conv060", "conv072")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench_sim", description=__doc__)
    parser.add_argument("what", nargs="*", help="DeepBench ids or program files")
    parser.add_argument("--tvm-lib", metavar="DIR", help="also time TVM's functional simulator")
    parser.add_argument("--runs", type=int, default=3, help="the best of this many (default 3)")
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON")
    options = parser.parse_args()
    rows = []
    head = f"{'program':<14}{'MMACs':>9}{'insns':>8}{'engine':>9}{'baseline':>10}{'ratio':>7}"
    print(head + (f"{'tvm-fsim':>10}{'ratio':>7}" if options.tvm_lib else ""))
    for name in options.what or DEFAULT:
        row = measure(name, options.runs, options.tvm_lib)
        rows.append(row)
        text = (
            f"{row['program']:<14}{row['macs'] / 1e6:>9.1f}{row['instructions']:>8}"
            f"{row['engine']:>9.2f}{row['baseline']:>10.2f}{row['ratio']:>7.1f}"
        )
        if options.tvm_lib:
            text += f"{row['tvm']:>10.2f}{row['engine'] / row['tvm']:>7.1f}"
        print(text, flush=True)
    macs, seconds = sum(r["macs"] for r in rows), sum(r["engine_seconds"] for r in rows)
    speed = macs / seconds / 1e9
    print(f"together {macs / 1e9:.2f} giga-MACs in {seconds:.2f} s: {speed:.2f} GMAC/s")
    if options.json:
        with atomic(options.json) as file:
            json.dump(rows, file, indent=1)
    return 0


def measure(name: str, runs: int, tvm_lib: str | None) -> dict:
    """One row: giga-MACs per second of each engine."""
    if name.endswith(".npz"):
        program, label = read_program(name), name.rsplit("/", 1)[-1].removesuffix(".npz")
    else:
        kernel, label = csp_embed.compile(layer(name)), name
        rng = np.random.default_rng(0)
        tensors = {
            t.name: rng.integers(-128, 128, t.shape, dtype=t.dtype)
            for t in kernel.operator.tensors.values()
            if t.name != kernel.operator.out.tensor
        }
        program = kernel.program(tensors)
    isa = isa_of(program)
    done = run(isa, program)
    macs = done.counters["macs"]
    engine = min(_timed(lambda: run(isa, program)) for _ in range(runs))
    slow = Baseline(isa, program, done.executed)
    slow.run()
    baseline = min(_timed(slow.run) for _ in range(max(1, runs - 1)))
    row = {
        "program": label, "macs": macs, "instructions": len(program.insn),
        "engine_seconds": engine, "baseline_seconds": baseline,
        "engine": macs / engine / 1e9, "baseline": macs / baseline / 1e9,
        "ratio": baseline / engine,
    }  # fmt: skip
    if tvm_lib:
        row["tvm"] = macs / run_native(isa, program, tvm_lib).seconds / 1e9
    return row


def _timed(action) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


class Baseline:
    """The contractions of a program, micro-op by micro-op, on made-up int8 operands."""

    def __init__(self, isa, program, executed) -> None:
        contract = isa.of_kind("contract")
        dst, lhs, rhs = contract.operands
        dims = [d for d in (*dst.dims, *lhs.dims) if d in isa.dims]
        b, o, i = (isa.dims[d] for d in (dst.dims[0], dst.dims[1], lhs.dims[1]))
        assert len(set(dims)) == 3, "the baseline is written for machines like VTA"
        rng = np.random.default_rng(0)
        self.lhs = rng.integers(-128, 128, (isa.memory(lhs.memory).depth, b, i), np.int8)
        self.rhs = rng.integers(-128, 128, (isa.memory(rhs.memory).depth, o, i), np.int8)
        self.acc = np.zeros((isa.memory(dst.memory).depth, b, o), np.int32)
        self.work = list(_contractions(isa, program, executed))

    def run(self) -> None:
        """All contractions once."""
        for uops, loops in self.work:
            _micro_ops(self.acc, self.lhs, self.rhs, *uops, *loops)


def _contractions(isa, program, executed):
    """(micro-op columns, loops) of every contraction that is no reset, in order."""
    stream = decode(isa, program.insn)
    dram, ranges = image(program)
    load, contract = isa.of_kind("load"), isa.of_kind("contract")
    memory = isa.memory(isa.uop_memory)
    code = np.zeros(memory.depth, np.uint32)
    columns = {n: v.tolist() for n, v in stream.fields.items()}
    for n in executed.tolist():
        instruction = isa.instructions[stream.code[n]]
        value = {part: columns[f][n] for part, f in instruction.roles.items()}
        if instruction is load and value["memory"] == memory.id and value["x_size"]:
            for y in range(value["y_size"]):
                address = (value["dram"] + y * value["x_stride"]) * memory.elem_bytes
                r = int(np.searchsorted(ranges["start"], address, side="right")) - 1
                at = int(ranges["offset"][r] + address - ranges["start"][r])
                words = dram[at : at + 4 * value["x_size"]].view("<u4")
                first = value["sram"] + y * value["x_size"]
                code[first : first + value["x_size"]] = words
        elif instruction is contract and not value["reset"]:
            fields = decode_uops(isa, code[value["uop_begin"] : value["uop_end"]])
            uops = tuple(fields[o.uop_field].astype(np.int64) for o in contract.operands)
            factors = [
                columns[f][n] for o in contract.operands for f in (o.factor_out, o.factor_in)
            ]
            yield uops, (value["iter_out"], value["iter_in"], *factors)


@njit
def _micro_ops(acc, lhs, rhs, d0, s0, w0, outer, inner, do, di, so, si, wo, wi):
    for i in range(outer):
        for j in range(inner):
            for u in range(len(d0)):
                d, s, w = d0[u] + i * do + j * di, s0[u] + i * so + j * si, w0[u] + i * wo + j * wi
                for b in range(acc.shape[1]):
                    for o in range(acc.shape[2]):
                        total = acc[d, b, o]
                        for k in range(lhs.shape[2]):
                            total += np.int32(lhs[s, b, k]) * np.int32(rhs[w, o, k])
                        acc[d, b, o] = total


if __name__ == "__main__":
    sys.exit(main())
