"""What `--memory` says: an interface of the spec's costs, and what a board changes of it."""

from __future__ import annotations

from dataclasses import dataclass

from csp_embed.errors import InputError, SpecError
from csp_embed.machine.spec import Isa


@dataclass(frozen=True)
class MemoryInterface:
    """What `--memory` says: an interface of the spec, and what a board adds to it.

    latency: cycles between a request and its answer on top of the interface's own (reads: grant to
    acceptance; writes: last beat to acknowledgement). bytes_per_cycle: of each port; None: the
    interface's.
    """

    # The interface of DE10 boards: bursts of at most 16 beats.
    name: str = "de10"
    latency: int = 0
    bytes_per_cycle: float | None = None


def parse_memory(text: str) -> MemoryInterface:
    """`de10`, `pynq,latency=40`, `de10,latency=40,bytes_per_cycle=4.2`.

    Raises: InputError naming the part that cannot be read. Whether the interface exists is the
    spec's business.
    """
    name, *options = [part.strip() for part in text.split(",")]
    values: dict[str, float] = {}
    for option in options:
        key, equals, value = (part.strip() for part in option.partition("="))
        if key not in ("latency", "bytes_per_cycle") or not equals or key in values:
            raise _bad(text, f"'{option}' is not latency=N or bytes_per_cycle=M, once each")
        try:
            # A latency is whole cycles; a rate may be a fraction of a byte.
            values[key] = int(value) if key == "latency" else float(value)
        except ValueError:
            raise _bad(text, f"'{value}' is not a number that {key} can have") from None
    if not name or "=" in name:
        raise _bad(text, "the interface's name comes first")
    return checked(
        MemoryInterface(name, int(values.get("latency", 0)), values.get("bytes_per_cycle"))
    )


def checked(memory: MemoryInterface) -> MemoryInterface:
    """`memory`, or an InputError where its numbers make no sense."""
    # Far beyond any board: what lies outside is a slip of the pen.
    if not 0 <= memory.latency <= 1_000_000:
        raise _bad(memory.name, f"latency {memory.latency} is not between 0 and 1000000 cycles")
    rate = memory.bytes_per_cycle
    if rate is not None and not 1 / 64 <= rate <= 4096:
        raise _bad(memory.name, f"bytes_per_cycle {rate} is not between 1/64 and 4096")
    return memory


def _bad(text: str, why: str) -> InputError:
    return InputError(
        f"cannot read the memory '{text}'",
        where="--memory",
        why=why,
        hint="for example --memory de10 or --memory pynq,latency=40,bytes_per_cycle=4",
    )


def interfaces(isa: Isa) -> tuple[str, ...]:
    """Names of the memory interfaces that the spec knows."""
    # Interfaces are told from other cost sections (read, store, map) by what only they have.
    return tuple(name for name, section in isa.costs.items() if "burst_beats" in section)


def default_memory(isa: Isa) -> str:
    """The first memory interface that the spec states costs for.

    Raises: SpecError where it states none.
    """
    known = interfaces(isa)
    if not known:
        raise SpecError(
            f"the costs of {isa.name} name no memory interface",
            where=isa.where("costs"),
            why="no section has burst_beats; embeddings and schedules are chosen by cycles",
            hint="add one, such as `ideal` in isa_specs/toy_dot.yaml, or leave `costs` out",
        )
    # In the file's order: the spec's author names the usual one first.
    return known[0]
