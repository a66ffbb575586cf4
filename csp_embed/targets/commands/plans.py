"""Plans of a step, and the same plan again with other rows.

Takes: commands with their fields.  Leaves: a `Known`, in which rows are left open: a stream has
thousands of steps, and a handful of plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csp_embed.machine.commands.acts import Acts
from csp_embed.machine.commands.spec import Command, CommandMachine

# Commands with their fields, and the factors that lanes of state hold after each.
Plan = list[tuple[Command, dict[str, int], dict[str, tuple[str, int]]]]


# An int that remembers whose row it is, so that a plan can be filled with others.
class Row(int):
    """A row that says whose it is: "dst", "lhs" or "rhs"; or so many bytes of each, or so many of
    them a unit."""

    whose: str
    times: int
    per: int

    @staticmethod
    def of(whose: str, row: int, times: int = 1, per: int = 1) -> Row:
        made = Row(row)
        made.whose, made.times, made.per = whose, times, per
        return made

    def __mul__(self, other: int) -> Row:
        return Row.of(self.whose, int(self) * other, self.times * other, self.per)

    def __floordiv__(self, other: int) -> Row:
        return Row.of(self.whose, int(self) // other, self.times, self.per * other)


@dataclass(frozen=True)
class Known:
    """A plan with rows left open. commands: (number, values, (place, whose row, how often, of how
    many) that are open). numbers: state -> value, or whose row, how often, of how many.
    lanes: state -> role of the factor that it then holds; gone: state that is not set
    afterwards."""

    commands: tuple[tuple[int, tuple[int, ...], tuple[tuple[int, str, int, int], ...]], ...]
    numbers: Mapping[str, int | tuple[str, int, int]]
    lanes: Mapping[str, str]
    gone: tuple[tuple[bool, str], ...]

    @staticmethod
    def of(machine: CommandMachine, plan: Plan) -> Known:
        commands: list[tuple[int, tuple[int, ...], tuple[tuple[int, str, int, int], ...]]] = []
        after: dict[tuple[bool, str], Any] = {}
        for c, fields, loaded in plan:
            # Fields that are not named are 0.
            values = tuple(fields.get(n, 0) for n in c.fields)
            rows = tuple(
                (k, v.whose, v.times, v.per) for k, v in enumerate(values) if isinstance(v, Row)
            )
            commands.append((machine.index(c.name), values, rows))
            after |= changes(c, fields, loaded)
        left = {n: (v.whose, v.times, v.per) if isinstance(v, Row) else v
                for (lanes, n), v in after.items() if not lanes and v is not None}  # fmt: skip
        held = {n: v[0] for (lanes, n), v in after.items() if lanes and v is not None}
        # State that a command forgets must not be taken as known.
        gone = tuple(k for k, v in after.items() if v is None)
        return Known(tuple(commands), left, held, gone)

    def put(
        self, out: list[tuple[int, tuple[int, ...]]], numbers: dict[str, int],
        lanes: dict[str, tuple[str, int]], rows: Mapping[str, int],
        names: Mapping[str, tuple[str, int]],
    ) -> None:  # fmt: skip
        """Writes it to `out` with these rows and factors, and what it leaves to the states."""
        # The hot loop: a stream has as many of these as steps.
        for number, values, open_ in self.commands:
            if open_:
                filled = list(values)
                for k, whose, times, per in open_:
                    filled[k] = rows[whose] * times // per
                values = tuple(filled)
            out.append((number, values))
        for n, v in self.numbers.items():
            numbers[n] = rows[v[0]] * v[1] // v[2] if isinstance(v, tuple) else v
        for n, role in self.lanes.items():
            lanes[n] = names[role]
        for of_lanes, n in self.gone:
            (lanes if of_lanes else numbers).pop(n, None)


def changes(
    c: Command, values: Mapping[str, int], loaded: Mapping[str, tuple[str, int]]
) -> dict[tuple[bool, str], Any]:
    """(whether it has lanes, state) -> what a command leaves there; None: nothing that is known."""
    a: Acts = c.acts
    found: dict[tuple[bool, str], Any] = {}
    # In the order of the meaning: later settings win.
    for name, setting in a.settings.items():
        source = setting.source
        if source.kind == "const":
            found[False, name] = source.value
        else:
            given = values.get(source.name, 0)
            found[False, name] = source.counts(given)
    for name in a.loads:
        found[True, name] = loaded.get(name)
    for name in a.unsets:
        found[False, name] = found[True, name] = None
    return found
