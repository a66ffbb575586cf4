"""What compilation weighs: cycles of one machine behind one memory interface.

Takes: Isa, what `--memory` says.  Leaves: `Costs`. Builders read costs from here only; the cycle
engine and the certificate's judge read the spec by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from csp_embed.errors import InputError, SpecError
from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.machine.interface import MemoryInterface, default_memory, interfaces, parse_memory
from csp_embed.machine.spec import Isa
from csp_embed.machine.templates.spec import SourceMachine


@dataclass(frozen=True)
class Costs:
    """Cycles, unless said.

    memory: the interface, as `--memory` names it. port_bytes: bytes a cycle of each port.
    read_bytes: those that loads reach: no more requests are under way than the machine has tags
    for, so a latency limits the rate. beat_bytes: of a beat; burst_beats: most beats of a burst;
    burst_setup: between the bursts of a store; word_gap: between its words. step, reset_step,
    immediate_step, tensor_step: steps of compute instructions. dma_gap, instruction, fetch: what a
    load, a compute instruction and fetching an instruction cost beyond their work.
    """

    memory: str
    port_bytes: float
    read_bytes: float
    beat_bytes: float
    burst_beats: float
    burst_setup: float
    word_gap: float
    step: float
    reset_step: float
    immediate_step: float
    tensor_step: float
    dma_gap: float
    instruction: float
    fetch: float

    def store_cycles(self, size: int) -> float:
        """Cycles that storing an element of `size` bytes takes: its beats (one at least), its
        share of a burst's set-up, and a gap."""
        # An element smaller than a beat takes a whole one.
        beats = max(size / self.beat_bytes, 1.0)
        return beats * (self.beat_bytes / self.port_bytes + self.burst_setup / self.burst_beats) + (
            self.word_gap
        )


# Of a machine that states no costs at all: steps, and bytes at eight a cycle. Its schedules are
# ranked by estimate, and no cycles are told.
UNSTATED = Costs("", 8, 8, 8, 1, 0, 0, 1, 1, 1, 2, 20, 10, 4)


def costs_of(isa: Isa, memory: str | MemoryInterface = "") -> Costs:
    """The costs of `isa` behind `memory`; "": behind the first interface of its spec.

    Raises: InputError for a text that cannot be read, and for an interface where the spec states no
    costs at all: it would have no effect; SpecError where the spec has no such interface, or lacks
    a number.
    """
    # These machines have no memory interfaces to choose from.
    if isa.program is not None:
        return _of_source(isa, isa.program)
    if isa.commands is not None:
        return _of_commands(isa.commands)
    if not isa.costs:
        if memory:
            raise InputError(
                f"memory {_text(memory)!r} has no effect on {isa.name}",
                where="memory",
                why="its spec states no costs, so no cycles are predicted",
                hint="leave out the memory",
            )
        return UNSTATED
    asked = memory if isinstance(memory, MemoryInterface) else None
    if asked is None:
        asked = parse_memory(str(memory) or default_memory(isa))
    if asked.name not in interfaces(isa):
        raise SpecError(
            f"{isa.name} states no costs for the memory interface {asked.name!r}",
            where="--memory",
            why=f"it has {', '.join(interfaces(isa))}",
            hint=f"--memory {default_memory(isa)}",
        )
    port = asked.name
    beat, burst = _positive(isa, port, "beat_bytes"), _positive(isa, port, "burst_beats")
    rate = asked.bytes_per_cycle or _positive(isa, port, "bytes_per_cycle")
    # wake: until a request that finds the memory idle is accepted; turn: from an end to the next
    # start.
    wake, turn = _number(isa, port, "wake"), _number(isa, "instruction", "turn")
    # Little's law: requests under way x bytes of each / time from grant to last beat.
    under_way = _positive(isa, "read", "tags") * burst * beat
    read = min(rate, under_way / (asked.latency + burst * beat / rate))
    # Instructions in one fetch: a burst is filled before the next is asked for (docs/cycles.md).
    fetched = burst * beat / _positive(isa, "instruction", "bytes")
    return Costs(
        memory=named(asked),
        port_bytes=rate,
        read_bytes=read,
        beat_bytes=beat,
        burst_beats=burst,
        # The next burst waits for the acknowledgement of the one before.
        burst_setup=_number(isa, "store", "setup") + asked.latency,
        word_gap=_number(isa, "store", "word_gap"),
        step=_positive(isa, "contract", "step"),
        reset_step=_number(isa, "contract", "reset_step"),
        immediate_step=_number(isa, "map", "immediate_step"),
        tensor_step=_positive(isa, "map", "tensor_step"),
        # Of an instruction after another one of its queue: command, grant and last beat; start,
        # pipeline and turn. Only ranks tiles; the cycle engine measures them.
        dma_gap=wake + asked.latency + 7,
        instruction=_number(isa, "contract", "fill") + 2 * turn + 1,
        fetch=(burst * beat / rate + wake + asked.latency + fetched + 4) / fetched,
    )


