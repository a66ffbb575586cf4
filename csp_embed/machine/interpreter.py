"""The slow spec interpreter: runs instructions straight from the text of their stated meaning.

It walks the syntax tree of `Instruction.meaning`, scalar by scalar, in program order, and knows no
machine and no shortcut: the oracle for the fast simulator. Tokens are not looked at (program order
is the order that a right token discipline must agree with).
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.ir.stream import Program, Stream
from csp_embed.machine.reading import expr
from csp_embed.machine.spec import Instruction, Isa, Memory
from csp_embed.machine.words import bits
from csp_embed.machine.words.listing import line

# Bytes of a page: images are sparse, and pages make untouched space free.
_PAGE = 4096


def wrap(value: int, dtype: str) -> int:
    """The value that `dtype` (int8, int16, int32, uint32) holds after dropping the high bits."""
    size = int(dtype.removeprefix("u").removeprefix("int"))
    value &= (1 << size) - 1
    # Two's complement: the top bit counts negative.
    return value - (1 << size) if dtype[0] == "i" and value >> (size - 1) else value


def shift(value: int, amount: int) -> int:
    """Arithmetic shift right of an int32; a negative amount shifts left; low 5 bits count."""
    # 5 bits, as VTA's hardware looks at no more of the amount (docs/vta.md).
    return value >> (amount & 31) if amount >= 0 else value << (-amount & 31)


FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "min": min,
    "max": max,
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "shr": shift,
}


class Image:
    """DRAM bytes by address; only addresses in one of the given ranges exist."""

    def __init__(self, ranges: Iterable[tuple[int, Any]] = ()) -> None:
        # Bytes, and for each whether it exists: a page may lie in two ranges with a hole between.
        self._pages: dict[int, tuple[bytearray, bytearray]] = {}
        for address, data in ranges:
            self.place(address, np.ascontiguousarray(data).tobytes())

    def place(self, address: int, data: bytes) -> None:
        """Makes a range exist, with these bytes."""
        for at, part in self._split(address, data):
            store, known = self._pages.setdefault(at // _PAGE, (bytearray(_PAGE), bytearray(_PAGE)))
            store[at % _PAGE : at % _PAGE + len(part)] = part
            known[at % _PAGE : at % _PAGE + len(part)] = b"\1" * len(part)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes. Raises: SimError where one of them lies in no range."""
        return b"".join(
            bytes(self._page(at)[0][at % _PAGE : at % _PAGE + len(part)])
            # Everything is checked before anything is read: a range may begin well and end outside.
            for at, part in self._split(address, self._check(address, size))
        )

    def write(self, address: int, data: bytes) -> None:
        """Overwrites existing bytes. Raises: SimError where one of them lies in no range."""
        self._check(address, len(data))
        for at, part in self._split(address, data):
            self._page(at)[0][at % _PAGE : at % _PAGE + len(part)] = part

    def _page(self, address: int) -> tuple[bytearray, bytearray]:
        return self._pages.get(address // _PAGE, (bytearray(), bytearray()))

    def _check(self, address: int, size: int) -> bytes:
        for at, part in self._split(address, bytes(size)):
            if self._page(at)[1][at % _PAGE : at % _PAGE + len(part)].count(1) != len(part):
                raise SimError(f"DRAM {address:#x} .. {address + size:#x} is outside the image")
        return bytes(size)

    @staticmethod
    def _split(address: int, data: bytes) -> Iterable[tuple[int, bytes]]:
        """The parts of a range that lie in one page each."""
        done = 0
        while done < len(data):
            size = min(len(data) - done, _PAGE - (address + done) % _PAGE)
            yield address + done, data[done : done + size]
            done += size


class Interpreter:
    """Memories and DRAM of one machine.

    latched: stores read what contract and map steps left in the shadow memory, as hardware does;
        else the mirrored memory itself, as functional simulators do. Portable programs agree.
    """

    def __init__(self, isa: Isa, image: Image, *, latched: bool = False) -> None:
        self.isa, self.image, self.latched = isa, image, latched
        # Aliases have no storage: transfers under their id change the memory that they name.
        self.memories: dict[str, NDArray[Any]] = {
            m.name: np.zeros((m.depth, *isa.lane_shape(m.name)), dtype=m.dtype)
            for m in isa.memories
            if m.alias_of is None
        }
        self.depths = {m.name: m.depth for m in isa.memories}
        self.dtypes = {m.name: m.dtype for m in isa.memories}
        self.shadows = {
            # Shadow types may be narrower than the memory: each is cut by itself.
            name: [(m.name, m.dtype) for m in isa.memories if m.shadow_of == name]
            for name in self.memories
        }

    def run(self, stream: Stream) -> None:
        """All instructions in program order. Raises: SimError naming number and text."""
        for n in range(len(stream)):
            self.step(stream, n)

    def step(self, stream: Stream, n: int) -> None:
        """Instruction n of `stream`."""
        code = int(stream.code[n])
        if code < 0:
            # Unwritten fields are 0 in an encoded word too.
            raise SimError(f"unknown instruction: {line(self.isa, stream, n).strip()}")
        instruction = self.isa.instructions[code]
        values = {f.name: int(stream.fields[f.name][n]) if f.name in stream.fields else 0
                  for f in instruction.fields}  # fmt: skip
        try:
            _Execution(self, instruction, values).block(_tree(instruction.meaning))
        except (SimError, expr.ExprError) as error:
            what = error.what if isinstance(error, SimError) else str(error)
            where = f"instruction {line(self.isa, stream, n).strip()}"
            raise SimError(
                what, where=where, hint="csp-embed disasm FILE shows the instructions before it"
            ) from error


def run(isa: Isa, program: Program, *, latched: bool = False) -> Image:
    """DRAM after `program`: the before ranges, and zeros where only after ranges are.

    Raises: SimError for an address outside, an unknown instruction, a micro-op past its memory.
    """
    # After-ranges exist before they are written; what both have keeps the bytes before.
    image = Image((a, np.zeros_like(data)) for a, data in program.after)
    for address, data in program.before:
        image.place(address, data.tobytes())
    Interpreter(isa, image, latched=latched).run(bits.decode(isa, program.insn))
    return image


@lru_cache(maxsize=64)
# Meanings are few and run millions of times; parsing was most of the work.
def _tree(meaning: str) -> tuple[ast.stmt, ...]:
    return tuple(ast.parse(meaning).body)


@lru_cache(maxsize=1024)
# Nodes are hashed by identity; the cache itself keeps them alive.
def _reference(node: ast.Subscript) -> tuple[str, ast.expr, tuple[ast.expr, ...]]:
    """`MEM[address][b, o]` or `MEM[address]` -> memory, address, lane indices."""
    match node:
        case ast.Subscript(value=ast.Subscript(value=ast.Name(id=memory), slice=at), slice=lanes):
            return memory, at, tuple(lanes.elts) if isinstance(lanes, ast.Tuple) else (lanes,)
        case ast.Subscript(value=ast.Name(id=memory), slice=at):
            return memory, at, ()
        case _:
            pass
    raise expr.ExprError(f"'{ast.unparse(node)}' is no memory reference")


@lru_cache(maxsize=1024)
def _names(node: ast.expr) -> frozenset[str]:
    return frozenset(expr.names_in(node))


class _Execution:
    """One instruction: field values and local names while its meaning runs."""

    def __init__(self, machine: Interpreter, instruction: Instruction, values: Mapping[str, int]):
        self.machine, self.isa, self.instruction = machine, machine.isa, instruction
        # Loop variables join the fields here; reading/instructions.py refuses names that clash.
        self.names = dict(values)
        self.depths = machine.depths

    def block(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            # The whole grammar of meanings; reading/meaning.py has refused what is not in it.
            match statement:
                case ast.For(target=ast.Name(id=name), iter=ast.Call(args=args), body=body):
                    for value in range(*(self.value(a) for a in args)):
                        self.names[name] = value
                        self.block(body)
                case ast.If(test=test, body=body, orelse=orelse):
                    self.block(body if self.value(test) else orelse)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.names[name] = self.value(value)
                case ast.Assign(targets=[ast.Subscript() as target], value=value):
                    self.store(target, value, accumulate=False)
                case ast.AugAssign(target=ast.Subscript() as target, op=ast.Add(), value=value):
                    self.store(target, value, accumulate=True)
                case _:
                    raise expr.ExprError(f"'{ast.unparse(statement)}' is no statement of a meaning")

    def value(self, node: ast.expr) -> int:
        return expr.evaluate(node, self.names, self.read)

    def read(self, node: ast.expr) -> int:
        """Memory reads, micro-op fields and the opcode's function."""
        if isinstance(node, ast.Subscript):
            memory, place = self.place(node)
            return int(self.machine.memories[memory][place])
        match node:
            case ast.Attribute(value=ast.Subscript(value=ast.Name(id=memory), slice=at), attr=name):
                address = self.address(memory, at)
                # Fields lie packed in the uint32, as the encoder put them.
                field = next(f for f in self.isa.uop_fields if f.name == name)
                packed = int(self.machine.memories[memory][address])
                return packed >> field.lo & ((1 << field.width) - 1)
            # A call is the map's operation: the name of the function is the field that holds its
            # code.
            case ast.Call(func=ast.Name(id=name), args=[left, right]):
                code = self.names[name]
                for op in self.instruction.ops:
                    if op.code == code:
                        return FUNCTIONS[op.function](self.value(left), self.value(right))
                raise SimError(f"{self.instruction.name} has no operation {code}")
            case _:
                pass
        raise expr.ExprError(f"'{ast.unparse(node)}' has no value")

    def place(self, node: ast.Subscript) -> tuple[str, tuple[int, ...]]:
        """Memory and full index of a reference under the current names."""
        memory, at, dims = _reference(node)
        return memory, (self.address(memory, at), *(self.value(d) for d in dims))

    def address(self, memory: str, at: ast.expr) -> int:
        address, depth = self.value(at), self.depths[memory]
        if not 0 <= address < depth:
            raise SimError(f"address {address} is outside {memory}, which has {depth} elements")
        return address

    def store(self, target: ast.Subscript, value: ast.expr, *, accumulate: bool) -> None:
        base = target.value
        # Only loads and stores name SRAM or DRAM: their memory is a field, not a name.
        if isinstance(base, ast.Name) and base.id in ("SRAM", "DRAM"):
            self.transfer(base.id, target.slice, value)
            return
        reset = isinstance(value, ast.Constant)
        # Lanes stand for all their values at once: the loops that the text leaves out.
        free = [d for d in self.isa.dims if d in _names(target) | _names(value)]
        for lane in itertools.product(*(range(self.isa.dims[d]) for d in free)):
            self.names.update(zip(free, lane, strict=True))
            memory, place = self.place(target)
            array = self.machine.memories[memory]
            result = self.value(value) + (int(array[place]) if accumulate else 0)
            array[place] = wrap(result, self.machine.dtypes[memory])
            # A compute step that is no reset also writes the memories that mirror its result.
            for shadow, dtype in () if reset else self.machine.shadows[memory]:
                self.machine.memories[shadow][place] = wrap(result, dtype)

    def transfer(self, side: str, at: ast.expr, value: ast.expr) -> None:
        """One element between DRAM and the memory that the instruction names, or a zero element."""
        number = self.names[self.instruction.roles["memory"]]
        memory = self.isa.memory_by_id(number)
        if memory is None:
            raise SimError(f"there is no memory {number}")
        if (memory.load_queue if side == "SRAM" else memory.store_queue) is None:
            verb = "loaded" if side == "SRAM" else "stored"
            raise SimError(f"memory {memory.name} cannot be {verb}")
        if side == "DRAM":
            # Stores have no padding, so there is always something to read.
            assert isinstance(value, ast.Subscript)
            lanes = self.stored(memory)[self.address(memory.name, value.slice)]
            self.machine.image.write(
                self.value(at) * memory.elem_bytes, lanes.astype(_little(memory)).tobytes()
            )
            return
        # An alias is loaded under its own width, into the other's elements.
        array = self.machine.memories[memory.alias_of or memory.name]
        address = self.address(memory.name, at)
        # A constant is padding: a zero element.
        if isinstance(value, ast.Constant):
            array[address] = value.value
            return
        assert isinstance(value, ast.Subscript)
        raw = self.machine.image.read(
            self.value(value.slice) * memory.elem_bytes, memory.elem_bytes
        )
        array[address] = np.frombuffer(raw, _little(memory)).reshape(array.shape[1:])

    def stored(self, memory: Memory) -> NDArray[Any]:
        """What a store of `memory` reads."""
        name = memory.name
        # Not latched: functional simulators have no shadow storage and read the accumulators.
        if memory.shadow_of and not (self.machine.latched and self.isa.limits.stale_shadow):
            name = memory.shadow_of
        return self.machine.memories[memory.alias_of or name]


def _little(memory: Memory) -> np.dtype[Any]:
    # DRAM is little-endian on every machine that we know; the host may not be.
    return np.dtype(memory.dram_dtype).newbyteorder("<")
