"""Streams of commands proved for all inputs, and changed ones that are refused.

What is certified although something was changed must be equivalent: it is run by the spec's
meanings (`machine/commands/interpreter.py`, which the judge does not use) on several random inputs
and compared with NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import csp_embed as ce
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.file import CommandFile, content, read, write
from csp_embed.errors import CheckError
from csp_embed.judge import commands as by_values
from csp_embed.machine.commands.words import decode, encode
from csp_embed.ops.data import random_tensors

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


def _mutants(file: CommandFile, count: int) -> Iterator[tuple[str, CommandFile]]:
    """One thing changed: a field, the order of two commands, one left out or doubled, a claim, a
    plain byte of HOST."""
    machine = file.isa.commands
    assert machine is not None
    decoded = decode(machine, file.words)
    rng = np.random.default_rng(5)
    stream = [
        (int(c), tuple(decoded.values(machine, n).values())) for n, c in enumerate(decoded.code)
    ]
    for k in range(count):
        changed = list(stream)
        n = int(rng.integers(0, len(stream) - 1))
        kind = ("field", "order", "left out", "twice", "claim", "byte")[k % 6]
        if kind == "claim":
            c = int(rng.integers(0, len(file.claims or ())))
            claims = list(file.claims or ())
            which = claims[c].which.copy()
            at = rng.integers(0, len(which), 2)
            which[at] = which[at[::-1]]
            claims[c] = replace(claims[c], which=which)
            yield f"{kind} {c} {at}", replace(file, claims=tuple(claims))
            continue
        if kind == "byte":
            where = int(rng.integers(0, len(file.before) - 1))
            before = [(a, d.copy()) for a, d in file.before]
            before[where][1][int(rng.integers(0, len(before[where][1])))] ^= 1
            yield f"{kind} of range {where}", replace(file, before=tuple(before))
            continue
        if kind == "field":
            code, values = stream[n]
            fields = list(machine.commands[code].fields.values())
            if not fields:
                continue
            f = int(rng.integers(0, len(fields)))
            new = list(values)
            new[f] = min(max(0, new[f] + int(rng.choice([-16, -1, 1, 16]))), fields[f].most)
            changed[n] = code, tuple(new)
        elif kind == "order":
            changed[n], changed[n + 1] = changed[n + 1], changed[n]
        elif kind == "left out":
            del changed[n]
        else:
            changed.insert(n, changed[n])
        yield f"{kind} {n}", replace(file, words=encode(machine, changed))


def _equivalent(file: CommandFile) -> bool:
    """Right on three random inputs, by the spec's meanings."""
    for seed in range(3):
        tensors = random_tensors(file.operator, 100 + seed)
        before = [(a, d.copy()) for a, d in file.before]
        for c in file.claims or ():
            for a, d in before:
                if a <= c.address < a + len(d):
                    held = d[c.address - a :].view(f"<i{np.dtype(c.dtype).itemsize}")
                    inside = np.flatnonzero(c.which >= 0)
                    flat = tensors[c.tensor].reshape(-1).astype(np.int64)
                    held[inside] = flat[c.which[inside]] * c.scale + c.offset
        stream = by_values.Stream(file.words, before, file.places)
        operands = {k: v for k, v in tensors.items() if k != file.operator.out.tensor}
        if by_values.problems(file.isa, stream, file.operator, operands):
            return False
    return True


@pytest.mark.parametrize("machine", MACHINES, ids=["gemmini", "mill"])
@pytest.mark.parametrize("name", ["bias", "convolution"])
def test_what_is_certified_after_a_change_is_equivalent(machine: str, name: str) -> None:
    file = _file(machine, name)
    refused = 0
    for what, mutant in _mutants(file, 48):
        try:
            found = mutant.certify()
        except CheckError:
            refused += 1
            continue
        if found.ok:
            assert _equivalent(mutant), what
        refused += not found.ok
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