def _of_source(isa: Isa, program: SourceMachine) -> Costs:
    """Those of a CPU: templates at the rates that the spec states, memory at that of its last
    cache; no requests, bursts or fetches that would wait."""
    # The last cache: a layer's operands come from there at best.
    port = program.caches[-1].bytes_per_cycle

    def cycles(kind: str) -> float:
        # The slowest of a kind: which of several templates will be used is not known yet.
        found = [1 / t.per_cycle for t in program.templates if t.kind == kind]
        return max(found, default=0.0)

    return Costs(
        memory="host", port_bytes=port, read_bytes=port, beat_bytes=port, burst_beats=1,
        burst_setup=0, word_gap=cycles("copy_out"), step=cycles("contract"),
        reset_step=cycles("reset"), immediate_step=cycles("map"), tensor_step=2 * cycles("map"),
        dma_gap=0, instruction=0, fetch=0,
    )  # fmt: skip


def _of_commands(machine: CommandMachine) -> Costs:
    """Those of a stream of commands: steps and bytes; what follows the sums runs beside the copies
    out."""
    port = machine.costs["bytes_per_cycle"]
    return Costs(
        memory="host", port_bytes=port, read_bytes=port, beat_bytes=port, burst_beats=1,
        burst_setup=0, word_gap=0, step=machine.costs["step"], reset_step=0, immediate_step=0,
        tensor_step=0, dma_gap=0, instruction=0, fetch=0,
    )  # fmt: skip


def named(memory: MemoryInterface) -> str:
    """The text that `parse_memory` reads as `memory`."""
    latency = [f"latency={memory.latency}"] if memory.latency else []
    rate = memory.bytes_per_cycle
    return ",".join([memory.name, *latency, *([] if rate is None else [f"bytes_per_cycle={rate}"])])


def _text(memory: str | MemoryInterface) -> str:
    return memory if isinstance(memory, str) else named(memory)


# Missing is an error where the section exists: a cost of 0 would be a wrong answer, not a default.
def _number(isa: Isa, section: str, key: str) -> float:
    value = isa.costs.get(section, {}).get(key)
    if value is None or value < 0:
        raise SpecError(
            f"the costs of {isa.name} lack a number that compilation weighs: {section}.{key}",
            where=isa.where(f"costs.{section}.{key}", f"costs.{section}", f"costs.{section}.{key}"),
            why="it is missing" if value is None else f"{value} is below 0",
            hint="isa_specs/vta.yaml explains every cost; csp-embed isa check FILE names them all",
        )
    return float(value)


def _positive(isa: Isa, section: str, key: str) -> float:
    value = _number(isa, section, key)
    if value <= 0:
        raise SpecError(
            f"the costs of {isa.name} cannot be weighed: {section}.{key} is {value:g}",
            where=isa.where(f"costs.{section}.{key}"),
            why="it has to be above 0",
            hint="isa_specs/vta.yaml explains every cost",
        )
    return value
