"""The chain of stages: printed, stopped, judged after each; a broken stage is caught there."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from cases import CASES, MACHINES
from command_line import run

import csp_embed as ce
from csp_embed.compiler import chain as chains
from csp_embed.compiler import stages
from csp_embed.compiler.chain import FRONT, STAGES, chain, front
from csp_embed.compiler.program.values import ValuesStage
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.setting import setting_of
from csp_embed.compiler.search import measuring
from csp_embed.compiler.stages import Chain
from csp_embed.errors import CheckError, Infeasible, InputError, OperatorError
from csp_embed.ir.operator import Access, Affine
from csp_embed.ops.data import random_tensors

Capture = pytest.CaptureFixture[str]
MATMUL = ["compile", "matmul", "--m", 3, "--n", 4, "--k", 5]
QUICK = Options(schedules=2, refine=2, top=2)
ROOT = Path(__file__).parents[3]


def whole(op: Any, machine: str = "vta", options: Options = QUICK) -> Chain:
    setting = setting_of(op, MACHINES[machine](), options)
    return Chain((*chain(setting).stages, ValuesStage(lambda: random_tensors(op, 0))))


@pytest.mark.parametrize("machine", ["vta", "toy dot"])
@pytest.mark.parametrize("case", ["matmul ragged", "conv2d stem", "max pool", "average pool"])
def test_every_stage_holds_before_the_next(case: str, machine: str) -> None:
    op = CASES[case]()
    made = whole(op, machine).run(op, check=True)
    assert tuple(made.checked) == tuple(made.artefacts) == STAGES
    for name in STAGES:
        assert made[name].show(), name
        assert list(made[name].verify()) == [], name
    assert made["values"].verified == "simulated"


def shifted(access: Access) -> Access:
    """The access one element further in its first index."""
    first = access.index[0]
    return replace(access, index=(Affine(first.terms, first.const + 1), *access.index[1:]))


def other_operator(op: Any) -> Any:
    return replace(op, lhs=replace(op.lhs, tensor="w"))


def other_dataflow(flow: Any) -> Any:
    return replace(flow, reads=(replace(flow.reads[0], access=shifted(flow.reads[0].access)),
                                *flow.reads[1:]))  # fmt: skip


def other_embedding(found: Any) -> Any:
    """The last candidate misses its last values of one loop."""
    last = found.embeddings[-1]
    counter = next(c for c in last.counters if c.extent > 1)
    short = tuple(replace(c, extent=c.extent - 1) if c is counter else c for c in last.counters)
    return replace(found, embeddings=(*found.embeddings[:-1], replace(last, counters=short)))


def other_schedule(found: Any) -> Any:
    """Fewer cycles than were measured."""
    return replace(found, measured=replace(found.measured, cycles=found.measured.cycles - 1))


def other_program(kernel: Any) -> Any:
    """A stream without its last instruction."""
    stream = kernel.lowered.stream
    fields = {n: v[:-1] for n, v in stream.fields.items()}
    return replace(kernel, lowered=replace(kernel.lowered, stream=replace(
        stream, code=stream.code[:-1], fields=fields)))  # fmt: skip


def other_values(verdict: Any) -> Any:
    words = verdict.program.insn.copy()
    words[0, 0] ^= np.uint64(1)
    return replace(verdict, program=replace(verdict.program, insn=words))


FAULTS = {
    "operator": (chains.OperatorStage, other_operator),
    "dataflow": (chains.DataflowStage, other_dataflow),
    "embedding": (chains.EmbeddingStage, other_embedding),
    "schedule": (chains.ScheduleStage, other_schedule),
    "program": (chains.ProgramStage, other_program),
    "values": (ValuesStage, other_values),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_stage_is_caught_where_it_broke(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, broken = FAULTS[name]
    right = stage.apply
    monkeypatch.setattr(stage, "apply", lambda self, x: broken(right(self, x)))
    op = ce.matmul(m=3, n=4, k=5)
    with pytest.raises(CheckError, match=f"what the {name} stage left") as caught:
        whole(op).run(op, check=True)
    assert caught.value.where == name


def test_without_check_nothing_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stages.ALWAYS, "0")
    op = ce.matmul(m=3, n=4, k=5)
    assert whole(op).run(op).checked == []
    monkeypatch.setenv(stages.ALWAYS, "1")  # what tests/conftest.py sets
    assert tuple(whole(op).run(op).checked) == STAGES


def test_a_stage_says_what_it_does_not_accept() -> None:
    with pytest.raises(OperatorError, match="float is no operator"):
        front().run(1.5)
    conv = ce.conv2d(n=1, c=3, h=8, w=8, k=8, r=3, s=3)
    isa = MACHINES["vta"]()
    pooling_only = replace(
        isa, instructions=tuple(i for i in isa.instructions if i.kind != "contract")
    )
    setting = setting_of(conv, isa, QUICK)
    refusal = chains.EmbeddingStage(replace(setting, isa=pooling_only)).accepts(conv)
    assert isinstance(refusal, Infeasible)
    assert chains.EmbeddingStage(setting).accepts(conv) is None
    found = chains.EmbeddingStage(setting).apply(conv)
    tiny = replace(isa, limits=replace(isa.limits, dram_bits=8))
    refusal = chains.ScheduleStage(replace(setting, isa=tiny)).accepts(found)
    assert isinstance(refusal, OperatorError)
    assert "addresses 256" in refusal.why
    with pytest.raises(InputError, match="no stage 'lunch'"):
        front().run(conv, stop_after="lunch")


def test_the_chain_stops_where_it_is_told() -> None:
    op = ce.matmul(m=3, n=4, k=5)
    for n, name in enumerate(STAGES):
        assert tuple(whole(op).run(op, stop_after=name).artefacts) == STAGES[: n + 1]


def test_what_is_emitted_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The winner keeps the stream that its cycles were counted on; nothing is emitted again."""
    monkeypatch.setenv(stages.ALWAYS, "0")
    made: list[Any] = []
    lower = measuring.lower
    monkeypatch.setattr(measuring, "lower", lambda *a: made.append(lower(*a)) or made[-1])
    op = ce.conv2d(n=1, c=3, h=9, w=9, k=16, r=3, s=3)
    setting = setting_of(op, MACHINES["vta"](), QUICK)
    kernel = chain(setting).run(op)["program"]
    assert any(m is kernel.lowered for m in made)
    assert len(made) == setting.meter.schedules > 4
    assert setting.meter.engine is not None
    assert setting.meter.engine.total(kernel.lowered.stream) == kernel.cycles


