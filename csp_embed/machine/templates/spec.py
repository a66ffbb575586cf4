"""What a machine of `control: source` adds to an `Isa`: templates of C text and how to build them.

Such a machine is a CPU: its instructions are C statements (intrinsics) with named operands, the
loops around them run in the CPU, and the C compiler allocates the registers that are named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Elementwise functions that a meaning may call, as `ir.operator.Step` names them; `shl` is the
# left shift that a negative `shr` amount stands for.
FUNCTIONS = ("add", "min", "max", "mul", "shr", "shl")


@dataclass(frozen=True)
class Slot:
    """One operand of a template. kind: "register" (of `memory`), "address" (a C pointer to `dtype`
    in the host's memory) or "number" (an int32 expression)."""

    name: str
    kind: str
    memory: str = ""
    dtype: str = ""


@dataclass(frozen=True)
class Template:
    """One instruction as C text.

    kind: what its meaning does: "contract", "reset", "fill", "copy_in", "copy_out", "convert" or
        "map".
    roles: part -> name of the operand that plays it: dst, lhs, rhs (contract; map: dst, other;
        convert: dst, source), address, count (lanes that a copy out writes), value (of a fill).
    function: of a map, one of FUNCTIONS. per_cycle: how many the CPU begins in a cycle; latency:
    cycles until a result can be used.
    """

    name: str
    kind: str
    slots: tuple[Slot, ...]
    roles: Mapping[str, str]
    meaning: str
    text: str
    per_cycle: float
    latency: float
    function: str = ""

    def slot(self, role: str) -> Slot:
        """The operand that plays `role`."""
        # Each role is played once (meaning.py).
        return next(s for s in self.slots if s.name == self.roles[role])


@dataclass(frozen=True)
class RegisterFile:
    """count: registers of that kind; ctype: the C type of a variable that lies in one. numbered:
    the C text names registers by their number, and we choose it; else the C compiler chooses."""

    name: str
    # Empty where registers are numbered: there are no variables.
    count: int
    ctype: str
    numbered: bool = False


@dataclass(frozen=True)
class Runner:
    """What runs programs of the machine where this computer is another. arch: what `uname -m` says
    on the machine itself; "": any. compiler, emulator: commands, split into words; empty: none.
    system: C text with `_start` and `system_call`, for programs without a C library; "": the
    compiler links one."""

    arch: str = ""
    compiler: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()
    system: str = ""


@dataclass(frozen=True)
class Cache:
    """size, line: bytes; bytes_per_cycle: that a core reads from it at most."""

    size: int
    line: int
    bytes_per_cycle: float


@dataclass(frozen=True)
class SourceMachine:
    """headers, flags: what C text with these templates needs; features: names by which the running
    kernel says that a CPU has the instructions. file_of: memory -> its register file. align: bytes
    to which buffers are aligned. declarations: C text that stands before every function;
    attributes: before each that holds templates. ctypes: memory -> the C type of its variables;
    takes: memory -> registers of the file that one takes."""

    templates: tuple[Template, ...]
    files: Mapping[str, RegisterFile]
    file_of: Mapping[str, str]
    caches: tuple[Cache, ...]
    headers: tuple[str, ...]
    flags: tuple[str, ...]
    features: tuple[str, ...]
    align: int
    declarations: str = ""
    attributes: str = ""
    ctypes: Mapping[str, str] = field(default_factory=dict[str, str])
    takes: Mapping[str, int] = field(default_factory=dict[str, int])
    runner: Runner = Runner()

    def file(self, memory: str) -> RegisterFile:
        """The register file of a memory."""
        return self.files[self.file_of[memory]]

    def contracts(self) -> tuple[Template, ...]:
        """All contractions, in the file's order."""
        return tuple(t for t in self.templates if t.kind == "contract")

    def results(self, sums: str) -> str:
        """The memory that epilogues change and copies out read: that of the sums, or what they are
        converted to."""
        # Where sums can be stored themselves no conversion is needed, even if the machine has one.
        if self.find("copy_out", dst=sums) is not None:
            return sums
        found = self.find("convert", source=sums)
        return sums if found is None else found.slot("dst").memory

    def find(self, kind: str, **wanted: str) -> Template | None:
        """The first template of that kind; wanted: role -> memory of a register or type of an
        address, and `function` of a map."""
        # In the file's order: of several that could serve, the author's first is meant.
        for t in self.templates:
            if t.kind == kind and wanted.get("function", t.function) == t.function:
                checks = [(r, v) for r, v in wanted.items() if r != "function"]
                # A type for an address, a memory for a register: no name is both.
                if all(v in (t.slot(r).memory, t.slot(r).dtype) for r, v in checks):
                    return t
        return None

    def template(self, name: str) -> Template:
        return next(t for t in self.templates if t.name == name)
