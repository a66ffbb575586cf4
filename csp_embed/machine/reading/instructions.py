"""The `instructions:` section of a spec: fields, roles and meanings of every instruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csp_embed.errors import SpecError
from csp_embed.machine.reading import meaning
from csp_embed.machine.reading.fields import gaps, read_fields
from csp_embed.machine.reading.tree import Item
from csp_embed.machine.spec import Field, Instruction, MapOp, Memory, Operand
from csp_embed.nearest import did_you_mean

# Words are uint64[n, 2] throughout (words/bits.py).
BITS = 128
KINDS = ("load", "store", "contract", "map", "finish")
# What judges and simulators implement one by one; a spec can only choose among them.
FUNCTIONS = ("min", "max", "add", "shr", "mul")
TOKENS = ("pop_prev", "pop_next", "push_prev", "push_next")
# Needed by every transfer; padding is optional, and stores have none.
_TRANSFER = ("memory", "sram", "dram", "y_size", "x_size", "x_stride")
_PADS = ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
# Roles that a field plays by name or `role:`; those of compute are read off the meaning.
_STATED = {"load": (*TOKENS, *_TRANSFER, *_PADS), "store": (*TOKENS, *_TRANSFER)}


@dataclass(frozen=True)
class _Machine:
    memories: tuple[Memory, ...]
    queues: tuple[str, ...]
    uop_memory: str
    uop_fields: tuple[Field, ...]


def read_instructions(
    section: Item,
    names: Mapping[str, int],
    groups: Mapping[str, Item],
    opcode: Mapping[str, Item],
    memories: tuple[Memory, ...],
    queues: tuple[str, ...],
    uop_memory: str,
    uop_fields: tuple[Field, ...],
) -> tuple[Instruction, ...]:
    """The instructions in the order of the file.

    Raises: SpecError for overlapping fields, an opcode that stands twice or does not fit, a missing
        role, a meaning that contradicts fields or kind, two instructions of one kind.
    """
    machine = _Machine(memories, queues, uop_memory, uop_fields)
    # One opcode field for all: a decoder looks at it before it knows the instruction.
    opcode_field = Field("opcode", opcode["bit"].integer(names), opcode["width"].integer(names))
    last = opcode_field.lo + opcode_field.width - 1
    if opcode_field.lo < 0 or not 1 <= opcode_field.width <= 16 or last >= BITS:
        raise opcode["bit"].error(
            f"the opcode covers bits {opcode_field.lo}..{last}",
            f"an instruction has bits 0..{BITS - 1}, an opcode 1 to 16 of them",
        )
    found: list[Instruction] = []
    # In the order of the file: codes of streams are indices into it.
    for name, item in section.entries().items():
        table = item.table(["opcode", "kind", "fields"], ["queue", "meaning", "ops"])
        code = table["opcode"].integer(names)
        if not 0 <= code <= opcode_field.max:
            raise table["opcode"].error(
                f"{code} does not fit {opcode_field.width} bits",
                f"the opcode field holds 0..{opcode_field.max}",
                "choose a code in that range, or widen `opcode`",
            )
        # One of each kind: `Isa.of_kind` and the fast simulator rest on it.
        for other in found:
            if other.opcode == code:
                raise table["opcode"].error(
                    f"opcode {code} stands twice",
                    f"{other.name} has it, and a decoder could not tell the two apart",
                    "choose another code",
                )
            if other.kind == table["kind"].text():
                raise table["kind"].error(
                    f"a second instruction of kind '{other.kind}'", f"{other.name} is one already"
                )
        fields, stated = read_fields(
            table["fields"].items(), names, BITS, groups, reserved=(opcode_field,)
        )
        found.append(_instruction(name, item, table, code, fields, stated, machine))
    missing = [kind for kind in KINDS if all(i.kind != kind for i in found)]
    if missing:
        raise section.error(f"no instruction of kind '{missing[0]}'", f"kinds: {', '.join(KINDS)}")
    return tuple(found)


def _instruction(
    name: str,
    item: Item,
    table: Mapping[str, Item],
    code: int,
    fields: tuple[Field, ...],
    stated: dict[str, str],
    machine: _Machine,
) -> Instruction:
    kind = table["kind"].text()
    if kind not in KINDS:
        raise table["kind"].error(f"unknown kind '{kind}'", f"kinds are {', '.join(KINDS)}")
    # Roles first: the meaning is checked against the fields that play them.
    roles = _stated_roles(item, kind, fields, stated)
    text = table["meaning"].text() if "meaning" in table else ""
    statement, operands = "", ()
    if kind in ("load", "store"):
        statement = _transfer(item, table, kind, roles, text, fields, machine)
    elif kind in ("contract", "map"):
        statement, operands = _compute(item, table, kind, roles, text, fields, machine)
    elif text:
        raise table["meaning"].error(
            "a finish instruction has no meaning to state",
            "it ends the program and does nothing else",
            "drop `meaning`",
        )
    # A map does nothing without an operation, and no other kind has one.
    if (kind == "map") != ("ops" in table):
        raise item.error(
            "`ops` belongs to a map instruction, and only there",
            f"this is a {kind}",
            "give a map its `ops`, and other instructions none",
        )
    return Instruction(
        name=name,
        opcode=code,
        kind=kind,
        # Gaps come last, so that field lists read as the spec has them.
        fields=(*fields, *gaps(fields, BITS)),
        roles=roles,
        queue=_queue(item, table, kind, machine.queues),
        statement=statement,
        operands=operands,
        ops=_ops(table["ops"], fields, roles) if kind == "map" else (),
        meaning=text,
    )


def _stated_roles(
    item: Item, kind: str, fields: tuple[Field, ...], stated: dict[str, str]
) -> dict[str, str]:
    """Roles by `role:`, or by a field's name where that is the name of a role."""
    # Contract, map and finish: only tokens are stated.
    known = _STATED.get(kind, TOKENS)
    for role, field in stated.items():
        if role not in known:
            raise item.error(
                f"field '{field}' has the unknown role '{role}'",
                f"roles to state in a {kind}: {', '.join(known)}",
            )
    # A field may be called as one role and play another; the stated role wins.
    taken = set(stated.values())
    roles = dict(stated)
    for field in fields:
        if field.name in known and field.name not in taken and field.name not in roles:
            roles[field.name] = field.name
    # In a fixed order, whatever the order of fields.
    return {role: roles[role] for role in known if role in roles}


