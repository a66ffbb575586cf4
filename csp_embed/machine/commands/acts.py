"""What a command does, as values: addresses, rows, lanes, bytes in host memory, and the act itself.

Takes: what `roles` read from a meaning.  Leaves: `Acts`, which rules, tiles and transfers ask.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
# An address may be base + number or name, times a loop's variable: what fields can express.
class Param:
    """kind: "const" (value), "field" or "state" (name); what counts is the name's number // per *
    times."""

    kind: str
    name: str = ""
    value: int = 0
    # Byte addresses of rows: as many bytes as a row has.
    per: int = 1
    # Addresses in units: as many bytes as a unit has.
    times: int = 1

    def number(self, value: int) -> int:
        """What the name must hold to count as `value`, a multiple of `times`."""
        value = value if self.times == 1 else value // self.times
        return value if self.per == 1 else value * self.per

    def holds(self, value: int) -> bool:
        """Whether some number counts as `value`."""
        return value % self.times == 0

    def counts(self, number: int) -> int:
        """What a number in the name counts as."""
        number = number if self.per == 1 else number // self.per
        return number if self.times == 1 else number * self.times


@dataclass(frozen=True)
class Rows:
    """A reference to rows of a memory: base + sum of rows[v] * v, lane sum of lanes[v] * v."""

    memory: str
    base: Param
    rows: Mapping[str, Param]
    lanes: Mapping[str, int]


@dataclass(frozen=True)
class Lanes:
    """A reference to lanes of state."""

    state: str
    at: tuple[str, ...]


@dataclass(frozen=True)
class Bytes:
    # Steps are bytes, whatever the type of a value: as the machine's addresses count.
    """A reference to HOST: byte base + sum of steps[v] * v holds the first byte of a value."""

    dtype: str
    base: Param
    steps: Mapping[str, Param]


@dataclass(frozen=True)
class Limit:
    """sum of steps[v] * v < bound."""

    steps: Mapping[str, int]
    bound: Param


@dataclass(frozen=True)
# A scale comes as the bits of a float32 in an integer field.
class Setting:
    """A number of state becomes source. bits: of a float32."""

    source: Param
    bits: bool = False


@dataclass(frozen=True)
class Load:
    """Lanes of state are filled from rows or from other state. at: loop names by lane dimension
    of the state that is filled. zeroed: what limits leave out is 0; else it stays as it was."""

    # Other state: preloaded weights may wait in one array and be used from another.
    source: Rows | Lanes
    at: tuple[str, ...]
    loops: Mapping[str, Param]
    limits: tuple[Limit, ...]
    zeroed: bool = False


@dataclass(frozen=True)
class Acts:
    """See the module's text. dst: the rows written (of a copy_out: read). lhs, rhs: factors. host:
    of a copy. loops: variable -> its bound; limits: guards. adds: a copy_in that adds. keeps: the
    parameter that is 0 where a contraction begins anew (keeps_if: the value that keeps what is
    there); begins: bounds of the loops that set sums to 0 then. to: of a drain, the rows that the
    sums in `dst` go to, at: its loop names by lane dimension of the sums. value: of a
    copy_out, over `acc`."""

    kind: str
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    loads: Mapping[str, Load] = field(default_factory=dict[str, Load])
    unsets: tuple[str, ...] = ()
    dst: Rows | None = None
    lhs: Rows | Lanes | None = None
    rhs: Rows | Lanes | None = None
    host: Bytes | None = None
    loops: Mapping[str, Param] = field(default_factory=dict[str, Param])
    limits: tuple[Limit, ...] = ()
    adds: bool = False
    # None: it always adds, and `keeps_if` means nothing.
    keeps: Param | None = None
    keeps_if: int = 1
    begins: Mapping[str, Param] = field(default_factory=dict[str, Param])
    to: Rows | None = None
    at: tuple[str, ...] = ()
    value: ast.expr | None = None
