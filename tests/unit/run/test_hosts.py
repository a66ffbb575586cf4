"""Plans whose devices are on other hosts: the worker over TCP, lost in every way, re-planned."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from csp_embed.errors import InputError, WorkerDied
from csp_embed.ir.network import Assignment, Handling, Plan
from csp_embed.network.onnx.graph import Imported, import_onnx_graph
from csp_embed.run.hosts import client, links, wire
from csp_embed.run.hosts.client import HostWorker, RemoteRunner, connect
from csp_embed.run.hosts.handling import measure_handling
from csp_embed.run.hosts.wire import Message
from csp_embed.run.run_plan import refuse_unequal, run_plan

sys.path.insert(0, str(Path(__file__).parent))
from test_workers import PLATFORM, chain

COMMAND = [sys.executable, "-m", "csp_embed"]
TOKEN = "a token of many letters"


@contextmanager
def worker(
    *options: str, device: str = "cpu1", space: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A worker on a port that it chooses: (its address, its process)."""
    inside = ["ip", "netns", "exec", space] if space else []
    listen = [] if "--listen" in options else ["--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*inside, *COMMAND, "worker", *listen, "--device", device, *options],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=_listens,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "listens on" in line, line + process.stdout.read()
            yield line.split()[-1], process
        finally:
            # Not killed: it removes its folder. A stopped one hears of it once it goes on.
            process.terminate()
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()


def _listens() -> None:
    """nohup, or a shell's background job, ignores signals, and children inherit that."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def model(tmp_path: Path) -> Imported:
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


def platform_file(folder: Path) -> Path:
    path = folder / "p.yaml"
    path.write_text(
        "devices: [{name: cpu0, kind: cpu, peak_ops_per_ms: 1.0e6},"
        " {name: cpu1, kind: cpu, peak_ops_per_ms: 1.0e6}]\n"
        "links: [{between: [cpu0, cpu1], bytes_per_ms: 1.0e6}]\nhost: {device: cpu0}\n"
    )
    return path


def plan_file(folder: Path, model: Imported) -> Path:
    fixed = [word for i in range(4) for word in ("--fix", f"n{i}=cpu{i % 2}")]
    subprocess.run(
        [*COMMAND, "partition", model.net.path, "--platform", str(platform_file(folder)), *fixed,
         "-o", str(folder / "plan.json")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "plan.json"


def test_two_coordinators_one_after_the_other_get_equal_tensors(
    model: Imported, plan: Plan, tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    with worker("--token-file", str(secret)) as (address, _):
        for _ in range(2):
            workers = connect([address], TOKEN)
            try:
                assert list(workers) == ["cpu1"]
                hosts = {"cpu1": RemoteRunner(workers["cpu1"])}
                report = run_plan(
                    model, plan, PLATFORM, runs=2, warm_ups=0, hosts=hosts, in_flight=3, samples=9
                )
            finally:
                workers["cpu1"].close()
            refuse_unequal(report)
            assert {r.how for r in report.parts} == {"measured"}
            assert report.rate is not None
            assert (report.rate.samples, report.rate.wrong) == (9, 0)
            assert set(report.rate.busy) == {"cpu0", "cpu1"}


def test_tensors_travel_only_where_they_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x -> a on cpu1 -> b on cpu0 -> c on cpu1, which reads a and x again, -> y. Of each sample
    cpu1 is sent x once, a not at all, and only what cpu0 or the user reads comes back."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["u"], name="a"),
        helper.make_node("Exp", ["x"], ["k"], name="keep"),
        helper.make_node("Softmax", ["u"], ["v"], name="b"),
        helper.make_node("Sum", ["v", "u", "x", "k"], ["y"], name="c"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 8]) for n in "xy")
    path = tmp_path / "skip.onnx"
    opset = [helper.make_opsetid("", 17)]
    graph = helper.make_graph(nodes, "skip", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    host = replace(PLATFORM.host, device="cpu0")
    model = import_onnx_graph(path, replace(PLATFORM, host=host))
    rows = [
        Assignment(t, "cpu0" if "b" in t.split("+") or ":" in t else "cpu1", float(i), i + 1.0)
        for i, t in enumerate(model.graph.order())
    ]
    plan = Plan("latency", 1.0, 0.0, None, "FEASIBLE", "by hand", assignments=tuple(rows))
    sent: list[tuple[int, str]] = []
    back: list[set[str]] = []
    ask, finish = HostWorker.ask, HostWorker.finish

    def seen(self: HostWorker, doing: str, message: Message) -> int:
        if "sample" in message.fields:
            sent.extend((message.fields["sample"], name) for name in message.tensors)
        return ask(self, doing, message)

    def ended(self: HostWorker, call: int) -> Message:
        answer = finish(self, call)
        if answer.kind == "done":
            back.append(set(answer.tensors))
        return answer

    monkeypatch.setattr(HostWorker, "ask", seen)
    monkeypatch.setattr(HostWorker, "finish", ended)
    with worker() as (address, _):
        hosts = connect([address])
        runner = {"cpu1": RemoteRunner(hosts["cpu1"])}
        report = run_plan(
            model, plan, PLATFORM, runs=1, warm_ups=0, hosts=runner, in_flight=3, samples=9
        )
        hosts["cpu1"].close()
    refuse_unequal(report)
    assert report.rate is not None
    assert report.rate.wrong == 0
    assert not runner["cpu1"].there  # nothing is remembered of samples that are over
    # Twelve samples in flight, two alone.
    assert sorted(sent) == sorted((n, name) for n in range(-2, 12) for name in "vx")
    assert all(names in ({"u"}, {"y"}) for names in back[-24:])


def test_a_wrong_token_and_no_token_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    with worker("--token-file", str(secret)) as (address, _):
        with pytest.raises(InputError, match="asks for its token"):
            connect([address])
        with pytest.raises(InputError, match="refuses us"):
            connect([address], "another token of many letters")
        connect([address], TOKEN)["cpu1"].close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--listen", "0.0.0.0:0"], "without --token-file"),
        (["--listen", "nowhere"], "expected HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "cannot listen"),
        (["--listen", "127.0.0.1:0", "--provider", "MoonExecutionProvider"], "has no Moon"),
        (["--listen", "127.0.0.1:0", "--core", "4095"], "not a core"),
        (["--listen", "127.0.0.1:0", "--token-file", "/nowhere/token"], "token"),
    ],
)
def test_a_worker_says_why_it_does_not_start(options: list[str], message: str) -> None:
    done = subprocess.run(
        [*COMMAND, "worker", "--device", "cpu1", *options], text=True, capture_output=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "try:" in done.stderr or "why:" in done.stderr


def test_what_is_no_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no worker at 127\.0\.0\.1:1"):
        connect(["127.0.0.1:1"])
    monkeypatch.setattr(client, "SILENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(InputError, match="no free worker"):
            connect([address])


def test_a_result_that_cannot_travel_is_an_error_of_its_part() -> None:
    """Strings would have to be pickled; the worker answers so, instead of falling silent."""
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, [2])
    made = helper.make_model(
        helper.make_graph([cast], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)]
    )
    made.ir_version = 8
    data = made.SerializeToString()
    with worker() as (address, _):
        one = connect([address])["cpu1"]
        fields = {"part": 0, "sha256": wire.digest(data), "form": "fast"}
        one.finish(one.ask("loading", Message("load", fields, blob=data)))
        for _ in range(2):  # and it lives on
            call = one.ask("running", Message("run", {"part": 0}, {"x": np.ones(2, np.float32)}))
            with pytest.raises(InputError, match="'y' of type object cannot travel"):
                one.finish(call)
        one.close()


def test_two_workers_of_one_device_are_refused() -> None:
    with (
        worker() as (one, _),
        worker() as (two, _),
        pytest.raises(InputError, match="announced twice"),
    ):
        connect([one, two])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_silent_is_named(
    monkeypatch: pytest.MonkeyPatch, model: Imported, plan: Plan, number: signal.Signals
) -> None:
    """Stopped, it keeps its connection and says nothing: like a cut cable."""
    monkeypatch.setattr(client, "SILENCE_S", 2.0)
    with worker() as (address, process):
        hosts = {"cpu1": RemoteRunner(HostWorker(address))}
        ask = HostWorker.ask

        def stop_and_ask(self: HostWorker, doing: str, message: object) -> int:
            if doing.startswith("running part03"):
                process.send_signal(number)
            return ask(self, doing, message)  # type: ignore[arg-type]

        monkeypatch.setattr(HostWorker, "ask", stop_and_ask)
        with pytest.raises(WorkerDied) as caught:
            run_plan(model, plan, PLATFORM, runs=1, warm_ups=0, hosts=hosts)
        hosts["cpu1"].close()
    text = caught.value.render()
    assert caught.value.device == "cpu1"
    assert "the worker of cpu1 died or its link broke while running part03_cpu1" in text
    assert address in text
    assert "remained not run: part03_cpu1" in text


def test_a_loss_with_several_in_flight_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, model: Imported, plan: Plan
) -> None:
    with worker() as (address, process):
        hosts = {"cpu1": RemoteRunner(HostWorker(address))}
        run, seen = RemoteRunner.run, []

        def kill_and_run(self: RemoteRunner, part: object, feeds: object, turn: object) -> object:
            seen.append(part)
            if len(seen) == 7:
                process.kill()
            return run(self, part, feeds, turn)  # type: ignore[arg-type]

        monkeypatch.setattr(RemoteRunner, "run", kill_and_run)
        with pytest.raises(WorkerDied, match="of cpu1 died"):
            run_plan(
                model, plan, PLATFORM, runs=1, warm_ups=0, hosts=hosts, in_flight=4, samples=1000
            )
        hosts["cpu1"].close()


def test_run_plan_goes_on_without_a_lost_worker(tmp_path: Path, model: Imported) -> None:
    plan, new = plan_file(tmp_path, model), tmp_path / "new.json"
    with worker("--once") as (address, process):
        command = [
            *COMMAND, "run-plan", model.net.path, str(plan), "--worker", address, "--runs",
            "1000000", "--replan", str(new),
        ]  # fmt: skip
        with subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as run:
            # Once somebody is connected it is at its million runs, or on the way there.
            files, deadline = Path(f"/proc/{process.pid}/fd"), time.monotonic() + 60
            before = len(list(files.iterdir()))
            while len(list(files.iterdir())) == before and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(2)
            process.kill()
            # What it says comes after the new plan is written: an interrupt must not come between.
            assert run.stderr is not None
            errors = ""
            while "went on without" not in errors and (line := run.stderr.readline()):
                errors += line
            run.send_signal(signal.SIGINT)
            errors += run.communicate(timeout=60)[1]
    assert "the worker of cpu1 died" in errors
    assert "went on without cpu1" in errors
    from csp_embed.network.files.plan import read_plan

    assert {row.device for row in read_plan(new).assignments} == {"cpu0"}


def test_an_announced_device_that_the_platform_lacks(tmp_path: Path, model: Imported) -> None:
    plan = plan_file(tmp_path, model)
    with worker(device="gpu7") as (address, _):
        done = subprocess.run(
            [*COMMAND, "run-plan", model.net.path, str(plan), "--worker", address],
            text=True, capture_output=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert "no device 'gpu7'" in done.stderr


@contextmanager
def other_host(rate: str) -> Iterator[tuple[str, str]]:
    """A network namespace behind a link of that rate: (its name, its address)."""
    space, mine, theirs = f"csp{os.getpid()}", f"va{os.getpid()}", f"vb{os.getpid()}"
    here, there = "10.213.77.1", "10.213.77.2"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    limit = ["root", "tbf", "rate", rate, "burst", "64kb", "latency", "100ms"]
    try:
        ip("netns", "add", space)
        ip("link", "add", mine, "type", "veth", "peer", "name", theirs)
        ip("link", "set", theirs, "netns", space)
        ip("addr", "add", f"{here}/24", "dev", mine)
        ip("link", "set", mine, "up")
        ip("-n", space, "addr", "add", f"{there}/24", "dev", theirs)
        ip("-n", space, "link", "set", theirs, "up")
        ip("-n", space, "link", "set", "lo", "up")
        subprocess.run(["tc", "qdisc", "add", "dev", mine, *limit], check=True, capture_output=True)
        subprocess.run(
            ["tc", "-n", space, "qdisc", "add", "dev", theirs, *limit], check=True,
            capture_output=True,
        )  # fmt: skip
        yield space, there
    finally:
        for words in (["ip", "netns", "del", space], ["ip", "link", "del", mine]):
            with contextlib.suppress(OSError):
                subprocess.run(words, check=False, capture_output=True)


def test_the_rate_of_a_limited_link_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Imported, plan: Plan
) -> None:
    """200 Mbit/s are 25,000 bytes a ms, each way. Where the machine allows no namespaces: loopback,
    which must be faster than that."""

    def marked(*args: Any) -> dict[str, Handling]:
        # What such a small message takes may be found to be nothing: 1 ms more tells the ends.
        return {d: replace(h, ms=h.ms + 1) for d, h in measure_handling(*args).items()}

    monkeypatch.setattr(links, "measure_handling", marked)
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    with contextlib.ExitStack() as stack:
        space, where, limited = "", "127.0.0.1", False
        if os.geteuid() == 0 and shutil.which("ip") and shutil.which("tc"):
            with contextlib.suppress(subprocess.CalledProcessError):
                space, where = stack.enter_context(other_host("200mbit"))
                limited = True
        address, _ = stack.enter_context(
            worker("--listen", f"{where}:0", "--token-file", str(secret), space=space)
        )
        workers = connect([address], TOKEN)
        found = links.measured_links(PLATFORM, workers, "cpu0")
        report = run_plan(
            model, plan, PLATFORM, runs=1, warm_ups=0,
            hosts={"cpu1": RemoteRunner(workers["cpu1"])},
        )  # fmt: skip
        workers["cpu1"].close()
    assert report.equal
    (link,) = found
    if limited:
        # The limit counts headers of packets too, and lets a first burst through.
        assert 20_000 < link.bytes_per_ms < 26_000
    else:
        assert link.bytes_per_ms > 25_000
    assert 0 < link.latency_ms < 50
    # The device of `host:` has no worker here: nothing is known of it.
    assert link.handling is not None
    assert link.handling[0] == Handling()
    assert 1 <= link.handling[1].ms < 50


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_end_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with worker() as (address, process), contextlib.ExitStack() as stack:
        coordinator = HostWorker(address)
        stack.callback(coordinator.close)
        # At once when it appears: an interrupt while it is made must remove it too.
        # (Python tries out the place with a file of its own first.)
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("csp-embed-worker-*")):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
        assert list(tmp_path.iterdir()) == []
