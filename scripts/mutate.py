"""Judges the judge: one thing is changed in a right program, and it must be refused.

    scripts/mutate [--count 10000] [--seed 0] [--machine "vta small"] [--layers gemm008,conv010]
                   [--log FILE] [--networks 1000] [--commands 1000]

Programs: the case table (tests/cases.py) on every machine and the given DeepBench layers. What is
certified all the same is run by tests/oracles/exact_stream.py, which shares no code with the
judge: same result in random numbers of 89 bits, every order right. Beside it: what `check` alone
and one simulation on random data alone would let through. Exit code 5 where a mutant that is not
equivalent was certified.

--networks changes two programs of networks so often instead: their streams and what they state.
What is certified all the same is simulated on random inputs and compared with the reference.

--commands changes programs of machines that are fed commands (Gemmini, and two that are invented in
tests/data/specs) so often instead: words, claims, bytes of HOST, places. What is certified all the
same is run by the spec's meanings on random inputs and compared with NumPy.

--log keeps what each program gave, one JSON line each; a run with the same file goes on where the
last one ended. Lines of another judge (by its sources), seed or count are not used.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import csp_embed as ce
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.file import CommandFile, content
from csp_embed.errors import CspEmbedError
from csp_embed.ir.operator import Operator
from csp_embed.judge.certify.claims import read_claims
from csp_embed.judge.certify.network.run import certify_network
from csp_embed.judge.certify.run import certify
from csp_embed.machine.program_file import isa_of
from csp_embed.machine.spec import Isa
from csp_embed.ops import deepbench
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.report.text_table import table
from csp_embed.sim.functional import run as functional
from tests.cases import MACHINES, STREAM_CASES
from tests.oracles.command_mutants import COMMAND_KINDS, command_mutant, still_right, stream_of
from tests.oracles.exact_stream import difference as difference_left
from tests.oracles.exact_stream import left_by, order_fault
from tests.oracles.formula_mutants import difference_of, drawn
from tests.oracles.mutants import KINDS, Mutant, Subject, mutant
from tests.oracles.network_mutants import NETWORK_KINDS, STATED, network_mutant
from tests.oracles.network_program import difference
from tests.oracles.small_networks import small_networks

LAYERS = "gemm075,conv029,conv032"


def subjects(machines: list[str], layers: list[str]) -> Iterator[tuple[str, ce.Kernel]]:
    """What right programs are made by."""
    for machine in machines:
        for name, make in STREAM_CASES.items():
            # A case that a machine cannot run is no subject.
            with contextlib.suppress(CspEmbedError):
                yield f"{name} on {machine}", stream_kernel(make(), MACHINES[machine]())
    for layer in layers:
        yield layer, stream_kernel(deepbench.layer(layer))


def subject(kernel: ce.Kernel) -> Subject:
    """The kernel's program over random operands."""
    tensors = {**random_tensors(kernel.operator, 0), **kernel.constants}
    program = kernel.program(tensors)
    return Subject(kernel.isa, program, kernel.operator, program.meta["claims"])


def stream_kernel(op: Operator, isa: Isa | str = "vta") -> ce.Kernel:
    """Compiled for a machine that reads a stream."""
    kernel = ce.compile(op, isa=isa)
    assert isinstance(kernel, ce.Kernel)
    return kernel


def certified(s: Subject) -> tuple[bool, bool]:
    """(certified, `check` alone is content)."""
    try:
        found = certify(s.isa, s.program, s.op, read_claims(s.claims, s.op))
    except CspEmbedError:
        return False, True  # Claims that fit nothing; check does not read them.
    return found.ok, found.parts[0].ok


def simulated(original: Subject, s: Subject) -> bool:
    """Whether one simulation on the file's data finds nothing wrong."""
    if s.op is not original.op:
        name = s.op.out.tensor
        try:
            both = [evaluate(x.op, original.program.tensors)[name] for x in (original, s)]
        except CspEmbedError:
            return False
        return bool((both[0] == both[1]).all())
    try:
        return bool(functional.run(s.isa, s.program).values_equal)
    except CspEmbedError:
        return False