@pytest.mark.parametrize("stage", STAGES)
def test_print_after_and_stop_after(stage: str, capsys: Capture) -> None:
    """What is printed after a stage is what it stops with; in text and in JSON."""
    got = run(capsys, *MATMUL, "--stop-after", stage, "--show", "--print-after", stage)
    head, _, rest = got.out.partition("\n")
    assert head == f"--- after {stage}"
    half = rest[: len(rest) // 2]
    assert rest == 2 * half
    document = run(
        capsys, *MATMUL, "--stop-after", stage, "--print-after", stage, "--json"
    ).document
    assert document["artefact"] == stage
    assert document["printed"] == [{"artefact": stage, "text": document["text"]}]
    assert document["text"] + "\n" == half


def test_several_are_printed_in_the_order_of_the_chain(capsys: Capture) -> None:
    words = ["--print-after", "program", "--print-after", "operator"]
    document = run(capsys, *MATMUL, *words, "--json").document
    assert [p["artefact"] for p in document["printed"]] == ["operator", "program"]
    assert document["verified"] == "simulated"
    out = run(capsys, *MATMUL, *words).out
    assert out.index("--- after operator") < out.index("--- after program") < out.index("proof")


def test_check_says_what_it_checked(capsys: Capture) -> None:
    (note,) = run(capsys, *MATMUL, "--check", "--json").document["notes"]
    assert note == f"verified after each stage: {', '.join(STAGES)}"
    assert note in run(capsys, *MATMUL, "--check").out.replace("\n", " ")
    early = run(capsys, *MATMUL, "--check", "--stop-after", "dataflow").out
    assert f"verified after each stage: {', '.join(FRONT)}" in early


def test_the_chain_is_printed(capsys: Capture) -> None:
    lines = run(capsys, *MATMUL, "--stages").out.splitlines()
    assert [line.split()[0] for line in lines] == ["stage", *STAGES]
    assert "judge/embedding/judge.py" in lines[3]


@pytest.mark.parametrize(
    "words",
    [
        ["--print-after", "lunch"],
        ["--stop-after", "embedding", "--print-after", "program"],
        ["--stages", "--check"],
        ["--stages", "--stop-after", "operator"],
        ["--stages", "-o", "p.npz"],
        ["--stop-after", "embedding", "--host-weight", "1"],
        ["--stop-after", "embedding", "--cache", "c"],
        ["--stop-after", "values", "-o", "p.npz"],
    ],
    ids=" ".join,
)
def test_options_without_effect_are_refused(words: list[str], capsys: Capture) -> None:
    got = run(capsys, *MATMUL, *words)
    assert got.code == 2, got.out
    assert "try:" in got.err


def imported(path: Path) -> set[str]:
    """Modules of the project that this one imports at its top, type checking apart."""
    out = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            out |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return out


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = sorted((ROOT / "csp_embed").rglob("*.py"))
    dotted = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths]
    return {n.removesuffix(".__init__"): p for n, p in zip(dotted, paths, strict=True)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    assert len(known) > 300
    edges = [(a, b) for a, path in known.items() for b in imported(path) if b in known]
    circles = [c for c in nx.strongly_connected_components(nx.DiGraph(edges)) if len(c) > 1]
    assert circles == []


def test_nobody_but_the_machine_reads_the_costs_of_a_spec() -> None:
    """Builders weigh `machine.costs.Costs`; the cycle engine and the judges read by themselves."""
    own = {"machine", "sim", "judge"}
    for name, path in modules().items():
        if name.split(".")[1:2] and name.split(".")[1] in own:
            continue
        assert not re.search(r"\bisa\.costs\b", path.read_text("utf-8")), name
    assert re.search(r"\bisa\.costs\b", modules()["csp_embed.machine.costs"].read_text("utf-8"))
