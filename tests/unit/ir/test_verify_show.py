"""Every value between stages says what it is (`show`) and what its form breaks (`verify`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from cases import CASES, MACHINES

import csp_embed as ce
from csp_embed.embed.ground.points import pose_ground
from csp_embed.ir.affine import Affine
from csp_embed.ir.dfg import dataflow
from csp_embed.ir.embedding import Counter, Embedding
from csp_embed.ir.ground import Ground
from csp_embed.ir.network import Assignment, Plan
from csp_embed.ir.operator import Access, Operator
from csp_embed.ir.schedule import COMPUTE, LOAD, Schedule
from csp_embed.ir.stream import Program, Stream

ROWS = [
    ("matmul ragged", "vta small"),
    ("conv2d grouped", "vta batch"),
    ("depthwise", "vta"),
    ("max pool", "toy dot"),
    ("elementwise", "toy outer"),
]
PLAN = Plan(
    goal="latency", objective=3.0, lower_bound=3.0, gap=0.0, status="OPTIMAL", method="exact",
    assignments=(Assignment("a", "cpu", 0.0, 1.0), Assignment("b", "gpu", 1.0, 3.0)),
)  # fmt: skip


@cache
def kernel(case: str = "conv2d stem", machine: str = "vta") -> ce.Kernel:
    return ce.compile(CASES[case](), MACHINES[machine](), options=ce.Options(top=1, schedules=1))


@pytest.mark.parametrize("case", CASES)
def test_operators_and_dataflows_are_well_formed(case: str) -> None:
    op = CASES[case]()
    flow = dataflow(op)
    assert op.verify() == flow.verify() == flow.expand().verify() == []
    assert op.formula() in op.show()
    assert f"{flow.points} points" in flow.expand().show()


@pytest.mark.parametrize(("case", "machine"), ROWS)
def test_what_compilation_makes_is_well_formed(case: str, machine: str) -> None:
    made = kernel(case, machine)
    stream = made.lowered.stream
    assert made.embedding.verify() == made.schedule.verify() == stream.verify() == []
    assert made.embedding.formula() in made.embedding.show()
    assert len(made.embedding.show().splitlines()) == 1 + len(made.embedding.layouts)
    assert str(len(made.schedule.ops)) in made.schedule.show()
    assert made.schedule.show().count("boxes") == len(made.schedule.regions)
    assert stream.show().startswith(f"{len(stream)} instructions")


def op_(**change: Any) -> Operator:
    return replace(CASES["conv2d stem"](), **change)


def emb(**change: Any) -> Embedding:
    return replace(kernel().embedding, **change)


def sched(row: tuple[int, ...] | None = None, **change: Any) -> Schedule:
    found = kernel().schedule
    if row is not None:
        change["ops"] = np.vstack([found.ops, row])
        change["tokens"] = np.append(found.tokens, 0)
    return replace(found, **change)


def lhs(**change: Any) -> Embedding:
    layouts = dict(kernel().embedding.layouts)
    layouts["lhs"] = replace(layouts["lhs"], **change)
    return emb(layouts=layouts)


def region(**change: Any) -> Schedule:
    first, *rest = kernel().schedule.regions
    return sched(regions=(replace(first, **change), *rest))


def program(**change: Any) -> Program:
    data = np.zeros(8, np.uint8)
    good = Program({"isa": "vta"}, np.zeros((2, 2), np.uint64), ((64, data), (72, data)), (), {})
    assert good.verify() == []
    assert "16 bytes in 2 ranges" in good.show()
    return replace(good, **change)


def ground(**change: Any) -> Ground:
    made = pose_ground(ce.matmul(m=2, n=1, k=3), MACHINES["toy dot"](), 2, layout="strict")
    assert made.verify() == []
    assert "6 points" in made.show()
    return replace(made, **change)


EMPTY = np.zeros(0, np.int64)
BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "axis": (lambda: op_(axes=dict(op_().axes) | {"k": 0}), "axis k has extent 0"),
    "kind": (lambda: op_(kind="sum"), "kind sum"),
    "no rhs": (lambda: op_(rhs=None), "contract with no rhs"),
    "tensor": (lambda: op_(lhs=Access("z", ())), "unknown tensor"),
    "rank": (lambda: op_(rhs=Access("w", (Affine((("k", 1),)),))), "1 indices, 4 wanted"),
    "axis name": (lambda: op_(rhs=Access("w", (Affine((("j", 1),)),) * 4)), "unknown axis j"),
    "out twice": (lambda: op_(out=Access("y", (Affine((("k", 1),)),) * 4)), "an axis twice"),
    "flow axis": (lambda: replace(dataflow(op_()), axes={"k": 3}), "unknown axis"),
    "flow role": (
        lambda: replace(dataflow(op_()), reads=dataflow(op_()).reads[:1] * 2), "lhs is read twice"
    ),
    "expanded": (
        lambda: replace(dataflow(op_()).expand(), write=EMPTY), "one for each point is wanted"
    ),
    "beyond": (
        lambda: replace(
            dataflow(op_()).expand(), write=np.full(dataflow(op_()).points, 10**9)
        ),
        "beyond its tensor",
    ),
    "names": (lambda: emb(counters=(*emb().counters, emb().counters[0])), "have one name"),
    "radix": (
        lambda: emb(digits=tuple(replace(d, radix=3 * d.radix) for d in emb().digits)), "is next"
    ),
    "extent": (lambda: emb(counters=(Counter("z", 0, False), *emb().counters)), "takes 0 values"),
    "coordinates": (lambda: emb(coordinates=emb().coordinates[1:]), "coordinates enumerate"),
    "digits": (lambda: emb(digits=()), "names an unknown"),
    "equal": (lambda: emb(equal=(("a", "b"),)), "cannot be equal"),
    "layouts": (lambda: emb(layouts={}), "wanted of add0, dst, lhs, rhs"),
    "origin": (lambda: lhs(origin=()), "differ in length"),
    "grid": (lambda: lhs(grid=tuple(0 for _ in lhs().layouts["lhs"].grid)), "has no element"),
    "layout digit": (lambda: lhs(equal=(("p", "q"),)), "digit p is not known"),
    "order": (lambda: lhs(order=(0, 0)), "is no order of"),
    "rows": (lambda: sched(tokens=EMPTY), "0 tokens"),
    "row kind": (lambda: sched((9, 0, 0, 0)), "no known kind"),
    "template": (lambda: sched((COMPUTE, 999, 0, 0)), "unknown template"),
    "region": (lambda: sched((LOAD, 999, 0, 0)), "unknown region"),
    "box": (lambda: sched((LOAD, 0, 10**6, 0)), "unknown box"),
    "sram": (lambda: sched((LOAD, 0, 0, -1)), "below 0"),
    "tokens": (lambda: sched(tokens=sched().tokens + 16), "token bits"),
    "uops": (
        lambda: sched(templates=(replace(sched().templates[0], factors=()),)), "0 operands"
    ),
    "region order": (lambda: region(order=(7,)), "is no order of"),
    "box range": (
        lambda: region(boxes=tuple(((0, 10**6),) * len(b) for b in sched().regions[0].boxes)),
        "does not lie in",
    ),
    "operands": (lambda: ground(counts={}), "different operands"),
    "strict": (lambda: ground(strict=frozenset({"add0"})), "add0 is strict, but no operand"),
    "sizes": (lambda: ground(sizes={}), "has no size"),
    "points": (lambda: ground(points=np.zeros((6, 2), np.int64)), "points have shape (6, 2)"),
    "elements": (lambda: ground(elements=dict.fromkeys(ground().elements, EMPTY)), "for 6 points"),
    "element": (
        lambda: ground(counts=dict.fromkeys(ground().counts, 1)), "names an element beyond"
    ),
    "tile": (lambda: ground(tile=0), "tiles of 0"),
    "field": (lambda: Stream(np.zeros(2, np.int64), {"x": EMPTY}), "field x has (0,)"),
    "code": (lambda: Stream(np.array([-2]), {}), "below -1"),
    "words": (lambda: program(insn=np.zeros(3, np.uint64)), "have shape (3,)"),
    "overlap": (
        lambda: program(before=((64, np.zeros(9, np.uint8)), (72, np.zeros(8, np.uint8)))),
        "overlap",
    ),
    "address": (lambda: program(after=((0, np.zeros(1, np.uint8)),)), "between 1 and 2^32"),
    "goal": (lambda: replace(PLAN, goal="speed"), "goal speed"),
    "status": (lambda: replace(PLAN, status="DONE"), "status DONE is not known"),
    "no plan": (lambda: replace(PLAN, objective=None), "OPTIMAL with objective None"),
    "twice": (lambda: replace(PLAN, assignments=PLAN.assignments * 2), "assigned twice"),
    "times": (
        lambda: replace(PLAN, assignments=(Assignment("a", "cpu", 2.0, 1.0),)), "before it starts"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_form_is_named(name: str) -> None:
    make, text = BROKEN[name]
    found = make().verify()
    assert any(text in breach for breach in found), found


def test_a_plan_is_well_formed() -> None:
    assert PLAN.verify() == []
    assert "b: gpu 1.0 3.0" in PLAN.show()