def _transfer(
    item: Item,
    table: Mapping[str, Item],
    kind: str,
    roles: Mapping[str, str],
    text: str,
    fields: tuple[Field, ...],
    machine: _Machine,
) -> str:
    missing = [role for role in _TRANSFER if role not in roles]
    if missing:
        raise item.error(f"no field plays the role '{missing[0]}'", f"a {kind} needs it")
    selector = next(f for f in fields if f.name == roles["memory"])
    # A field too narrow for an id would make a memory that no transfer can name.
    for memory in machine.memories:
        used = memory.load_queue if kind == "load" else memory.store_queue
        if used is not None and memory.id > selector.max:
            raise item.error(
                f"field '{selector.name}' cannot name memory {memory.name}",
                f"its id {memory.id} needs more than {selector.width} bits",
            )
    pads = [role for role in _PADS if role in roles]
    # Half a padding (top without bottom) is no template of transfers.
    if pads and len(pads) != len(_PADS):
        raise item.error("padding needs all four roles", f"needed: {', '.join(_PADS)}")
    if not text:
        raise item.error("missing key: meaning", f"a {kind} must say what it does")
    try:
        return meaning.check_transfer(text, kind, roles)
    except meaning.MeaningError as error:
        raise _located(table["meaning"], error) from error


def _compute(
    item: Item,
    table: Mapping[str, Item],
    kind: str,
    roles: dict[str, str],
    text: str,
    fields: tuple[Field, ...],
    machine: _Machine,
) -> tuple[str, tuple[Operand, ...]]:
    if not text:
        raise item.error("missing key: meaning", f"a {kind} must say what it does")
    # Micro-op memories are no operands: their elements are addresses.
    lanes = {m.name: m.lanes for m in machine.memories if m.dtype != "uint32"}
    try:
        parts = meaning.read_compute(text, kind, lanes)
    except meaning.MeaningError as error:
        raise _located(table["meaning"], error) from error
    if parts.uop_memory != machine.uop_memory:
        raise table["meaning"].error(
            f"addresses come from '{parts.uop_memory}'", f"micro-ops lie in {machine.uop_memory}"
        )
    field_names = {f.name for f in fields}
    # Names of loops, fields and lanes share one table in the interpreter.
    clash = [
        n for n in parts.local_names if n in field_names | {d for v in lanes.values() for d in v}
    ]
    if clash:
        raise table["meaning"].error(
            f"the local name '{clash[0]}' is a field or a dimension too", "names must differ"
        )
    played = list(parts.roles.values())
    for name in played:
        if played.count(name) > 1:
            raise table["meaning"].error(
                f"'{name}' plays two roles in the loops",
                "the two could not have different values",
                "use another field for one of them",
            )
    uop_names = {f.name for f in machine.uop_fields}
    factors = [name for o in parts.operands for name in (o.factor_out, o.factor_in)]
    # Everything the meaning names has to be a field; the nearest name is told.
    for used in [*parts.roles.values(), *factors]:
        if used not in field_names:
            near = did_you_mean(used, field_names)
            raise _located(
                table["meaning"],
                meaning.MeaningError(
                    # The first line that has the name: meanings are short, and the message needs
                    # some line.
                    1 + next(n for n, row in enumerate(text.splitlines()) if used in row),
                    f"'{used}' is no field of this instruction" + (f" ({near})" if near else ""),
                ),
            )
    for operand in parts.operands:
        if operand.uop_field not in uop_names:
            raise table["meaning"].error(
                f"'{operand.uop_field}' is no micro-op field", f"fields: {', '.join(uop_names)}"
            )
        memory = next(m for m in machine.memories if m.name == operand.memory)
        # Shadows are written beside their memory, aliases have no elements: neither has an address.
        if memory.shadow_of or memory.alias_of:
            raise table["meaning"].error(
                f"'{memory.name}' cannot be an operand", "it is a shadow or an alias"
            )
    roles.update(parts.roles)
    return parts.statement, parts.operands


