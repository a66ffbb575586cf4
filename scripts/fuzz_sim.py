"""Random bytes and broken programs for everything that takes a stream. Run by scripts/fuzz_sim.

Nothing but our own errors may come out, each case must end within seconds, and a program that the
checker calls good must run and give the bytes of the slow interpreter.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress

import numpy as np

from csp_embed.errors import CspEmbedError
from csp_embed.ir.stream import Program
from csp_embed.machine import interpreter
from csp_embed.machine.load import load_isa
from csp_embed.machine.words.bits import decode
from csp_embed.machine.words.listing import listing
from csp_embed.sim.check import check_program
from csp_embed.sim.cycles.engine import simulate_cycles
from csp_embed.sim.functional.run import run
from tests.oracles.stream_sample import random_program

MACHINES = ("vta:1x4x4_small", "toy_dot:tiny", "toy_outer:tiny", "vta:1x16x16")
SLOW_SECONDS = 20.0
STEPS = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz_sim", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--machine", action="append", help=f"default: {', '.join(MACHINES)}")
    options = parser.parse_args()
    machines = []
    for text in options.machine or MACHINES:
        name, _, config = text.partition(":")
        machines.append(load_isa(name, config or None))
    start, seed, good, longest = time.monotonic(), options.seed, 0, 0.0
    while time.monotonic() - start < options.seconds:
        isa = machines[seed % len(machines)]
        began = time.process_time()
        try:
            good += _case(isa, seed)
        except CspEmbedError as error:
            print(f"seed {seed} on {isa.name}: an error came out where none may:\n{error}")
            return 1
        except BaseException:
            print(f"seed {seed} on {isa.name} {isa.config_name}:", file=sys.stderr)
            raise
        took = time.process_time() - began
        # The first case of each machine compiles its kernels.
        if seed >= options.seed + len(machines):
            longest = max(longest, took)
        if took > SLOW_SECONDS and seed >= options.seed + len(machines):
            print(f"seed {seed} on {isa.name} took {took:.1f} s")
            return 1
        seed += 1
    count = seed - options.seed
    print(
        f"{count} cases, {good} good programs, longest {longest:.2f} s of processor time; no crash"
    )
    return 0


def _case(isa, seed: int) -> bool:
    """One case; True where the checker called it good and it ran right."""
    rng = np.random.default_rng(seed)
    base = random_program(isa, rng, int(rng.integers(1, 14)))
    words = base.insn.copy()
    match rng.integers(5):
        case 0:
            words = rng.integers(0, 2**64, (rng.integers(0, 40), 2), dtype=np.uint64)
        case 1:  # known opcodes, sparse random fields
            first = isa.instructions[rng.integers(len(isa.instructions))]
            words &= rng.integers(0, 2**64, words.shape, dtype=np.uint64)
            lo = first.field("opcode").lo
            words[0, lo // 64] |= np.uint64(first.opcode << (lo % 64) & (2**64 - 1))
        case 2:  # flipped bits
            for _ in range(rng.integers(1, 30)):
                bit = np.uint64(1) << np.uint64(rng.integers(64))
                words[rng.integers(len(words)), rng.integers(2)] ^= bit
        case 3:  # cut, doubled, shuffled
            words = words[rng.integers(0, len(words), rng.integers(0, 2 * len(words)))]
        case _:
            pass
    program = Program(base.meta, words, base.before, base.after, {})
    stream = decode(isa, words)
    listing(isa, stream)
    with suppress(CspEmbedError):
        simulate_cycles(isa, stream)
    problems = check_program(isa, program, values=False)
    for options in ({}, {"strict": True}, {"tokens": False}):
        with suppress(CspEmbedError):
            run(isa, program, max_steps=STEPS, **options)
    if problems or isa.config_name == "1x16x16":
        return False
    done = run(isa, program)
    image = interpreter.run(isa, program)
    for address, got in done.outputs:
        want = np.frombuffer(image.read(address, len(got)), np.uint8)
        assert np.array_equal(got, want), f"seed {seed}: values differ from the interpreter"
    return True


if __name__ == "__main__":
    sys.exit(main())
