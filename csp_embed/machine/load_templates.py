"""Reads a file of format 2 with `control: source` into an `Isa` whose `program` holds templates.

Takes: YAML as docs/machines.md describes it.  Leaves: an Isa, its meanings read and its templates
checked to name their operands. Every refusal is a SpecError with file:line.
"""

from __future__ import annotations

import string
from collections.abc import Mapping

from csp_embed.machine.meaning import MeaningError
from csp_embed.machine.sections import read_dims
from csp_embed.machine.spec import Field, Instruction, Isa, Limits, MapOp, Memory, Operand
from csp_embed.machine.template_meaning import read
from csp_embed.machine.templates import Cache, RegisterFile, Slot, SourceMachine, Template
from csp_embed.machine.tree import Item

FORMAT = "csp-embed-isa/2"
CONFIG = "fixed"  # a CPU has one size; what a user may choose comes with scalable machines
_TYPES = {"int8": 1, "uint8": 1, "int16": 2, "int32": 4}
_REQUIRED = (
    "format", "name", "control", "order", "dims", "registers", "memories", "code", "instructions",
)  # fmt: skip


def read_source_machine(root: Item, spec_text: str) -> Isa:
    """The machine of a format-2 file. Raises: SpecError."""
    table = root.table(_REQUIRED, ("source",))
    _word(table["control"], "source", "C loops around a template")
    _word(table["order"], "program", "statements of C run in program order")
    dims = read_dims(table["dims"], {})
    files = {k: _file(k, v) for k, v in table["registers"].entries().items()}
    memories, file_of, host = _memories(table["memories"], dims, files)
    align, caches = _host(host)
    lanes = {m.name: m.lanes for m in memories}
    templates = tuple(
        _template(name, item, memories, lanes, dims)
        for name, item in table["instructions"].entries().items()
    )
    code = table["code"].table(["headers", "flags", "cpu_features"], ["declarations"])
    program = SourceMachine(
        templates=templates,
        files=files,
        file_of=file_of,
        caches=caches,
        headers=tuple(i.text() for i in code["headers"].items()),
        flags=tuple(_flag(i) for i in code["flags"].items()),
        features=tuple(i.text() for i in code["cpu_features"].items()),
        align=align,
        declarations=code["declarations"].text() if "declarations" in code else "",
    )
    places = {k: v.where for k, v in table.items()}
    for section in ("memories", "instructions"):
        for name in table[section].entries():
            places[f"{section}.{name}"] = table[section].key_where(name)
    return Isa(
        name=table["name"].word(),
        config={},
        config_name=CONFIG,
        dims=dims,
        memories=memories,
        uop_memory="",
        uop_fields=(),
        instructions=_instructions(templates, memories),
        queues=("program",),
        limits=Limits(dram_bits=48),
        costs={},
        source=table["source"].text() if "source" in table else "",
        spec_text=spec_text,
        places=places,
        program=program,
    )


def _word(item: Item, known: str, what: str) -> None:
    if item.text() != known:
        raise item.error(
            f"'{item.text()}' is not handled", f"format 2 reads `{known}` today: {what}",
            f"write `{known}`; other machines are files of csp-embed-isa/1",
        )  # fmt: skip


def _flag(item: Item) -> str:
    # What a spec says is given to a compiler: options alone, no files and no plug-ins.
    if not item.text().startswith("-m"):
        raise item.error(
            f"'{item.text()}' is no machine option", "flags of a spec choose instructions: -m…",
            "-mavx2",
        )  # fmt: skip
    return item.text()


def _file(name: str, item: Item) -> RegisterFile:
    table = item.table(["count", "type", "allocated_by"])
    if table["allocated_by"].text() != "compiler":
        raise table["allocated_by"].error(
            f"'{table['allocated_by'].text()}' is not handled", "the C compiler allocates registers"
        )
    count = table["count"].integer({})
    if count < 3:
        raise table["count"].error(f"{count} registers", "a step takes two factors and a sum")
    return RegisterFile(name, count, table["type"].word())


def _memories(
    item: Item, dims: Mapping[str, int], files: Mapping[str, RegisterFile]
) -> tuple[tuple[Memory, ...], dict[str, str], Item]:
    found: list[Memory] = []
    file_of: dict[str, str] = {}
    host: Item | None = None
    for name, entry in item.entries().items():
        kind = entry.entries().get("kind")
        if kind is None or kind.text() not in ("registers", "host"):
            raise entry.error("`kind` is missing", "a memory is `kind: registers` or `kind: host`")
        if kind.text() == "host":
            if name != "HOST" or host is not None:
                raise entry.error(f"a host memory called {name}", "there is one, called HOST")
            host = entry
            continue
        table = entry.table(["kind", "file", "lanes", "type"])
        if table["file"].text() not in files:
            raise table["file"].error(
                f"unknown register file '{table['file'].text()}'", f"known: {', '.join(files)}"
            )
        if table["type"].text() not in _TYPES:
            raise table["type"].error(
                f"unknown type '{table['type'].text()}'", f"types are {', '.join(_TYPES)}"
            )
        lanes = tuple(i.word() for i in table["lanes"].items())
        for n, lane in enumerate(lanes):
            if lane not in dims:
                raise (
                    table["lanes"]
                    .items()[n]
                    .error(f"unknown dimension '{lane}'", f"dims are {', '.join(dims)}")
                )
        size = _TYPES[table["type"].text()]
        for lane in lanes:
            size *= dims[lane]
        count = files[table["file"].text()].count
        found.append(
            Memory(
                name=name, id=len(found), lanes=lanes, dtype=table["type"].text(),
                dram_dtype=table["type"].text(), depth=count, portable_depth=count,
                elem_bytes=size, load_queue="program", store_queue="program",
            )
        )  # fmt: skip
        file_of[name] = table["file"].text()
    if host is None:
        raise item.error("no host memory", "operands lie in memory: HOST: {kind: host, …}")
    return tuple(found), file_of, host


