"""The cost parameters of a machine as the cycle engine takes them, and the memory interface chosen.

Takes: `isa.costs` (sections of numbers, explained in the spec).  Leaves: the cost vector of
`layout` and the per-kind costs of `table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SpecError
from csp_embed.machine.interface import MemoryInterface, checked, interfaces, parse_memory
from csp_embed.machine.spec import Isa
from csp_embed.sim.cycles import layout

__all__ = ["Costs", "MemoryInterface", "checked", "costs", "interfaces", "parse_memory"]

# All of them, whatever a program uses: a spec is wrong when it is loaded, not in some runs.
_SECTIONS = {
    "read": ("command", "rearm", "tags", "data"),
    "instruction": ("bytes", "queue_depth", "dispatch", "token", "sync", "finish", "turn"),
    "fetch": ("start", "drain", "turn"),
    "load": ("start", "pad_row", "last", "narrow_port"),
    "store": ("start", "setup", "word_gap", "ack"),
    "contract": ("fill", "step", "reset_step"),
    "map": ("fill", "immediate_step", "tensor_step"),
}
_INTERFACE = ("bytes_per_cycle", "beat_bytes", "burst_beats", "wake")


@dataclass(frozen=True)
class Costs:
    """Checked integer costs: `vector` for the core, sections for the table of instructions."""

    vector: NDArray[np.int64]
    sections: Mapping[str, Mapping[str, int]]
    priority: Mapping[str, int]
    beat_bytes: int
    burst_beats: int
    latency: int
    rate: int  # bytes per 1024 cycles
    bytes_per_cycle: float


def costs(isa: Isa, memory: MemoryInterface) -> Costs:
    """The costs of `isa` behind `memory`.

    Raises: SpecError where the spec has no costs, no such interface, or a number that is missing or
    makes no sense.
    """
    if memory.name not in interfaces(isa):
        known = ", ".join(interfaces(isa)) or "none"
        raise SpecError(
            f"{isa.name} has no costs for the memory interface '{memory.name}'",
            where=isa.where("costs", f"costs of {isa.source or isa.name}"),
            why=f"memory interfaces with costs: {known}",
            hint=f"--memory {interfaces(isa)[0]}"
            if interfaces(isa)
            else "add the section to the spec (isa_specs/vta.yaml explains every cost)",
        )
    port = _section(isa, memory.name, _INTERFACE[1:])
    # What `--memory` says counts before what the spec says.
    rate = memory.bytes_per_cycle or isa.costs[memory.name].get("bytes_per_cycle", 0.0)
    if rate <= 0:
        raise _missing(isa, memory.name, "bytes_per_cycle", "must be a positive number")
    sections = {name: _section(isa, name, keys) for name, keys in _SECTIONS.items()}
    priority = dict(_section(isa, "read_priority", tuple(isa.costs.get("read_priority", {}))))
    # Addresses become beats by shifts, and bursts are aligned by masks.
    for key in ("beat_bytes", "burst_beats"):
        if port[key] < 1 or port[key] & (port[key] - 1):
            raise _missing(isa, memory.name, key, f"{port[key]} is not a power of two")
    instruction, read, fetch = sections["instruction"], sections["read"], sections["fetch"]
    for section, key in (
        ("instruction", "bytes"), ("instruction", "queue_depth"), ("read", "tags")
    ):  # fmt: skip
        if sections[section][key] < 1:
            raise _missing(isa, section, key, "must be at least 1")
    burst_bytes = port["burst_beats"] * port["beat_bytes"]
    # Else an instruction would arrive in pieces, which the engine does not model.
    if instruction["bytes"] % port["beat_bytes"] or burst_bytes < instruction["bytes"]:
        raise _missing(isa, "instruction", "bytes", "must be whole beats, at most a burst")
    if "fetch" not in priority:
        raise _missing(isa, "read_priority", "fetch", "is missing")
    vector = np.zeros(layout.COSTS, np.int64)
    for place, value in {
        layout.QUEUE_DEPTH: instruction["queue_depth"],
        layout.TOKEN: instruction["token"],
        layout.DISPATCH: instruction["dispatch"],
        layout.TURN: instruction["turn"],
        layout.FETCH_START: fetch["start"],
        layout.FETCH_DRAIN: fetch["drain"],
        layout.FETCH_TURN: fetch["turn"],
        layout.FETCH_PORT: priority["fetch"],
        layout.INSTRUCTION_BYTES: instruction["bytes"],
        layout.COMMAND: read["command"],
        layout.REARM: read["rearm"],
        layout.TAGS: read["tags"],
        layout.WAKE: port["wake"],
        layout.RETURN: read["data"],
        layout.LATENCY: memory.latency,
        layout.BEAT_BYTES: port["beat_bytes"],
        layout.BURST_BEATS: port["burst_beats"],
        # At least 1: a rate that rounds to 0 would never end.
        layout.RATE: max(1, round(rate * layout.RATE_UNIT)),
        layout.TOKEN_LIMIT: isa.limits.max_tokens,
    }.items():
        vector[place] = value
    return Costs(
        vector,
        sections,
        priority,
        port["beat_bytes"],
        port["burst_beats"],
        memory.latency,
        int(vector[layout.RATE]),
        float(rate),
    )


def _section(isa: Isa, name: str, keys: tuple[str, ...]) -> dict[str, int]:
    if name not in isa.costs:
        raise _missing(isa, name, "", "the section is missing")
    values: dict[str, int] = {}
    for key in keys:
        if key not in isa.costs[name]:
            raise _missing(isa, name, key, "is missing")
        value = isa.costs[name][key]
        if value < 0 or value != int(value):
            raise _missing(isa, name, key, f"{value} is not a whole number of at least 0")
        values[key] = int(value)
    return values


def _missing(isa: Isa, section: str, key: str, why: str) -> SpecError:
    place = f"{section}.{key}" if key else section
    return SpecError(
        f"the costs of {isa.name} cannot drive the cycle engine",
        where=isa.where(f"costs.{section}", "costs", f"costs.{place}"),
        why=f"{place}: {why}",
        hint="isa_specs/vta.yaml explains every cost",
    )
