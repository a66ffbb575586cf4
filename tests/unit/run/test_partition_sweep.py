"""`partition sweep`: one network on several platforms, errors kept apart; and what spreads work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dask.distributed import LocalCluster

from csp_embed import cli
from csp_embed.commands.planning.inputs import check_plan_file
from csp_embed.errors import InputError
from csp_embed.spread import spread

TOP = str(Path(__file__).parents[2] / "data" / "network" / "topcuoglu10.json")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `partition sweep` in this process: (exit code, standard output, standard error)."""
    if not any(c.name == "profile" for c in cli.app.registered_commands):
        cli.register_all()
    monkeypatch.setattr(cli, "register_all", lambda: None)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["csp-embed", "partition", "sweep", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return run


def platform(path: Path, rate: float, names: tuple[str, ...] = ("p1", "p2", "p3")) -> Path:
    devices = [{"name": n, "kind": n} for n in names]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    links = [{"between": list(p), "bytes_per_ms": rate} for p in pairs]
    path.write_text(json.dumps({"devices": devices, "links": links}))
    return path


def test_every_platform_gives_a_plan_or_one_error(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    platform(tmp_path / "fast.json", 1e6)
    platform(tmp_path / "usual.json", 1.0)
    platform(tmp_path / "other.json", 1.0, ("q1", "q2"))
    (tmp_path / "broken.json").write_text("{devices: [")
    names = "usual.json,other.json,fast.json,broken.json,usual.json"
    words = [TOP, "--platforms", names, "--plans", "plans", "--out", "t.jsonl", "--json"]
    code, out, err = call(*words)
    assert code == 3  # of the first platform that fails: no task runs on q1 or q2
    rows = json.loads(out)
    assert [r["platform"] for r in rows] == names.split(",")[:4]
    known = {r["platform"]: r for r in rows}
    assert known["usual.json"]["value"] == 73  # the published optimum
    assert known["fast.json"]["value"] < 73
    assert known["fast.json"]["status"] == "OPTIMAL"
    for name in ("usual", "fast"):
        assert check_plan_file(f"plans/{name}.json", TOP, f"{name}.json") == []
    assert [known[f"{n}.json"]["status"] for n in ("other", "broken")] == ["INFEASIBLE", "FAILED"]
    assert err.count("error[") == 2
    assert "other.json" in err
    assert "broken.json" in err
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert sorted(lines, key=lambda r: names.index(r["platform"])) == rows
    code, _, err = call(*words)
    assert code == 2
    assert "t.jsonl exists" in err


def test_the_table_compares_with_the_best(call: Call, tmp_path: Path) -> None:
    slow = platform(tmp_path / "slow.json", 0.2)
    usual = platform(tmp_path / "usual.json", 1.0)
    code, out, err = call(TOP, "--platforms", f"{slow},{usual}", "--method", "heft")
    assert code == 0
    assert [n for n in err.splitlines() if not n.startswith("csp-embed: compiling")] == []
    assert " 1.00 x " in next(line for line in out.splitlines() if "usual.json" in line)
    twin = tmp_path / "twin"
    twin.mkdir()
    again = platform(twin / "usual.json", 1.0)
    code, _, err = call(TOP, "--platforms", f"{usual},{again}", "--plans", tmp_path / "plans")
    assert code == 2
    assert "one plan file" in err


def test_a_sweep_goes_on_where_it_was_stopped(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        platform(tmp_path / f"{name}.json", 1.0)
    words = [TOP, "--out", "t.jsonl", "--resume", "--method", "heft", "--platforms"]
    assert call(*words, "a.json,b.json")[0] == 0
    lines = (tmp_path / "t.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 2
    marked = [json.dumps(json.loads(line) | {"seconds": 1234.0}) for line in lines]
    (tmp_path / "t.jsonl").write_text(marked[0] + "\n" + marked[1] + '\n{"id": "c.j')
    platform(tmp_path / "b.json", 2.0)  # another platform of that name
    code, out, _ = call(*words, "a.json,b.json,c.json", "--json")
    assert code == 0
    rows = {r["platform"]: r for r in json.loads(out)}
    kept = [name for name, row in rows.items() if row["seconds"] == 1234.0]
    assert kept == ["a.json"]
    assert rows["b.json"]["value"] < rows["a.json"]["value"] == rows["c.json"]["value"]
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 4
    code, out, _ = call(*words, "a.json", "--method", "exact", "--json")
    assert code == 0
    assert json.loads(out)[0]["seconds"] != 1234.0
    code, _, err = call(TOP, "--resume", "--platforms", "a.json")
    assert code == 2
    assert "nothing to continue" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_finished_rows_and_ends_all_processes(
    tmp_path: Path, number: signal.Signals
) -> None:
    """One platform is done at once, for the others two processes would search for long."""
    words = [sys.executable, "-m", "csp_embed", "partition"]
    graph, table = tmp_path / "g.json", tmp_path / "t.jsonl"
    subprocess.run([*words, "generate", "layered", "--n", "150", "-o", str(graph)], check=True)
    alone = platform(tmp_path / "alone.json", 1.0, ("p0",))
    slow = [platform(tmp_path / f"{k}.json", 1.0, ("p0", "p1", "p2")) for k in "abc"]
    names = ",".join(map(str, [alone, *slow]))
    asked = [*words, "sweep", str(graph), "--platforms", names, "--jobs", "2"]
    run = subprocess.Popen(
        [*asked, "--out", str(table), "--json"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(1200):
        if run.poll() is not None or (table.exists() and "\n" in table.read_text()):
            break
        time.sleep(0.05)
    pids = workers(run.pid)
    run.send_signal(number)
    out, errors = run.communicate(timeout=60)
    assert run.returncode == 128 + number, errors
    assert "Traceback" not in errors
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [(r["platform"], r["status"]) for r in rows] == [(str(alone), "OPTIMAL")]
    assert json.loads(out) == rows
    assert len(pids) == 2
    assert not any(working(pid) for pid in pids)


def workers(pid: int) -> list[str]:
    """Children of a process that it spawned to work; another one tracks its resources."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in found if working(child)]


def working(pid: str) -> bool:
    try:
        return "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    "words",
    [
        ["missing.json", "--platforms", "cpu_2gpu"],
        [TOP, "--platforms", " , "],
        [TOP, "--platforms", "cpu_2gpu", "--jobs", 0],
        [TOP, "--platforms", "cpu_2gpu", "--objective", "beauty"],
        [TOP, "--platforms", "cpu_2gpu", "--out", "/no/such/folder/t.jsonl"],
    ],
)
def test_wrong_words_give_one_error(call: Call, words: list[object]) -> None:
    code, _, err = call(*words)
    assert code == 2
    assert err.count("error[") == 1


def test_work_spreads_on_processes_and_on_dask() -> None:
    items = list(range(5))
    expected = [i * i for i in items]
    assert sorted(spread(square, items, 1)) == expected
    assert sorted(spread(abs, [-3, 2, -1], 2)) == [1, 2, 3]
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        assert sorted(spread(square, items, dask=cluster.scheduler_address)) == expected
    with pytest.raises(InputError, match="--jobs 0"):
        list(spread(square, items, 0))


def square(x: int) -> int:
    return x * x
