"""Right programs are certified, ours and those of another tool; one thing changed is refused."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import csp_embed as ce
from csp_embed.errors import InputError
from csp_embed.judge.certify.claims import read_claims
from csp_embed.judge.certify.run import certify
from csp_embed.machine.program_file import write_program
from csp_embed.ops.data import random_tensors
from tests.cases import CASES, MACHINES, STREAM_CASES
from tests.command_line import run
from tests.oracles.exact_stream import order_fault, same_result
from tests.oracles.formula_mutants import difference_of
from tests.oracles.mutants import KINDS, Subject, mutant

GOLDEN = Path(__file__).parents[2] / "golden" / "reference"
DENSE = "y[n,k] += x[n,c] * w[k,c]; shr 8; clip 0 127"


def conv(stride, pad):
    index = ",".join(f"{stride}*{a}+{b}-{pad}" for a, b in ("pr", "qs"))
    return f"y[n,k,p,q] += x[n,c,{index}] * w[k,c,r,s]; shr 8; add b[k]; clip 0 127"


FOREIGN = {
    "conv_1x1": conv(1, 0), "conv_3x3_same": conv(1, 1), "conv_3x3_stride2": conv(2, 1),
    "conv_5x5_pad2_batch2": conv(1, 2), "dense_1x16x16": DENSE,
    "alu_add_clip": "y[i,j,k] = min(max(i0[i,j,k]+i1[i,j,k], -128), 127)",
    "alu_shift_bias": "y[i,j,k] = min(max((i0[i,j,k]>>3)+17, i1[i,j,k]), 100)",
}  # fmt: skip


def subject(case, machine):
    kernel = ce.compile(STREAM_CASES[case](), isa=MACHINES[machine]())
    tensors = {**random_tensors(kernel.operator, 0), **kernel.constants}
    program = kernel.program(tensors)
    return Subject(kernel.isa, program, kernel.operator, program.meta["claims"])


def judged(s, **options):
    return certify(s.isa, s.program, s.op, read_claims(s.claims, s.op), **options)


@pytest.mark.parametrize("case", STREAM_CASES)
def test_case_table_is_certified(case):
    """Example data included: the claims are how the host packs, by bytes."""
    s = subject(case, "vta")
    found = judged(s)
    assert found.ok, found.show()
    assert found.log2_error < -45
    assert [p.name for p in found.parts] == ["order", "frame", "sums", "epilogue", "example"]


@pytest.mark.parametrize("machine", ["vta small", "vta batch", "toy dot", "toy outer"])
@pytest.mark.parametrize("case", ["matmul ragged", "conv2d stem", "depthwise", "max pool"])
def test_other_machines_are_certified(case, machine):
    found = judged(subject(case, machine))
    assert found.ok, found.show()


@pytest.mark.parametrize("name", FOREIGN)
def test_recorded_programs_of_another_tool_are_certified(name, tmp_path, capsys):
    out = tmp_path / "c.json"
    page = tmp_path / "c.html"
    done = run(
        capsys, "certify", GOLDEN / f"{name}.npz", "--formula", FOREIGN[name], "-o", out,
        "--report", page,
    )  # fmt: skip
    assert done.code == 0, done.out + done.err
    document = json.loads(out.read_text())
    assert document["ok"]
    assert all(p["ok"] for p in document["parts"])
    assert "certified for all inputs" in page.read_text()


@pytest.mark.parametrize("name", ["dense_4x128x64", "dense_vthread_8x256x64"])
def test_recorded_programs_that_hang_are_refused(name, capsys):
    done = run(capsys, "certify", GOLDEN / f"{name}.npz", "--formula", DENSE)
    assert done.code == 5
    assert "deadlock" in done.out


@pytest.mark.parametrize(
    ("name", "formula", "part"),
    [
        ("conv_3x3_same", conv(1, 1).replace("shr 8", "shr 7"), "epilogue"),
        ("conv_3x3_same", conv(1, 1).replace("127", "126"), "epilogue"),
        ("conv_3x3_same", conv(1, 1).replace("p+r", "p+2-r"), "sums"),
        ("conv_1x1", conv(1, 0).replace("w[k,c", "w[c,k"), "sums"),
        ("alu_shift_bias", FOREIGN["alu_shift_bias"].replace("17", "18"), "epilogue"),
    ],
)
def test_another_formula_is_refused(name, formula, part, capsys):
    done = run(
        capsys, "certify", GOLDEN / f"{name}.npz", "--formula", formula, "--stream-only", "--json"
    )
    assert done.code == 5
    parts = {p["name"]: p["ok"] for p in json.loads(done.out)["parts"]}
    assert parts[part] is False


def test_an_equal_formula_written_otherwise_is_certified(capsys):
    """(a >> 3) + 17 is (a + 136) >> 3 only without wrap-around: of a sum of products it is, of an
    int32 it is not."""
    wide = FOREIGN["alu_shift_bias"].replace("(i0[i,j,k]>>3)+17", "(i0[i,j,k]+136)>>3")
    done = run(capsys, "certify", GOLDEN / "alu_shift_bias.npz", "--formula", wide, "--stream-only")
    assert done.code == 5
    narrow = "y[n,k] += x[n,c] * w[k,c]; add 512; shr 8; add -2; max 0; min 127"
    done = run(capsys, "certify", GOLDEN / "dense_1x16x16.npz", "--formula", narrow)
    assert done.code == 0, done.out + done.err


def test_a_clip_of_two_added_tensors_is_no_idle_one():
    """Their sum has a range of its own: 2^20 never clips the shifted sum, but it clips int32."""
    shapes = {"x": (1, 16), "w": (16, 16), "b": (16,), "d": (16,)}
    text = "y[n,k] += x[n,c] * w[k,c]; shr 8; add b[k]; add d[k]"
    op = ce.ops.parse_formula(text, shapes)
    kernel = ce.compile(op, isa=MACHINES["vta small"]())
    program = kernel.program({**random_tensors(op, 0), **kernel.constants})
    s = Subject(kernel.isa, program, op, program.meta["claims"])
    assert judged(s).ok
    clipped = ce.ops.parse_formula(f"{text}; max -1048576; min 1048576", shapes)
    found = judged(replace(s, op=clipped), example=False)
    assert [p.name for p in found.parts if not p.ok] == ["epilogue"]


def test_parts_hold_what_the_formula_promises():
    """A bias that lies in parts of int8: no host can split one that is larger than these reach."""
    s = subject("matmul ragged", "vta small")
    assert any("parts" in c for c in s.claims)
    steps = [replace(p, bias_range=None) if p.access else p for p in s.op.epilogue]
    found = judged(replace(s, op=replace(s.op, epilogue=tuple(steps))), example=False)
    assert [p.name for p in found.parts if not p.ok] == ["frame"]
    claim = next(c for c in read_claims(s.claims, s.op) if c.weights)
    reach = max(v for v in range(1 << 15) if claim.holds(-v, v))
    held = {sum(w * p for w, p in zip(claim.weights, parts, strict=True))
            for parts in itertools.product((-128, -127, -1, 0, 1, 126, 127),
                                           repeat=len(claim.weights))}  # fmt: skip
    assert 5000 <= reach <= max(held)


def test_layouts_can_be_given(capsys):
    """Without tensors in the file nothing can be looked for."""
    layouts = {"x": "0,1/16,0%1,1%16", "w": "0/16,1/16,0%16,1%16", "y": "0,1/16,0%1,1%16"}
    program = ce.machine.program_file.read_program(GOLDEN / "dense_1x16x16.npz")
    at = {len(d): a for a, d in program.before} | {"y": program.after[0][0]}
    where = {"x": at[16], "w": at[256], "y": at["y"]}
    options = [f"--layout={t}={d}@{where[t]:#x}" for t, d in layouts.items()]
    done = run(capsys, "certify", GOLDEN / "dense_1x16x16.npz", "--formula", DENSE, *options)
    assert done.code == 0, done.out + done.err
    wrong = [o.replace("0%16,1%16", "1%16,0%16") for o in options]
    done = run(capsys, "certify", GOLDEN / "dense_1x16x16.npz", "--formula", DENSE, *wrong)
    assert done.code == 5


def test_what_no_data_show():
    """A weight that meets a zero in all recorded data is still part of the form."""
    s = subject("matmul exact", "vta small")
    blank = replace(s.program, before=tuple(
        (a, d if n == 0 else np.zeros_like(d)) for n, (a, d) in enumerate(s.program.before)
    ))  # fmt: skip
    assert judged(replace(s, program=blank), example=False).ok
    for seed in range(30):
        m = mutant(replace(s, program=blank), "factor", seed)
        found = judged(m.subject, example=False)
        if not found.ok:
            return
    raise AssertionError("no factor matters")


def test_same_seed_same_certificate_and_rounds_multiply():
    s = subject("conv2d stem", "vta small")
    once, again, twice = judged(s), judged(s), judged(s, rounds=2)
    assert replace(once, seconds=0) == replace(again, seconds=0)
    assert twice.log2_error == pytest.approx(2 * once.log2_error)
    assert judged(s, seed=5).seed == 5


@pytest.mark.parametrize("case", ["matmul ragged", "conv2d stem", "max pool", "average pool"])
def test_mutants_are_refused_or_equivalent(case):
    """The whole table is made by scripts/mutate; here are some of every kind."""
    original = subject(case, "vta small")
    refused = dict.fromkeys(KINDS, 0)
    for n, kind in enumerate(KINDS * 3):
        m = mutant(original, kind, n)
        if m is None:
            continue
        s = m.subject
        try:
            ok = judged(s).ok
        except InputError:
            ok = False
        if not ok:
            refused[kind] += 1
            continue
        if s.op is not original.op:
            assert not difference_of(original.op, s.op), m.what
            continue
        assert not order_fault(s.isa, s.program), m.what
        same = same_result(s.isa, s.op, original.program, s.program, original.claims, s.claims)
        assert not same, f"{m.kind}: {m.what}: {same}"
    assert sum(refused.values()) >= 15


def test_file_and_kernel_are_judged_alike(tmp_path, capsys):
    kernel = ce.compile(CASES["conv2d same"]())
    assert kernel.certify().ok
    path = tmp_path / "k.npz"
    kernel.save(path)
    done = run(capsys, "certify", path)
    assert done.code == 0, done.out + done.err
    s = subject("conv2d same", "vta")
    write_program(path, replace(s.program, meta={**s.program.meta, "claims": None}))
    done = run(capsys, "certify", path, "--formula", s.op.text(), "--rounds", "0")
    assert done.code == 2
