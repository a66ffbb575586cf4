"""What a machine of `control: stream` adds to an `Isa`: commands, their words, and the state that
they leave for later ones.

The host writes every command out and only feeds them; they act in program order. A command is told
by the bits that it fixes, so several may share an opcode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from csp_embed.machine.commands.cycles import Cycles


@dataclass(frozen=True)
class Bits:
    """Bits lo .. lo+width-1 of a word. most: the greatest value that the machine accepts."""

    word: str
    lo: int
    width: int
    most: int


@dataclass(frozen=True)
class State:
    """What a command leaves. dims: of an array of lanes, or () for a number. default: what a
    program sets where it does not matter; None: it always matters. dtype: "int", "float32", or a
    lane's. sizes: of its dimensions."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    default: int | None
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class RowMemory:
    """An on-chip memory addressed by rows of lanes."""

    name: str
    # Of a row: what one address selects.
    rows: int
    lanes: int
    dtype: str


@dataclass(frozen=True)
class Command:
    """code: fixed bits with their values, by which the command is told. fields: the others.
    meaning: Python-syntax statements over fields, state, memories and HOST. acts: what it does, as
    `roles` reads it. cycles: how long it takes, where the file says so."""

    name: str
    code: tuple[tuple[Bits, int], ...]
    fields: Mapping[str, Bits]
    meaning: str
    acts: Any
    cycles: Cycles | None = None


@dataclass(frozen=True)
class CommandMachine:
    """words: name -> bits of each word of a command, in order. memories: those on the chip. align,
    host_bytes: of the host's memory. views: memory of the embedding search -> the rows that hold
    it. costs: cycles of a `step`, of a `command`, and `bytes_per_cycle`. held: state in which sums
    stay, as a memory of one tile."""

    words: Mapping[str, int]
    memories: Mapping[str, RowMemory]
    state: Mapping[str, State]
    commands: tuple[Command, ...]
    align: int
    host_bytes: int
    views: Mapping[str, str]
    # A step walks a whole tile's rows, a command is what issuing one costs beside.
    costs: Mapping[str, float]
    held: Mapping[str, RowMemory] = field(default_factory=dict[str, RowMemory])

    def rows_of(self, memory: str) -> RowMemory:
        """A memory of rows, or the state in which sums stay."""
        return self.held[memory] if memory in self.held else self.memories[memory]

    def command(self, name: str) -> Command:
        return next(c for c in self.commands if c.name == name)

    def index(self, name: str) -> int:
        return next(n for n, c in enumerate(self.commands) if c.name == name)
