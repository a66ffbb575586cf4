"""A compiled operator: what `csp_embed.compile` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import __version__
from csp_embed.compiler.element_addresses import digits
from csp_embed.compiler.expected import SOURCE, expected_ranges
from csp_embed.embed.algebra.packing import pack, unpack
from csp_embed.embed.certificate.make import certificate
from csp_embed.errors import InputError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.ir.schedule import Schedule
from csp_embed.ir.stream import Program
from csp_embed.machine.bits import encode
from csp_embed.machine.listing import listing
from csp_embed.machine.program_file import FORMAT, isa_meta, write_program
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.targets.stream.image import (
    before_ranges,
    constant_element,
    factor_elements,
    region_bytes,
    unpack_region,
)
from csp_embed.targets.stream.lower import Lowered
from csp_embed.targets.stream.places import offsets

if TYPE_CHECKING:
    from csp_embed.sim.functional.run import Run

Array = NDArray[Any]


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        cycles = "cycles not known" if self.cycles is None else f"{self.cycles:,} cycles"
        return (
            f"<Kernel {self.operator.name} {self.operator.formula()} on {self.isa.name} "
            f"{self.isa.config_name}: {len(self.lowered.stream):,} instructions, {cycles}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the report."""
        return f"<pre>{escape(self.report())}</pre>"

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

    def loaded(self, tensors: Mapping[str, Array]) -> Program:
        """The program with these operands in DRAM, before it runs: `after` holds zeros.

        Raises: InputError for missing or wrong tensors.
        """
        n = self.region("dst")
        return Program(
            meta=self.meta(),
            insn=self.words,
            before=before_ranges(self.schedule, self.lowered, self.images(tensors)),
            after=((self.lowered.address[n], np.zeros(self.lowered.size_bytes[n], np.uint8)),),
            tensors={k: np.asarray(v) for k, v in tensors.items() if k in self.operator.tensors},
        )

    def program(self, tensors: Mapping[str, Array], *, reference: bool = True) -> Program:
        """A program file's content with these operands; `after` and the result are what NumPy
        computes from the formula, placed by the claimed layout (`csp_embed.compiler.expected`).

        reference: False leaves both out, for layers that NumPy would take minutes for; `meta` says
        which. Raises: InputError for missing, unknown or wrong tensors.
        """
        operands = self.operands(tensors)
        n = self.region("dst")
        address, size = self.lowered.address[n], self.lowered.size_bytes[n]
        images = self.images(operands)
        after: tuple[tuple[int, NDArray[np.uint8]], ...] = ()
        logical = dict(operands)
        if reference:
            name = self.operator.out.tensor
            logical[name] = evaluate(self.operator, operands)[name]
            after = expected_ranges(self.schedule, self.embedding, self.isa, address, logical[name])
        expected = sum(len(data) for _, data in after)
        if expected < size:
            # Nothing is expected of pad lanes, but the stores that write them need their bytes.
            images[n] = np.zeros(size, dtype=np.uint8)
        said = {"from": SOURCE if reference else None, "bytes": expected,
                "bytes_left_out": size - expected}  # fmt: skip
        return Program(
            meta=self.meta() | {"after": said},
            insn=self.words,
            before=before_ranges(self.schedule, self.lowered, images),
            after=after,
            tensors=logical,
        )

    def operands(self, tensors: Mapping[str, Any]) -> dict[str, Array]:
        """Every operand as the operator declares it: these, then the constants of `compile`.

        Raises: InputError for a name that is no operand, a tensor that is missing or of the wrong
        shape, type or values.
        """
        op = self.operator
        names = [n for n in op.tensors if n != op.out.tensor]
        unknown = [n for n in tensors if n not in names]
        if unknown:
            is_result = unknown[0] == op.out.tensor
            raise InputError(
                f"{unknown[0]} is {'the result' if is_result else 'no operand'} of {op.name}",
                where=op.formula(),
                why="it would be ignored",
                hint=f"give {', '.join(n for n in names if n not in op.values)}",
            )
        given = {**self.constants, **tensors}
        found = {name: operand(op, given, name) for name in names}
        for name, value in op.values.items():
            if name in tensors and not np.array_equal(found[name], value):
                raise InputError(
                    f"{name} is given, but the operator states its values",
                    where=op.formula(),
                    hint=f"leave out {name}",
                )
        return found

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
        # Where accumulators themselves are stored, the result is their low bits.
        declared = self.operator.tensors[self.operator.out.tensor].dtype
        return self._unpacked(stored, memory.dram_dtype).astype(declared)

    def _unpacked(self, stored: NDArray[np.uint8], dtype: str) -> Array:
        region, layout = self.schedule.regions[self.region("dst")], self.embedding.layouts["dst"]
        packed = unpack_region(region, stored, self.isa.lane_shape(region.memory), dtype)
        packed = packed[tuple(slice(0, size) for size in layout.grid)]
        return unpack(layout, self.embedding, self.isa, packed)

    def run(self, *operands: Any, **named: Any) -> Array:
        """Logical NumPy tensors in and out, simulated: what the machine stores, not the reference.

        Operands by position as in the formula (lhs, rhs, epilogue tensor) or by name. Constants
        that were given to `compile` need not be given again.
        Raises: InputError for missing or unknown tensors or wrong shapes; SimError where the
        program cannot run.
        """
        from csp_embed.sim.functional import run as functional

        program = self.program(self._named(operands, named), reference=False)
        n = self.region("dst")
        # The whole region is asked for, pad lanes too: nothing is compared here.
        blank = ((self.lowered.address[n], np.zeros(self.lowered.size_bytes[n], np.uint8)),)
        done = functional.run(self.isa, replace(program, after=blank))
        return self.result(np.ascontiguousarray(done.outputs[0][1]))

    def simulate(self, *operands: Any, **named: Any) -> Run:
        """The simulated run of the stream on these operands (random ones where none are given),
        compared with NumPy: `.values_equal`. Raises: as `run`."""
        from csp_embed.sim.functional import run as functional

        return functional.run(self.isa, self.program(self._filled(operands, named)))

    def check(self, *operands: Any, **named: Any) -> list[Any]:
        """Problems of the embedding and the stream, and of the values on these operands (random
        ones where none are given); empty for a good kernel. What `csp-embed check` does."""
        from csp_embed.compiler.verify import problems_of

        return problems_of(self, self.program(self._filled(operands, named)), values=True)

    def save(self, path: str | Path, *operands: Any, **named: Any) -> None:
        """Writes a program file (docs/program-file.md) with these operands, random ones where none
        are given. It is judged first, as `csp-embed compile -o` does.

        Raises: CheckError where a check refuses it or its values differ from NumPy, and then
        nothing is written; InputError where the path cannot be written.
        """
        from csp_embed.compiler.verify import judge

        if not isinstance(path, str | Path):
            raise InputError(
                f"a {type(path).__name__} is no path", where="path", hint="kernel.save('own.npz')"
            )
        verdict = judge(self, self._filled(operands, named), simulate=None, fill=True).accepted()
        assert verdict.program is not None
        write_program(path, verdict.program)

    def disassemble(self) -> str:
        """The instruction stream as text, one instruction a line, as `csp-embed disasm`."""
        return "\n".join(listing(self.isa, self.lowered.stream))

    def explain(self) -> str:
        """The report with the alternatives that were scheduled."""
        from csp_embed.report.kernel import render

        return render(self, explain=True)

    def _named(self, operands: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Operands by their names in the formula. Raises: InputError for one given twice or too
        many."""
        op = self.operator
        accesses = [op.lhs, op.rhs, *(s.access for s in op.epilogue)]
        names = [a.tensor for a in accesses if a is not None and a.tensor not in op.values]
        names = list(dict.fromkeys(names))
        twice = [n for n in names[: len(operands)] if n in named]
        if twice or len(operands) > len(names):
            what = f"{twice[0]} comes twice" if twice else f"{len(operands)} operands are given"
            raise InputError(
                what,
                where=op.formula(),
                why=f"{op.name} takes {', '.join(names)}",
                hint="give each operand once, in this order or by its name",
            )
        return {**dict(zip(names, operands, strict=False)), **named}

    def _filled(self, operands: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The operands given; where there are none, random ones beside the constants."""
        given = self._named(operands, named)
        return given or {**random_tensors(self.operator, 0), **self.constants}

    def meta(self) -> dict[str, Any]:
        """The program file's `meta`."""
        op = self.operator
        tensors = {op.out.tensor: self._digits("dst")}
        for operand in ("lhs", "rhs"):
            layout = self.embedding.layouts.get(operand)
            if layout is None or layout.duplicates or layout.fused or layout.equal:
                continue
            if self.schedule.regions[self.region(operand)].by_box:
                continue
            place = self._digits(operand)
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
        """What was proved about the embedding; see `embed/certificate/make.py`."""
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

    def _digits(self, operand: str) -> dict[str, Any] | None:
        found = digits(self.schedule, self.lowered, self.embedding, self.isa, operand)
        return self._offsets() if found is None and operand == "dst" else found

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
    hint = f"give an array of shape {declared.shape}, {declared.dtype}"
    try:
        array = np.asarray(value)
    except ValueError as error:  # NumPy's word for ragged lists
        raise InputError(f"tensor {name} is no array", why=str(error), hint=hint) from error
    if array.shape != declared.shape:
        raise InputError(
            f"tensor {name} has shape {array.shape}",
            why=f"the operator declares {declared.shape}",
            hint=hint,
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
                hint=f"clip or scale them to {info.min} … {info.max}",
            )
        array = array.astype(declared.dtype)
    return array


__all__ = ["Kernel"]
