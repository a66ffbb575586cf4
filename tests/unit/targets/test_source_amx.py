"""Tiles by number (AMX): values by the meanings, and what gcc says of the C. No run: few computers
have the instructions."""

import shutil
import subprocess

import numpy as np
import pytest

import csp_embed as ce
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate

OPERATORS = {
    "matmul": ce.matmul(m=35, n=21, k=70, shift=5, bias=True, clip=(-90, 101)),
    "conv2d": ce.conv2d(n=1, c=7, h=5, w=6, k=20, r=3, s=3, pad=1, shift=4, clip=(0, 127)),
}


@pytest.fixture(scope="module", params=OPERATORS)
def kernel(request):
    return ce.compile(OPERATORS[request.param], isa="x86_amx")


def test_the_meanings_compute_what_numpy_does(kernel):
    assert kernel.verify() == []
    tensors = random_tensors(kernel.operator, 3)
    expected = evaluate(kernel.operator, tensors)["y"]
    np.testing.assert_array_equal(kernel.by("interpreted", tensors), expected)


def test_gcc_takes_the_text_without_a_word(kernel, tmp_path):
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("there is no gcc")
    file = tmp_path / "kernel.c"
    file.write_text(kernel.text)
    flags = ["-mamx-tile", "-mamx-int8", "-O1", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run([gcc, *flags, "-c", str(file), "-o", str(tmp_path / "kernel.o")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "_tile_dpbssd(" in kernel.text
