"""One thing changed in a right program of commands, and whether it still is right.

The n-th mutant of a program is always the same. `still_right` runs a program by the spec's meanings
(`machine/commands/interpreter.py`, which the judge does not use) on random inputs, which lie where
its claims say, and compares with NumPy.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csp_embed.compiler.commands.file import CommandFile
from csp_embed.judge import commands as by_values
from csp_embed.machine.commands.words import decode, encode
from csp_embed.ops.data import random_tensors

COMMAND_KINDS = ("field", "order", "left out", "twice", "claim", "byte", "offset", "place")
Stream = list[tuple[int, tuple[int, ...]]]


def stream_of(file: CommandFile) -> Stream:
    """(command, field values) of a program, which all its mutants begin from."""
    machine = file.isa.commands
    assert machine is not None
    decoded = decode(machine, file.words)
    return [(int(c), tuple(decoded.values(machine, n).values()))
            for n, c in enumerate(decoded.code)]  # fmt: skip


def command_mutant(
    file: CommandFile, stream: Stream, kind: str, seed: int
) -> tuple[str, CommandFile] | None:
    """(the change in words, the changed program); None where nothing is changed."""
    machine = file.isa.commands
    assert machine is not None
    rng = np.random.default_rng([COMMAND_KINDS.index(kind), seed])
    claims, before = list(file.claims or ()), list(file.before)
    if kind == "claim":
        c = int(rng.integers(0, len(claims)))
        which = claims[c].which.copy()
        at = rng.integers(0, len(which), 2)
        which[at] = which[at[::-1]]
        if np.array_equal(which, claims[c].which):
            return None
        claims[c] = replace(claims[c], which=which)
        return f"claim {c}: items {at.tolist()}", replace(file, claims=tuple(claims))
    if kind == "byte":
        k = int(rng.integers(0, len(before) - 1))
        address, data = before[k][0], before[k][1].copy()
        data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        before[k] = address, data
        return f"a byte of range {k}", replace(file, before=tuple(before))
    if kind == "offset":
        said = file.meta["claims"]
        meta = dict(file.meta) | {"claims": {**said, "offset": said["offset"] + 1}}
        return "the stated offset", replace(file, meta=meta)
    if kind == "place":
        places = file.places.copy().reshape(-1)
        n = int(rng.integers(0, len(places)))
        places[n] += int(rng.choice([-1, 1, 4]))
        return f"place {n}", replace(file, places=places.reshape(file.places.shape))
    changed = list(stream)
    n = int(rng.integers(0, len(stream) - 1))
    if kind == "field":
        code, values = stream[n]
        bits = list(machine.commands[code].fields.values())
        if not bits:
            return None
        f = int(rng.integers(0, len(bits)))
        new = list(values)
        new[f] = min(max(0, new[f] + int(rng.choice([-16, -1, 1, 16]))), bits[f].most)
        changed[n] = code, tuple(new)
    elif kind == "order":
        changed[n], changed[n + 1] = changed[n + 1], changed[n]
    elif kind == "left out":
        del changed[n]
    else:
        changed.insert(n, changed[n])
    if changed == stream:
        return None
    name = machine.commands[stream[n][0]].name
    return f"{kind} {n} ({name})", replace(file, words=encode(machine, changed))


def still_right(file: CommandFile) -> bool:
    """Whether a program is right on three random inputs, which lie where its own claims say."""
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
