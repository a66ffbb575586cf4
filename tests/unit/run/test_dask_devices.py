"""Devices that Dask workers announce: equal tensors, a lost worker named, and nothing twice."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import LocalCluster

from csp_embed.errors import InputError, WorkerDied
from csp_embed.ir.network import Assignment, Plan
from csp_embed.network.onnx.graph import Imported, import_onnx_graph
from csp_embed.run.hosts.on_dask import DaskRunner, clients
from csp_embed.run.run_plan import refuse_unequal, run_plan

sys.path.insert(0, str(Path(__file__).parent))
from test_workers import PLATFORM, chain


@pytest.fixture
def model(tmp_path: Path) -> Imported:
    host = replace(PLATFORM.host, device="cpu0")
    return import_onnx_graph(chain(tmp_path / "m.onnx"), replace(PLATFORM, host=host))


@pytest.fixture
def plan(model: Imported) -> Plan:
    rows = [
        Assignment(t, "cpu1" if t in ("n1", "n3") else "cpu0", float(i), i + 1.0)
        for i, t in enumerate(model.graph.order())
    ]
    return Plan("latency", 1.0, 0.0, None, "FEASIBLE", "by hand", assignments=tuple(rows))


def cluster(**resources: int) -> LocalCluster:
    return LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,
        resources=resources,
    )  # fmt: skip


def test_parts_run_on_the_worker_that_announces_their_device(model: Imported, plan: Plan) -> None:
    with cluster(cpu1=1) as running:
        client, hosts = clients(running.scheduler_address)
        with client:
            assert list(hosts) == ["cpu1"]
            report = run_plan(
                model, plan, PLATFORM, runs=1, warm_ups=0, hosts=hosts, in_flight=2, samples=4
            )
    refuse_unequal(report)
    assert report.rate is not None
    assert report.rate.wrong == 0
    assert {r.part.device for r in report.parts if r.how == "measured"} == {"cpu0", "cpu1"}


def test_a_worker_that_goes_is_named(
    monkeypatch: pytest.MonkeyPatch, model: Imported, plan: Plan
) -> None:
    with cluster(cpu1=1) as running:
        client, hosts = clients(running.scheduler_address)
        asked = DaskRunner._asked

        def go(self: DaskRunner, part: Any, feeds: Any) -> Any:
            if part.index == 3:
                running.scale(0)
                while client.scheduler_info(n_workers=-1)["workers"]:
                    pass
            return asked(self, part, feeds)

        monkeypatch.setattr(DaskRunner, "_asked", go)
        with client, pytest.raises(WorkerDied, match="worker of cpu1 died") as caught:
            run_plan(model, plan, PLATFORM, runs=1, warm_ups=0, hosts=hosts)
    assert caught.value.device == "cpu1"


def test_a_cluster_without_devices_and_no_cluster() -> None:
    with cluster() as running, pytest.raises(InputError, match="no worker announces") as caught:
        clients(running.scheduler_address)
    assert "--resources" in caught.value.hint
    with pytest.raises(InputError, match="no Dask scheduler"):
        clients("tcp://127.0.0.1:9")
