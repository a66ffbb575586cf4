"""Writes commands one after the other, each behind those that set the state it reads.

Takes: what each parameter of a command must be.  Leaves: (command, field values) in order. State is
followed as the meanings say it changes, so that nothing is set twice; of several commands that do
a contraction the one is taken that needs the fewest others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from csp_embed.errors import SpecError
from csp_embed.machine.commands.acts import Acts, Lanes, Limit, Load, Param, Rows
from csp_embed.machine.commands.reach import references
from csp_embed.machine.commands.spec import Command, CommandMachine
from csp_embed.machine.commands.transfers import Wants
from csp_embed.targets.commands.extents import Counts, axes_of
from csp_embed.targets.commands.plans import Known, Plan, Row, changes


@dataclass(frozen=True)
class Factor:
    """row: where its tile lies; name: what it holds, so that lanes of state are known again;
    counts: how much of each dimension was brought there."""

    row: int
    name: tuple[str, int]
    counts: Counts = ()


@dataclass
class Planner:
    """out: commands so far. numbers, lanes: state as the commands leave it."""

    machine: CommandMachine
    dims: Mapping[str, int]
    out: list[tuple[int, tuple[int, ...]]] = field(
        default_factory=list[tuple[int, tuple[int, ...]]]
    )
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    lanes: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])

    def __post_init__(self) -> None:
        self._index = {c.name: n for n, c in enumerate(self.machine.commands)}
        # Plans by what they depend on: most steps repeat one of a handful.
        self._known: dict[tuple[Any, ...], Known] = {}
        self._lane_states = [s.name for s in self.machine.state.values() if s.dims]
        self._axes = axes_of(self.machine)
        bases = [
            r.base for c in self.machine.commands if c.acts.kind in ("contract", "set")
            # Sums that stay in state are always the same tile.
            for r in references(c.acts) if r.memory not in self.machine.held
        ]  # fmt: skip
        self._row_states = {p.name for p in bases if p.kind == "state"}
        # Where rows themselves decide what is possible, plans cannot be reused for other rows.
        # A fixed row, or a field that not every row fits, makes plans depend on rows.
        rows = max(m.rows for m in self.machine.memories.values())
        setters = [(c, s.source) for c in self.machine.commands
                   for n, s in c.acts.settings.items() if n in self._row_states]  # fmt: skip
        self._rows_decide = any(p.kind == "const" for p in bases) or any(
            p.kind != "field" or c.fields[p.name].most // p.per < rows - 1 for c, p in setters
        )

    def copy(self, command: Command, wants: Wants, idle: Wants | None = None) -> None:
        """A copy, behind what sets its strides. idle: state that may have any value."""
        # Strides and counts that are state must be set before the copy.
        needed = {p.name: p.number(v) for p, v in idle or [] if p.name not in self.numbers}
        needed |= {p.name: _number(p, v, command) for p, v in wants if p.kind == "state"}
        for c, values in self._setters(needed, {}) or self._stuck(command, needed):
            self._put(c, values, {})
        self._put(command, self._fields(command, wants), {})

    def finish(self) -> None:
        """The machine's last command, where it has one."""
        # Machines without such a command need none.
        for c in self.machine.commands:
            if c.acts.kind == "finish":
                self._put(c, {}, {})
                return

    def contract(self, dst: int, lhs: Factor, rhs: Factor, keep: bool, counts: Counts = ()) -> None:
        """One step of sums at row `dst`: added to what is there, or anew. counts: how much of each
        dimension takes part, where that is not all."""
        # Rows in state, or rows that decide: the plan is made anew.
        if self._rows_decide or not self._row_states.isdisjoint(self.numbers):
            for c, values, loaded in self._planned(dst, lhs, rhs, keep, counts):
                self._put(c, values, loaded)
            return
        # Which commands are taken depends on other state alone: the same again with other rows.
        held = tuple((n == lhs.name, n == rhs.name)
                     for n in map(self.lanes.get, self._lane_states))  # fmt: skip
        key = (keep, held, tuple(self.numbers.items()), counts, lhs.counts, rhs.counts)
        known = self._known.get(key)
        if known is None:
            plan = self._planned(
                Row.of("dst", dst), replace(lhs, row=Row.of("lhs", lhs.row)),
                replace(rhs, row=Row.of("rhs", rhs.row)), keep, counts,
            )  # fmt: skip
            known = self._known[key] = Known.of(self.machine, plan)
        known.put(self.out, self.numbers, self.lanes, {"dst": dst, "lhs": lhs.row, "rhs": rhs.row},
                  {lhs.name[0]: lhs.name, rhs.name[0]: rhs.name})  # fmt: skip

    def _planned(self, dst: int, lhs: Factor, rhs: Factor, keep: bool, counts: Counts) -> Plan:
        """The contraction that needs the fewest other commands, behind these."""
        best: Plan | None = None
        for c in self.machine.commands:
            # A contraction that always begins anew cannot add to what is there.
            if c.acts.kind != "contract" or (c.acts.keeps is None and not keep):
                continue
            plan = self._contract(c, dst, {"lhs": lhs, "rhs": rhs}, keep, counts)
            if plan is not None and (best is None or _weight(plan) < _weight(best)):
                best = plan
        if best is None:
            raise SpecError("no contraction of the machine can be fed", where="instructions",
                            why="some state that it reads is set by no command",
                            hint="add a command whose meaning sets that state")  # fmt: skip
        return best

    def _contract(
        self, c: Command, dst: int, factors: Mapping[str, Factor], keep: bool, counts: Counts
    ) -> Plan | None:
        a: Acts = c.acts
        assert a.dst is not None
        sizes = {**self.dims, **dict(counts)}
        wants = bounds(a.loops, a.limits, sizes, self.dims) + at_row(a.dst, dst)
        wants += bounds(a.begins, (), sizes, self.dims)
        # The value that keeps sums, or the other one.
        if a.keeps is not None:
            wants.append((a.keeps, a.keeps_if if keep else 1 - a.keeps_if))
        held: dict[str, Factor] = {}
        loaded: dict[str, tuple[str, int]] = {}
        for source, factor in ((a.lhs, factors["lhs"]), (a.rhs, factors["rhs"])):
            if isinstance(source, Rows):
                wants += at_row(source, factor.row)
                continue
            assert isinstance(source, Lanes)
            # Lanes that the command itself loads need not be there before.
            own = a.loads.get(source.state)
            if own is None:
                held[source.state] = factor
            elif isinstance(own.source, Lanes):
                held[own.source.state] = factor
                loaded[source.state] = factor.name
            else:
                wants += at_row(own.source, factor.row) + self._filled(source.state, own, factor)
                loaded[source.state] = factor.name
        missing = {s: f for s, f in held.items() if self.lanes.get(s) != f.name}
        needed = {p.name: _number(p, v, c) for p, v in wants if p.kind == "state"}
        missing |= self._behind(missing)
        before = self._setters(needed, missing)
        if before is None:
            return None
        # Setters may load lanes on the way.
        plan = [(x, values, self._loaded(x, missing)) for x, values in before]
        return [*plan, (c, self._fields(c, wants), loaded)]

    def _behind(self, missing: Mapping[str, Factor]) -> dict[str, Factor]:
        """Lanes that must hold these factors first, since only they fill what is missing."""
        found: dict[str, Factor] = {}
        open_ = list(missing)
        while open_:
            state = open_.pop()
            factor = found.get(state) or missing[state]
            sources = [c.acts.loads[state].source for c in self.machine.commands
                       if c.acts.kind == "set" and state in c.acts.loads]  # fmt: skip
            if any(isinstance(s, Rows) for s in sources):
                continue
            for s in sources:
                # Two buffers may fill each other: each is asked once.
                if isinstance(s, Lanes) and s.state not in {*found, *missing}:
                    if self.lanes.get(s.state) != factor.name:
                        found[s.state] = factor
                        open_.append(s.state)
                    break
        return found

    def _loaded(self, c: Command, missing: Mapping[str, Factor]) -> dict[str, tuple[str, int]]:
        return {s: missing[s].name for s in c.acts.loads if s in missing}

    def _filled(self, state: str, load: Load, factor: Factor) -> Wants:
        """Bounds of a load's loops, whatever it calls them."""
        # What no contraction reads has dimensions all the same: those that it was declared with.
        axes = self._axes.get(state, self.machine.state[state].dims)
        counts = dict(factor.counts)
        full = {v: self.dims[d] for v, d in zip(load.at, axes, strict=True)}
        sizes = {v: counts.get(d, self.dims[d]) for v, d in zip(load.at, axes, strict=True)}
        return bounds(load.loops, load.limits, sizes, full)

    def _setters(
        self, needed: Mapping[str, int], missing: Mapping[str, Factor]
    ) -> list[tuple[Command, dict[str, int]]] | None:
        """Commands that bring state to these values; None where none can."""
        left = {n: v for n, v in needed.items() if self.numbers.get(n) != v}
        lanes = dict(missing)
        held = dict(self.lanes)
        found: list[tuple[Command, dict[str, int]]] = []
        # Greedy: the command that settles most goes first; plans are a few commands long.
        while left or lanes:
            best: tuple[int, Command, dict[str, int]] | None = None
            for c in self.machine.commands:
                if c.acts.kind != "set":
                    continue
                useful = sum(n in c.acts.settings for n in left) + sum(
                    s in c.acts.loads for s in lanes
                )
                # Lanes that nobody asked for are left as they are.
                if not useful or any(s not in lanes for s in c.acts.loads):
                    continue
                values = self._values(c, needed, lanes, held)
                if values is not None and (best is None or useful > best[0]):
                    best = useful, c, values
            if best is None:
                return None
            _, c, values = best
            found.append((c, values))
            left = {n: v for n, v in left.items() if n not in c.acts.settings}
            held |= {s: lanes[s].name for s in c.acts.loads}
            for gone in c.acts.unsets:
                held.pop(gone, None)
            lanes = {s: f for s, f in lanes.items() if s not in c.acts.loads}
        return found

    def _values(
        self, c: Command, needed: Mapping[str, int], lanes: Mapping[str, Factor],
        held: Mapping[str, tuple[str, int]],
    ) -> dict[str, int] | None:  # fmt: skip
        """Field values of a command that sets; None where it cannot set what is needed. held: what
        lanes of state hold before it."""
        values: dict[str, int] = {}
        for name, setting in c.acts.settings.items():
            # What is not needed stays as it is; unknown state gets its default.
            wanted = needed.get(name, self.numbers.get(name))
            if wanted is None:
                wanted = self.machine.state[name].default
            source = setting.source
            if source.kind == "const":
                if name in needed and needed[name] != source.value:
                    return None
            elif source.kind == "field":
                # A value that the field cannot hold: another command may.
                most = c.fields[source.name].most
                if wanted is not None and not (
                    source.holds(wanted) and source.number(wanted) <= most
                ):
                    return None
                values[source.name] = 0 if wanted is None else source.number(wanted)
            else:
                return None
        for name, load in c.acts.loads.items():
            if isinstance(load.source, Lanes):
                # Its own lanes go first where they are missing too.
                if held.get(load.source.state) != lanes[name].name:
                    return None
                continue
            # Loading reads addresses too, which must be settable here.
            wants = at_row(load.source, lanes[name].row) + self._filled(name, load, lanes[name])
            for p, v in wants:
                if p.kind == "field":
                    values[p.name] = p.number(v)
                elif p.kind == "state" and self.numbers.get(p.name) != p.number(v):
                    return None
        return values

    def _fields(self, c: Command, wants: Wants) -> dict[str, int]:
        values: dict[str, int] = {}
        for p, v in wants:
            if p.kind == "field":
                values[p.name] = _number(p, v, c)
            # A constant in the command must be what is needed.
            elif p.kind == "const" and p.value != v:
                raise SpecError(f"{c.name} has {p.value} where {v} is needed",
                                where=f"instructions.{c.name}",
                                hint="make it a field of the command")  # fmt: skip
        return values

    def _stuck(
        self, command: Command, needed: Mapping[str, int]
    ) -> list[tuple[Command, dict[str, int]]]:
        open_ = [n for n, v in needed.items() if self.numbers.get(n) != v]
        if not open_:
            return []
        raise SpecError(
            f"no command sets {open_[0]} to {needed[open_[0]]} for {command.name}",
            where=f"instructions.{command.name}", why="its field is missing or too narrow",
        hint=f"give a command a field that sets {open_[0]}, wide enough")  # fmt: skip

    def _put(
        self, c: Command, values: Mapping[str, int], loaded: Mapping[str, tuple[str, int]]
    ) -> None:
        self.out.append((self._index[c.name], tuple(values.get(n, 0) for n in c.fields)))
        # State follows the meanings, as the interpreter would see it.
        for (lanes, name), value in changes(c, values, loaded).items():
            state: dict[str, Any] = self.lanes if lanes else self.numbers
            if value is None:
                state.pop(name, None)
            else:
                state[name] = value


