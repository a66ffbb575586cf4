"""Reads a file of format 2 with `control: source` into an `Isa` whose `program` holds templates.

Takes: YAML as docs/machines.md describes it.  Leaves: an Isa, its meanings read and its templates
checked to name their operands. Every refusal is a SpecError with file:line.
"""

from __future__ import annotations

import ast
import shlex
import string
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from csp_embed.errors import SpecError
from csp_embed.machine import config as configuration
from csp_embed.machine.reading.meaning import MeaningError
from csp_embed.machine.reading.sections import read_dims
from csp_embed.machine.reading.tree import Item
from csp_embed.machine.spec import Field, Instruction, Isa, Limits, MapOp, Memory, Operand
from csp_embed.machine.templates.meaning import read
from csp_embed.machine.templates.spec import (
    Cache,
    RegisterFile,
    Runner,
    Slot,
    SourceMachine,
    Template,
)

FORMAT = "csp-embed-isa/2"
CONFIG = "fixed"  # of a machine of one size
_TYPES = {"int8": 1, "uint8": 1, "int16": 2, "int32": 4}
_REQUIRED = (
    "format", "name", "control", "order", "dims", "registers", "memories", "code", "instructions",
)  # fmt: skip


def read_source_machine(
    root: Item,
    spec_text: str,
    config: str | Path | Mapping[str, Any] | None = None,
    folder: Traversable | Path | None = None,
) -> Isa:
    """The machine of a format-2 file. config, folder: as `config.choose` takes them.

    Raises: SpecError."""
    table = root.table(_REQUIRED, ("source", "configuration", "rules", "runner"))
    config_name, sizes = _sizes(table, root, config, folder)
    _word(table["control"], "source", "C loops around a template")
    _word(table["order"], "program", "statements of C run in program order")
    dims = read_dims(table["dims"], sizes)
    files = {k: _file(k, v, sizes) for k, v in table["registers"].entries().items()}
    memories, file_of, host = _memories(table["memories"], dims, files)
    ctypes, takes = _variables(table["memories"], file_of, files, sizes)
    align, caches = _host(host)
    lanes = {m.name: m.lanes for m in memories}
    templates = tuple(
        _template(name, item, lanes, dims, sizes)
        for name, item in table["instructions"].entries().items()
    )
    code = table["code"].table(["headers", "flags", "cpu_features"], ["declarations", "attributes"])
    program = SourceMachine(
        templates=templates,
        files=files,
        file_of=file_of,
        caches=caches,
        headers=tuple(i.text() for i in code["headers"].items()),
        flags=tuple(_flag(i, sizes) for i in code["flags"].items()),
        features=tuple(i.text() for i in code["cpu_features"].items()),
        align=align,
        declarations=_sized(code["declarations"].text(), sizes) if "declarations" in code else "",
        attributes=_sized(code["attributes"].text(), sizes) if "attributes" in code else "",
        ctypes=ctypes,
        takes=takes,
        runner=_runner(table["runner"], sizes) if "runner" in table else Runner(),
    )
    places = {k: v.where for k, v in table.items()}
    for section in ("registers", "memories", "instructions"):
        for name in table[section].entries():
            places[f"{section}.{name}"] = table[section].key_where(name)
    for name, item in table["instructions"].entries().items():
        places[f"instructions.{name}.template"] = item.key_where("template")
    return Isa(
        name=table["name"].word(),
        config=dict(sizes),
        config_name=config_name,
        dims=dims,
        memories=memories,
        uop_memory="",
        uop_fields=(),
        instructions=_instructions(program, memories),
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


def _flag(item: Item, sizes: Mapping[str, int]) -> str:
    # What a spec says is given to a compiler: options alone, no files and no plug-ins.
    if not item.text().startswith("-m"):
        raise item.error(
            f"'{item.text()}' is no machine option", "flags of a spec choose instructions: -m…",
            "-mavx2",
        )  # fmt: skip
    return _sized(item.text(), sizes)


def refuse_configuration(root: Item, config: str | Path | Mapping[str, Any] | None) -> None:
    """Raises: SpecError for a configuration of a machine that has one alone."""
    if config is not None and str(config) != CONFIG and config != {}:
        raise SpecError(
            f"the configuration {str(config)!r} has no effect",
            where=root.where,
            why="this machine has one size",
            hint="leave the configuration out",
        )


def _sizes(
    table: Mapping[str, Item],
    root: Item,
    config: str | Path | Mapping[str, Any] | None,
    folder: Traversable | Path | None,
) -> tuple[str, dict[str, int]]:
    """(name, sizes) of the configuration; none where the machine has one size."""
    if "configuration" not in table:
        refuse_configuration(root, config)
        return CONFIG, {}
    name, values = configuration.choose(table["configuration"], config, folder)
    sizes = {k: v for k, v in values.items() if isinstance(v, int)}
    for item in table["rules"].items() if "rules" in table else []:
        rule = item.table(["rule", "why"])
        if not rule["rule"].integer(sizes):
            raise rule["rule"].error(
                f"{rule['rule'].text()} does not hold", rule["why"].text(),
                "change the sizes in the configuration",
            )  # fmt: skip
    return name, sizes


def _sized(text: str, sizes: Mapping[str, int]) -> str:
    """With `{KEY}` of the configuration's keys replaced by their values, other braces kept."""
    for key, value in sizes.items():
        text = text.replace("{" + key + "}", str(value))
    return text


def _runner(item: Item, sizes: Mapping[str, int]) -> Runner:
    table = item.table(["arch"], ["compiler", "emulator", "system"])
    if ("compiler" in table) != ("emulator" in table):
        raise item.error(
            "a compiler without an emulator, or the other way round",
            "a kernel is compiled by one and run by the other",
            "give both, or `arch` alone",
        )

    def words(key: str) -> tuple[str, ...]:
        if key not in table:
            return ()
        try:
            found = tuple(shlex.split(_sized(table[key].text(), sizes)))
        except ValueError as error:
            raise table[key].error("this is no command", str(error)) from error
        if not found or "/" in found[0]:
            raise table[key].error(
                f"'{table[key].text()}' begins with no name of a program",
                "programs are looked for on the path and in this Python's environment",
                "qemu-aarch64-static -cpu max",
            )
        return found

    system = _sized(table["system"].text(), sizes) if "system" in table else ""
    return Runner(table["arch"].text(), words("compiler"), words("emulator"), system)


def _file(name: str, item: Item, sizes: Mapping[str, int]) -> RegisterFile:
    table = item.table(["count", "allocated_by"], ["type"])
    by = table["allocated_by"].text()
    if by not in ("compiler", "number"):
        raise table["allocated_by"].error(
            f"'{by}' is not handled",
            "`compiler`: registers are variables of C; `number`: templates name them by number",
            "compiler",
        )
    if (by == "compiler") != ("type" in table):
        raise item.error(
            "`type` is missing" if by == "compiler" else "`type` has no effect",
            "variables have a C type, and registers named by number are no variables",
            "type: int32x4_t" if by == "compiler" else "leave it out",
        )
    count = table["count"].integer(sizes)
    if count < 1:
        raise table["count"].error(f"{count} registers", "at least one is needed")
    ctype = table["type"].text() if "type" in table else ""
    return RegisterFile(name, count, ctype, by == "number")


def _variables(
    item: Item,
    file_of: Mapping[str, str],
    files: Mapping[str, RegisterFile],
    sizes: Mapping[str, int],
) -> tuple[dict[str, str], dict[str, int]]:
    """(C type, registers that a value takes) of each register memory."""
    ctypes: dict[str, str] = {}
    takes: dict[str, int] = {}
    for name, file in file_of.items():
        table = item.entries()[name].entries()
        ctypes[name], takes[name] = files[file].ctype, 1
        if "variable" in table:
            if files[file].numbered:
                raise table["variable"].error(
                    "`variable` has no effect", f"registers of {file} are named by number"
                )
            ctypes[name] = table["variable"].text()
        if "takes" in table:
            takes[name] = table["takes"].integer(sizes)
            if not 1 <= takes[name] <= files[file].count:
                raise table["takes"].error(
                    f"a value takes {takes[name]} registers",
                    f"file {file} has {files[file].count}",
                )
    return ctypes, takes


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
        table = entry.table(["kind", "file", "lanes", "type"], ["variable", "takes"])
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
    if align < 4 or align & (align - 1):
        raise table["align"].error(
            f"alignment {align}", "a power of two is needed, and sums take 4 bytes", "64"
        )
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
    lanes: Mapping[str, tuple[str, ...]],
    dims: Mapping[str, int],
    sizes: Mapping[str, int],
) -> Template:
    table = item.table(["operands", "meaning", "template", "cost"])
    slots = {k: _slot(k, v, lanes) for k, v in table["operands"].entries().items()}
    for k, v in table["operands"].entries().items():
        if k in dims or k in lanes or k in sizes or k == "HOST" or not k.isidentifier():
            raise v.error(
                f"an operand called '{k}'",
                "a dimension, a memory or a key of the configuration has that name, and meanings"
                " could not tell them apart",
                "rename the operand",
            )
    text = _sized(table["template"].text(), sizes)
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
    meaning = _meant(table["meaning"].text(), sizes)
    try:
        kind, roles, function = read(meaning, slots, lanes, dims)
    except MeaningError as error:
        raise table["meaning"].error(str(error), "docs/machines.md lists the meanings") from error
    cost = table["cost"].table(["per_cycle", "latency"])
    rate, latency = cost["per_cycle"].number(), cost["latency"].number()
    if rate <= 0 or latency < 0:
        raise table["cost"].error("a cost is not above 0", "cycles are divided by it")
    return Template(
        name, kind, tuple(slots.values()), roles, meaning, text, rate, latency,
        function,
    )  # fmt: skip


def _meant(text: str, sizes: Mapping[str, int]) -> str:
    """The meaning with numbers in the place of configuration keys."""
    if not any(key in text for key in sizes):
        return text

    class Sizes(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.Constant(sizes[node.id]) if node.id in sizes else node

    try:
        return ast.unparse(Sizes().visit(ast.parse(text)))
    except SyntaxError:
        return text  # refused where it is read


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


def _instructions(program: SourceMachine, memories: tuple[Memory, ...]) -> tuple[Instruction, ...]:
    """The templates as the embedding search looks at instructions: each contraction, and all
    elementwise ones together as one map with an immediate of 32 bits."""
    templates, contracts = program.templates, program.contracts()
    results = {program.results(t.slot("dst").memory) for t in contracts}
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
    # Of several contractions each has its own: machine/contracts.py.
    maps = [
        t for t in templates
        if t.kind == "map" and t.slot("dst").memory == t.slot("other").memory
        and t.slot("dst").memory in results
    ]  # fmt: skip
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
