"""A compiled operator: what `csp_embed.compile` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import __version__
from csp_embed.embed.certificate import certificate
from csp_embed.embed.layout import pack, unpack
from csp_embed.emit.image import (
    before_ranges,
    constant_element,
    factor_elements,
    region_bytes,
    unpack_region,
)
from csp_embed.emit.lower import Lowered
from csp_embed.emit.places import offsets
from csp_embed.errors import InputError, SimError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.ir.schedule import Schedule
from csp_embed.ir.stream import Program
from csp_embed.isa.bits import encode
from csp_embed.isa.program_file import FORMAT, isa_meta
from csp_embed.isa.spec import Isa

Array = NDArray[Any]


@dataclass(frozen=True)
class Kernel:
    """operator, machine, and every artefact between them.

    cycles: by the cycle engine (None where the machine has no cost parameters). seconds: of
    embedding and
    scheduling. candidates: (embedding, cycles) of every embedding that was scheduled, best first.
    """

    operator: Operator
    isa: Isa
    embedding: Embedding
    schedule: Schedule
    lowered: Lowered
    cycles: int | None
    seconds: float
    memory: str = "de10"
    constants: Mapping[str, Array] = field(default_factory=dict)
    candidates: tuple[tuple[Embedding, float], ...] = ()

    @cached_property
    def words(self) -> NDArray[np.uint64]:
        """The instruction stream, uint64[n, 2]."""
        return encode(self.isa, self.lowered.stream)

    def region(self, operand: str) -> int:
        """Number of the region of that operand."""
        return next(n for n, r in enumerate(self.schedule.regions) if r.operand == operand)

    def images(self, tensors: Mapping[str, Array]) -> dict[int, NDArray[np.uint8]]:
        """DRAM bytes per region of all operands.

        Raises: InputError where a tensor is missing or has the wrong shape or type.
        """
        out = {}
        trick = self.schedule.bias_trick
        for n, region in enumerate(self.schedule.regions):
            if region.operand == "dst":
                continue
            if region.operand == "const":
                if trick is not None:
                    out[n] = constant_element(self.schedule, region, self.isa)
                continue
            layout = self.embedding.layouts[region.operand]
            packed = pack(
                layout, self.embedding, self.isa, operand(self.operator, tensors, layout.tensor)
            )
            if trick is not None and region.operand == _add_name(self.operator, trick.step):
                packed = factor_elements(packed, trick, region, self.embedding, self.isa)
            out[n] = region_bytes(region, packed)
        return out

    def program(self, tensors: Mapping[str, Array]) -> Program:
        """A program file's content with these operands; `after` holds what the simulated stream
        stores.

        Raises: InputError for missing or wrong tensors, SimError where the stream cannot run.
        """
        n = self.region("dst")
        size = self.lowered.size_bytes[n]
        blank = np.zeros(size, dtype=np.uint8)
        logical = {k: np.asarray(v) for k, v in tensors.items() if k in self.operator.tensors}
        program = Program(
            meta=self.meta(),
            insn=self.words,
            before=before_ranges(self.schedule, self.lowered, self.images(tensors)),
            after=((self.lowered.address[n], blank),),
            tensors=logical,
        )
        from csp_embed.sim import functional

        result = functional.run(self.isa, program)
        stored = np.ascontiguousarray(result.outputs[0][1])
        y = self.result(stored)
        return Program(
            program.meta,
            program.insn,
            program.before,
            ((self.lowered.address[n], stored),),
            {**logical, self.operator.out.tensor: y},
        )

    def blank_program(self) -> Program:
        """The program over zeros: for checks that look at addresses only (large zero arrays cost
        nothing).
        """
        data = {
            n: np.zeros(size, dtype=np.uint8)
            for n, (region, size) in enumerate(
                zip(self.schedule.regions, self.lowered.size_bytes, strict=True)
            )
            if region.operand != "dst"
        }
        n = self.region("dst")
        after = ((self.lowered.address[n], np.zeros(self.lowered.size_bytes[n], dtype=np.uint8)),)
        return Program(
            self.meta(), self.words, before_ranges(self.schedule, self.lowered, data), after, {}
        )

    def result(self, stored: NDArray[np.uint8]) -> Array:
        """The logical result of the stored bytes."""
        n = self.region("dst")
        region = self.schedule.regions[n]
        memory = self.isa.memory(region.memory)
        return self._unpacked(stored, memory.dram_dtype)

    def _unpacked(self, stored: NDArray[np.uint8], dtype: str) -> Array:
        region, layout = self.schedule.regions[self.region("dst")], self.embedding.layouts["dst"]
        packed = unpack_region(region, stored, self.isa.lane_shape(region.memory), dtype)
        packed = packed[tuple(slice(0, size) for size in layout.grid)]
        return unpack(layout, self.embedding, self.isa, packed)

    def run(self, x: Any, w: Any = None, b: Any = None, **more: Any) -> Array:
        """Logical NumPy tensors in and out, simulated.

        Operands by position as in the formula (lhs, rhs, epilogue tensor) or by name. Constants
        that were given to `compile` need not be given again.
        Raises: InputError for missing tensors or wrong shapes; SimError where the program cannot
        run.
        """
        op = self.operator
        names = [op.lhs.tensor]
        names += [op.rhs.tensor] if op.rhs is not None else []
        names += [s.access.tensor for s in op.epilogue if s.access is not None]
        given = {n: v for n, v in zip(names, (x, w, b), strict=False) if v is not None}
        return self.program({**self.constants, **given, **more}).tensors[op.out.tensor]

    def meta(self) -> dict[str, Any]:
        """The program file's `meta`."""
        op = self.operator
        tensors = {op.out.tensor: self.digits("dst")}
        for operand in ("lhs", "rhs"):
            layout = self.embedding.layouts.get(operand)
            if layout is None or layout.duplicates or layout.fused or layout.equal:
                continue
            if self.schedule.regions[self.region(operand)].by_box:
                continue
            place = self.digits(operand)
            if place is not None:
                tensors[layout.tensor] = place
        return {
            "format": FORMAT,
            "operator": {
                "name": op.name,
                "formula": op.formula(),
                "extents": dict(op.axes),
                "shapes": {n: list(t.shape) for n, t in op.tensors.items()},
                "dtypes": {n: t.dtype for n, t in op.tensors.items()},
                "constant": {n: t.constant for n, t in op.tensors.items()},
                "epilogue": [
                    {
                        "op": s.op,
                        "imm": s.imm,
                        "access": None if s.access is None else str(s.access),
                        "bias_range": s.bias_range,
                    }
                    for s in op.epilogue
                ],
            },
            **isa_meta(self.isa),
            "version": __version__,
            "embedding": self.embedding.formula(),
            "layout": self.embedding.layout_mode,
            "certificate": self.certificate(),
            "tensors": tensors,
        }

    def certificate(self) -> dict[str, Any]:
        """What was proved about the embedding; see `embed/certificate.py`."""
        cycles = None if self.cycles is None else int(self.cycles)
        # Schedules may have made a later embedding win: the cheapest one's proof stands beside it.
        first = [e.proof for e, _ in self.candidates if e.proof.get("rank") == 0]
        return certificate(
            self.embedding,
            self.isa,
            cycles=cycles,
            memory=self.memory,
            best=first[0] if first else None,
        )

    def digits(self, operand: str) -> dict[str, Any] | None:
        """Where a logical element lies: addr + sum of stride_bytes * ((index[axis] // div) % mod),
        or of offset_bytes[index[axis]] for an axis that no such digits describe.

        None for an input that lacks elements nobody reads, or is split with a remainder.
        """
        n = self.region(operand)
        region, layout = self.schedule.regions[n], self.embedding.layouts[operand]
        memory = self.isa.memory(region.memory)
        lanes = self.isa.lane_shape(region.memory)
        elem = memory.elem_bytes
        pitch, total = {}, elem
        for d in reversed(region.order):
            pitch[d] = total
            total *= region.grid[d]
        splits = region.splits or tuple(((1, size),) for size in region.grid)
        first = np.cumsum([0, *(len(parts) for parts in splits)])
        lane_bytes, unit = {}, elem // int(np.prod(lanes)) if lanes else elem
        for dim, size in zip(reversed(memory.lanes), reversed(lanes), strict=True):
            lane_bytes[dim] = unit
            unit *= size
        digit = {d.name: d for d in self.embedding.digits}
        partner = dict(layout.equal)
        address = self.lowered.address[n]
        out = []
        for t, size in enumerate(self.operator.tensors[layout.tensor].shape):
            parts = []
            for g, k in enumerate(layout.grid_coef[t]):
                for j, (unit, extent) in enumerate(splits[g]):
                    if k and extent > 1:
                        parts.append((k * unit, extent, pitch[int(first[g]) + j]))
            for name, k in layout.digit_coef[t].items():
                if k and name in digit and digit[name].dim in lane_bytes:
                    # On a diagonal two dimensions move together.
                    both = [digit[x] for x in (name, partner.get(name)) if x is not None]
                    stride = sum(lane_bytes[d.dim] * d.radix for d in both)
                    parts.append((k, digit[name].extent, stride))
            parts.sort()
            if not _mixed_radix(parts, layout.const[t], size):
                return self._offsets() if operand == "dst" else None
            if layout.const[t]:
                address -= layout.const[t] * parts[0][2]
            for i, (k, extent, stride) in enumerate(parts):
                top = i == len(parts) - 1
                out.append(
                    {
                        "axis": t,
                        "div": k,
                        "mod": max(extent, -(-size // k)) if top else extent,
                        "stride_bytes": stride,
                    }
                )
        return {
            "addr": address,
            "dtype": memory.dram_dtype,
            "shape": list(self.operator.tensors[layout.tensor].shape),
            "digits": out,
        }

    def _offsets(self) -> dict[str, Any]:
        """As `digits`, for a result whose index needs a number for each of its values."""
        n = self.region("dst")
        memory = self.isa.memory(self.schedule.regions[n].memory)
        item = np.dtype(memory.dram_dtype).itemsize
        # Each stored value is the address of itself: unpacked, it says where every element lies.
        where = self.lowered.address[n] + np.arange(0, self.lowered.size_bytes[n], item)
        found = offsets(self._unpacked(where.astype(np.int64).view(np.uint8), "int64"))
        assert found is not None, "each axis of a result has digits and counters of its own"
        address, tables = found
        return {
            "addr": address,
            "dtype": memory.dram_dtype,
            "shape": list(self.operator.tensors[self.operator.out.tensor].shape),
            "digits": [{"axis": t, "offset_bytes": v} for t, v in enumerate(tables)],
        }

    def report(self) -> str:
        """What a person wants to know, as text."""
        from csp_embed.report.kernel import render

        return render(self)


def _mixed_radix(parts: list[tuple[int, int, int]], const: int, size: int) -> bool:
    """Every index below size is const + the value of one digit string; parts: (unit, extent, …)."""
    unit = 1
    for k, extent, _ in parts:
        if k != unit:
            return False
        unit *= extent
    # A shift carries over from digit to digit, so it needs all of the index in one.
    return -const + size <= unit and (const == 0 or (const < 0 and len(parts) == 1))


def _add_name(op: Operator, step: int) -> str:
    number = sum(1 for s in op.epilogue[:step] if s.access is not None)
    return f"add{number}"


def operand(op: Operator, tensors: Mapping[str, Array], name: str) -> Array:
    """The tensor `name` as the operator declares it; integers of other types where values fit.

    Raises: InputError where it is missing or has the wrong shape, type or values.
    """
    declared = op.tensors[name]
    value = tensors.get(name, op.values.get(name))
    if value is None:
        raise InputError(
            f"tensor {name} is missing",
            where=op.name,
            hint=f"give an array of shape {declared.shape}, {declared.dtype}",
        )
    array = np.asarray(value)
    if array.shape != declared.shape:
        raise InputError(
            f"tensor {name} has shape {array.shape}", why=f"the operator declares {declared.shape}"
        )
    if array.dtype != np.dtype(declared.dtype):
        if array.dtype.kind not in "iub" or not np.can_cast(array.dtype, np.int64):
            raise InputError(
                f"tensor {name} is {array.dtype}",
                why=f"the operator declares {declared.dtype}",
                hint="quantise it first",
            )
        info = np.iinfo(declared.dtype)
        if array.size and (array.min() < info.min or array.max() > info.max):
            raise InputError(
                f"tensor {name} has values outside {declared.dtype}",
                why=f"they run from {array.min()} to {array.max()}",
            )
        array = array.astype(declared.dtype)
    return array


__all__ = ["Kernel", "SimError"]
