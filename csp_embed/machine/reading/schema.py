"""The shape of instruction-set files as types, and their JSON schema for editors.

Takes: nothing.  Leaves: `schema()`, and `shape_problems(document)` for what YAML gives. The shape
alone: keys, lists, words. What numbers, bits and meanings must be is for `load` to say, which knows
lines.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from csp_embed.narrow import is_object

# Numbers are expressions over the names of the file.
Number = int | str
Cost = int | float
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# In format 1 operands are signed; uint8 came with CPUs and streams.
Lane = Literal["int8", "int16", "int32"]
Any8 = Literal["int8", "uint8", "int16", "int32"]


class _Table(BaseModel):
    # Unknown keys are mistakes: an ignored one would have no effect that a user sees.
    model_config = ConfigDict(extra="forbid")


class Key(_Table):
    min: Number
    max: Number
    default: Number | None = None
    optional: bool | None = None
    equals: Number | None = None


class Configuration(_Table):
    """Sizes that a user chooses; named ones are mappings or JSON files beside the spec."""

    default: str
    named: dict[str, dict[str, Number] | str]
    keys: dict[Name, Key]
    closed_prefix: str | None = None


class Rule(_Table):
    rule: Number
    why: str


class BitField(_Table):
    """Without `bit` it follows the field before it."""

    name: Name
    width: Number
    bit: Number | None = None
    signed: bool | None = None
    role: Name | None = None


class Group(_Table):
    group: Name


class Scratchpad(_Table):
    id: Number
    depth: Number
    lanes: list[Name] | None = None
    type: Lane | None = None
    dram_type: Lane | None = None
    portable_depth: Number | None = None
    load_queue: Name | None = None
    store_queue: Name | None = None
    shadow_of: Name | None = None
    alias_of: Name | None = None
    portable: bool | None = None
    note: str | None = None


class Uop(_Table):
    memory: Name
    bits: Number
    fields: list[BitField]


class Opcode(_Table):
    bit: Number
    width: Number


class Operation(_Table):
    code: Number
    function: Name
    portable: bool | None = None


class Instruction(_Table):
    opcode: Number
    kind: Literal["load", "store", "contract", "map", "finish"]
    fields: list[BitField | Group]
    # Optional here, as it depends on the kind: loads have no queue, finish no meaning.
    queue: Name | None = None
    meaning: str | None = None
    ops: dict[Name, Operation] | None = None


class Limits(_Table):
    max_tokens: Number | None = None
    map_hazard: Number | None = None
    stale_shadow: bool | None = None
    imm_src_is_dst: bool | None = None
    nonzero_counts: bool | None = None
    dram_bits: Number | None = None
    page_bytes: Number | None = None


class LoopsInInstructions(_Table):
    """`csp-embed-isa/1`: instructions with loops of their own (isa_specs/README.md)."""

    format: Literal["csp-embed-isa/1"]
    name: Name
    dims: dict[Name, Number]
    memories: dict[Name, Scratchpad]
    uop: Uop
    queues: list[Name]
    opcode: Opcode
    instructions: dict[Name, Instruction]
    source: str | None = None
    configuration: Configuration | None = None
    limits: Limits | None = None
    let: dict[Name, Number] | None = None
    rules: list[Rule] | None = None
    field_groups: dict[Name, list[BitField]] | None = None
    costs: dict[str, dict[str, Cost]] | None = None


class LoopsInInstructions2(LoopsInInstructions):
    """The same in `csp-embed-isa/2`."""

    format: Literal["csp-embed-isa/2"]  # pyright: ignore[reportIncompatibleVariableOverride]
    control: Literal["instruction"]
    order: Literal["tokens"]


class Cache(_Table):
    bytes: Number
    line: Number
    bytes_per_cycle: Cost


class Host(_Table):
    kind: Literal["host"]
    align: Number
    caches: list[Cache]


class Registers(_Table):
    kind: Literal["registers"]
    file: Name
    lanes: list[Name]
    type: Any8
    variable: str | None = None
    takes: Number | None = None


class RegisterFile(_Table):
    count: Number
    allocated_by: Literal["compiler", "number"]
    type: str | None = None


class Code(_Table):
    headers: list[str]
    flags: list[str]
    cpu_features: list[str]
    declarations: str | None = None
    attributes: str | None = None


class Runner(_Table):
    arch: str
    compiler: str | None = None
    emulator: str | None = None
    system: str | None = None


class Rate(_Table):
    per_cycle: Cost
    latency: Cost


class Template(_Table):
    operands: dict[Name, str]
    meaning: str
    template: str
    cost: Rate


class LoopsInC(_Table):
    """`csp-embed-isa/2`, `control: source`: C around templates (docs/machines.md)."""

    format: Literal["csp-embed-isa/2"]
    name: Name
    control: Literal["source"]
    order: Literal["program"]
    dims: dict[Name, Number]
    registers: dict[Name, RegisterFile]
    memories: dict[Name, Host | Registers]
    code: Code
    instructions: dict[Name, Template]
    source: str | None = None
    configuration: Configuration | None = None
    rules: list[Rule] | None = None
    runner: Runner | None = None


class FedHost(_Table):
    kind: Literal["host"]
    align: Number
    bytes: Number


class Rows(_Table):
    kind: Literal["rows"]
    rows: Number
    lanes: Number
    type: Any8


class State(_Table):
    dims: list[Name] | None = None
    type: Literal["int", "float32", "int8", "uint8", "int16", "int32"] | None = None
    default: Number | None = None


class Command(_Table):
    """code: bits that make it out; fields: the others, or `group: NAME`."""

    code: dict[str, Number]
    fields: dict[Name, str]
    meaning: str
    each: dict[Name, list[Number]] | None = None
    cycles: Number | None = None
    beside: bool | None = None


class CommandCosts(_Table):
    step: Cost | None = None
    command: Cost | None = None
    bytes_per_cycle: Cost | None = None


class Fed(_Table):
    """`csp-embed-isa/2`, `control: stream`: commands with state (docs/commands.md)."""

    format: Literal["csp-embed-isa/2"]
    name: Name
    control: Literal["stream"]
    order: Literal["program"]
    dims: dict[Name, Number]
    words: dict[Name, Number]
    memories: dict[Name, FedHost | Rows]
    instructions: dict[str, Command]
    source: str | None = None
    state: dict[Name, State] | None = None
    field_groups: dict[Name, dict[Name, str]] | None = None
    costs: CommandCosts | None = None


# A union by its literals: an editor shows the keys of the format that `format` names.
_FILE: TypeAdapter[Any] = TypeAdapter(LoopsInInstructions | LoopsInInstructions2 | LoopsInC | Fed)


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of all formats."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "instruction set of csp-embed",
        **_FILE.json_schema(),
    }


def shape_problems(document: Any) -> list[str]:
    """What keeps a document (as `yaml.safe_load` gives it) from having the shape of its format."""
    # The format is chosen first: errors of all four in one list would bury the one that matters.
    control = document.get("control", "") if is_object(document) else ""
    kinds: dict[Any, type[_Table]] = {
        "source": LoopsInC, "stream": Fed, "instruction": LoopsInInstructions2,
    }  # fmt: skip
    kind = kinds.get(control, LoopsInInstructions)
    try:
        kind.model_validate(document)
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return []
