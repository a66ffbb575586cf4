"""What the compiler needs of queues and tokens.

Takes: an Isa of queues.  Leaves: a SpecError with file:line for each rule that it breaks.
"""

from __future__ import annotations

from collections.abc import Iterator

from csp_embed.errors import SpecError
from csp_embed.machine.reach import stored_memory
from csp_embed.machine.refused import refused
from csp_embed.machine.spec import Instruction, Isa

# Which fields a queue needs to talk to the neighbour before or behind it.
_TOKENS = {"prev": ("pop_prev", "push_prev"), "next": ("pop_next", "push_next")}


def queue_rules(isa: Isa) -> Iterator[SpecError]:
    """Tokens pass between neighbours, and computing is one queue."""
    contract, mapped, finish = (isa.of_kind(k) for k in ("contract", "map", "finish"))
    dst = contract.operands[0].memory
    home = contract.queue or ""
    # Position in the spec's order: tokens go one step up or down in it.
    rank = {q: n for n, q in enumerate(isa.queues)}
    # All that touches accumulators has to be in one queue, or needs tokens that no one plans.
    same = [
        (f"{mapped.name} runs", mapped.queue, f"instructions.{mapped.name}.queue"),
        (f"{isa.uop_memory} is loaded", isa.memory(isa.uop_memory).load_queue,
         f"memories.{isa.uop_memory}.load_queue"),
        (f"{dst} is loaded", isa.memory(dst).load_queue, f"memories.{dst}.load_queue"),
    ]  # fmt: skip
    for what, queue, item in same:
        if queue not in (None, home):
            yield refused(
                isa,
                f"{what} in queue '{queue}', {contract.name} in '{home}'",
                "accumulators and micro-ops are kept in order by one queue",
                f"use the queue '{home}'",
                item,
                item.rpartition(".")[0],
            )
    stored = isa.memory(stored_memory(isa, dst))
    # Every pair of queues that waits on one another: loads before compute, compute before stores.
    ends = [(f"{n} is loaded", isa.memory(n).load_queue, home, f"memories.{n}")
            for n in dict.fromkeys(o.memory for o in contract.operands[1:])]  # fmt: skip
    ends.append((f"{stored.name} is stored", stored.store_queue, home, f"memories.{stored.name}"))
    item = f"instructions.{finish.name}"
    # The last store must have ended before the host is told.
    ends.append((f"{finish.name} runs", finish.queue, stored.store_queue or home, item))
    for what, queue, other, item in ends:
        if queue is None or queue == other:
            continue
        # VTA's load and store modules have no FIFO between them: compute relays.
        if abs(rank[queue] - rank[other]) > 1:
            yield refused(
                isa,
                f"{what} in queue '{queue}', which is no neighbour of '{other}'",
                f"tokens pass between neighbours: {', '.join(isa.queues)}",
                "order `queues` so that the two are neighbours",
                item,
            )
            continue
        yield from _tokens(isa, queue, other)
        if isa.limits.max_tokens < 1:
            yield refused(
                isa,
                f"queues '{queue}' and '{other}' cannot hold a token",
                "max_tokens is 0",
                "set max_tokens to 1 or more",
                "limits.max_tokens",
            )


def _tokens(isa: Isa, queue: str, other: str) -> Iterator[SpecError]:
    """The instructions of both queues can pop and push between them."""
    # Both ways: one says that data is there, the other that its room is free again.
    for here, there in ((queue, other), (other, queue)):
        side = "next" if isa.queues.index(here) < isa.queues.index(there) else "prev"
        for instruction in _in_queue(isa, here):
            lacking = [r for r in _TOKENS[side] if r not in instruction.roles]
            # Nothing waits for the end of a program.
            lacking = [r for r in lacking if instruction.kind != "finish" or r.startswith("pop")]
            if lacking:
                yield refused(
                    isa,
                    f"{instruction.name} in queue '{here}' has no field for {lacking[0]}",
                    f"it must keep its order with queue '{there}'",
                    f"add a field of one bit with `role: {lacking[0]}`",
                    f"instructions.{instruction.name}",
                )


# Loads and stores have no queue of their own: the memory that they name decides (VTA).
def _in_queue(isa: Isa, queue: str) -> list[Instruction]:
    """The instructions that run in `queue`; transfers where a memory says so."""
    found: list[Instruction] = []
    for instruction in isa.instructions:
        match instruction.kind:
            case "load":
                queues = {m.load_queue for m in isa.memories}
            case "store":
                queues = {m.store_queue for m in isa.memories}
            case _:
                queues = {instruction.queue}
        if queue in queues:
            found.append(instruction)
    return found
