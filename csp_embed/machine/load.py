"""Reads an instruction-set file and a configuration into an `Isa`.

Takes: YAML in the format of isa_specs/README.md.  Leaves: an Isa whose every promise is checked
here: disjoint fields, powers of two, known names, meanings that fit their kind, rules that hold.
Every refusal is a SpecError with file:line, the item, the reason and one thing to try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from csp_embed.errors import SpecError
from csp_embed.files import readable
from csp_embed.machine import config as configuration
from csp_embed.machine.commands.load import read_command_machine
from csp_embed.machine.reading import expr, tree
from csp_embed.machine.reading.fields import read_fields
from csp_embed.machine.reading.instructions import read_instructions
from csp_embed.machine.reading.memories import read_memories
from csp_embed.machine.reading.sections import read_dims
from csp_embed.machine.reading.tree import NAMES, Item, is_name
from csp_embed.machine.resources import folder
from csp_embed.machine.spec import Isa, Limits
from csp_embed.machine.templates.load import CONFIG, read_source_machine, refuse_configuration
from csp_embed.machine.templates.load import FORMAT as SOURCE_FORMAT
from csp_embed.narrow import is_list, is_object
from csp_embed.nearest import did_you_mean

FORMAT = "csp-embed-isa/1"
_REQUIRED = (
    "format", "name", "dims", "memories", "uop", "queues", "opcode", "instructions",
)  # fmt: skip
_OPTIONAL = ("source", "configuration", "let", "rules", "field_groups", "limits", "costs")


def load_isa(
    spec: str | Path | Mapping[str, Any] = "vta",
    config: str | Path | Mapping[str, Any] | None = None,
) -> Isa:
    """The machine `spec` under `config`.

    spec: a name in isa_specs/, a path to a YAML file, or what such a file holds as a mapping (lines
        in messages are then those of its YAML text, which `yaml.safe_dump` makes).
    config: None (the spec's default), the name of one of its configurations, a path to a JSON file,
        or a dict of its keys.
    Raises: SpecError naming file and line, the offending item, the reason and one thing to try.

    >>> load_isa("vta").lane_shape("WGT")
    (16, 16)
    """
    # Users call this with anything; a wrong type deep inside would name none of their values.
    if not (config is None or is_object(config) or isinstance(config, str | Path)):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
        raise SpecError(
            f"a {type(config).__name__} is no configuration",
            where="config",
            why="a name, a path to a JSON file or a dict of its keys is read",
            hint="load_isa('vta', 'vta_config.json')",
        )
    if isinstance(spec, Mapping):
        # Path(): named configurations of a mapping are files from the working directory.
        return load_text(_dumped(spec), "the given mapping", Path(), config)
    if not isinstance(spec, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance] (likewise)
        raise SpecError(
            f"a {type(spec).__name__} is no instruction set",
            why="a name, a path to a YAML file or a mapping is read",
            hint="load_isa('vta')",
        )
    # Shipped specs are named in programs; others travel inside them as text.
    return load_text(*_source(spec), config, shipped=builtin(str(spec)) is not None)


def _dumped(spec: Mapping[str, Any]) -> str:
    """The YAML text of a mapping. Raises: SpecError where YAML cannot say it."""
    try:
        # Through plain types: a mapping of any kind, tuples for lists.
        return yaml.safe_dump(_plain(spec), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise SpecError(
            "the mapping cannot be written as YAML",
            why=str(error).splitlines()[0],
            hint="numbers, texts, lists and mappings only, as yaml.safe_load gives them",
        ) from error


def _plain(value: Any) -> Any:
    if is_object(value):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if is_list(value) else value


def config_names(spec: str | Path = "vta") -> list[str]:
    """Names of the configurations that a spec defines, in its order."""
    text, file, _ = _source(spec)
    root = tree.read(text, file)
    given = root.entries().get("configuration")
    # Its keys are told before its configurations are.
    if not _is_source(root):
        _instructions_table(root)
    # A machine of one size has no such section.
    return [CONFIG] if given is None else list(configuration.named(given))


def _source(spec: str | Path) -> tuple[str, str, Traversable | Path]:
    """(text, name for messages, folder of its configurations)."""
    place = builtin(str(spec))
    if place is not None:
        # Names for messages are short: the package's own path says nothing to a user.
        return place.read_text(encoding="utf-8"), f"isa_specs/{spec}.yaml", folder("isa_specs")
    path = Path(spec)
    # Something that exists is read, whatever its suffix.
    if path.suffix not in (".yaml", ".yml") and not path.exists():
        raise SpecError(
            f"no instruction set '{spec}'",
            why=f"known by name: {', '.join(builtin_names())}",
            hint=did_you_mean(
                str(spec), builtin_names(), "give one of these names or a path to a .yaml file"
            ),
        )
    with readable(path, "csp-embed isa list shows the machines that ship", SpecError):
        return path.read_text(encoding="utf-8"), str(path), path.parent


def builtin_names() -> list[str]:
    """Names of the instruction sets that ship with the package."""
    names = [entry.name for entry in folder("isa_specs").iterdir()]
    return sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml"))


def stream_names() -> list[str]:
    """Those of them that read an instruction stream (csp-embed-isa/1)."""
    return [n for n in builtin_names() if not _is_source(tree.read(*_source(n)[:2]))]


def builtin(name: str) -> Traversable | None:
    """The file of a shipped instruction set, or None."""
    return folder("isa_specs") / f"{name}.yaml" if name in builtin_names() else None


def load_text(
    text: str,
    file: str,
    base: Traversable | Path | None,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    shipped: bool = False,
) -> Isa:
    """`load_isa` for YAML text; `file` names it in messages, `base` holds its configurations."""
    root = tree.read(text, file)
    # Looked at first, as the keys of the formats have little in common.
    if _is_source(root):
        # Of what does not read instructions, the stream of commands is the other kind beside C.
        control = root.entries().get("control")
        if control is not None and control.text() == "stream":
            refuse_configuration(root, config)
            return read_command_machine(root, "" if shipped else text)
        return read_source_machine(root, "" if shipped else text, config, base)
    table = _instructions_table(root)
    if "configuration" in table:
        config_name, values = configuration.choose(table["configuration"], config, base)
    else:
        refuse_configuration(root, config)
        config_name, values = CONFIG, {}
    # Texts of a configuration size nothing.
    names = {k: v for k, v in values.items() if isinstance(v, int)}
    # Names that the spec derives come before rules and sections that use them.
    _let(table, names)
    _rules(table, names, config_name)
    dims = read_dims(table["dims"], names)
    queues = _queues(table["queues"])
    memories = read_memories(table["memories"], names, dims, queues)
    uop_table = table["uop"].table(["memory", "bits", "fields"])
    uop_memory = uop_table["memory"].text()
    # uint32 is the type of a memory without lanes: micro-ops.
    if not any(m.name == uop_memory and m.dtype == "uint32" for m in memories):
        raise uop_table["memory"].error(
            f"'{uop_memory}' is no micro-op memory", "it must be a memory without lanes"
        )
    if uop_table["bits"].integer(names) != 32:
        raise uop_table["bits"].error(
            "a micro-op must have 32 bits", "encoders pack one per uint32"
        )
    uop_fields, _ = read_fields(uop_table["fields"].items(), names, 32, {})
    opcode = table["opcode"].table(["bit", "width"])
    groups = table["field_groups"].entries() if "field_groups" in table else {}
    instructions = read_instructions(
        table["instructions"], names, groups, opcode, memories, queues, uop_memory, uop_fields
    )
    return Isa(
        name=table["name"].word(),
        config=values,
        config_name=config_name,
        dims=dims,
        memories=memories,
        uop_memory=uop_memory,
        uop_fields=uop_fields,
        instructions=instructions,
        queues=queues,
        limits=_limits(table["limits"], names) if "limits" in table else Limits(),
        costs=_costs(table.get("costs")),
        source=table["source"].text() if "source" in table else "",
        spec_text="" if shipped else text,
        places=_places(table, groups),
    )


def _is_source(root: Item) -> bool:
    """Whether the machine's loops run elsewhere: in C, or in the host that writes commands out."""
    entries = root.entries()
    given, control = entries.get("format"), entries.get("control")
    second = given is not None and given.text() == SOURCE_FORMAT
    # `control: instruction` is format 1 in new words.
    return second and not (control is not None and control.text() == "instruction")


def _instructions_table(root: Item) -> Mapping[str, Item]:
    """The sections of a machine whose instructions have loops. Format 2 says so by `control`."""
    given = root.entries().get("format")
    if given is not None and given.text() not in (FORMAT, SOURCE_FORMAT):
        # Before keys are looked at: those of another format would be called unknown.
        raise given.error(
            f"'{given.text()}' is not a format we read",
            f"this version reads {FORMAT} and {SOURCE_FORMAT}",
        )
    if given is None or given.text() != SOURCE_FORMAT:
        return root.table(_REQUIRED, _OPTIONAL)
    # Format 2 adds the two keys and changes none of the sections.
    table = root.table((*_REQUIRED, "control", "order"), _OPTIONAL)
    if table["order"].text() != "tokens":
        raise table["order"].error(
            f"'{table['order'].text()}' is not handled", "queues are ordered by tokens", "tokens"
        )
    return table


def _places(table: Mapping[str, Item], groups: Mapping[str, Item]) -> dict[str, str]:
    """Where the items stand that later refusals name; see `Isa.places`."""
    found = {key: item.where for key, item in table.items()}
    for section in ("dims", "memories", "instructions", "limits", "costs"):
        for name, item in table[section].entries().items() if section in table else ():
            found[f"{section}.{name}"] = table[section].key_where(name)
            if section in ("memories", "instructions", "costs"):
                found |= {f"{section}.{name}.{k}": v.where for k, v in item.entries().items()}
    for item in table["uop"].entries()["fields"].items():
        found[f"uop.{item.entries()['name'].text()}"] = item.where
    for name, item in table["instructions"].entries().items():
        for given in item.entries()["fields"].items():
            entries = given.entries()
            # Field lists may name a group by reference; its fields are looked up in `field_groups`.
            # A field of a group is told at its own line, which is what must be edited.
            many = groups[entries["group"].text()].items() if "group" in entries else [given]
            for field in many:
                found[f"instructions.{name}.{field.entries()['name'].text()}"] = field.where
    return found


def _let(table: Mapping[str, Item], names: dict[str, int]) -> None:
    if "let" not in table:
        return
    for key, item in table["let"].entries().items():
        if not is_name(key):
            raise item.error(f"'{key}' is not a name", NAMES)
        if key in names:
            raise item.error(f"'{key}' is defined twice", "it is a configuration key already")
        # In the file's order: a name may use those above it, and a circle cannot be written.
        names[key] = item.integer(names)


def _rules(table: Mapping[str, Item], names: Mapping[str, int], config_name: str) -> None:
    # All rules are tried: a configuration that breaks several is mended once.
    broken = [
        rule
        for item in (table["rules"].items() if "rules" in table else [])
        for rule in [item.table(["rule", "why"])]
        if not rule["rule"].integer(names)
    ]
    if not broken:
        return
    texts = [rule["rule"].text() for rule in broken]
    used = dict.fromkeys(n for text in texts for n in expr.names_in(expr.parse(text)))
    raise SpecError(
        f"configuration {config_name} is illegal: {' and '.join(texts)} must hold",
        where=broken[0]["rule"].where,
        why="; ".join(
            [", ".join(f"{n} = {names[n]}" for n in used), *(rule["why"].text() for rule in broken)]
        ),
        hint="change the sizes in the configuration until the rules hold",
    )


def _queues(item: Item) -> tuple[str, ...]:
    queues = tuple(q.word() for q in item.items())
    if not queues:
        raise item.error("no queue is given", "instructions must run somewhere")
    for n, queue in enumerate(queues):
        if queue in queues[:n]:
            raise item.items()[n].error(
                f"queue '{queue}' stands twice",
                "each queue has one place in token order",
                "drop one",
            )
    return queues


def _limits(item: Item, names: Mapping[str, int]) -> Limits:
    # Flags and counts are told by their defaults, so that a new limit is added in one place.
    kinds = {f.name: isinstance(f.default, bool) for f in dataclass_fields(Limits)}
    given = item.table([], kinds)
    values: dict[str, Any] = {}
    for key, value in given.items():
        values[key] = value.flag() if kinds[key] else value.integer(names)
        if not kinds[key] and values[key] < 0:
            raise value.error(f"{values[key]} is negative", "limits count things", "give 0 or more")
    if values.get("page_bytes", 1) < 1:
        raise given["page_bytes"].error(
            "pages of 0 bytes", "programs are laid out in pages", "4096 is usual"
        )
    if values.get("dram_bits", 32) > 48:
        raise given["dram_bits"].error(
            f"{values['dram_bits']} address bits", "at most 48 are laid out", "32 is usual"
        )
    return Limits(**values)


def _costs(item: Item | None) -> dict[str, dict[str, float]]:
    if item is None:
        return {}
    return {
        memory: {key: value.number() for key, value in section.entries().items()}
        for memory, section in item.entries().items()
    }
