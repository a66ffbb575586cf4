"""An option that would be ignored is refused or said: what the way of running leaves idle."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

Capture = pytest.CaptureFixture[str]
MATMUL = ["compile", "matmul", "--m", "3", "--n", "4", "--k", "5"]
CONV = ["--n", "1", "--c", "2", "--h", "4", "--w", "4", "--k", "2", "--r", "2", "--s", "2"]
STOP = [*MATMUL, "--stop-after", "operator"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import csp_embed as ce

    path = tmp_path_factory.mktemp("programs") / "p.npz"
    options = ce.Options(schedules=2, refine=2, top=2)
    ce.compile(ce.matmul(m=3, n=4, k=5), options=options).save(path)
    return path


IDLE: list[tuple[list[str], str]] = [
    ([*MATMUL, "--solver-seed", "1"], "--solver-seed"),
    *(([*STOP, *words], words[0]) for words in (
        ["--isa", "toy_dot"], ["--memory", "de10"], ["--layout", "strict"], ["--fix", "i=k"],
        ["--forbid", "skew"], ["--host-weight", "1"], ["--top", "2"], ["--cache", "c"],
        ["--reuse", "p.npz"], ["--within", "0.1"], ["--seed", "0"], ["--data", "d.npz"],
        ["--verify"], ["--explain"], ["-o", "p.npz"], ["--report", "r"], ["--certificate", "c"],
        ["--vta-config", "c.json"],
    )),
    *(([*MATMUL, "--stop-after", "program", *words], words[0]) for words in (
        ["--seed", "3"], ["--verify"], ["--explain"], ["--report", "r"],
    )),
    ([*MATMUL, "--show"], "--show"),
    ([*MATMUL, "--within", "0.1"], "--within"),
    ([*MATMUL, "--top", "1", "--host-weight", "2"], "--host-weight"),
    ([*MATMUL, "--reuse", "PROGRAM", "--top", "2"], "--top"),
    ([*MATMUL, "--reuse", "PROGRAM", "--host-weight", "2"], "--host-weight"),
    ([*MATMUL, "--data", "d.npz", "--seed", "1"], "--seed"),
    ([*MATMUL, "--step", "relu"], "--step"),
    (["compile", "deepbench:conv000", "--step", "relu"], "--step"),
    ([*MATMUL, "--tensor-layout", "NHWC"], "--tensor-layout"),
    ([*MATMUL, "--layout", "strict", "--layout", "relaxed"], "--layout"),
    ([*MATMUL, "--bias-range", "5"], "bias"),
    (["compile", "y[i] += x[i,k] * w[k]", "--shape", "x=2,3", "--shape", "x=2,4",
      "--shape", "w=3"], "--shape x"),
    (["compile", *MATMUL[1:], "--data", "PROGRAM", "-o", "PROGRAM"], "overwritten"),
    (["simulate", "PROGRAM", "--engine", "functional", "--memory", "pynq"], "--memory"),
    (["simulate", "PROGRAM", "--engine", "functional", "--trace", "t.json"], "--trace"),
    (["simulate", "PROGRAM", "--engine", "tvm-fsim", "--timeline", "t.svg"], "--timeline"),
    (["simulate", "PROGRAM", "--break", "2", "--memory", "pynq"], "--memory"),
    (["simulate", "PROGRAM", "--until-store", "--trace", "t.json"], "--trace"),
    (["simulate", "PROGRAM", "--engine", "cycles", "--break", "2"], "--engine"),
    (["simulate", "PROGRAM", "--engine", "cycles", "--strict"], "--strict"),
    (["simulate", "PROGRAM", "--engine", "cycles", "--ignore-tokens"], "--ignore-tokens"),
    (["simulate", "PROGRAM", "--engine", "cycles", "--max-steps", "9"], "--max-steps"),
    (["check", "PROGRAM", "--platform", "cpu_2gpu"], "--platform"),
    (["check", "CERTIFICATE", "--no-values"], "--no-values"),
    (["check", "CERTIFICATE", "--certificate"], "--certificate"),
    (["disasm", "PROGRAM", "--uops", "--json"], "--uops"),
    (["explain", *MATMUL[1:], "--ground", "--picture", "p.svg"], "--picture"),
    (["explain", *MATMUL[1:], "--ground", "--steps", "3"], "--steps"),
    (["explain", *MATMUL[1:], "--steps", "3"], "--steps"),
    (["pareto", *MATMUL[1:], "--limit", "0", "--memory", "pynq"], "--memory"),
    (["partition", "generate", "transformer", "-o", "g.json", "--seed", "1"], "--seed"),
    (["partition", "generate", "layered", "-o", "g.json", "--hidden", "9"], "--hidden"),
    (["partition", "generate", "barabasi-albert", "-o", "g.json", "-k", "4"], "-k"),
    (["deepbench", "conv000", "--resume"], "--resume"),
    (["deepbench", "conv000", "--layout", "strict", "--no-strict"], "strict"),
    (["deepbench", "conv000", "--dask", "tcp://127.0.0.1:9", "--jobs", "2"], "--jobs"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "option"), IDLE, ids=lambda v: " ".join(v)[-40:])
def test_refused(
    words: list[str],
    option: str,
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    certificate = tmp_path / "c.json"
    certificate.write_text("{}", "utf-8")
    there = {"PROGRAM": str(program), "CERTIFICATE": str(certificate)}
    got = run(capsys, *(there.get(w, w) for w in words))
    assert got.code == 2, got.out + got.err
    assert option.lstrip("-").split("-")[0] in got.err
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


def test_said_where_nothing_is_computed(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from csp_embed.commands.compiling import job

    monkeypatch.setattr(job, "SIMULATED_MACS", 10)
    assert "--seed 3 had no effect" in run(capsys, *MATMUL, "--seed", 3).out
    assert run(capsys, *MATMUL, "--seed", 3, "--json").document["notes"]
    assert run(capsys, *MATMUL, "--json").document["notes"] == []


def test_explain_is_in_the_document_too(capsys: Capture) -> None:
    found = run(capsys, *MATMUL, "--explain", "--json").document["alternatives"]
    assert found[0]["scheduled_cycles"] == min(a["scheduled_cycles"] for a in found)
    assert "alternatives" not in run(capsys, *MATMUL, "--json").document


def test_show_prints_and_without_it_nothing_long(capsys: Capture) -> None:
    long = run(capsys, *MATMUL, "--stop-after", "program", "--show").out
    short = run(capsys, *MATMUL, "--stop-after", "program").out
    assert "FINISH" in long
    assert short.count("\n") == 1
    assert f"{len(long.splitlines())} lines" in short


def test_data_decide_before_the_program_stops(tmp_path: Path, capsys: Capture) -> None:
    """--data reaches --stop-after program: what it lacks is refused there as in a whole run."""
    missing = run(capsys, *MATMUL, "--stop-after", "program", "--data", tmp_path / "none.npz")
    assert missing.code == 2
    assert "none.npz" in missing.err
