"""Worker processes that die, and ours that is told to: nothing hangs, nothing stays behind, and the
error names the worker."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from csp_embed.errors import WorkerDied
from csp_embed.ir.network import Assignment, Device, Link, Plan, Platform
from csp_embed.network.onnx.graph import Imported, import_onnx_graph
from csp_embed.run.cpu_process import CpuProcess
from csp_embed.run.run_plan import run_plan

PLATFORM = Platform(
    (Device("cpu0", "cpu", peak_ops_per_ms=1e6), Device("cpu1", "cpu", peak_ops_per_ms=1e6)),
    (Link(("cpu0", "cpu1"), 1e6),),
    name="two",
)


def chain(path: Path, length: int = 4) -> Path:
    """x -> n0 -> n1 -> … -> y, each a Softmax: a layer of its own."""
    names = ["x", *(f"t{i}" for i in range(length - 1)), "y"]
    nodes = [
        helper.make_node("Softmax", [names[i]], [names[i + 1]], name=f"n{i}") for i in range(length)
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 8]) for n in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "chain", [x], [y]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, str(path))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Imported:
    from dataclasses import replace

    host = replace(PLATFORM.host, device="cpu0")
    return import_onnx_graph(chain(tmp_path / "m.onnx"), replace(PLATFORM, host=host))


@pytest.fixture
def plan(model: Imported) -> Plan:
    """Layers by turns on both devices: four parts."""
    rows = [
        Assignment(t, "cpu1" if t in ("n1", "n3") else "cpu0", float(i), i + 1.0)
        for i, t in enumerate(model.graph.order())
    ]
    return Plan("latency", 1.0, 0.0, None, "FEASIBLE", "by hand", assignments=tuple(rows))


@pytest.mark.parametrize(
    ("moment", "after", "remained"),
    [
        ("loading part03", False, "not run: part00_cpu0, part01_cpu1, part02_cpu0, part03_cpu1"),
        ("loading part03", True, "not run: part00_cpu0, part01_cpu1, part02_cpu0, part03_cpu1"),
        ("running part03", False, "not run: part03_cpu1"),
        ("running part01", True, "not run: part01_cpu1, part02_cpu0, part03_cpu1"),
        ("measuring part03", False, "every part ran; not measured: part00_cpu0"),
        ("measuring part01", True, "every part ran; not measured: part00_cpu0"),
    ],
)
def test_a_killed_worker_is_named(
    monkeypatch: pytest.MonkeyPatch, model: Imported, plan: Plan, moment: str, after: bool,
    remained: str,
) -> None:  # fmt: skip
    ask = CpuProcess._ask

    def kill_and_ask(self: CpuProcess, doing: str, message: tuple[Any, ...]) -> None:
        pid = self.process.pid or 0
        fatal = doing.startswith(moment)
        if fatal:
            # Stopped, it cannot answer before it is killed.
            os.kill(pid, signal.SIGSTOP if after else signal.SIGKILL)
        if fatal and not after:
            self.process.join()
        ask(self, doing, message)
        if fatal and after:
            os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(CpuProcess, "_ask", kill_and_ask)
    with pytest.raises(WorkerDied) as caught:
        run_plan(model, plan, PLATFORM, runs=1, warm_ups=0)
    text = caught.value.render()
    assert f"the worker of cpu1 died while {moment}_cpu1" in text
    assert "signal 9 (SIGKILL)" in text
    assert f"remained {remained}" in text
    assert caught.value.exit_code == 5
    assert not mp.active_children()


def test_the_death_of_another_worker_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch, model: Imported, plan: Plan
) -> None:
    """cpu0 is asked and, stopped, never answers; cpu1, of whom nobody wants anything, dies."""
    ask = CpuProcess._ask

    def stop_and_kill(self: CpuProcess, doing: str, message: tuple[Any, ...]) -> None:
        if doing.startswith("measuring part00"):
            os.kill(self.process.pid or 0, signal.SIGSTOP)
            other = next(worker for worker in self.crew if worker is not self)
            os.kill(other.process.pid or 0, signal.SIGKILL)
        ask(self, doing, message)

    monkeypatch.setattr(CpuProcess, "_ask", stop_and_kill)
    with pytest.raises(WorkerDied, match="of cpu1 died while it waited for work"):
        run_plan(model, plan, PLATFORM, runs=1, warm_ups=0)
    assert not mp.active_children()


def test_a_worker_killed_at_its_start_is_named(
    monkeypatch: pytest.MonkeyPatch, model: Imported, plan: Plan
) -> None:
    make = CpuProcess.__init__

    def stillborn(self: CpuProcess, device: str, *rest: Any, **more: Any) -> None:
        make(self, device, *rest, **more)
        if device == "cpu0":
            os.kill(self.process.pid or 0, signal.SIGKILL)

    monkeypatch.setattr(CpuProcess, "__init__", stillborn)
    with pytest.raises(WorkerDied, match=r"of cpu0 died while (starting|loading part00)"):
        run_plan(model, plan, PLATFORM, runs=1, warm_ups=0)
    assert not mp.active_children()


def test_a_worker_killed_when_all_is_done_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, model: Imported, plan: Plan
) -> None:
    close = CpuProcess.close

    def kill_and_close(self: CpuProcess) -> None:
        os.kill(self.process.pid or 0, signal.SIGKILL)
        close(self)

    monkeypatch.setattr(CpuProcess, "close", kill_and_close)
    assert run_plan(model, plan, PLATFORM, runs=1, warm_ups=0).equal
    assert not mp.active_children()


@contextmanager
def started(folder: Path, model: Imported) -> Iterator[subprocess.Popen[str]]:
    """run-plan on the command line, with so many timed runs that it is met at work."""
    platform = folder / "p.yaml"
    platform.write_text(
        "devices: [{name: cpu0, kind: cpu, peak_ops_per_ms: 1.0e6},"
        " {name: cpu1, kind: cpu, peak_ops_per_ms: 1.0e6}]\n"
        "links: [{between: [cpu0, cpu1], bytes_per_ms: 1.0e6}]\nhost: {device: cpu0}\n"
    )
    command = [sys.executable, "-m", "csp_embed"]
    fixed = [word for i in range(4) for word in ("--fix", f"n{i}=cpu{i % 2}")]
    subprocess.run(
        [*command, "partition", model.net.path, "--platform", str(platform), *fixed, "-o",
         str(folder / "plan.json")],
        check=True, capture_output=True,
    )  # fmt: skip
    with subprocess.Popen(
        [*command, "run-plan", model.net.path, str(folder / "plan.json"), "--runs", "40000",
         "--json"],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def workers(pid: int) -> list[int]:
    """Children of a process that it spawned to work; waits until there are two that do."""
    for _ in range(3000):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = [int(c) for c in children if "spawn_main" in command_of(int(c))]
        # The second thread is the one that watches the parent: the worker is up.
        if len(found) == 2 and all(len(list(Path(f"/proc/{p}/task").iterdir())) > 1 for p in found):
            return found
        time.sleep(0.05)
    raise AssertionError("no workers were started")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def all_gone(pids: list[int]) -> bool:
    for _ in range(600):
        if not any("spawn_main" in command_of(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_command(
    tmp_path: Path, model: Imported, number: signal.Signals
) -> None:
    with started(tmp_path, model) as process:
        pids = workers(process.pid)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in errors
    assert all_gone(pids)


def test_the_command_says_which_worker_died(tmp_path: Path, model: Imported) -> None:
    with started(tmp_path, model) as process:
        os.kill(workers(process.pid)[1], signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 5
    # cpu0 may be in the middle of a long measurement: nobody asks cpu1 for anything then.
    assert "the worker of cpu1 died" in json.loads(output)["what"]
    assert "SIGKILL" in errors
