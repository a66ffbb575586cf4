"""Invented machines of many shapes, in plain C: whatever the lanes are, kernels stay inside their
buffers and compute what NumPy does."""

import subprocess

import plain_machines
import pytest
from source_machine import assert_equal

import csp_embed as ce
from csp_embed.compiler.options import Options
from csp_embed.compiler.source_chain import compile_source
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source.build import c_compiler

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
