"""Whether a program's templates stay inside their buffers: by intervals, without running it.

Takes: SourceProgram, Isa.  Leaves: breaches in words. Addresses are sums over loop variables, so
their least and greatest values follow from the loops around them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from csp_embed.machine.spec import Isa
from csp_embed.targets.source.lower import SourceProgram
from csp_embed.targets.source.nest import Address, Call, Clamp, Keep, Loop, Node, Sum
from csp_embed.targets.source.output import RESULT


def breaches(program: SourceProgram, isa: Isa) -> list[str]:
    """Every template call that may leave its buffer; empty for a good program."""
    out = program.operator.tensors[program.operator.out.tensor]
    # Elements, as addresses count them.
    sizes = {b.name: b.elements for b in program.buffers}
    sizes |= {name: count for name, (_, count) in program.fixed.items()}
    sizes[RESULT] = int(np.prod(out.shape, dtype=np.int64))
    found: list[str] = []
    _walk((*program.prepare, *program.run), isa, sizes, {}, found)
    return found


def _walk(
    nodes: tuple[Node, ...],
    isa: Isa,
    sizes: Mapping[str, int],
    counts: dict[str, int],
    found: list[str],
) -> None:
    for node in nodes:
        if isinstance(node, Call):
            found += _call(node, isa, sizes, counts)
        elif not isinstance(node, Keep):
            inner = counts | {node.var: node.count} if isinstance(node, Loop) else counts
            # Each loop variable is known inside of its loop only.
            _walk(node.body, isa, sizes, inner, found)


def _call(call: Call, isa: Isa, sizes: Mapping[str, int], counts: Mapping[str, int]) -> list[str]:
    program = isa.program
    assert program is not None
    template = program.template(call.template)
    address = next((v for v in call.operands.values() if isinstance(v, Address)), None)
    if address is None:
        return []
    low, high = _range(address.at, counts)
    # A copy moves whole registers: as many lanes as the largest has.
    lanes = max(math.prod(isa.lane_shape(s.memory)) for s in template.slots if s.kind == "register")
    # A ragged end stores fewer lanes: as many as the clamp leaves where the address is greatest.
    count = call.operands.get(template.roles.get("count", ""), lanes)
    if isinstance(count, Clamp):
        reach = min(high + count.most, _range(address.at.plus(count.at), counts)[1])
    else:
        reach = high + (count if isinstance(count, int) else lanes)
    if low >= 0 and reach <= sizes[address.buffer]:
        return []
    return [f"{call.template} reaches {address.buffer}[{low}:{reach}] of {sizes[address.buffer]}"]


def _range(at: Sum, counts: Mapping[str, int]) -> tuple[int, int]:
    """Least and greatest value over the loops."""
    # Terms are independent: each is least where its own variable is.
    reach = [c * (counts[v] - 1) for v, c in at.terms]
    return at.const + sum(min(0, r) for r in reach), at.const + sum(max(0, r) for r in reach)
