"""The C text: without a warning, without undefined behaviour, and checking itself."""

import subprocess

import pytest
from cases import CASES
from source_machine import ISA

import csp_embed as ce
from csp_embed.compiler.source.chain import compile_source
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source.toolchain.build import c_compiler, missing_features

SANITIZED = ["matmul ragged", "conv2d stem", "conv2d padding only", "depthwise", "transposed",
             "max pool", "elementwise", "transposed add", "formula"]  # fmt: skip
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("row", SANITIZED)
def test_a_self_test_runs_clean_under_the_sanitizers(row, known, tmp_path):
    op = CASES[row]()
    tensors = random_tensors(op, 2)
    constants = {n: v for n, v in tensors.items() if op.tensors[n].constant and known}
    kernel = compile_source(op, ISA, constants, name="my_kernel")
    kernel.save(tmp_path / "my_kernel.c", tensors)
    command = [c_compiler(), *STRICT, *SANITIZE, *ISA.program.flags, "my_kernel.c", "-o", "main"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if missing_features(ISA):
        return  # this CPU would stop at the first instruction; the text was compiled
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("values are as expected\n")


def test_a_self_test_fails_on_a_wrong_value(tmp_path):
    op = ce.elementwise((33,), [("add", 1)])
    kernel = compile_source(op, ISA, {})
    text = kernel.text + kernel.selftest(random_tensors(op, 2))
    (tmp_path / "k.c").write_text(text.replace("(uint32_t)1)", "(uint32_t)2)"))
    subprocess.run([c_compiler(), "k.c", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected" in done.stdout


@pytest.mark.parametrize(
    "name", ["int", "y", "n", "main", "a_b", "memset", "corr_", "low", "g0", "sum"]
)
def test_any_name_of_a_tensor_is_fit_for_c(name, tmp_path):
    op = ce.parse_formula(f"out[n,m] += {name}[n,k] * w[m,k]", {name: (3, 5), "w": (4, 5)})
    kernel = compile_source(op, ISA, {})
    (tmp_path / "k.c").write_text(kernel.text)
    command = [c_compiler(), *STRICT, *ISA.program.flags, "-c", "k.c", "-o", "k.o"]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_the_head_tells_formula_embedding_and_flags():
    kernel = compile_source(CASES["matmul ragged"](), ISA, {})
    for said in ("y[n,m] += x[n,k] * w[m,k]", kernel.embedding.formula(), "-mavx512vnni",
                 "must not overlap"):  # fmt: skip
        assert said in kernel.text


def test_plain_loops_say_that_they_are():
    text = compile_source(CASES["max pool"](), ISA, {}).text
    assert "since a max has no products" in text
    assert "_mm512" not in text
