"""Bit fields of instructions and micro-ops: from spec items to disjoint `Field`s."""

from __future__ import annotations

from collections.abc import Mapping

from csp_embed.machine.reading.tree import Item
from csp_embed.machine.spec import Field

# A column of a Stream is int64.
_MAX_WIDTH = 63


def read_fields(
    items: list[Item],
    names: Mapping[str, int],
    bits: int,
    groups: Mapping[str, Item],
    start: int = 0,
    reserved: tuple[Field, ...] = (),
) -> tuple[tuple[Field, ...], dict[str, str]]:
    """(fields in the order given after the `reserved` ones, role -> field name where stated).

    A field without `bit` follows the one before it (the first starts at `start`); `{group: name}`
    stands for the fields of that group.
    Raises: SpecError for an overlap, a field outside 0..bits-1, a name or role that stands twice.
    """
    # The opcode is reserved first: no field may lie on it.
    fields = list(reserved)
    roles: dict[str, str] = {}
    position = start
    for item in _expand(items, groups):
        table = item.table(["name", "width"], ["bit", "signed", "role"])
        name = table["name"].word()
        # `gaps` makes fields of that name.
        if name.startswith("unused_"):
            raise table["name"].error(
                f"'{name}' is a reserved name", "bits that no field covers are called so"
            )
        width = table["width"].integer(names)
        lo = table["bit"].integer(names) if "bit" in table else position
        field = Field(name, lo, width, "signed" in table and table["signed"].flag())
        _check(item, field, fields, bits)
        fields.append(field)
        # The next field follows this one, wherever that was put.
        position = lo + width
        if "role" in table:
            role = table["role"].word()
            if role in roles:
                raise table["role"].error(
                    f"role '{role}' stands twice", f"'{roles[role]}' plays it already"
                )
            roles[role] = name
    return tuple(fields), roles


def gaps(fields: tuple[Field, ...], bits: int) -> tuple[Field, ...]:
    """Fields named `unused_<lo>`, at most 32 bits each, for the bits that no field covers."""
    # Sorted by position; the list of fields is in the spec's order.
    covered = sorted((f.lo, f.lo + f.width) for f in fields)
    found: list[Field] = []
    position = 0
    # A last empty field at the end closes the gap behind the last one.
    for lo, hi in [*covered, (bits, bits)]:
        while position < lo:
            # Cut at multiples of 32 bits, which read well as hexadecimal numbers.
            width = min(lo, (position // 32 + 1) * 32) - position
            found.append(Field(f"unused_{position}", position, width, unused=True))
            position += width
        position = hi
    return tuple(found)


def _expand(items: list[Item], groups: Mapping[str, Item]) -> list[Item]:
    flat: list[Item] = []
    for item in items:
        entries = item.entries()
        if "group" not in entries:
            flat.append(item)
            continue
        name = item.table(["group"])["group"].text()
        if name not in groups:
            raise entries["group"].error(
                f"unknown field group '{name}'", f"groups: {', '.join(groups) or 'none'}"
            )
        # A group's fields take part in the running position like any others.
        flat.extend(groups[name].items())
    return flat


def _check(item: Item, field: Field, before: list[Field], bits: int) -> None:
    last = field.lo + field.width - 1
    if not 1 <= field.width <= _MAX_WIDTH:
        raise item.error(
            f"field '{field.name}' is {field.width} bits wide", f"1 to {_MAX_WIDTH} are possible"
        )
    if field.lo < 0 or last >= bits:
        raise item.error(
            f"field '{field.name}' covers bits {field.lo}..{last}",
            f"the word has bits 0..{bits - 1}",
            "move the field or narrow it",
        )
    # Quadratic, over some dozen fields.
    for other in before:
        if other.name == field.name:
            raise item.error(f"field '{field.name}' stands twice", "names must differ")
        if field.lo < other.lo + other.width and other.lo <= last:
            raise item.error(
                f"fields '{other.name}' and '{field.name}' overlap",
                f"'{other.name}' covers bits {other.lo}..{other.lo + other.width - 1}, "
                f"'{field.name}' bits {field.lo}..{last}",
                "give one of them another `bit` or `width`",
            )
