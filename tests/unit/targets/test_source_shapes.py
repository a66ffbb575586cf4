"""Invented machines of many shapes, in plain C: whatever the lanes are, kernels stay inside their
buffers and compute what NumPy does."""

import re
import subprocess

import plain_machines
import pytest
import random_native
from source_machine import assert_equal

import csp_embed as ce
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.source import suite as source_suite
from csp_embed.compiler.source.chain import compile_source
from csp_embed.errors import Infeasible
from csp_embed.judge.embedding.certificate import check_certificate
from csp_embed.machine.load import load_text
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source.toolchain.build import c_compiler

CHECKED = ["-std=c11", "-Wall", "-Wextra", "-O1", "-fsanitize=address,undefined",
           "-fno-sanitize-recover=all"]  # fmt: skip


# Rows of words: what `zip_words` packs where an element has four bytes inside.
ROWS = {
    "narrow": ce.batch_matmul(batch=1, m=3, n=16, k=7),
    "outer": ce.batch_matmul(batch=2, m=16, n=8, k=32),
    "long": ce.matmul(m=5, n=64, k=36),
}


@pytest.mark.parametrize("shape", ROWS)
def test_rows_of_words_stay_inside_their_buffer(shape, tmp_path):
    op = ROWS[shape]
    kernel = compile_source(op, plain_machines.machine(shape), {})
    assert "zip_words(" in kernel.text
    kernel.save(tmp_path / "k.c", random_tensors(op, 3))
    command = [c_compiler(), *CHECKED, "k.c", "-o", "main"]
    for run in (command, ["./main"]):
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_row_that_is_cut_to_its_data_is_one_statement_of_threads():
    # Its limits are declared beside its loop: both belong to the thread that packs it.
    op = ce.conv1d(n=2, c=2, w=26, k=5, r=2, stride=3, dilation=2, pad=2)
    kernel = compile_source(op, plain_machines.machine("scalar"), {}, options=Options(threads=2))
    assert_equal(kernel, random_tensors(op, 1))


MACHINES = {
    **{name: lambda name=name: plain_machines.machine(name) for name in plain_machines.SHAPES},
    "registers by number": lambda: load_text(plain_machines.converted(), "converted.yaml", None),
    "two contractions": lambda: load_text(plain_machines.competing(), "competing.yaml", None),
    "twenty": lambda: plain_machines.sized(),
    "sixty-four": lambda: plain_machines.sized({"N": 64}),
}


@pytest.mark.parametrize("name", MACHINES)
def test_random_operators_on_invented_machines(name):
    isa = MACHINES[name]()
    for seed in (0, 1, 4, 13):
        op = random_native.operator(seed)
        kernel = compile_source(op, isa, {})
        assert not kernel.verify()
        assert_equal(kernel, random_tensors(op, seed))


def test_templates_of_invented_machines_hold():
    for name in ("registers by number", "two contractions", "twenty"):
        assert {o.kind for o in source_suite.run(MACHINES[name]())} == {"equal"}


@pytest.mark.parametrize(("slow", "chosen"), [("STEP", "STEP_2"), ("STEP_2", "STEP")])
def test_the_cheaper_of_two_contractions_is_chosen(slow, chosen):
    text, found = re.subn(rf"(  {slow}:.*?per_cycle: )1", r"\g<1>0.05",
                          plain_machines.competing(), count=1, flags=re.DOTALL)  # fmt: skip
    assert found
    kernel = compile_source(ce.matmul(m=16, n=16, k=32), load_text(text, "two.yaml", None), {})
    assert kernel.embedding.instruction == chosen
    assert_equal(kernel, random_tensors(kernel.operator, 5))
    assert not check_certificate(kernel.certificate()).problems


def test_an_epilogue_that_fills_the_numbered_registers_is_refused():
    text = plain_machines.text("bank", 1, 4, 4).replace(
        "sums: {count: 8, type: sums_t, allocated_by: compiler}",
        "sums: {count: 3, allocated_by: number}",
    )
    isa = load_text(text, "bank.yaml", None)
    op = ce.matmul(m=4, n=3, k=8, shift=5, bias=True, clip=(-90, 101))
    with pytest.raises(Infeasible, match="needs more registers than bank has"):
        compile_source(op, isa, {})
    assert compile_source(ce.matmul(m=4, n=3, k=8, shift=5), isa, {}).program is not None
