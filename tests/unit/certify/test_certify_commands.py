"""Streams of commands proved for all inputs, and changed ones that are refused.

What is certified although something was changed must be equivalent
(tests/oracles/command_mutants.py); `scripts/mutate --commands 1000` tries more.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import csp_embed as ce
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.file import CommandFile, content, read, write
from csp_embed.errors import CheckError
from csp_embed.ops.data import random_tensors
from tests.oracles.command_mutants import (
    COMMAND_KINDS,
    command_mutant,
    still_right,
    stream_of,
)

SPECS = Path(__file__).parents[2] / "data" / "specs"
OPERATORS = {
    "ragged": ce.matmul(m=20, n=18, k=33),
    "ReLU": ce.matmul(m=20, n=18, k=33, shift=5, clip=(0, 127)),
    "bias": ce.matmul(m=20, n=18, k=33, shift=5, bias=True, bias_range=900, clip=(0, 127)),
    "byte": ce.matmul(m=5, n=18, k=20, shift=8),
    "convolution": ce.conv2d(n=1, c=5, h=5, w=6, k=9, r=3, s=3, pad=1, shift=7, clip=(0, 127)),
    "clip": ce.matmul(m=20, n=18, k=33, clip=(-128, 127)),
}  # fmt: skip
MILL = str(SPECS / "mill.yaml")
MACHINES = ("gemmini", MILL)
# The mill's copies out saturate: it stores no low bytes.
CASES = [(m, n) for m in MACHINES for n in OPERATORS if m != MILL or n not in ("ragged", "byte")]


def _file(machine: str, name: str) -> CommandFile:
    kernel = compile_commands(OPERATORS[name], ce.load_isa(machine), {},
                              options=ce.Options(top=1))  # fmt: skip
    return content(kernel, random_tensors(kernel.operator, 1))


@pytest.mark.parametrize(("machine", "name"), CASES, ids=[f"{n}, {Path(m).stem}" for m, n in CASES])
def test_programs_are_certified(machine: str, name: str, tmp_path: Path) -> None:
    file = _file(machine, name)
    found = file.certify()
    assert found.ok, found.show()
    assert found.log2_error < -50
    assert [p.name for p in found.parts] == ["order", "frame", "sums", "epilogue", "example"]
    write(tmp_path / "k.npz", file)
    again = read(tmp_path / "k.npz").certify()
    assert (again.ok, again.digest, again.parts) == (True, found.digest, found.parts)


@pytest.mark.parametrize("machine", MACHINES, ids=["gemmini", "mill"])
@pytest.mark.parametrize("name", ["bias", "convolution"])
def test_what_is_certified_after_a_change_is_equivalent(machine: str, name: str) -> None:
    file = _file(machine, name)
    stream, refused = stream_of(file), 0
    for k in range(48):
        made = command_mutant(file, stream, COMMAND_KINDS[k % len(COMMAND_KINDS)], k)
        if made is None:
            continue
        what, mutant = made
        try:
            found = mutant.certify().ok
        except CheckError:
            found = False
        if found:
            assert still_right(mutant), what
        refused += not found
    assert refused > 20


def test_a_wrong_epilogue_is_refused() -> None:
    """Another formula than the stream's: each step is compared."""
    file = _file("gemmini", "ReLU")
    for other in (
        ce.matmul(m=20, n=18, k=33, shift=6, clip=(0, 127)),
        ce.matmul(m=20, n=18, k=33, shift=5, clip=(0, 126)),
        ce.matmul(m=20, n=18, k=33, shift=5, clip=(-1, 127)),
    ):
        found = replace(file, operator=other).certify()
        assert not found.ok
        assert "epilogue: MVOUT: at " in found.show()


def test_a_stated_offset_is_proved() -> None:
    file = _file("gemmini", "ReLU")
    meta = dict(file.meta) | {"claims": {**file.meta["claims"], "offset": 3}}
    found = replace(file, meta=meta).certify()
    assert "do not hold what the formula sums" in found.show()