def equivalent(
    kernel: ce.Kernel, original: Subject, m: Mutant, right: Callable[[], dict[Any, Any]]
) -> str:
    """Why a certified mutant is not the same program, or "". right: what the right one leaves."""
    s = m.subject
    fault = order_fault(s.isa, s.program) if s.program.insn is not original.program.insn else ""
    if s.op is not original.op:
        return fault or difference_of(original.op, s.op) or beside(kernel, s.op)
    return fault or difference_left(right(), left_by(s.isa, s.op, s.program, s.claims))


def beside(kernel: ce.Kernel, op: Operator) -> str:
    """Where the program, run on what another formula allows, differs from that formula, or ""."""
    rng = np.random.default_rng(3)
    for ends in (False, True):
        tensors = drawn(op, rng, ends)
        operands = {n: a for n, a in tensors.items() if n not in kernel.constants}
        wanted = evaluate(op, {**tensors, **kernel.constants})[op.out.tensor]
        if not np.array_equal(kernel.run(**operands), wanted):
            return "the program differs on values that the formula allows"
    return ""


Tally = dict[str, Counter[str]]
"""Per kind of change: mutants made, refused, equivalent; let through by check, by one run."""
HEAD = {
    "made": "mutants", "refused": "refused", "same": "equivalent",
    "check": "check lets through", "run": "one simulation lets through",
}  # fmt: skip


