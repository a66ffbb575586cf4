"""What the compiler needs of a machine, beyond a spec that reads well.

Takes: an Isa.  Leaves: nothing, or a SpecError with file:line. Loading accepts more: a machine
that is refused here can still be shown, and its programs disassembled and simulated. Every rule
names an assumption of schedule/ and emit/; the judges make none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from csp_embed.errors import SpecError
from csp_embed.machine.commands.rules import command_refusals
from csp_embed.machine.queue_rules import queue_rules
from csp_embed.machine.reach import reach, stored_memory
from csp_embed.machine.reading.memories import LANE_BYTES
from csp_embed.machine.refused import refused
from csp_embed.machine.spec import Instruction, Isa
from csp_embed.machine.templates.rules import source_refusals

# Points of one contraction step that search, layouts and simulators expand. The largest matrix
# unit in use has 65,536.
MAX_POINTS = 1 << 18


def require(isa: Isa) -> None:
    """Raises: SpecError for the first thing that the compiler cannot use."""
    for error in refusals(isa):
        raise error


def refusals(isa: Isa) -> Iterator[SpecError]:
    """Everything that the compiler cannot use, in the order of the rules."""
    if isa.program is not None:
        # Machines of templates and commands have neither micro-ops nor queues; they have rules of
        # their own.
        yield from source_refusals(isa)
        return
    if isa.commands is not None:
        yield from command_refusals(isa)
        return
    for rule in _RULES:
        yield from rule(isa)


def _contract_parts(isa: Isa) -> Iterator[SpecError]:
    contract = isa.of_kind("contract")
    at = f"instructions.{contract.name}"
    # Reset is a form of the contraction itself: zeros could be loaded, but each costs DRAM bytes.
    if "reset" not in contract.roles:
        yield refused(
            isa,
            f"{contract.name} has no reset",
            "accumulators would begin with what an earlier tile or program left there",
            "add a field of one bit and `if FIELD: D[d][..] = 0` with `else:` to the meaning",
            f"{at}.meaning",
        )
    dst, *factors = contract.operands
    # A result in the narrow type is read from a shadow, after the epilogue has clipped it.
    if isa.memory(dst.memory).dtype != "int32":
        yield refused(
            isa,
            f"accumulators in {dst.memory} are {isa.memory(dst.memory).dtype}",
            "operators are sums in int32, and a narrower accumulator loses their high bits",
            f"give {dst.memory} `type: int32`, and a shadow of the narrow type for its results",
            f"memories.{dst.memory}.type",
        )
    for operand in factors:
        if operand.memory == dst.memory:
            yield refused(
                isa,
                f"{contract.name} reads {dst.memory} and adds into it",
                "tiles of the result and of an operand would lie on one another",
                "let the operand have a memory of its own",
                f"{at}.meaning",
            )
    for kind in ("contract", "map"):
        yield from _distinct(isa, isa.of_kind(kind))


def _distinct(isa: Isa, instruction: Instruction) -> Iterator[SpecError]:
    """Each operand needs an address of its own, each field one task, and no lane its name."""
    at = f"instructions.{instruction.name}.meaning"
    # None of the fields may serve two: the builder sets each by itself.
    seen: dict[str, str] = {}
    for operand in instruction.operands:
        if operand.uop_field in seen:
            yield refused(
                isa,
                f"{seen[operand.uop_field]} and {operand.role} of {instruction.name} share the"
                f" micro-op field '{operand.uop_field}'",
                "their addresses could not differ",
                "add a micro-op field and use it in one of the two addresses",
                at,
            )
        seen[operand.uop_field] = operand.role
    # Loop fields play no part twice: immediate, counts and factors are all set in one instruction.
    tasks = [*instruction.roles.items()]
    tasks += [(f"{o.role} outer factor", o.factor_out) for o in instruction.operands]
    tasks += [(f"{o.role} inner factor", o.factor_in) for o in instruction.operands]
    player: dict[str, str] = {}
    for task, name in tasks:
        if name in player:
            yield refused(
                isa,
                f"field '{name}' of {instruction.name} is both {player[name]} and {task}",
                "the two could not have different values",
                "add a field and use it for one of the two",
                at,
            )
        player[name] = task
    # Interpreters keep fields and lanes in one table of names.
    for name in player:
        if name in isa.dims:
            yield refused(
                isa,
                f"field '{name}' of {instruction.name} is called like a dimension",
                "the meaning could not tell the two apart",
                "rename the field",
                f"instructions.{instruction.name}.{name}",
            )


def _memories(isa: Isa) -> Iterator[SpecError]:
    contract, mapped = isa.of_kind("contract"), isa.of_kind("map")
    dst = contract.operands[0].memory
    # What must come from DRAM: factors and micro-ops. Sums can begin by a reset.
    sources = dict.fromkeys([*(o.memory for o in contract.operands[1:]), isa.uop_memory])
    for name in sources:
        memory = isa.memory(name)
        if memory.load_queue is None:
            what = "micro-ops" if name == isa.uop_memory else "an operand"
            yield refused(
                isa,
                f"nothing loads {name}",
                f"it holds {what} of {contract.name}",
                f"give {name} a `load_queue`",
                f"memories.{name}",
            )
    if mapped.operands[0].memory != dst:
        yield refused(
            isa,
            f"{mapped.name} works on {mapped.operands[0].memory}, {contract.name} on {dst}",
            "an epilogue works on the accumulators",
            f"let the meaning of {mapped.name} name {dst}",
            f"instructions.{mapped.name}.meaning",
        )
    # Stored is the shadow where there is one, else the accumulators themselves.
    stored = isa.memory(stored_memory(isa, dst))
    if stored.store_queue is None:
        yield refused(
            isa,
            f"nothing stores {dst}",
            f"the results of {contract.name} could not reach DRAM",
            f"give {dst} a `store_queue`, or a memory with `shadow_of: {dst}` and one",
            f"memories.{dst}",
        )
    # Equal bytes, so that one address reckons for the memory and for its store.
    if LANE_BYTES[stored.dram_dtype] != LANE_BYTES[stored.dtype]:
        yield refused(
            isa,
            f"{stored.name} is {stored.dtype} on chip and {stored.dram_dtype} in DRAM",
            "results and accumulators pass through DRAM in one type",
            "drop `dram_type`; a memory with `alias_of` can state a second, narrower form",
            f"memories.{stored.name}.dram_type",
            f"memories.{stored.name}",
        )
    # Without a shadow, the rule above has told it already.
    accumulator = isa.memory(dst)
    if (
        accumulator.load_queue
        and accumulator.dram_dtype != accumulator.dtype
        and stored.name != dst
    ):
        yield refused(
            isa,
            f"{dst} is loaded from {accumulator.dram_dtype}",
            "an int32 bias could not be loaded",
            "drop `dram_type`; a memory with `alias_of` can state a second, narrower form",
            f"memories.{dst}.dram_type",
        )
    for name in dict.fromkeys([*sources, dst, stored.name]):
        if not isa.memory(name).portable:
            yield refused(
                isa,
                f"{name} is not portable",
                "programs use only what every implementation has, and none works without it",
                "drop `portable: false`",
                f"memories.{name}.portable",
            )


def _fields(isa: Isa) -> Iterator[SpecError]:
    for instruction in isa.instructions:
        for f in instruction.fields:
            # The immediate is data; all else counts or addresses.
            signed = f.signed and f.name != instruction.roles.get("imm")
            # Fields that nothing uses may have any sign: they are written as 0.
            used = {*instruction.roles.values()}
            used |= {n for o in instruction.operands for n in (o.factor_out, o.factor_in)}
            if signed and f.name in used:
                yield refused(
                    isa,
                    f"field '{f.name}' of {instruction.name} is signed",
                    "counts, sizes, addresses and their factors are not negative",
                    "drop `signed: true`; only an immediate may have it",
                    f"instructions.{instruction.name}.{f.name}",
                )
    for f in isa.uop_fields:
        if f.signed:
            yield refused(
                isa,
                f"micro-op field '{f.name}' is signed",
                "addresses are not negative",
                "drop `signed: true`",
                f"uop.{f.name}",
            )
    page = isa.limits.page_bytes
    if 1 << isa.limits.dram_bits < 8 * page:
        yield refused(
            isa,
            f"its device memory has {1 << isa.limits.dram_bits} bytes",
            f"micro-ops, operands and results begin at pages of {page} bytes; a program has 8",
            "raise dram_bits, or lower page_bytes",
            "limits.dram_bits",
            "limits",
        )
    for name in _used(isa):
        memory = isa.memory(name)
        for kind, queue in (("load", memory.load_queue), ("store", memory.store_queue)):
            dram = isa.of_kind(kind).field(isa.of_kind(kind).roles["dram"])
            # Nothing lies at address 0: the first page is free, and every region begins a page.
            if queue is not None and page // memory.elem_bytes > dram.max:
                yield refused(
                    isa,
                    f"field '{dram.name}' of {isa.of_kind(kind).name} cannot reach {name} in DRAM",
                    f"{dram.width} bits name elements below {dram.max + 1}, of"
                    f" {memory.elem_bytes} bytes; programs begin at byte {page}",
                    "widen the field, or give limits a smaller page_bytes",
                    f"instructions.{isa.of_kind(kind).name}.{dram.name}",
                )


def _used(isa: Isa) -> list[str]:
    """Memories that compiled programs load or store."""
    contract = isa.of_kind("contract")
    names = [o.memory for o in contract.operands] + [isa.uop_memory]
    return list(dict.fromkeys([*names, stored_memory(isa, contract.operands[0].memory)]))


def _sizes(isa: Isa) -> Iterator[SpecError]:
    # A micro-op step is expanded point by point in layouts and judges.
    contract = isa.of_kind("contract")
    points = 1
    dims = dict.fromkeys(d for o in contract.operands for d in o.dims)
    for d in dims:
        points *= isa.dims[d]
    if points > MAX_POINTS:
        sizes = " x ".join(f"{d}={isa.dims[d]}" for d in dims)
        yield refused(
            isa,
            f"a step of {contract.name} has {points:,} multiply-accumulates ({sizes})",
            f"at most {MAX_POINTS:,} are handled",
            "make a dimension smaller",
            f"dims.{max(dims, key=lambda d: isa.dims[d])}",
        )
    # Shadows and aliases are views of another memory's bytes, not storage.
    total = sum(m.depth * m.elem_bytes for m in isa.memories if not (m.shadow_of or m.alias_of))
    if total > 1 << 30:
        largest = max(isa.memories, key=lambda m: m.depth * m.elem_bytes)
        yield refused(
            isa,
            f"its memories hold {total:,} bytes",
            "at most 2^30 are simulated, and what is not simulated is not delivered",
            f"give {largest.name} a smaller depth",
            f"memories.{largest.name}.depth",
        )
    lhs, rhs = contract.operands[1:]
    # reach, not depth: addresses that fields cannot name are no room.
    if lhs.memory == rhs.memory and reach(isa, lhs.memory) < 2:
        yield refused(
            isa,
            f"both operands of {contract.name} lie in {lhs.memory}, which has one element",
            "each of them needs an element",
            "give it a depth of 2 or more, and addresses of a bit or more",
            f"memories.{lhs.memory}.depth",
        )
    for name in _used(isa):
        if isa.uop_memory == name and reach(isa, name) < 1:
            yield refused(
                isa,
                f"no micro-op of {name} can be named",
                "the fields of the micro-op loop are too narrow",
                "widen them",
                f"memories.{name}",
            )


# In this order refusals are told: those before are what later rules take for granted.
_RULES: tuple[Callable[[Isa], Iterator[SpecError]], ...] = (
    _contract_parts,
    _memories,
    queue_rules,
    _fields,
    _sizes,
)
