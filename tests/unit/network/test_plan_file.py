"""Plan files come back as they were written, in any time unit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from csp_embed.errors import InputError
from csp_embed.ir.network import Assignment, Plan, Replica, Transfer
from csp_embed.network.files.plan import plan_document, plan_from, read_plan, write_plan
from csp_embed.network.profiles.file import Profile, read_profile

PLAN = Plan(
    goal="latency",
    objective=7.5,
    lower_bound=7.0,
    gap=0.5 / 7.5,
    status="FEASIBLE",
    method="heft",
    assignments=(Assignment("x", "a", 0.0, 1.5), Assignment("y", "b", 2.0, 4.0)),
    transfers=(Transfer("x", "t", "a", "b", "a-b", 100.0, 1.5, 2.0),),
    graph_sha256="12",
    bound="critical path",
    reasons=("a remark",),
    source={"target": "g.json"},
)


def test_written_and_read(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / "p.json")
    assert read_plan(tmp_path / "p.json") == PLAN
    row = json.loads((tmp_path / "p.json").read_text())["transfers"][0]
    assert (row["from"], row["to"]) == ("a", "b")


def test_throughput_and_replicas() -> None:
    replica = Replica(0.25, (Assignment("x", "a"),), {"a": 4.0})
    plan = Plan(
        "throughput", 2.0, 1.0, 0.5, "FEASIBLE", "exact", loads={"a": 4.0}, replicas=(replica,)
    )
    assert plan_from(plan_document(plan), "p.json") == plan


def test_other_units_and_somebody_elses_keys() -> None:
    plan = plan_from(
        {
            "format": "csp-embed-plan/1",
            "goal": "latency",
            "time_unit": "s",
            "author": "somebody",
            "assignments": [{"task": "x", "device": "a", "start": 0, "finish": 0.002}],
        },
        "p.json",
    )
    assert plan.assignments[0].finish == pytest.approx(2.0)
    assert plan.objective == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goal": "beauty"}, "goal"),
        ({"format": "x"}, "not a csp-embed-plan/1 file"),
        ({"assignments": [{"task": "x"}]}, "'device' is missing"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_from(plan_document(PLAN) | change, "p.json")
    assert message in caught.value.render()


def test_the_committed_profile_schema_and_sample() -> None:
    folder = Path(__file__).parents[3] / "profiles"
    schema = json.loads((folder / "csp-embed-profile-1.schema.json").read_text())
    assert set(schema["properties"]) == set(Profile.model_fields)
    assert not schema["additionalProperties"]
    sample = read_profile(folder / "resnet50_gpu0_roofline_sample.json")
    assert sample.device.how == "roofline"  # no measurement is claimed
    assert len(sample.layers) == 73
