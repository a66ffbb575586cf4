"""Plans of small instances against trying every placement, and structured ones of known value."""

from __future__ import annotations

import json
from typing import Any

import pytest
import serving_oracle as oracle

import csp_embed as ce
from csp_embed.errors import Infeasible
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.judge.check import check


def judged(document: dict[str, Any], plan: Any) -> None:
    """The judge accepts what would be written to a file (and refuses a file without a plan)."""
    faults = check(instance_from(document), json.loads(json.dumps(plan.document())))
    assert [f.kind for f in faults] == ([] if plan.value else ["format"])


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("seed", range(16))
def test_tiny_instances(seed: int, partial: bool) -> None:
    """The optimum is found, and never above the bound."""
    document = oracle.random_document(seed, machines=3, layers=4, partial=partial)
    best = float(oracle.best(document))
    try:
        plan = ce.serve(document)
    except Infeasible:
        assert best == 0
        return
    assert (plan.value or 0) == pytest.approx(best, rel=1e-9)
    assert plan.bound >= best * (1 - 1e-9)
    placed = {m: tuple(i) for m, i in plan.placement.items()}
    assert float(oracle.carried(document, placed)) == pytest.approx(best, rel=1e-9)
    judged(document, plan)


def test_a_long_slow_interval_beside_a_chain() -> None:
    """`slow` holds all 4 layers at 2/s, `fast` 2 layers at 7/s: two of these in a row and the slow
    one beside them carry 9; side by side in equal stages they could not."""
    document = oracle.cluster(
        4,
        {"slow": [3.0, 2.5, 2.2, 2.0], "fast": [8.0, 7.0]},
        [("s", "slow"), ("a", "fast"), ("b", "fast")],
    )
    plan = ce.serve(document)
    judged(document, plan)
    assert plan.value == float(oracle.best(document)) == 9.0


def regions_document() -> dict[str, Any]:
    """Two regions of 3 machines, 6 layers, links of 6 across: a single file of 10 cannot cross."""
    return oracle.cluster(
        6,
        {"x": [10.0, 4.0]},
        [(f"{r}{i}", "x") for r in "pq" for i in range(3)],
        lambda a, b: 1e6 if a[0] == b[0] else 6.0,
    )


def test_no_single_file_across_regions() -> None:
    """Six machines with one layer each would carry 10, but a link across carries 6, and nothing
    else carries more than two side by side with two layers, 8."""
    document = regions_document()
    plan = ce.serve(document)
    judged(document, plan)
    assert plan.certificate["rule"] == "prices"
    assert plan.value == plan.bound == 8.0
    assert "side_by_side" in plan.certificate


def test_unlinked_machines_alternate() -> None:
    """Four leaves are linked to two hubs only: a single file of six (9/s) would need two leaves in
    a row, so what is left are pairs with two layers each (8/s)."""
    machines = [*((f"leaf{i}", "x") for i in range(4)), *((f"hub{i}", "x") for i in range(2))]
    document = oracle.cluster(
        6, {"x": [9.0, 4.0]}, machines, lambda a, b: 1e6 if "h" in a[0] + b[0] else 0.0
    )
    plan = ce.serve(document)
    judged(document, plan)
    assert plan.value == plan.bound == 8.0
    assert "alternation" in plan.certificate


def test_many_machines_and_few_layers() -> None:
    """60 equal machines, 12 layers of 1/k tokens/s: the work allows 5, and stages reach it."""
    document = oracle.cluster(12, {"x": [1.0, 0.5, 1 / 3]}, [(f"m{i}", "x") for i in range(60)])
    plan = ce.serve(document)
    judged(document, plan)
    assert plan.value == pytest.approx(5.0, rel=1e-9)
    assert plan.status == "OPTIMAL"


def test_same_input_same_plan() -> None:
    document = regions_document()
    first, second = ce.serve(document).document(), ce.serve(document).document()
    first.pop("seconds")
    second.pop("seconds")
    assert first == second
