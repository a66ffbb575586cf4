"""The `memories:` section of a spec: from items to `Memory` records."""

from __future__ import annotations

from collections.abc import Mapping

from csp_embed.machine.reading.tree import Item, is_name
from csp_embed.machine.spec import Memory

# Types that format 1 knows, in bytes.
LANE_BYTES = {"int8": 1, "int16": 2, "int32": 4}
# A micro-op is one uint32.
UOP_BYTES = 4
# More would not be simulated, and sizes stay below 2^63 bytes.
MAX_DEPTH = 1 << 30
_OPTIONAL = (
    "lanes", "type", "dram_type", "portable_depth", "load_queue", "store_queue", "shadow_of",
    "alias_of", "portable", "note",
)  # fmt: skip


def read_memories(
    section: Item, names: Mapping[str, int], dims: Mapping[str, int], queues: tuple[str, ...]
) -> tuple[Memory, ...]:
    """The memories in the order of the file.

    Raises: SpecError for a depth that is no power of two, an unknown lane, queue or memory, an id
        that stands twice, contradictory shadows and aliases.
    """
    found: dict[str, Memory] = {}
    entries = section.entries()
    for name, item in entries.items():
        memory = _read_one(name, item, names, dims, queues)
        twin = next((m for m in found.values() if m.id == memory.id), None)
        if twin is not None:
            raise item.error(f"id {memory.id} stands twice", f"{twin.name} has it already")
        found[name] = memory
    # After all are read: a shadow may stand above its memory.
    for name, item in entries.items():
        _check_link(item, found[name], found)
    return tuple(found.values())


def _read_one(
    name: str,
    item: Item,
    names: Mapping[str, int],
    dims: Mapping[str, int],
    queues: tuple[str, ...],
) -> Memory:
    table = item.table(["id", "depth"], _OPTIONAL)
    # The meaning of transfers uses these two for "this memory" and "DRAM".
    if not is_name(name) or name in ("DRAM", "SRAM"):
        raise item.error(
            f"'{name}' cannot name a memory", "DRAM and SRAM have a meaning of their own"
        )
    lanes = tuple(lane.word() for lane in table["lanes"].items()) if "lanes" in table else ()
    for n, lane in enumerate(lanes):
        if lane not in dims:
            raise table["lanes"].error(f"unknown dimension '{lane}'", f"dims are {', '.join(dims)}")
        if lane in lanes[:n]:
            raise table["lanes"].error(
                f"dimension '{lane}' stands twice", "a lane has one index in it", "drop one"
            )
    # `lanes: []` has a type: an element of one value, which is no micro-op.
    typed = "type" in table
    if ("lanes" in table) != typed:
        raise item.error(
            "`lanes` and `type` belong together",
            "a memory without both holds micro-ops",
            "give both or none; `lanes: []` makes an element of one value",
        )
    dtype = _type(table["type"]) if typed else "uint32"
    dram_dtype = _type(table["dram_type"]) if "dram_type" in table else dtype
    # Widening loads exist (VTA's ACC_8BIT); a narrowing one would lose bits without a word.
    if typed and LANE_BYTES[dram_dtype] > LANE_BYTES[dtype]:
        raise table["dram_type"].error(
            f"{dram_dtype} in DRAM does not fit {dtype} on chip",
            "a load may widen its values, not narrow them",
            f"give `dram_type: {dtype}`, or a wider `type`",
        )
    # Bytes in DRAM, not on chip: addresses of transfers count these.
    elem_bytes = LANE_BYTES[dram_dtype] if typed else UOP_BYTES
    for lane in lanes:
        elem_bytes *= dims[lane]
    depth = _power_of_two(table["depth"], names)
    portable = depth
    if "portable_depth" in table:
        # Not above the depth: a smaller configuration may have less than every implementation.
        portable = min(depth, _power_of_two(table["portable_depth"], names))
    return Memory(
        name=name,
        id=_identifier(table["id"], names),
        lanes=lanes,
        dtype=dtype,
        dram_dtype=dram_dtype,
        depth=depth,
        portable_depth=portable,
        elem_bytes=elem_bytes,
        load_queue=_queue(table.get("load_queue"), queues),
        store_queue=_queue(table.get("store_queue"), queues),
        shadow_of=table["shadow_of"].text() if "shadow_of" in table else None,
        portable="portable" not in table or table["portable"].flag(),
        note=table["note"].text() if "note" in table else "",
        alias_of=table["alias_of"].text() if "alias_of" in table else None,
    )


def _identifier(item: Item, names: Mapping[str, int]) -> int:
    value = item.integer(names)
    if value < 0:
        raise item.error(f"id {value} is negative", "a field of the instruction holds it")
    return value


def _power_of_two(item: Item, names: Mapping[str, int]) -> int:
    depth = item.integer(names)
    if depth > MAX_DEPTH:
        raise item.error(
            f"{depth} elements", f"at most {MAX_DEPTH} in one memory are handled", "use fewer"
        )
    if depth < 1 or depth & (depth - 1):
        raise item.error(
            f"{depth} is not a power of two",
            f"the depth is '{item.text()}'; addresses are bit fields",
            "use 2 ** something",
        )
    return depth


def _type(item: Item) -> str:
    if item.text() not in LANE_BYTES:
        raise item.error(f"unknown type '{item.text()}'", f"types are {', '.join(LANE_BYTES)}")
    return item.text()


def _queue(item: Item | None, queues: tuple[str, ...]) -> str | None:
    if item is None:
        return None
    if item.text() not in queues:
        raise item.error(f"unknown queue '{item.text()}'", f"queues are {', '.join(queues)}")
    return item.text()


def _check_link(item: Item, memory: Memory, memories: Mapping[str, Memory]) -> None:
    if memory.shadow_of and memory.alias_of:
        raise item.error(
            "`shadow_of` and `alias_of` exclude each other",
            "a shadow has elements of its own, an alias has none",
            "keep one of the two",
        )
    target = memory.shadow_of or memory.alias_of
    if target is None:
        # A memory that nothing moves in or out of is a mistake; shadows are written by compute
        # steps.
        if memory.load_queue is None and memory.store_queue is None:
            raise item.error(
                "neither loaded nor stored",
                "nothing could use it",
                "give load_queue or store_queue",
            )
        return
    kind = "shadow_of" if memory.shadow_of else "alias_of"
    place = item.entries()[kind]
    if target not in memories or target == memory.name:
        raise place.error(f"unknown memory '{target}'", f"memories are {', '.join(memories)}")
    other = memories[target]
    # Links of links would make elements whose owner depends on the order of reading.
    if other.shadow_of or other.alias_of:
        raise place.error(f"'{target}' is itself a shadow or an alias", "links do not chain")
    # The same address must name the same element in both.
    if (other.lanes, other.depth) != (memory.lanes, memory.depth):
        raise place.error(
            f"{memory.name} and {target} differ in lanes or depth",
            f"{list(memory.lanes)} x {memory.depth} and {list(other.lanes)} x {other.depth}",
        )
    if memory.shadow_of and memory.store_queue is None:
        raise place.error(
            "a shadow that is never stored", "only stores read it", "give it a store_queue"
        )
    if memory.shadow_of and memory.load_queue is not None:
        raise place.error("a shadow cannot be loaded", "compute steps write it", "drop load_queue")
    if memory.alias_of and memory.dtype != other.dtype:
        raise place.error(
            f"type {memory.dtype} differs from {target}'s {other.dtype}",
            "an alias is the same elements under a second id",
            f"give it `type: {other.dtype}`; `dram_type` is what may differ",
        )
