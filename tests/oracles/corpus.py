"""Small problems on which all enumerators and the lifted model are compared.

Takes: nothing.  Leaves: rows in a fixed order. Each operator is tried straight and commuted on each
machine, most of them with more lanes than points; the number of steps is the lifted model's least,
so solution sets are small. Further rows have strict layouts, or tiles of one rectangle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from csp_embed import ops
from csp_embed.embed.ground.expand import lifted_embeddings, named_steps
from csp_embed.embed.ground.points import pose_ground
from csp_embed.ir.ground import Ground
from csp_embed.ir.operator import Operator
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa

VTA_2X2X2 = {
    "LOG_INP_WIDTH": 3,
    "LOG_WGT_WIDTH": 3,
    "LOG_ACC_WIDTH": 5,
    "LOG_BATCH": 1,
    "LOG_BLOCK": 1,
    "LOG_UOP_BUFF_SIZE": 8,
    "LOG_INP_BUFF_SIZE": 8,
    "LOG_WGT_BUFF_SIZE": 8,
    "LOG_ACC_BUFF_SIZE": 10,
}


@dataclass(frozen=True)
class Row:
    """One problem of the corpus. layout, tile, rectangles: as of `pose_ground`. steps: None is the
    lifted model's least number for relaxed layouts."""

    name: str
    isa: Isa
    op: Operator
    commuted: bool
    layout: str = "relaxed"
    tile: int | None = None
    rectangles: int = 4
    steps: int | None = None


def machines() -> Mapping[str, Isa]:
    """VTA in two small sizes, both toy machines at their smallest."""
    return {
        "dot": load_isa("toy_dot", "tiny"),
        "outer": load_isa("toy_outer", "tiny"),
        "2x2x2": load_isa("vta", VTA_2X2X2),
        "1x4x4": load_isa("vta", "1x4x4_small"),
    }


def operators() -> Mapping[str, Operator]:
    """Every kind that the issue names, with few points."""
    one = {"n": 1, "h": 1, "r": 1}
    return {
        "matmul 2x2x2": ops.matmul(m=2, n=2, k=2),
        "matmul 3x1x2": ops.matmul(m=3, n=1, k=2),
        "matmul 1x3x2": ops.matmul(m=1, n=3, k=2),
        "matmul 2x1x3": ops.matmul(m=2, n=1, k=3),
        "conv1d": ops.conv1d(n=1, c=1, w=3, k=2, r=2),
        "conv1d strided": ops.conv1d(n=1, c=1, w=4, k=1, r=2, stride=2),
        "conv1d dilated": ops.conv1d(n=1, c=1, w=4, k=1, r=2, dilation=2),
        "conv1d padded": ops.conv1d(n=1, c=1, w=2, k=1, r=2, pad=1),
        "conv2d": ops.conv2d(n=1, c=1, h=2, w=2, k=1, r=2, s=2),
        "conv2d 1x1": ops.conv2d(c=2, w=2, k=2, s=1, **one),
        "depthwise": ops.depthwise_conv2d(c=2, w=3, s=2, **one),
        "max pooling": ops.max_pool2d(c=2, w=2, s=2, **one),
        "avg pooling": ops.avg_pool2d(c=2, w=2, s=2, m=1, shift=1, **one),
    }


def corpus() -> Iterator[Row]:
    """Every operator on every machine, straight and (where it has two factors) commuted."""
    for machine, isa in machines().items():
        for name, op in operators().items():
            if machine == "1x4x4" and name == "depthwise":
                # Two steps of 16 lanes have too many coverings of 8 points: 4 points.
                op = ops.depthwise_conv2d(n=1, h=1, r=1, c=2, w=2, s=2)
            for commuted in (False, True) if op.rhs is not None else (False,):
                label = f"{machine} {name}" + (" commuted" if commuted else "")
                yield Row(label, isa, op, commuted)


def strict_corpus() -> Iterator[Row]:
    """Rows of `corpus` whose run-time operands stand once, and rows with tiles.

    A tile's memory elements, numbered by first use, are no rectangle only in a later tile of three
    steps or more, so such rows have six steps, and few lanes.
    """
    for row in corpus():
        if not row.commuted:
            yield replace(row, name=f"{row.name} strict", layout="strict")
    isa = machines()
    shape = {"n": 1, "h": 1, "r": 1, "s": 2}
    pools = {
        "overlapping": ops.max_pool2d(c=1, w=4, stride=1, **shape),
        "in 2 channels": ops.max_pool2d(c=2, w=2, **shape),
    }
    for name, op in pools.items():
        for r in (1, 2):
            steps = 4 if "channels" in name else 6
            yield Row(f"dot pooling {name} R{r}", isa["dot"], op, False, "strict", 3, r, steps)
    for machine in ("outer", "2x2x2", "1x4x4"):
        op = pools["in 2 channels"]
        yield Row(f"{machine} pooling R1", isa[machine], op, False, "strict", 2, 1, 3)
    for name in ("conv1d padded", "conv1d dilated", "avg pooling"):
        op = operators()[name]
        yield Row(f"dot {name} R1", isa["dot"], op, False, "strict", 2, 1, 3)


def posed(row: Row) -> Ground | None:
    """The row's ground problem with the lifted model's least number of steps; None where
    the lifted model has no answer."""
    how = {"commuted": row.commuted, "layout": row.layout, "rectangles": row.rectangles}
    steps = row.steps
    if steps is None:
        ground = pose_ground(row.op, row.isa, 1, **how)
        counts = [named_steps(e) for e in lifted_embeddings(ground, row.isa)]
        if not counts:
            return None
        steps = min(counts)
    return pose_ground(row.op, row.isa, steps, tile=row.tile, **how)
