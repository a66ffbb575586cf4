"""The fast engine equals the spec interpreter on random programs of every machine, and survives
random bytes."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.errors import SimError
from csp_embed.ir.stream import Program
from csp_embed.judge.stream.tokens import stuck
from csp_embed.machine import interpreter
from csp_embed.machine.load import load_isa
from csp_embed.machine.words.bits import decode
from csp_embed.sim.check import check_program
from csp_embed.sim.functional.run import run
from tests.oracles.stream_sample import random_program

MACHINES = [
    # spec, configuration, programs, instructions in each
    ("toy_dot", None, 20, 14),
    ("toy_dot", "tiny", 20, 14),
    ("toy_outer", None, 12, 12),
    ("toy_outer", "tiny", 20, 14),
    ("vta", "1x4x4_small", 25, 14),
    ("vta", "1x8x8", 6, 10),
    ("vta", "2x16x16", 3, 6),
    ("vta", None, 4, 8),
    ("vta", "1x32x32", 2, 4),
]


@pytest.mark.parametrize(("spec", "config", "count", "length"), MACHINES)
def test_random_programs_equal_the_interpreter(spec, config, count, length):
    isa = load_isa(spec, config)
    macs = 0
    for seed in range(count):
        program = random_program(isa, np.random.default_rng(seed), length)
        image = interpreter.run(isa, program)
        done = run(isa, program)
        macs += done.counters["macs"]
        for address, got in done.outputs:
            want = np.frombuffer(image.read(address, len(got)), np.uint8)
            np.testing.assert_array_equal(got, want, err_msg=f"seed {seed}")
    assert macs > 0


SMALL = load_isa("vta", "1x4x4_small")
DATA = np.random.default_rng(0).integers(0, 256, 1 << 14, dtype=np.uint8)


def _judge(words):
    """Runs everything that takes a stream; only SimError may come out."""
    program = Program(
        {}, words, ((4096, DATA), (65536, DATA)), ((32768, np.zeros(4096, np.uint8)),), {}
    )
    stuck(SMALL, decode(SMALL, words))
    problems = check_program(SMALL, program)
    assert all(p.text and (p.insn is None or 0 <= p.insn < len(words)) for p in problems)
    for tokens in (True, False):
        with suppress(SimError):
            run(SMALL, program, tokens=tokens, max_steps=1 << 22)


@given(st.binary(min_size=0, max_size=320))
@settings(max_examples=150, deadline=None)
def test_random_bytes_never_crash(data):
    data = data[: len(data) // 16 * 16]
    _judge(np.frombuffer(data, dtype="<u8").reshape(-1, 2).copy())


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_random_fields_of_known_opcodes_never_crash(opcodes, random):
    words = np.array(
        [[random.getrandbits(64) & random.getrandbits(64) & ~7 | op,
          random.getrandbits(64) & random.getrandbits(64) & random.getrandbits(64)]
         for op in opcodes], dtype=np.uint64,
    )  # fmt: skip
    _judge(words)


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_flipped_bits_of_a_legal_program_never_crash(seed, flips):
    rng = np.random.default_rng(seed)
    program = random_program(SMALL, rng, 6)
    words = program.insn.copy()
    for _ in range(flips):
        words[rng.integers(len(words)), rng.integers(2)] ^= np.uint64(1) << np.uint64(
            rng.integers(64)
        )
    broken = Program(program.meta, words, program.before, program.after, {})
    check_program(SMALL, broken)
    with suppress(SimError):
        run(SMALL, broken, max_steps=1 << 22)