def _host(item: Item) -> tuple[int, tuple[Cache, ...]]:
    table = item.table(["kind", "align", "caches"])
    align = table["align"].integer({})
    if align < 1 or align & (align - 1):
        raise table["align"].error(f"alignment {align}", "a power of two is needed", "64")
    caches: list[Cache] = []
    for entry in table["caches"].items():
        given = entry.table(["bytes", "line", "bytes_per_cycle"])
        caches.append(
            Cache(
                given["bytes"].integer({}), given["line"].integer({}),
                given["bytes_per_cycle"].number(),
            )
        )  # fmt: skip
    if not caches:
        raise table["caches"].error("no cache is stated", "tiles are sized for one")
    return align, tuple(caches)


def _template(
    name: str,
    item: Item,
    memories: tuple[Memory, ...],
    lanes: Mapping[str, tuple[str, ...]],
    dims: Mapping[str, int],
) -> Template:
    table = item.table(["operands", "meaning", "template", "cost"])
    slots = {k: _slot(k, v, lanes) for k, v in table["operands"].entries().items()}
    text = table["template"].text()
    try:
        named = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise table["template"].error("the template cannot be read", str(error)) from error
    if named != set(slots):
        odd = min(named ^ set(slots))
        raise table["template"].error(
            f"operand '{odd}' is named by {'the template' if odd in named else 'the list'} alone",
            "each operand stands in braces in the template, and in `operands`",
        )
    try:
        kind, roles, function = read(table["meaning"].text(), slots, lanes, dims)
    except MeaningError as error:
        raise table["meaning"].error(str(error), "docs/machines.md lists the meanings") from error
    cost = table["cost"].table(["per_cycle", "latency"])
    rate, latency = cost["per_cycle"].number(), cost["latency"].number()
    if rate <= 0 or latency < 0:
        raise table["cost"].error("a cost is not above 0", "cycles are divided by it")
    return Template(
        name, kind, tuple(slots.values()), roles, table["meaning"].text(), text, rate, latency,
        function,
    )  # fmt: skip


def _slot(name: str, item: Item, lanes: Mapping[str, tuple[str, ...]]) -> Slot:
    word, _, dtype = item.text().partition(" ")
    if word == "number" and not dtype:
        return Slot(name, "number")
    if word == "HOST" and dtype in _TYPES:
        return Slot(name, "address", "HOST", dtype)
    if word in lanes and not dtype:
        return Slot(name, "register", word)
    raise item.error(
        f"'{item.text()}' is no operand",
        f"it is a register memory ({', '.join(lanes)}), `HOST type`, or `number`",
    )


def _instructions(
    templates: tuple[Template, ...], memories: tuple[Memory, ...]
) -> tuple[Instruction, ...]:
    """The templates as the embedding search looks at instructions: each contraction, and all
    elementwise ones together as one map with an immediate of 32 bits."""
    lanes = {m.name: m.lanes for m in memories}

    def operand(t: Template, role: str, part: str) -> Operand:
        memory = t.slot(part).memory
        return Operand(role, memory, lanes[memory], "", "", "")

    found = [
        Instruction(
            name=t.name, opcode=n, kind="contract", fields=(), roles={}, queue="program",
            statement=t.meaning.strip(), meaning=t.meaning,
            operands=tuple(operand(t, role, role) for role in ("dst", "lhs", "rhs")),
        )
        for n, t in enumerate(templates) if t.kind == "contract"
    ]  # fmt: skip
    maps = [t for t in templates if t.kind == "map"]
    if maps:
        field = Field("imm", 0, 32, signed=True)
        found.append(
            Instruction(
                name="MAP", opcode=len(templates), kind="map", fields=(field,),
                roles={"imm": "imm"}, queue="program", statement=maps[0].meaning.strip(),
                operands=(operand(maps[0], "dst", "dst"), operand(maps[0], "lhs", "other")),
                ops=tuple(MapOp(t.name, n, t.function) for n, t in enumerate(maps)),
            )
        )  # fmt: skip
    return tuple(found)
