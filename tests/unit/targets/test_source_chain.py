"""The chain of stages, program files, certificates and comparisons of machines that run C."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from command_line import run
from source_machine import ISA

import csp_embed as ce
from csp_embed.compiler.chain import FRONT
from csp_embed.compiler.layers import Setting, measure
from csp_embed.compiler.source import file as source_file
from csp_embed.compiler.source.chain import compile_source, source_chain, source_setting
from csp_embed.errors import CheckError, InputError
from csp_embed.judge.embedding.certificate import check_certificate
from csp_embed.machine.load import load_isa
from csp_embed.machine.program_file import program_kind
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source import audit
from csp_embed.targets.source.nest import Address, Block, Call, Loop, Sum

CONV = ("conv2d", "--n", "1", "--c", "5", "--h", "6", "--w", "6", "--k", "20", "--r", "3",
        "--s", "3", "--pad", "1", "--shift", "3")  # fmt: skip
CPU = ("--isa", "x86_avx512_vnni")
OP = ce.conv2d(n=1, c=5, h=6, w=6, k=20, r=3, s=3, pad=1, shift=3)
STAGES = ["operator", "dataflow", "embedding", "schedule", "program", "values"]


def test_the_stages_are_those_of_other_machines(capsys):
    told = run(capsys, "compile", *CONV, *CPU, "--check", "--json").document
    assert told["notes"] == [f"verified after each stage: {', '.join(STAGES)}"]
    assert [s.name for s in source_chain(source_setting(OP, ISA)).stages] == STAGES[:-1]


@pytest.mark.parametrize("stage", STAGES)
def test_a_chain_stops_and_shows_what_it_made(capsys, stage):
    machine = () if stage in FRONT else CPU  # they look at none
    done = run(capsys, "compile", *CONV, *machine, "--stop-after", stage, "--json")
    assert done.code == 0, done.err
    assert done.document["artefact"] == stage
    assert done.document["text"]


def test_a_wrong_tile_is_found_after_its_stage(monkeypatch):
    from csp_embed.targets.source import tiles

    choose = tiles.choose

    def wrong(embedding, isa):
        good = choose(embedding, isa)
        return dataclasses.replace(good, inner=(*good.inner, *good.inner))

    monkeypatch.setattr(tiles, "choose", wrong)
    with pytest.raises(CheckError, match="the schedule stage"):
        source_chain(source_setting(OP, ISA)).run(OP, check=True)


def test_an_address_outside_its_buffer_is_found():
    program = compile_source(OP, ISA, {}).program
    assert not audit.breaches(program, ISA)

    def moved(nodes):
        out = []
        for n in nodes:
            if isinstance(n, Call):
                shift = {k: Address(v.buffer, v.at.plus(Sum(1 << 20)))
                         for k, v in n.operands.items() if isinstance(v, Address)}  # fmt: skip
                out.append(Call(n.template, {**n.operands, **shift}))
            elif isinstance(n, Loop):
                out.append(Loop(n.var, n.count, moved(n.body)))
            elif isinstance(n, Block):
                out.append(Block(n.registers, moved(n.body)))
        return tuple(out)

    broken = dataclasses.replace(program, run=moved(program.run))
    assert "reaches" in audit.breaches(broken, ISA)[0]


@pytest.mark.parametrize("isa", ["x86_avx512_vnni", "x86_avx_vnni"])
def test_certificates_hold_and_a_changed_one_does_not(isa):
    document = json.loads(json.dumps(compile_source(OP, load_isa(isa), {}).certificate()))
    assert check_certificate(document).problems == ()
    document["figures"]["steps"] += 1
    assert "figure steps" in check_certificate(document).problems[0]


def test_a_program_file_is_checked_and_run(capsys, tmp_path):
    path = tmp_path / "k.npz"
    assert run(capsys, "compile", *CONV, *CPU, "-o", path).code == 0
    assert run(capsys, "check", path, "--json").document["ok"] is True
    for engine in ((), ("--engine", "interpreted")):
        done = run(capsys, "simulate", path, *engine, "--json")
        assert done.document["values_equal"] is True, done.err
    again = run(capsys, "compile", *CONV[:-2], *CPU, "--reuse", path, "--within", "1", "--json")
    assert again.code == 0, again.err
    assert run(capsys, "simulate", path, "--trace", "t.json").code == 2
    assert run(capsys, "simulate", path, "--engine", "cycles").code == 2


def changed(path, **arrays):
    """The file with other arrays in it."""
    with np.load(path) as file:
        content = {n: file[n] for n in file.files}
    np.savez(path, **(content | arrays))
    return content


def test_what_a_program_file_states_wrongly_is_found(capsys, tmp_path):
    path = tmp_path / "k.npz"
    source_file.save(path, compile_source(OP, ISA, {}), random_tensors(OP, 0))
    content = changed(path, y=np.zeros_like(random_tensors(OP, 0)["x"], shape=(1, 20, 6, 6)))
    done = run(capsys, "check", path, "--json")
    assert done.code == 5
    assert "formula" in done.document["problems"][0]
    assert run(capsys, "simulate", path, "--engine", "interpreted").code == 5
    changed(path, **(content | {"source": np.array(str(content["source"]) + "\n")}))
    assert "source" in run(capsys, "check", path, "--json").document["problems"][0]
    changed(path, **content)
    meta = json.loads(str(content["meta"]))
    meta["tiling"]["rows"] = ["nowhere", 3]
    changed(path, **{**content, "meta": np.array(json.dumps(meta))})
    with pytest.raises(InputError, match="embedding or tile cannot be read"):
        source_file.read(path).kernel()


def test_a_damaged_program_file_is_refused(tmp_path):
    path = tmp_path / "k.npz"
    source_file.save(path, compile_source(OP, ISA, {}), random_tensors(OP, 0))
    first = path.read_bytes()
    source_file.save(path, compile_source(OP, ISA, {}), random_tensors(OP, 0))
    assert path.read_bytes() == first  # the same operator, the same bytes
    with zipfile.ZipFile(path) as archive:
        assert "source.npy" in archive.namelist()
    assert program_kind(path) == "source"
    path.write_bytes(first[: len(first) // 2])
    assert program_kind(path) == "stream"  # what reads it as one says what is wrong
    changed_meta = tmp_path / "m.npz"
    changed_meta.write_bytes(first)
    changed(changed_meta, meta=np.array('{"format": "csp-embed-source/9"}'))
    with pytest.raises(InputError, match="no whole program file"):
        source_file.read(changed_meta)


@pytest.mark.parametrize("command", ["explain", "pareto"])
def test_alternatives_are_priced(capsys, command):
    done = run(capsys, command, *CONV, *CPU, "--json")
    assert done.code == 0, done.err
    told = done.document
    rows = told["alternatives"] if command == "explain" else told["members"]
    assert len(rows) > 1
    assert all(r["scheduled_cycles"] > 0 for r in rows)
    if command == "explain":
        chosen = next(r for r in rows if r["chosen"])
        assert chosen["scheduled_cycles"] == min(r["scheduled_cycles"] for r in rows)


def test_plain_loops_have_nothing_to_explain(capsys):
    pool = ("max_pool2d", "--n", "1", "--c", "3", "--h", "8", "--w", "8", "--r", "2", "--s", "2")
    assert "no embedding" in run(capsys, "explain", *pool, *CPU).err
    assert run(capsys, "compile", *pool, *CPU, "--check", "--json").document["values_equal"]


def test_a_sweep_measures_layers_and_its_page_says_so(capsys, tmp_path):
    layers = tmp_path / "my.json"
    layers.write_text(json.dumps([
        {"id": "a", "op": "matmul", "m": 20, "n": 6, "k": 40},
        {"id": "b", "op": "conv2d", "n": 1, "c": 3, "h": 8, "w": 8, "k": 16, "r": 3, "s": 3},
    ]))  # fmt: skip
    out, page = tmp_path / "cpu.jsonl", tmp_path / "r.html"
    done = run(capsys, "deepbench", layers, *CPU, "--out", out, "--json")
    assert done.code == 0, done.err
    records = done.document
    assert {r["verified"] for r in records} <= {"run", "interpreted"}
    assert all(r["cycles"] is None and r["predicted_cycles"] > 0 for r in records)
    assert run(capsys, "report", out, "-o", page).code == 0
    text = page.read_text(encoding="utf-8")
    assert "measured on the computer" in text
    assert "Cycles are predicted" not in text
    assert run(capsys, "deepbench", layers, *CPU, "--memory", "de10").code == 2


def test_a_sweep_on_a_cpu_that_lacks_the_instructions_interprets():
    found = measure({"id": "a", "op": "matmul", "m": 20, "n": 6, "k": 40},
                    Setting(isa="x86_avx_vnni", memory="host", strict=False))  # fmt: skip
    assert found["verified"] in ("run", "interpreted")
    assert found["problems"] == []
