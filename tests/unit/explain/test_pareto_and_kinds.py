"""The sweep against brute force: every combination of options built, packed, counted."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.embed import embed
from csp_embed.embed.algebra.packing import pack
from csp_embed.embed.build import build
from csp_embed.embed.explain.pareto import CRITERIA, pareto
from csp_embed.embed.explain.pareto_space import front, space_of, sweep
from csp_embed.embed.explain.reasons import because, by_kind
from csp_embed.embed.problem import EmbedProblem
from csp_embed.machine.load import load_isa
from csp_embed.report.pareto import document, survives
from csp_embed.report.pareto_picture import plot

CASES = {
    "conv1d": ops.parse_formula("y[k,p] += x[c,p+r] * w[k,c,r]", {"x": (3, 7), "w": (3, 3, 3)}),
    "strided": ops.parse_formula("y[p] += x[2*p+r] * w[r]", {"x": (11,), "w": (4,)}),
    "matmul": ops.matmul(m=3, n=5, k=6, bias=True),
    "depthwise": ops.parse_formula("y[c,p] += x[c,p+r-1] * w[c,r]",
                                   {"x": (3, 6), "w": (3, 3), "y": (3, 6)}),
    "pool": ops.parse_formula("y[c,p] max= x[c,2*p+r]", {"x": (5, 9), "y": (5, 4)}),
}  # fmt: skip
CONFIG = Path(__file__).parents[2] / "data/configs/1x4x4_small.json"


def machine():
    return load_isa("vta", CONFIG)


def everything(op, isa, mode="relaxed"):
    """All embeddings of the lifted model, one by one."""
    problem = EmbedProblem.of(op, isa, mode)
    space = space_of(problem)
    blocks = len(problem.blocks) + 1
    groups = [[e.option for e in space.entries if e.option.block == b] for b in range(blocks)]
    for picked in itertools.product(*groups):
        if len({o.commuted for o in picked}) > 1:
            continue
        given = set().union(*(o.given for o in picked[:-1]))
        if given != set(picked[-1].given):
            continue
        lanes = {d: math.prod(o.lanes.get(d, 1) for o in picked) for d in problem.unit.size}
        if all(lanes[d] <= n for d, n in problem.unit.size.items()):
            yield build(problem, problem.decisions(picked))


def counted(embedding, isa):
    """The criteria, from packing tensors of ones."""
    op = embedding.operator
    out = dict.fromkeys(CRITERIA, 0.0)
    host = embedding.cost["host_bytes"]
    out["cycles"] = embedding.cost["objective"] - host / 256
    for role, layout in embedding.layouts.items():
        if role == "dst":
            continue
        tensor = op.tensors[layout.tensor]
        fill = np.ones(tensor.shape, tensor.dtype)
        packed = pack(layout, embedding, isa, fill)
        out["weight_bytes" if tensor.constant else "input_bytes"] += packed.nbytes
        filled = int((packed == 1).sum()) * packed.itemsize
        if role in ("lhs", "rhs"):
            out["zero_fill"] += packed.nbytes - filled
        else:
            filled = packed.nbytes
        if not tensor.constant:
            out["host_bytes"] += packed.nbytes + filled
    return [out[c] for c in CRITERIA]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["relaxed", "strict"])
def test_front_is_that_of_brute_force(name, mode):
    op, isa = CASES[name], machine()
    rows = np.unique([counted(e, isa) for e in everything(op, isa, mode)], axis=0)
    best = [r for r in rows if not ((rows <= r).all(axis=1) & (rows < r).any(axis=1)).any()]
    found = pareto(EmbedProblem.of(op, isa, mode))
    assert found.complete
    got = np.array([[m.criteria[c] for c in CRITERIA] for m in found.members])
    assert len(got) == len(best)
    np.testing.assert_allclose(got[np.lexsort(got.T)], np.array(best)[np.lexsort(np.array(best).T)])
    for m in found.members:
        np.testing.assert_allclose(counted(m.embedding, isa), [m.criteria[c] for c in CRITERIA])


@pytest.mark.parametrize("name", CASES)
def test_best_of_each_kind(name):
    op, isa = CASES[name], machine()
    best: dict[tuple[str, bool], float] = {}
    for e in everything(op, isa):
        key = (e.kind, e.commuted)
        best[key] = min(best.get(key, math.inf), e.cost["objective"])
    found = by_kind(EmbedProblem.of(op, isa))
    assert {(e.kind, e.commuted): e.cost["objective"] for e in found} == best
    assert found[0].cost["objective"] == embed(op, isa)[0].cost["objective"]
    assert because(found[0], found[0]) == "no part costs more"


def test_sweep_agrees_with_the_solver_on_layers():
    isa = load_isa("vta")
    for op in (ops.conv2d(n=1, c=3, h=30, w=30, k=16, r=7, s=7, stride=2, pad=3),
               ops.depthwise_conv2d(n=1, c=24, h=28, w=28, r=3, s=3, pad=1)):  # fmt: skip
        for mode in ("relaxed", "strict"):
            assert (
                by_kind(EmbedProblem.of(op, isa, mode))[0].cost["objective"]
                == (embed(op, isa, layout=mode)[0].cost["objective"])
            )


def test_front_of_rows():
    rng = np.random.default_rng(0)
    table = rng.integers(0, 5, (200, 3)).astype(float)
    kept = front(table)
    for n, row in enumerate(table):
        better = (table <= row).all(axis=1) & (table < row).any(axis=1)
        equal_before = (table[:n] == row).all(axis=1).any()
        assert (n in kept) == (not better.any() and not equal_before)


def test_a_cut_sweep_says_so():
    swept = sweep(space_of(EmbedProblem.of(CASES["conv1d"], machine())), most=2)
    assert not swept.complete


def test_document_and_picture(tmp_path):
    isa = machine()
    found = pareto(EmbedProblem.of(CASES["conv1d"], isa))
    assert json.loads(json.dumps(document(found)))["status"] == "complete"
    assert all(survives(found.members))
    for name in ("a.svg", "b.svg", "c.png"):
        plot(found, tmp_path / name, "conv1d")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
