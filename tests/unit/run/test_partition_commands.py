"""The partitioning commands as people call them: exit codes, --json, files, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from csp_embed.commands.planning.inputs import check_plan_file
from csp_embed.commands.planning.runs import judge_plan
from csp_embed.network.made.quantised import quantised_net

DATA = Path(__file__).parents[2] / "data" / "network"
TOP = str(DATA / "topcuoglu10.json")
Call = Callable[..., tuple[int, str, str]]


def test_json_plan_pictures_and_the_judge(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / n for n in ("p.json", "g.svg", "n.svg", "t.json", "r.html")]
    code, out, _ = call(
        "partition", TOP, "--json", "-o", files[0], "--gantt", files[1], "--picture", files[2],
        "--trace", files[3], "--report", files[4],
    )  # fmt: skip
    assert code == 0
    answer = json.loads(out)
    assert {"objective", "lower_bound", "status", "seconds"} <= set(answer)
    assert (answer["objective"], answer["lower_bound"], answer["status"]) == (73, 73, "OPTIMAL")
    plan = json.loads(files[0].read_text())
    assert plan["format"] == "csp-embed-plan/1"
    assert plan["deterministic"]
    assert files[1].read_text().startswith("<?xml")
    assert files[2].read_text().startswith("<?xml")
    assert files[4].read_text().count("<tr data-key=") == 10
    events = json.loads(files[3].read_text())["traceEvents"]
    assert sum(e["ph"] == "X" and e["pid"] == 1 for e in events) == 10
    assert check_plan_file(files[0], TOP) == []
    judge_plan(str(files[0]), None, None, True)
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}
    plan["assignments"][3]["start"] = 0.0
    files[0].write_text(json.dumps(plan))
    assert check_plan_file(files[0], TOP)
    with pytest.raises(SystemExit) as stop:
        judge_plan(str(files[0]), TOP, None, True)
    assert stop.value.code == 5
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_equal_runs_write_equal_bytes(call: Call, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert call("partition", TOP, "-o", tmp_path / f"{name}.json",
                    "--gantt", tmp_path / f"{name}.svg")[0] == 0  # fmt: skip
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_diff_fix_from_and_lost(call: Call, tmp_path: Path) -> None:
    heft, best, fixed = (tmp_path / f"{n}.json" for n in ("heft", "best", "fixed"))
    assert call("partition", TOP, "--method", "heft", "-o", heft)[0] == 0
    assert call("partition", TOP, "--from", heft, "-o", best)[0] == 0
    code, out, _ = call("plan", "diff", heft, best, "--json")
    assert code == 0
    assert json.loads(out)["objective"] == [80, 73]
    assert "80 ms -> 73 ms (-8.75 %)" in call("plan", "diff", heft, best)[1]
    assert call("partition", TOP, "--fix", "n1=p1", "--fix", "n10=p3", "-o", fixed)[0] == 0
    where = {a["task"]: a["device"] for a in json.loads(fixed.read_text())["assignments"]}
    assert (where["n1"], where["n10"]) == ("p1", "p3")
    code, out, _ = call("partition", TOP, "--from", best, "--lost", "p2", "--json", "-o", fixed)
    assert code == 0
    assert json.loads(out)["objective"] >= 73
    devices = {a["device"] for a in json.loads(fixed.read_text())["assignments"]}
    assert devices <= {"p1", "p3"}


def test_table_and_explanation(call: Call) -> None:
    _, out, _ = call("partition", TOP, "--method", "heft", "--table")
    assert out == call("partition", "network", TOP, "--method", "heft", "--table")[1]
    assert sum(line.startswith("n") for line in out.splitlines()) == 10
    code, out, _ = call("partition", TOP, "--method", "heft", "--explain", "n9")
    assert code == 0
    assert "n9 (task) runs on p2" in out
    assert "p1: 18 ms (given); moved there alone:" in out
    code, _, err = call("partition", TOP, "--explain", "n99")
    assert code == 2
    assert "perhaps n9" in err


def graph(tmp_path: Path, **changes: Any) -> Path:
    value = {
        "format": "csp-embed-graph/1",
        "tasks": [{"id": "a", "cost": {"c0": 1}}, {"id": "b", "cost": {"c1": 1}}],
        "edges": [{"src": "a", "dst": "b", "bytes": 1}],
        "platform": {
            "devices": [{"name": "c0", "kind": "x"}, {"name": "c1", "kind": "x"}],
            "links": [{"between": ["c0", "c1"], "bytes_per_ms": 1}],
        },
    } | changes
    path = tmp_path / "g.json"
    path.write_text(json.dumps(value))
    return path


DEVICES = [{"name": "c0", "kind": "x"}, {"name": "c1", "kind": "x"}]
SMALL = [{"name": "c0", "kind": "x", "memory_bytes": 1}, {"name": "c1", "kind": "x"}]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"edges": [{"src": s, "dst": d, "bytes": 1} for s, d in ("ab", "ba")]}, 2, "cycle"),
        ({"tasks": [{"id": "a", "cost": {}}], "edges": []}, 2, "no cost"),
        ({"tasks": [{"id": "a", "cost": {"c0": -1}}], "edges": []}, 2, "-1"),
        ({"tasks": [{"id": "a", "cost": {"tpu": 1}}], "edges": []}, 2, "unknown device"),
        ({"tasks": [{"id": "a", "cost": {"c0": 1}, "pin": "z"}], "edges": []}, 2, "'z'"),
        ({"platform": {"devices": DEVICES}}, 3, "no link"),
        ({"platform": None}, 2, "no platform"),
        (
            {
                "tasks": [{"id": "a", "cost": {"c0": 1}, "weight_bytes": 9}],
                "edges": [],
                "platform": {"devices": SMALL},
            },
            3,
            "memory",
        ),
    ],
)
def test_one_clear_error_each(
    call: Call, tmp_path: Path, changes: dict[str, Any], code: int, message: str
) -> None:
    found, out, err = call("partition", graph(tmp_path, **changes), "-o", tmp_path / "p.json")
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("error[") == 1
    assert not (tmp_path / "p.json").exists()


def test_infeasible_and_unknown_as_json(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("partition", graph(tmp_path, platform={"devices": DEVICES}), "--json")
    assert code == 3
    assert json.loads(out)["status"] == "INFEASIBLE"
    code, out, err = call("partition", TOP, "--max-latency", "70", "--json")
    assert code == 3
    assert json.loads(out)["status"] == "INFEASIBLE"
    assert "max" in err.lower()


@pytest.mark.parametrize(
    "words",
    [
        ["partition", TOP, "--objective", "beauty"],
        ["partition", TOP, "--method", "magic"],
        ["partition", TOP, "--cost-model", "mine"],
        ["partition", TOP, "--fix", "n1"],
        ["partition", TOP, "--fix", "n1=p9"],
        ["partition", TOP, "--fix", "n77=p1"],
        ["partition", TOP, "--lost", "p9"],
        ["partition", TOP, "-o", "/no/such/folder/p.json"],
        ["partition", TOP, "--gantt", "picture.doc"],
        ["partition", TOP, "--gantt", "page.html"],
        ["partition", TOP, "--time-limit", "-1"],
        ["partition", "missing.json"],
        ["partition", "missing.onnx", "--platform", "cpu_2gpu"],
        ["partition", TOP, "--platform", "missing.yaml"],
        ["partition", "generate", "nothing", "-o", "x.json"],
        ["partition", "generate", "quantised", "-o", "x.json"],
        ["plan", "diff", TOP, TOP],
        ["profile", "missing.onnx", "-o", "x.json"],
        ["profile", "missing.onnx", "-o", "x.json", "--device", "gpu"],
        ["profile", "missing.onnx", "-o", "x.json", "--device", "tpu", "--platform", "cpu_2gpu"],
        ["run-plan", TOP, TOP],
        ["partition", TOP, "--dim", "n=1"],
        ["partition", TOP, "--profile", "p1=x.json"],
        ["partition", ".", "--platform", "cpu_2gpu"],
    ],
)
def test_wrong_words_end_with_2(
    call: Call, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*words)
    assert code == 2, err
    assert err.startswith("error[")


def test_generated_networks_partition(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    for words in (
        ["layered", "-n", 0],
        ["layered", "--n", 12, "--ccr", 0.1, "--related"],
        ["watts-strogatz", "--n", 12],
        ["erdos-renyi", "--n", 12],
        ["barabasi-albert", "--n", 12, "-m", 2],
        ["transformer", "--n", 2, "--blocks"],
    ):
        code, _, err = call("partition", "generate", *words, "-o", path)
        if words[1] == "-n":  # --n is one word
            assert code == 2
            continue
        assert code == 0, err
        code, out, err = call("partition", path, "--method", "heft", "--json")
        assert code == 0, err
        assert json.loads(out)["objective"] >= json.loads(out)["lower_bound"] > 0


def test_a_network_on_two_processes_by_the_command_line(call: Call, tmp_path: Path) -> None:
    model, profile, plan = (tmp_path / n for n in ("q.onnx", "prof.json", "plan.json"))
    onnx.save(quantised_net(4, 0, channels=8, size=8), str(model))
    assert call("profile", model, "-o", profile, "--json")[0] == 0
    code, _, err = call(
        "partition", model, "--platform", "two_cpu", "--profile", f"cpu={profile}", "-o", plan,
        "--fix", "b1.conv0=cpu1",
    )  # fmt: skip
    assert code == 0, err
    code, out, err = call(
        "run-plan", model, plan, "--json", "--runs", 2, "--export", tmp_path / "e"
    )
    assert code == 0, err
    report = json.loads(out)
    assert report["equal"]
    assert {row["device"] for row in report["parts"]} == {"cpu0", "cpu1"}
    assert (tmp_path / "e" / "manifest.json").exists()
    copies = ["--platform", "two_cpu", "--profile", f"cpu={profile}", "--replicas", 2]
    code, _, err = call("partition", model, *copies, "--batch", 2)
    assert code == 3
    assert "--io-free" in err
    code, _, err = call("partition", model, *copies, "--batch", 2, "--fix", "conv0.bias=cpu0")
    assert code == 2
    assert "conv0.bias is a node of layer conv0" in err
    twice = tmp_path / "twice.json"
    code, _, err = call("partition", model, *copies, "--batch", 2, "--io-free", "-o", twice)
    assert code == 0, err
    code, out, err = call("run-plan", model, twice, "--json", "--runs", 1)
    assert code == 0, err
    assert [row["replica"] for row in json.loads(out)["parts"]] == [0, 1]
    document = json.loads(plan.read_text())
    document["assignments"][2]["start"] = 0.0
    plan.write_text(json.dumps(document))
    code, _, err = call("run-plan", model, plan)
    assert code == 5
    assert "the plan is refused" in err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_keeps_the_plan_in_hand(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "csp_embed", "partition"]
    path, plan = tmp_path / "g.json", tmp_path / "p.json"
    subprocess.run(
        [*words, "generate", "layered", "--n", "90", "--seed", "1", "-o", str(path)], check=True
    )
    run = subprocess.Popen(
        [*words, str(path), "--json", "--time-limit", "120", "-o", str(plan)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    # Searching has begun once the process has burnt some CPU of its own.
    while run.poll() is None and time.monotonic() < deadline and _cpu_seconds(run.pid) < 5:
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert json.loads(out)["status"] == "FEASIBLE"
    assert json.loads(plan.read_text())["status"] == "FEASIBLE"
    assert check_plan_file(plan, path) == []


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_a_compiled_kernel_takes_part_bit_for_bit(call: Call, tmp_path: Path) -> None:
    model, profile, plan = (tmp_path / n for n in ("q.onnx", "prof.json", "plan.json"))
    onnx.save(quantised_net(3, 5, channels=16, size=8), str(model))
    assert call("profile", model, "-o", profile, "--json")[0] == 0
    code, out, err = call(
        "partition", model, "--platform", "two_cpu_vta", "--profile", f"cpu={profile}",
        "-o", plan, "--fix", "conv0=vta0", "--fix", "fc=vta0", "--fix", "b1.conv0=cpu1",
        "--fix", "pool=cpu0", "--table",
    )  # fmt: skip
    assert code == 0, err
    assert "compiled kernel" in out
    kernels = tmp_path / "vta.json"
    code, out, err = call(
        "profile", model, "-o", kernels, "--device", "vta0", "--platform", "two_cpu_vta", "--json"
    )
    assert code == 0, err
    times = json.loads(kernels.read_text())["layers"]
    assert times["pool"]["ms"] is None
    assert times["conv0"]["ms"] > 0
    code, out, err = call("run-plan", model, plan, "--json", "--runs", 1)
    assert code == 0, err
    report = json.loads(out)
    assert {row["device"]: row["how"] for row in report["parts"]} == {
        "cpu0": "measured", "cpu1": "measured", "vta0": "simulated",
    }  # fmt: skip
    assert all(t["dtype"] == "int8" and t["equal"] for t in report["tensors"])
    assert check_plan_file(plan, model) == []
