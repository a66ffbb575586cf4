"""Commands of a stream machine to words and back.

Words are uint64[n, number of words]. A command is told by its fixed bits; bits that neither code
nor fields name are 0 in what is written, and refused in what is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import EncodeError
from csp_embed.machine.commands.spec import Bits, Command, CommandMachine

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Decoded:
    """code: index of each command; fields: command name -> field -> values of its occurrences;
    place: number of the occurrence of command n among its kind."""

    code: NDArray[np.int64]
    place: NDArray[np.int64]
    fields: Mapping[str, Mapping[str, NDArray[np.int64]]]

    def values(self, machine: CommandMachine, n: int) -> dict[str, int]:
        """The fields of command n."""
        columns = self.fields[machine.commands[int(self.code[n])].name]
        at = int(self.place[n])
        return {k: int(v[at]) for k, v in columns.items()}


def encode(machine: CommandMachine, stream: Sequence[tuple[int, tuple[int, ...]]]) -> Words:
    """The words of (command index, field values in the command's order).

    Raises: EncodeError naming command, field, value and range where a value does not fit.
    """
    words = np.zeros((len(stream), len(machine.words)), np.uint64)
    # Column of a word, as a command's first axis is its words in the spec's order.
    order = {name: n for n, name in enumerate(machine.words)}
    code = np.array([c for c, _ in stream], np.int64)
    # By kind, not by command: streams have up to millions of commands, kinds are a dozen.
    for index, command in enumerate(machine.commands):
        at = np.flatnonzero(code == index)
        if not len(at):
            continue
        part = np.zeros((len(at), len(machine.words)), np.uint64)
        for bits, value in command.code:
            part[:, order[bits.word]] |= np.uint64(value << bits.lo)
        values = np.array([stream[n][1] for n in at.tolist()], np.int64).reshape(len(at), -1)
        for k, (name, bits) in enumerate(command.fields.items()):
            column = values[:, k]
            # `most` may be below what the bits hold; a negative one would set bits of its
            # neighbours.
            bad = np.flatnonzero((column < 0) | (column > bits.most))
            if len(bad):
                first = int(bad[0])
                raise EncodeError(
                    f"command {int(at[first])} ({command.name}): {name} = {int(column[first])}"
                    " does not fit",
                    why=f"it holds 0..{bits.most}",
                    hint="a smaller tile, or a wider field in the specification",
                )
            part[:, order[bits.word]] |= column.astype(np.uint64) << np.uint64(bits.lo)
        words[at] = part
    return words


def decode(machine: CommandMachine, words: Words) -> Decoded:
    """Raises: EncodeError with the number of the first command that none of the machine's is."""
    words = np.asarray(words, np.uint64)
    if words.ndim != 2 or words.shape[1] != len(machine.words):
        raise EncodeError(
            f"commands have shape {words.shape}",
            why=f"[n, {len(machine.words)}] is expected",
            hint="`encode` of this module makes such words",
        )
    order = {name: n for n, name in enumerate(machine.words)}
    code = np.full(len(words), -1, np.int64)
    for index, command in enumerate(machine.commands):
        fits = np.ones(len(words), bool)
        for bits, value in command.code:
            fits &= _get(words, order, bits) == value
        # Bits that nothing names are 0.
        for word, column in order.items():
            rest = np.uint64(_unnamed(command, word))
            fits &= words[:, column] & rest == 0
        # Commands are disjoint (load.py), so the first that fits is the only one.
        code[np.flatnonzero(fits & (code < 0))] = index
    odd = np.flatnonzero(code < 0)
    if len(odd):
        n = int(odd[0])
        shown = " ".join(f"{w}={int(v):#x}" for w, v in zip(machine.words, words[n], strict=True))
        raise EncodeError(
            f"command {n} is unknown: {shown}",
            hint="compare its fixed bits with `code` of the commands in the specification",
        )
    place = np.zeros(len(words), np.int64)
    fields: dict[str, dict[str, NDArray[np.int64]]] = {}
    # The second pass sorts occurrences by kind: columns are what checks and simulators walk.
    for index, command in enumerate(machine.commands):
        at = np.flatnonzero(code == index)
        place[at] = np.arange(len(at))
        part = words[at]
        fields[command.name] = {k: _get(part, order, b) for k, b in command.fields.items()}
    return Decoded(code, place, fields)


def _get(words: Words, order: Mapping[str, int], bits: Bits) -> NDArray[np.int64]:
    mask = np.uint64((1 << bits.width) - 1)
    # Shifted before the mask: fields up to 62 bits stay non-negative in int64.
    return (words[:, order[bits.word]] >> np.uint64(bits.lo) & mask).astype(np.int64)


def _unnamed(command: Command, word: str) -> int:
    named = 0
    for bits in (*(b for b, _ in command.code), *command.fields.values()):
        if bits.word == word:
            named |= ((1 << bits.width) - 1) << bits.lo
    # Above the word's own width nothing may stand either.
    return ~named & ((1 << 64) - 1)


def line(machine: CommandMachine, decoded: Decoded, n: int) -> str:
    """One command as text."""
    command = machine.commands[int(decoded.code[n])]
    values = decoded.values(machine, n)
    # Addresses read better in hexadecimal, small counts in decimal.
    shown = " ".join(f"{k}={v:#x}" if v > 9 else f"{k}={v}" for k, v in values.items())
    return f"{n:6d}  {command.name:20s} {shown}".rstrip()