def _number(p: Param, value: int, c: Command) -> int:
    """Raises: SpecError where no number counts as the value."""
    if p.holds(value):
        return p.number(value)
    raise SpecError(f"{c.name} needs {p.name} to count {int(value)}",
                    where=f"instructions.{c.name}", why=f"it counts units of {p.times}",
                    hint="a smaller unit, or tiles of whole units")  # fmt: skip


def _weight(plan: Plan) -> tuple[int, int]:
    """Commands, then how often lanes are loaded."""
    return len(plan), sum(len(c.acts.loads) for c, _, _ in plan)


def bounds(
    loops: Mapping[str, Param], limits: tuple[Limit, ...], sizes: Mapping[str, int],
    full: Mapping[str, int],
) -> Wants:  # fmt: skip
    """What bounds must be for so many values of each loop to take part. full: all of them."""
    wants = [(p, sizes[v]) for v, p in loops.items() if p.kind != "const"]
    for limit in limits:
        if limit.bound.kind == "const":
            continue
        # A condition on several loops together cuts none of them: it lets all through.
        some = sizes if len(limit.steps) == 1 else full
        reach = 1 + sum(s * (some[v] - 1) for v, s in limit.steps.items())
        wants.append((limit.bound, reach))
    return wants


def at_row(rows: Rows, row: int) -> Wants:
    """A tile at a row, its rows one after the other."""
    return [(rows.base, row), *((p, 1) for p in rows.rows.values() if p.kind != "const")]
