"""Reads a file of format 2 with `control: stream` into an `Isa` whose `commands` are written out.

Takes: YAML as docs/commands.md describes it.  Leaves: an Isa; meanings are read, bits disjoint, no
two commands alike. What the embedding search sees as memories are the tiles of the contraction.
Every refusal is a SpecError with file:line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from csp_embed.machine.commands.acts import Acts
from csp_embed.machine.commands.code import code_of
from csp_embed.machine.commands.code_lines import Names
from csp_embed.machine.commands.cycles import Cycles
from csp_embed.machine.commands.roles import acts_of
from csp_embed.machine.commands.spec import Bits, Command, CommandMachine, RowMemory, State
from csp_embed.machine.commands.tiles import as_instructions
from csp_embed.machine.reading.meaning import MeaningError
from csp_embed.machine.reading.sections import read_dims
from csp_embed.machine.reading.tree import NAMES, Item, is_name
from csp_embed.machine.spec import Isa, Limits

CONFIG = "fixed"
_TYPES = ("int8", "uint8", "int16", "int32")
_REQUIRED = ("format", "name", "control", "order", "dims", "words", "memories", "instructions")
_OPTIONAL = ("source", "state", "field_groups", "costs")
# WORD, WORD[from:to] (end excluded), and optionally the greatest value that is accepted.
_BITS = re.compile(r"(\w+)(?:\[(\d+):(\d+)\])?(?:\s*<=\s*(\d+))?$")
_COSTS = ("step", "command", "bytes_per_cycle")


def read_command_machine(root: Item, spec_text: str) -> Isa:
    """The machine of a format-2 file whose commands are a stream. Raises: SpecError."""
    table = root.table(_REQUIRED, _OPTIONAL)
    if table["order"].text() != "program":
        raise table["order"].error(
            f"'{table['order'].text()}' is not handled", "commands act in program order", "program"
        )
    # No sizes: a machine of commands has one configuration, so nothing can be named in numbers.
    dims = read_dims(table["dims"], {})
    words = _words(table["words"])
    memories, host = _memories(table["memories"])
    state = _states(table["state"], dims) if "state" in table else {}
    groups = table["field_groups"].entries() if "field_groups" in table else {}
    commands = tuple(
        command
        for name, item in table["instructions"].entries().items()
        for command in _commands(name, item, words, groups, memories, state)
    )
    # After all are read: only pairs can be told to be alike.
    _apart(commands, table["instructions"])
    # A machine that says nothing is ranked by steps and bytes alone.
    costs = {"step": 1.0, "command": 1.0, "bytes_per_cycle": 8.0}
    if "costs" in table:
        costs |= {k: _cost(v) for k, v in table["costs"].table((), _COSTS).items()}
    places = {k: v.where for k, v in table.items()}
    for section in ("memories", "instructions"):
        for name in table[section].entries():
            # Where a line can be named in a later refusal (compilable, `isa check`), which has no
            # YAML any more.
            places[f"{section}.{name}"] = table[section].key_where(name)
    # The embedding search knows memories of elements, not rows: an element is a contraction's tile.
    try:
        held = _held(commands, state)
        instructions, tiles, views = as_instructions(commands, memories | held, dims)
    except MeaningError as error:
        raise table["instructions"].error(
            str(error), "docs/commands.md lists what commands do"
        ) from error
    return Isa(
        name=table["name"].word(), config={}, config_name=CONFIG, dims=dims, memories=tiles,
        uop_memory="", uop_fields=(), instructions=instructions, queues=("program",),
        limits=Limits(dram_bits=48), costs={},
        source=table["source"].text() if "source" in table else "", spec_text=spec_text,
        places=places,
        commands=CommandMachine(
            words=words, memories=memories, state=state, commands=commands, align=host[0],
            host_bytes=host[1], views=views, costs=costs, held=held,
        ),
    )  # fmt: skip


def _held(commands: tuple[Command, ...], state: Mapping[str, State]) -> dict[str, RowMemory]:
    """State in which sums stay, as memories of one tile."""
    found: dict[str, RowMemory] = {}
    for c in commands:
        if c.acts.kind == "contract" and c.acts.dst.memory in state:
            s = state[c.acts.dst.memory]
            found[s.name] = RowMemory(s.name, math.prod(s.sizes[:-1]), s.sizes[-1], s.dtype)
    return found


def _cost(item: Item) -> float:
    if item.number() <= 0:
        raise item.error("a cost is not above 0", "cycles are divided by it")
    return item.number()


def _words(item: Item) -> dict[str, int]:
    found = {k: v.integer({}) for k, v in item.entries().items()}
    for name, bits in found.items():
        if not 1 <= bits <= 64:
            # Streams are written as uint64.
            raise item.error(f"word '{name}' has {bits} bits", "1 to 64 are possible")
    if not found:
        raise item.error("a command has no word", "name the words and their bits")
    return found


def _memories(item: Item) -> tuple[dict[str, RowMemory], tuple[int, int]]:
    found: dict[str, RowMemory] = {}
    host: tuple[int, int] | None = None
    for name, entry in item.entries().items():
        if not is_name(name):
            raise entry.error(f"'{name}' is not a name", NAMES)
        kind = entry.entries().get("kind")
        if kind is None or kind.text() not in ("rows", "host"):
            raise entry.error("`kind` is missing", "a memory is `kind: rows` or `kind: host`")
        if kind.text() == "host":
            if name != "HOST" or host is not None:
                raise entry.error(f"a host memory called {name}", "there is one, called HOST")
            table = entry.table(["kind", "align", "bytes"])
            align = table["align"].integer({})
            if align < 1 or align & (align - 1):
                raise table["align"].error(f"alignment {align}", "a power of two is needed", "64")
            host = align, table["bytes"].integer({})
            continue
        table = entry.table(["kind", "rows", "lanes", "type"])
        if table["type"].text() not in _TYPES:
            raise table["type"].error(
                f"unknown type '{table['type'].text()}'", f"types are {', '.join(_TYPES)}"
            )
        rows, lanes = table["rows"].integer({}), table["lanes"].integer({})
        # 4096 lanes: the interpreter's key of a place has 13 bits for them; rows stay simulable.
        if not (1 <= rows <= 1 << 24 and 1 <= lanes <= 1 << 12):
            raise entry.error(f"{rows} rows of {lanes} lanes", "1 to 2^24 rows of 1 to 4096 lanes")
        found[name] = RowMemory(name, rows, lanes, table["type"].text())
    if host is None:
        raise item.error("no host memory", "operands lie in memory: HOST: {kind: host, …}")
    return found, host


def _states(item: Item, dims: Mapping[str, int]) -> dict[str, State]:
    found: dict[str, State] = {}
    for name, entry in item.entries().items():
        if not is_name(name):
            raise entry.error(f"'{name}' is not a name", NAMES)
        table = entry.table((), ("dims", "type", "default"))
        over = tuple(i.word() for i in table["dims"].items()) if "dims" in table else ()
        for d in over:
            if d not in dims:
                raise table["dims"].error(f"unknown dimension '{d}'", f"dims are {', '.join(dims)}")
        # Lanes hold what memories hold; a number is a size, an address or a scale.
        dtype = table["type"].text() if "type" in table else "int"
        known = _TYPES if over else ("int", "float32")
        if dtype not in known:
            raise entry.error(f"unknown type '{dtype}'", f"types are {', '.join(known)}")
        default = table["default"].integer({}) if "default" in table else None
        found[name] = State(name, over, dtype, default, tuple(dims[d] for d in over))
    return found


def _commands(
    name: str,
    item: Item,
    words: Mapping[str, int],
    groups: Mapping[str, Item],
    memories: Mapping[str, RowMemory],
    state: Mapping[str, State],
) -> Iterator[Command]:
    """One command, or one for every value of its `each`."""
    # `each` writes a family of commands that differ in numbers alone.
    table = item.table(["code", "fields", "meaning"], ["each", "cycles", "beside"])
    for chosen in _each(table.get("each")):
        own = _filled(name, chosen)
        if not is_name(own):
            raise item.error(f"'{own}' is not a name", NAMES)
        code = tuple(_fixed(k, v, words, chosen) for k, v in table["code"].entries().items())
        fields = _fields(table["fields"], words, groups)
        _disjoint(item, code, fields)
        text = _filled(table["meaning"].text(), chosen)
        arrays = [s.name for s in state.values() if s.dims]
        numbers = [s.name for s in state.values() if not s.dims]
        shapes = {s.name: s.sizes for s in state.values() if s.dims}
        names = Names(list(memories), arrays, numbers, list(fields), shapes)
        try:
            # Read for its refusals alone: a meaning that no function can be made of is no meaning.
            code_of(text, names)
            acts = acts_of(text, names)
        except MeaningError as error:
            line = f"line {error.line} of the meaning: {error}"
            raise table["meaning"].error(line, "docs/commands.md lists the meanings") from error
        yield Command(own, code, fields, text, acts, _cycles(table, fields, item))


def _cycles(table: Mapping[str, Item], fields: Mapping[str, Bits], item: Item) -> Cycles | None:
    """Raises: SpecError where it is no expression over the command's fields."""
    beside = "beside" in table and table["beside"].flag()
    if "cycles" not in table:
        if beside:
            raise item.error("`beside` without `cycles`", "it says what these cycles overlap",
                             "cycles: 0")  # fmt: skip
        return None
    found = Cycles(table["cycles"].text(), beside)
    why = found.refusal(fields)
    if why:
        raise table["cycles"].error(f"cycles: {why}", "a number, or an expression over fields",
                                    "cycles: max(rows, 4)")  # fmt: skip
    return found


