"""A compiled operator as data: every artefact of the chain, and where its operands lie in DRAM.

`Kernel` (kernel.py) adds what users ask of it: running, checking, saving, reporting. Whoever
judges, measures or reports takes a `Compiled`, so that nothing there depends on that.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.request.operands import operand
from csp_embed.embed.algebra.packing import pack, unpack
from csp_embed.embed.certificate.make import certificate
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.ir.schedule import Schedule
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import encode
from csp_embed.machine.words.listing import listing
from csp_embed.ops.wide import digits
from csp_embed.targets.stream.image import (
    add_parts,
    constant_element,
    factor_elements,
    fill_idle,
    identity_element,
    narrow_elements,
    region_bytes,
    round_bytes,
    unpack_region,
)
from csp_embed.targets.stream.lower import Lowered

Array = NDArray[Any]


@dataclass(frozen=True, repr=False, eq=False)  # Arrays have no one answer to ==: by identity.
class Compiled:
    """operator, machine, and every artefact between them.

    cycles: by the cycle engine (None where the machine has no cost parameters). seconds: of
    embedding and scheduling. candidates: (embedding, cycles) of every embedding that was
    scheduled, best first. memory: the interface whose cycles they are; "" is the spec's first.
    """

    operator: Operator
    isa: Isa
    embedding: Embedding
    schedule: Schedule
    lowered: Lowered
    cycles: int | None
    seconds: float
    memory: str = ""
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])
    candidates: tuple[tuple[Embedding, float], ...] = ()

    @cached_property
    def words(self) -> NDArray[np.uint64]:
        """The instruction stream, uint64[n, 2]."""
        return encode(self.isa, self.lowered.stream)

    def region(self, operand: str) -> int:
        """Number of the region of that operand."""
        # Each operand has one region.
        return next(n for n, r in enumerate(self.schedule.regions) if r.operand == operand)

    def images(
        self, tensors: Mapping[str, Array], skip: Container[int] = ()
    ) -> dict[int, NDArray[np.uint8]]:
        """DRAM bytes per region of all operands but those regions to `skip`.

        Raises: InputError where a tensor is missing or has the wrong shape or type.
        """
        out: dict[int, NDArray[np.uint8]] = {}
        trick, identity = self.schedule.bias_trick, self.schedule.identity
        lanes = self.schedule.bias_lanes
        for n, region in enumerate(self.schedule.regions):
            # The result's region holds nothing before the run.
            if region.operand == "dst" or n in skip:
                continue
            if region.operand == "const":
                # Constants of the bias trick are the program's own, whatever the operands.
                if trick is not None:
                    out[n] = constant_element(self.schedule, region, self.isa)
                continue
            if region.operand == "identity":
                assert identity is not None
                out[n] = identity_element(identity, region, self.isa)
                continue
            layout = self.embedding.layouts[region.operand]
            values = operand(self.operator, tensors, layout.tensor)
            if region.rounds:
                # A factor wider than int8: each round has a digit of it.
                parts = digits(values, values.dtype.itemsize)
                out[n] = round_bytes(
                    region,
                    {t: pack(layout, self.embedding, self.isa, d) for t, d in enumerate(parts)},
                )
                continue
            packed = pack(layout, self.embedding, self.isa, values)
            # The tensor of the tricked step is packed as factors, in parts that are added up.
            if trick is not None and region.operand == step_operand(self.operator, trick.step):
                packed = factor_elements(packed, trick, region, self.embedding, self.isa)
            if lanes is not None and region.operand == lanes.role:
                fill_idle(packed, lanes, layout.memory, self.isa)
            if lanes is not None and region.operand == lanes.held:
                name = step_operand(self.operator, lanes.step)
                add = self.embedding.layouts[name]
                tensor = operand(self.operator, tensors, add.tensor)
                tensor = pack(add, self.embedding, self.isa, tensor)
                add_parts(packed, tensor, lanes, name, self.embedding, self.isa)
            if identity is not None and region.operand in identity.operands:
                packed = narrow_elements(packed, identity, region, self.isa, layout.memory)
            out[n] = region_bytes(region, packed)
        return out

    def result(self, stored: NDArray[np.uint8]) -> Array:
        """The logical result of the stored bytes."""
        n = self.region("dst")
        region = self.schedule.regions[n]
        memory = self.isa.memory(region.memory)
        # Where accumulators themselves are stored, the result is their low bits.
        declared = self.operator.tensors[self.operator.out.tensor].dtype
        return self.unpacked(stored, memory.dram_dtype).astype(declared)

    def unpacked(self, stored: NDArray[np.uint8], dtype: str) -> Array:
        """The stored bytes in the result's shape, lanes read as `dtype`."""
        region, layout = self.schedule.regions[self.region("dst")], self.embedding.layouts["dst"]
        packed = unpack_region(region, stored, self.isa.lane_shape(region.memory), dtype)
        # A region may be larger than the layout's grid; what lies beyond is no element.
        packed = packed[tuple(slice(0, size) for size in layout.grid)]
        return unpack(layout, self.embedding, self.isa, packed)

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

    def disassemble(self) -> str:
        """The instruction stream as text, one instruction a line, as `csp-embed disasm`."""
        return "\n".join(listing(self.isa, self.lowered.stream))


def step_operand(op: Operator, step: int) -> str:
    """The layout's operand of the epilogue's step number `step`, which reads a tensor."""
    # Steps with a tensor are operands add0, add1, … in the epilogue's order.
    number = sum(1 for s in op.epilogue[:step] if s.access is not None)
    return f"add{number}"