def judge_digest() -> str:
    """Of the judge's sources: what another judge found says nothing about this one."""
    found = hashlib.sha256()
    root = Path(ce.__file__).parent / "judge"
    for path in sorted(root.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def mutated(kernel: ce.Kernel, original: Subject, seeds: range) -> tuple[Tally, list[str]]:
    """One program's mutants, the kinds in turn: what became of them, and the judge's faults."""
    tally: Tally = {kind: Counter() for kind in KINDS}
    faults = []
    # Only once, and only where some mutant is certified: minutes for a layer.
    right = cache(partial(left_by, original.isa, original.op, original.program, original.claims))
    for k, seed in enumerate(seeds):
        kind = KINDS[k % len(KINDS)]
        m = mutant(original, kind, seed)
        if m is None:
            continue
        tally[kind]["made"] += 1
        ok, checked = certified(m.subject)
        if not ok:
            tally[kind]["refused"] += 1
            tally[kind]["check"] += checked
            tally[kind]["run"] += simulated(original, m.subject)
        elif why := equivalent(kernel, original, m, right):
            faults.append(f"{kind}: {m.what}: {why}")
        else:
            tally[kind]["same"] += 1
    return tally, faults


def known(path: Path | None, key: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Program -> its line of an earlier run with the same key."""
    if path is None or not path.exists():
        return {}
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    return {line["program"]: line for line in lines if line["key"] == key}


def command_programs() -> Iterator[tuple[str, CommandFile]]:
    """Right ones: ragged, with a bias, a convolution, on machines of several kinds."""
    specs = Path(__file__).parents[1] / "tests" / "data" / "specs"
    operators = {
        "matmul": ce.matmul(m=20, n=18, k=33, shift=5, clip=(0, 127)),
        "bias": ce.matmul(m=20, n=18, k=33, shift=5, bias=True, bias_range=900, clip=(0, 127)),
        "convolution": ce.conv2d(n=1, c=5, h=5, w=6, k=9, r=3, s=3, pad=1, clip=(-128, 127)),
    }  # fmt: skip
    for machine in ("gemmini", str(specs / "mill.yaml"), str(specs / "stay.yaml")):
        for name, op in operators.items():
            # What a machine cannot compute is no program.
            with contextlib.suppress(CspEmbedError):
                kernel = compile_commands(op, ce.load_isa(machine), {})
                yield f"{name} on {kernel.isa.name}", content(kernel, random_tensors(op, 1))


def certifies(certify: Callable[[], Any]) -> bool:
    """Whether the judge says so; what it refuses to read is not."""
    try:
        return bool(certify().ok)
    except CspEmbedError:
        return False


def tell(total: dict[str, Counter[str]]) -> None:
    """Prints the table by kind of mutant, and adds its last row."""
    total["all"] = sum(total.values(), Counter())
    columns = ("made", "refused", "same")
    rows = [[kind, *(str(n[c]) for c in columns)] for kind, n in total.items()]
    print(table(["what was changed", *(HEAD[c] for c in columns)], rows, None, 1))


def commands(count: int, seed: int) -> int:
    """Mutants of programs of commands. Exit code 5 where a wrong one was certified."""
    total: dict[str, Counter[str]] = {kind: Counter() for kind in COMMAND_KINDS}
    programs = [(name, file, stream_of(file)) for name, file in command_programs()]
    begin, faults = time.monotonic(), 0
    for k in range(count):
        name, file, stream = programs[k % len(programs)]
        kind = COMMAND_KINDS[k // len(programs) % len(COMMAND_KINDS)]
        made = command_mutant(file, stream, kind, seed + k)
        if made is None:
            continue
        what, changed = made
        total[kind]["made"] += 1
        if not certifies(changed.certify):
            total[kind]["refused"] += 1
        elif still_right(changed):
            total[kind]["same"] += 1
        else:
            faults += 1
            print(f"FAULT {name}: {what}", flush=True)
    tell(total)
    print(f"{len(programs)} programs, {total['all']['made']} mutants, {faults} certified and not"
          f" equivalent, {time.monotonic() - begin:.0f} s")  # fmt: skip
    return 5 if faults else 0


def networks(count: int, seed: int) -> int:
    """Mutants of networks' programs. Exit code 5 where a wrong one was certified."""
    total: dict[str, Counter[str]] = {kind: Counter() for kind in NETWORK_KINDS}
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        programs = [(name, p) for name, ps in small_networks(Path(folder)) for p in ps]
    for k in range(count):
        name, program = programs[k % len(programs)]
        kind, isa = NETWORK_KINDS[k // len(programs) % len(NETWORK_KINDS)], isa_of(program)
        made = network_mutant(isa, program, kind, seed + k)
        if made is None:
            continue
        changed, what = made
        total[kind]["made"] += 1
        if not certifies(partial(certify_network, isa, changed, name)):
            total[kind]["refused"] += 1
            continue
        stream = program if kind in STATED else changed
        why = difference(isa, stream, changed if kind == "meaning" else program, range(4))
        why = why or ("" if kind in STATED else order_fault(isa, changed))
        total[kind]["same"] += not why
        if why:
            faults += 1
            print(f"FAULT {name}: {kind}: {what}: {why}", flush=True)
    tell(total)
    return 5 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="mutants (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="first seed of each program")
    parser.add_argument("--machine", action="append", help=f"{', '.join(MACHINES)}; none")
    parser.add_argument("--layers", default=LAYERS, help="DeepBench layers; '' for none")
    parser.add_argument("--log", type=Path, help="JSON lines to go on from and to add to")
    parser.add_argument("--networks", type=int, metavar="COUNT", help="mutants of networks alone")
    parser.add_argument("--commands", type=int, metavar="COUNT", help="mutants of commands alone")
    options = parser.parse_args()
    if options.commands:
        return commands(options.commands, options.seed)
    if options.networks:
        return networks(options.networks, options.seed)
    layers = [x for x in options.layers.split(",") if x]
    chosen = [m for m in options.machine or MACHINES if m != "none"]
    named = list(subjects(chosen, layers))
    each = -(-options.count // len(named))
    key = {"judge": judge_digest(), "seed": options.seed, "each": each}
    done = known(options.log, key)
    start = time.monotonic()
    total: Tally = {kind: Counter() for kind in KINDS}
    faults = []
    for name, kernel in named:
        line = done.get(name)
        if line is None:
            original = subject(kernel)
            if certified(original) != (True, True):
                print(f"{name}: the right program is refused")
                return 5
            begin = time.monotonic()
            tally, wrong = mutated(kernel, original, range(options.seed, options.seed + each))
            line = {"key": key, "program": name, "tally": tally, "faults": wrong,
                    "seconds": round(time.monotonic() - begin, 1)}  # fmt: skip
            if options.log is not None:
                with options.log.open("a") as log:
                    log.write(json.dumps(line) + "\n")
        for fault in line["faults"]:
            faults.append(f"{name}: {fault}")
            print(f"FAULT {faults[-1]}", flush=True)
        for kind in KINDS:
            total[kind].update(line["tally"][kind])
    total["all"] = sum(total.values(), Counter())
    rows = [[kind, *(str(counts[c]) for c in HEAD)] for kind, counts in total.items()]
    print(table(["what was changed", *HEAD.values()], rows, None, 1))
    print(
        f"{len(named)} programs, {total['all']['made']} mutants, {len(faults)} certified and not"
        f" equivalent, {time.monotonic() - start:.0f} s"
    )
    return 5 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