def _each(item: Item | None) -> list[dict[str, int]]:
    if item is None:
        return [{}]
    lists = {k: [i.integer({}) for i in v.items()] for k, v in item.entries().items()}
    counts = {len(v) for v in lists.values()}
    if len(counts) != 1 or counts == {0}:
        raise item.error("lists of `each` differ in length", "one entry is written for each value")
    return [{k: v[n] for k, v in lists.items()} for n in range(counts.pop())]


def _filled(text: str, chosen: Mapping[str, int]) -> str:
    for name, value in chosen.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _bits(text: str, item: Item, words: Mapping[str, int]) -> Bits:
    found = _BITS.match(text.strip())
    if found is None or found[1] not in words:
        raise item.error(
            f"'{text}' names no bits", f"write WORD[from:to] <= most; words: {', '.join(words)}"
        )
    word = found[1]
    # The whole word where no bits are named.
    lo, end = (0, words[word]) if found[2] is None else (int(found[2]), int(found[3]))
    if not 0 <= lo < end <= words[word]:
        raise item.error(f"bits {lo}..{end - 1} of {word}", f"it has bits 0..{words[word] - 1}")
    # A machine may accept less than its bits hold, and says so by <=.
    most = (1 << (end - lo)) - 1
    if found[4] is not None:
        if int(found[4]) > most:
            raise item.error(f"{found[4]} in {end - lo} bits", f"they hold 0..{most}")
        most = int(found[4])
    return Bits(word, lo, end - lo, most)


