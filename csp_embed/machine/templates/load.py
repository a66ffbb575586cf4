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
from csp_embed.machine.reading.tree import NAMES, Item, is_name
from csp_embed.machine.spec import Field, Instruction, Isa, Limits, MapOp, Memory, Operand
from csp_embed.machine.templates.meaning import read
from csp_embed.machine.templates.spec import FUNCTIONS, Runner, Slot, SourceMachine, Template
from csp_embed.machine.templates.storage import (
    TYPES,
    read_file,
    read_host,
    read_memories,
    read_variables,
)

FORMAT = "csp-embed-isa/2"
# What `config_name` says of them in reports.
CONFIG = "fixed"  # of a machine of one size
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
    # Sizes first: all numbers below may use them.
    config_name, sizes = _sizes(table, root, config, folder)
    _word(table["control"], "source", "C loops around a template")
    _word(table["order"], "program", "statements of C run in program order")
    dims = read_dims(table["dims"], sizes)
    files = {k: read_file(k, v, sizes) for k, v in table["registers"].entries().items()}
    memories, file_of, host = read_memories(table["memories"], dims, files)
    # After all memories are known to have a file.
    ctypes, takes = read_variables(table["memories"], file_of, files, sizes)
    align, caches = read_host(host)
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
        # Declarations may use sizes: macros for a vector length that is chosen here.
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
    # The line of the C text: a compiler's complaint is led back to it.
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
        # Addresses are the host's pointers, of which 48 bits are in use.
        limits=Limits(dram_bits=48),
        # Rates stand at the templates; there is no other table of costs.
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
    # Texts of a configuration size nothing.
    sizes = {k: v for k, v in values.items() if isinstance(v, int)}
    for item in table["rules"].items() if "rules" in table else []:
        rule = item.table(["rule", "why"])
        try:
            holds = bool(rule["rule"].integer(sizes))
        except SpecError as error:
            # log2 of 192 has no value: what the rule is for says more than that.
            why = f"{error.why}; the rule is there since {rule['why'].text()}"
            raise SpecError(error.what, where=error.where, why=why, hint=error.hint) from error
        if not holds:
            raise rule["rule"].error(
                f"{rule['rule'].text()} does not hold", rule["why"].text(),
                "change the sizes in the configuration",
            )  # fmt: skip
    return name, sizes


def _sized(text: str, sizes: Mapping[str, int]) -> str:
    """With `{KEY}` of the configuration's keys replaced by their values, other braces kept."""
    # Not str.format: C text is full of braces that are no keys.
    for key, value in sizes.items():
        text = text.replace("{" + key + "}", str(value))
    return text


def _runner(item: Item, sizes: Mapping[str, int]) -> Runner:
    table = item.table(["arch"], ["compiler", "emulator", "system"])
    # Half a runner could not run anything.
    if ("compiler" in table) != ("emulator" in table):
        raise item.error(
            "a compiler without an emulator, or the other way round",
            "a kernel is compiled by one and run by the other",
            "give both, or `arch` alone",
        )

    # Split as a shell would, but no shell runs: quotes and spaces are all that is meant.
    def words(key: str) -> tuple[str, ...]:
        if key not in table:
            return ()
        try:
            found = tuple(shlex.split(_sized(table[key].text(), sizes)))
        except ValueError as error:
            raise table[key].error("this is no command", str(error)) from error
        if not found or "/" in found[0]:
            # A path would let a spec run any file; names are found where programs are installed.
            raise table[key].error(
                f"'{table[key].text()}' begins with no name of a program",
                "programs are looked for on the path and in this Python's environment",
                "qemu-aarch64-static -cpu max",
            )
        return found

    system = _sized(table["system"].text(), sizes) if "system" in table else ""
    return Runner(table["arch"].text(), words("compiler"), words("emulator"), system)


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
        if not is_name(k):
            raise v.error(f"'{k}' is not a name", NAMES, "rename the operand")
        # One table of names in meanings: operands, lanes, memories and sizes.
        if k in dims or k in lanes or k in sizes or k == "HOST" or k in FUNCTIONS:
            kinds = {"dimension": dims, "size": sizes, "function": FUNCTIONS}
            what = next((n for n, known in kinds.items() if k in known), "memory")
            there = " (b, o and i always are)" if k in ("b", "o", "i") else ""
            raise v.error(
                f"an operand called '{k}'",
                f"a {what} has that name{there}, and meanings could not tell them apart",
                "rename the operand",
            )
    text = _sized(table["template"].text(), sizes)
    try:
        # Formatter finds the fields as `format` will, doubled braces of C left out.
        named = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise table["template"].error("the template cannot be read", str(error)) from error
    # Both ways: an unnamed operand has no effect, an unlisted one no type.
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
    # Latency 0 is fine: results that are forwarded at once.
    if rate <= 0 or latency < 0:
        raise table["cost"].error("a cost is not above 0", "cycles are divided by it")
    return Template(
        name, kind, tuple(slots.values()), roles, meaning, text, rate, latency,
        function,
    )  # fmt: skip


def _meant(text: str, sizes: Mapping[str, int]) -> str:
    """The meaning with numbers in the place of configuration keys."""
    # Unparsing loses the author's layout; where no size stands the text is kept.
    if not any(key in text for key in sizes):
        return text

    # By syntax tree: replacing text would also change names that contain a key.
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
    if word == "HOST" and dtype in TYPES:
        return Slot(name, "address", "HOST", dtype)
    # A register of any memory: how it is written in C follows from the memory's file.
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
    # What epilogues change; maps of other memories are not for the search.
    results = {program.results(t.slot("dst").memory) for t in contracts}
    lanes = {m.name: m.lanes for m in memories}

    def operand(t: Template, role: str, part: str) -> Operand:
        memory = t.slot(part).memory
        # No micro-op fields and factors: C computes addresses.
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
        # The immediate is an int32 that a fill puts into a register, so it has all bits.
        field = Field("imm", 0, 32, signed=True)
        found.append(
            Instruction(
                name="MAP", opcode=len(templates), kind="map", fields=(field,),
                roles={"imm": "imm"}, queue="program", statement=maps[0].meaning.strip(),
                operands=(operand(maps[0], "dst", "dst"), operand(maps[0], "lhs", "other")),
                # Codes are places in the list: no field of a word holds them.
                ops=tuple(MapOp(t.name, n, t.function) for n, t in enumerate(maps)),
            )
        )  # fmt: skip
    return tuple(found)