def _located(item: Item, error: meaning.MeaningError) -> SpecError:
    """The error at its line: a block's text starts on the line below its key."""
    mark = item.node.start_mark.line + 1
    # A block text begins below its key, a quoted one on the same line.
    block = getattr(item.node, "style", None) in ("|", ">")
    return SpecError(
        f"{item.name}: {error}",
        where=f"{item.file}:{mark + error.line - (0 if block else 1)}",
        why="the meaning does not fit its kind",
        hint="compare with isa_specs/vta.yaml; the template stands in isa_specs/README.md",
    )


def _queue(item: Item, table: Mapping[str, Item], kind: str, queues: tuple[str, ...]) -> str | None:
    # Memory by memory: loads of INP and of ACC run in different modules of VTA.
    if kind in ("load", "store"):
        if "queue" in table:
            raise table["queue"].error(
                "the memory decides the queue of a load or store",
                "load_queue and store_queue of the memories say it",
                "drop `queue` here",
            )
        return None
    if "queue" not in table:
        raise item.error("missing key: queue", f"queues are {', '.join(queues)}")
    queue = table["queue"].text()
    if queue not in queues:
        raise table["queue"].error(f"unknown queue '{queue}'", f"queues are {', '.join(queues)}")
    return queue


def _ops(item: Item, fields: tuple[Field, ...], roles: Mapping[str, str]) -> tuple[MapOp, ...]:
    field = next(f for f in fields if f.name == roles["op"])
    found: list[MapOp] = []
    for name, entry in item.entries().items():
        table = entry.table(["code", "function"], ["portable"])
        code, function = table["code"].integer({}), table["function"].text()
        if function not in FUNCTIONS:
            raise table["function"].error(
                f"unknown function '{function}'", f"functions are {', '.join(FUNCTIONS)}"
            )
        if not 0 <= code <= field.max:
            raise table["code"].error(
                f"{code} does not fit the {field.width} bits of {field.name}",
                f"they hold 0..{field.max}",
                "choose a code in that range, or widen the field",
            )
        if any(op.code == code for op in found):
            raise table["code"].error(
                f"code {code} stands twice",
                "an instruction could not say which of the two it means",
                "choose another code",
            )
        found.append(
            MapOp(name, code, function, "portable" not in table or table["portable"].flag())
        )
    if not found:
        raise item.error(
            "no operation is given",
            "a map does one of its `ops`",
            "add one, see isa_specs/vta.yaml",
        )
    return tuple(found)