def _fixed(
    key: str, item: Item, words: Mapping[str, int], chosen: Mapping[str, int]
) -> tuple[Bits, int]:
    bits, value = _bits(key, item, words), item.integer(chosen)
    if not 0 <= value < 1 << bits.width:
        raise item.error(f"{value} in {bits.width} bits", f"they hold 0..{(1 << bits.width) - 1}")
    return bits, value


def _fields(item: Item, words: Mapping[str, int], groups: Mapping[str, Item]) -> dict[str, Bits]:
    found: dict[str, Bits] = {}
    for name, entry in item.entries().items():
        if name == "group":
            if entry.text() not in groups:
                raise entry.error(
                    f"unknown field group '{entry.text()}'",
                    f"groups: {', '.join(groups) or 'none'}",
                )
            # Groups hold fields only: a group in a group would have no end to look for.
            found |= _fields(groups[entry.text()], words, {})
            continue
        if not is_name(name):
            raise entry.error(f"'{name}' is not a name", NAMES)
        found[name] = _bits(entry.text(), entry, words)
        # Field values travel as int64, and an address plus its loop must not overflow.
        if found[name].width > 62:
            raise entry.error(f"field '{name}' has {found[name].width} bits", "62 are handled")
    return found


def _disjoint(item: Item, code: tuple[tuple[Bits, int], ...], fields: Mapping[str, Bits]) -> None:
    taken: dict[str, int] = {}
    # Fixed bits and fields together: both claim bits of the same word.
    for name, bits in (*((b.word, b) for b, _ in code), *fields.items()):
        mask = ((1 << bits.width) - 1) << bits.lo
        if taken.get(bits.word, 0) & mask:
            raise item.error(
                f"'{name}' overlaps other bits of {bits.word}", "code and fields are disjoint"
            )
        taken[bits.word] = taken.get(bits.word, 0) | mask


def _apart(commands: tuple[Command, ...], item: Item) -> None:
    """No words are two commands' alike: a stream has one reading."""
    # Names are looked up in dictionaries by every later stage.
    names = [c.name for c in commands]
    for name in names:
        if names.count(name) > 1:
            raise item.error(f"command '{name}' stands twice", "names must differ")
    for n, a in enumerate(commands):
        for b in commands[:n]:
            # Quadratic in commands, of which machines have some dozens.
            if not _differ(a, b):
                raise item.error(
                    f"{b.name} and {a.name} can have the same words",
                    "a command is told by its fixed bits",
                    "fix a bit in both, with different values",
                )


def _differ(a: Command, b: Command) -> bool:
    """Whether some bit is fixed in both, differently: bits that a command names nowhere are 0."""
    fixed: list[dict[str, tuple[int, int]]] = []
    for c in (a, b):
        known: dict[str, tuple[int, int]] = {}
        # Words that neither fixes are free or 0 in both, and cannot tell them apart.
        for word in {x.word for x, _ in (*a.code, *b.code)}:
            free = sum(((1 << f.width) - 1) << f.lo for f in c.fields.values() if f.word == word)
            value = sum(v << x.lo for x, v in c.code if x.word == word)
            # All that is no field is fixed: bits that nothing names are 0 (words.py refuses
            # others).
            known[word] = (~free, value)
        fixed.append(known)
    return any(
        fixed[0][w][0] & fixed[1][w][0] & (fixed[0][w][1] ^ fixed[1][w][1]) for w in fixed[0]
    )


__all__ = ["CONFIG", "Acts", "read_command_machine"]
