"""Poses the ground problem: an operator's points, one by one, and an instruction's points.

Takes: Operator, Isa, step count.  Leaves: `ir.ground.Ground`.

A *solution* is a covering of all effective operator points (those with every factor in range) by a
number of micro-operation steps: `at[q]` says in which step and in which lanes point q is computed.
Points with a factor out of range compute nothing: they count as pad. Two coverings that differ by a
permutation of the lanes of a dimension or by the order of steps are one solution; its key is, for
the steps and for every dimension, which points share a step or a lane (see `key`). Where tiles are
stated (`Ground.ordered`) the order of steps is part of the solution: a tile is a run of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from csp_embed.ir.dfg import dataflow
from csp_embed.ir.ground import Ground, Ints
from csp_embed.ir.operator import Operator, Role
from csp_embed.machine.spec import Isa

Key = tuple[bool, tuple[tuple[int, ...], ...]]


def pose_ground(
    op: Operator,
    isa: Isa,
    steps: int,
    *,
    commuted: bool = False,
    layout: str = "relaxed",
    rectangles: int = 4,
    tile: int | None = None,
    instruction: str | None = None,
) -> Ground:
    """The problem of covering `op` by `steps` micro-operations of a machine's instruction.

    instruction: by name; otherwise the machine's instruction of the operator's kind. layout:
    "relaxed", or "strict": every run-time operand stands once.
    """
    # Element-wise operators all need an instruction that maps.
    wanted = "contract" if op.kind == "contract" else "map"
    found = isa.instruction(instruction) if instruction else isa.of_kind(wanted)
    # Points one by one: the ground model knows no axes but these.
    flow = dataflow(op).expand()
    reads = {Role.LHS: op.lhs} if op.rhs is None else {Role.LHS: op.lhs, Role.RHS: op.rhs}
    flats = {Role(r): flat for r, flat in flow.reads.items()}
    if commuted and op.rhs is not None:
        # Commuting exchanges accesses and elements alike; points stay.
        reads = {Role.LHS: op.rhs, Role.RHS: op.lhs}
        flats = {Role.LHS: flats[Role.RHS], Role.RHS: flats[Role.LHS]}
    accesses = {Role.DST: op.out, **reads}
    flats = {Role.DST: flow.write, **{r: flats[r] for r in reads}}
    # A point with a factor out of range adds nothing and need not be covered.
    good = np.logical_and.reduce([f >= 0 for f in flats.values()])
    dims = {Role(o.role): tuple(o.dims) for o in found.operands if o.role in accesses}
    # In the machine's order: keys are compared dimension by dimension.
    used = [d for d in isa.dims if any(d in v for v in dims.values())]
    # Constants may be packed as often as one likes.
    run_time = {
        r for r, a in accesses.items() if r != Role.DST and not op.tensors[a.tensor].constant
    }
    functions = {m.function for m in found.ops}
    return Ground(
        op=op,
        machine=isa.name,
        instruction=found.name,
        commuted=commuted,
        sizes={d: isa.dims[d] for d in used},
        dims=dims,
        accesses=accesses,
        points=flow.points[good],
        elements={r: f[good] for r, f in flats.items()},
        counts={r: math.prod(op.tensors[a.tensor].shape) for r, a in accesses.items()},
        steps=steps,
        # The right kind of instruction, and for max and min the function itself.
        same_kind=found.kind == wanted and (op.kind not in ("max", "min") or op.kind in functions),
        strict=frozenset(run_time) if layout == "strict" else frozenset(),
        rectangles=rectangles,
        tile=tile,
    )


def key(ground: Ground, at: Ints) -> Key:
    """What two copies of a solution have in common. at: int64[N, 1 + dimensions], step and lanes.

    Steps and lanes are renamed in the order in which the points meet them; ordered steps are not.
    """
    columns: list[list[int]] = at.T.tolist()
    # Where tiles count, the order of steps is part of the answer and is not renamed away.
    kept = 1 if ground.ordered else 0
    return ground.commuted, (
        *(tuple(c) for c in columns[:kept]),
        *map(_renamed, columns[kept:]),
    )


def _renamed(column: Sequence[int]) -> tuple[int, ...]:
    names: dict[int, int] = {}
    # Numbers in the order of first use.
    return tuple(names.setdefault(v, len(names)) for v in column)


def placed_at(solution: Key) -> Ints:
    """A representative of a solution: step and lanes of each point."""
    return np.array(solution[1], np.int64).T
