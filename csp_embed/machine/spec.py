"""The machine as typed values: what `isa_specs/*.yaml` plus a configuration mean.

Everything a later stage needs to know of a machine is here; no stage reads YAML and none knows a
machine by name. Sizes are in lanes (of one memory element), depths in elements, positions in bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.machine.templates.spec import SourceMachine


@dataclass(frozen=True)
class Memory:
    """An on-chip memory and its image in DRAM; one address counts one element.

    lanes: instruction dimensions over which the lanes of one element run, row-major, e.g.
        ("b", "i"); empty for a micro-op memory (its element is one packed micro-op; dtype "uint32")
        and for one whose element is a single value.
    dtype: type of a lane on chip ("int8", "int32", "uint32" for micro-ops).
    dram_dtype: type of a lane in DRAM (differs only for widening loads).
    depth: elements by the configuration; portable_depth: elements that every implementation has.
    load_queue / store_queue: queue whose instructions load it from / store it to DRAM, or None.
    shadow_of: name of the memory that this one mirrors: it is written (truncated) whenever a
        compute step writes the other, and only stores read it (VTA's OUT beside ACC); else None.
    alias_of: name of the memory that transfers under this id really write or read, converting
        between dram_dtype and dtype (VTA's ACC_8BIT, a widening load into ACC). None otherwise.
    elem_bytes: bytes of one element in DRAM (dram_dtype).
    """

    name: str
    id: int
    lanes: tuple[str, ...]
    dtype: str
    dram_dtype: str
    depth: int
    portable_depth: int
    elem_bytes: int
    load_queue: str | None
    store_queue: str | None
    shadow_of: str | None = None
    portable: bool = True
    note: str = ""
    alias_of: str | None = None

    @property
    def home(self) -> str:
        """The memory whose elements these are: a shadow and an alias have those of another."""
        return self.shadow_of or self.alias_of or self.name


@dataclass(frozen=True)
class Field:
    """One bit field of an instruction or micro-op: bits lo .. lo+width-1 of the little-endian word.

    unused: bits that the spec gives no meaning (named `unused_<lo>`); they are kept so that
    decoding and encoding loses nothing, and are 0 in what we emit.
    """

    name: str
    lo: int
    width: int
    signed: bool = False
    unused: bool = False

    @property
    def min(self) -> int:
        # Two's complement, as the encoder writes it.
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        return (1 << (self.width - 1)) - 1 if self.signed else (1 << self.width) - 1


@dataclass(frozen=True)
class Operand:
    """A memory operand of a compute instruction.

    role: "dst", "lhs" or "rhs" of the statement; dims: its lanes' instruction dimensions;
    uop_field: micro-op field with its base address; factor_out / factor_in: instruction fields with
    what each iteration of the outer / inner loop adds to that address.
    """

    role: str
    memory: str
    dims: tuple[str, ...]
    uop_field: str
    factor_out: str
    factor_in: str


@dataclass(frozen=True)
class MapOp:
    """One operation of an elementwise instruction: value of its opcode field and its meaning.

    function: one of "min", "max", "add", "shr", "mul": dst = function(dst, other).
    `shr` is arithmetic; a negative amount shifts left. portable: every implementation has it.
    """

    name: str
    code: int
    function: str
    portable: bool = True


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    kind: "load" (DRAM to memory), "store", "contract" (multiply-accumulate over micro-ops), "map"
        (elementwise over micro-ops), "finish".
    fields: all bit fields, the opcode included, disjoint, within 128 bits.
    statement: the innermost statement of `meaning`: one micro-operation over its points.
    meaning: all of the meaning as written in the spec: loops, addresses and statement.
    operands: of a compute instruction, dst first. A contraction's statement is
        dst[..] += lhs[..] * rhs[..]; a map's is dst[..] = op(dst[..], lhs[..] or immediate).
    roles: part -> field name, for the parts that engines need:
        compute: uop_begin uop_end iter_out iter_in reset(contract) op use_imm imm(map)
        load/store: memory sram dram y_size x_size x_stride y_pad_0 y_pad_1 x_pad_0 x_pad_1
        all: pop_prev pop_next push_prev push_next (where the instruction has them)
    queue: its queue, or None for loads and stores (there the memory decides).
    """

    name: str
    opcode: int
    kind: str
    fields: tuple[Field, ...]
    roles: Mapping[str, str]
    queue: str | None = None
    statement: str = ""
    operands: tuple[Operand, ...] = ()
    ops: tuple[MapOp, ...] = ()
    meaning: str = ""

    def field(self, name: str) -> Field:
        for f in self.fields:
            if f.name == name:
                return f
        # KeyError is our bug: users' names are checked where they are read.
        raise KeyError(name)


@dataclass(frozen=True)
class Limits:
    """What portable programs keep to; sources in the spec.

    max_tokens: unconsumed tokens a direction can hold. map_hazard: in a map instruction, a step's
        written address may not be read by any of the next `map_hazard` steps (immediate forms read
        what they write, so the same dst; two-tensor forms: a dst that is a later src).
    stale_shadow: stores read the shadow memory, written only by contract (not reset) and map steps.
    imm_src_is_dst: with an immediate, src must be encoded equal to dst.
    nonzero_counts: iteration and micro-op counts of 0 are forbidden.
    dram_bits: physical addresses lie below 2**dram_bits bytes, and not at 0.
    page_bytes: alignment that moving a program keeps.
    """

    # Defaults are VTA's and on the safe side, for a spec that says nothing.
    max_tokens: int = 255
    map_hazard: int = 2
    stale_shadow: bool = True
    imm_src_is_dst: bool = True
    nonzero_counts: bool = True
    dram_bits: int = 32
    page_bytes: int = 4096


@dataclass(frozen=True, repr=False)
class Isa:
    """A machine: spec plus configuration. `queues` stand in token order (prev to next).

    dims: lanes of each instruction dimension; "b", "o" and "i" are always there (1 where the
    machine has no such dimension, and then no memory names it in its lanes).
    places: item of the spec ("memories.ACC", "uop.dst", "instructions.GEMM.imm") -> its file:line,
    for errors that are found after loading; two machines that differ in it alone are equal.
    program: what a machine that runs C loops adds (`control: source`); None: a machine that reads
    an instruction stream. commands: what a machine adds whose commands are written out one by one
    (`control: stream`). With either, micro-op fields, queues and limits are idle.
    """

    name: str
    config: Mapping[str, int | str]
    config_name: str
    dims: Mapping[str, int]
    memories: tuple[Memory, ...]
    uop_memory: str
    uop_fields: tuple[Field, ...]
    instructions: tuple[Instruction, ...]
    queues: tuple[str, ...]
    limits: Limits
    costs: Mapping[str, Mapping[str, float]]
    source: str = ""
    spec_text: str = ""  # the YAML it was read from; "" for a spec that ships with the package
    places: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)
    program: SourceMachine | None = None
    commands: CommandMachine | None = None

    def where(self, *items: str) -> str:
        """file:line of the first of these items that is known, else of what the last is a part of
        (of `costs` for `costs.map.step`), else its name."""
        known = next((self.places[i] for i in items if i in self.places), None)
        part = items[-1]
        while known is None and "." in part:
            part = part.rpartition(".")[0]
            known = self.places.get(part)
        # A spec that was made in memory may have no lines; the name of the item still helps.
        return items[-1] if known is None else known

    def facts(self) -> list[object]:
        """What tells an instruction-stream machine from another to whoever compiles for it; JSON
        values and texts."""
        return [
            self.name, dict(self.dims), repr(self.memories), self.uop_memory,
            repr(self.uop_fields), repr(self.instructions), self.queues, repr(self.limits),
            self.costs,
        ]  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.name, self.config_name))  # Mappings have none; equal machines agree.

    def __repr__(self) -> str:
        lanes = " ".join(f"{d}={n}" for d, n in self.dims.items())
        return (
            f"<Isa {self.name} {self.config_name}: lanes {lanes}, {len(self.instructions)} "
            f"instructions, {len(self.memories)} memories>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = "".join(
            f"<tr><td>{escape(m.name)}</td><td>{m.depth:,}</td><td>{m.elem_bytes}</td></tr>"
            for m in self.memories
        )
        head = "<tr><th>memory</th><th>elements</th><th>bytes each</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{rows}</table>"

    def memory(self, name: str) -> Memory:
        for m in self.memories:
            if m.name == name:
                return m
        raise KeyError(name)

    def memory_by_id(self, id: int) -> Memory | None:
        return next((m for m in self.memories if m.id == id), None)

    def instruction(self, name: str) -> Instruction:
        for i in self.instructions:
            if i.name == name:
                return i
        raise KeyError(name)

    def of_kind(self, kind: str) -> Instruction:
        """The only instruction of that kind."""
        # Loading has made sure of it; a second one would be a mistake here.
        (found,) = [i for i in self.instructions if i.kind == kind]
        return found

    def lane_shape(self, memory: str) -> tuple[int, ...]:
        return tuple(self.dims[d] for d in self.memory(memory).lanes)
