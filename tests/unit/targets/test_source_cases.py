"""Every row of the case table as C: bit-equal to NumPy, run by the CPU."""

import pytest
from cases import CASES
from source_machine import ISA, assert_equal

from csp_embed.compiler.options import Options
from csp_embed.compiler.source_kernel import compile_source
from csp_embed.judge import embedding as embedding_check
from csp_embed.ops.data import random_tensors


@pytest.mark.parametrize("row", CASES)
def test_every_case_is_bit_equal(row):
    op = CASES[row]()
    kernel = compile_source(op, ISA, {})
    assert (kernel.embedding is None) == (op.kind != "contract")
    assert_equal(kernel, random_tensors(op, 3))


@pytest.mark.parametrize("row", ["matmul ragged", "conv2d stem", "depthwise", "average pool"])
def test_known_constants_become_data_of_the_file(row):
    op = CASES[row]()
    tensors = random_tensors(op, 4)
    constants = {n: v for n, v in tensors.items() if op.tensors[n].constant}
    kernel = compile_source(op, ISA, constants)
    assert not kernel.file.packed
    assert "_pack(" not in kernel.text
    assert_equal(kernel, tensors)


@pytest.mark.parametrize("row", ["matmul ragged", "conv2d stem", "conv2d padding only", "formula"])
def test_embeddings_keep_the_rules_of_the_judge(row):
    kernel = compile_source(CASES[row](), ISA, {})
    assert not embedding_check.judge(kernel.embedding, ISA, limit=1_000_000).breaches


@pytest.mark.parametrize("row", ["matmul one", "matmul ragged", "batch matmul", "depthwise strided",
                                 "conv2d padding only", "average pool"])  # fmt: skip
def test_the_meanings_alone_compute_the_same(row):
    op = CASES[row]()
    tensors = random_tensors(op, 5)
    kernel = compile_source(op, ISA, {})
    import numpy as np

    from csp_embed.ops.reference import evaluate

    got = kernel.interpret(**{n: v for n, v in tensors.items() if n not in op.values})
    np.testing.assert_array_equal(got, evaluate(op, tensors)[op.out.tensor])


def test_the_same_operator_gives_the_same_bytes():
    first, second = (compile_source(CASES["conv2d same"](), ISA, {}).text for _ in range(2))
    assert first == second


def test_a_strict_layout_is_kept():
    op = CASES["conv2d channels last"]()
    kernel = compile_source(op, ISA, {}, options=Options(layout="strict"))
    assert kernel.embedding.layout_mode == "strict"
    assert_equal(kernel, random_tensors(op, 6))


def test_extreme_values_wrap_around_as_numpy_does():
    import numpy as np

    import csp_embed as ce

    op = ce.matmul(m=17, n=3, k=70, shift=0)
    tensors = {"x": np.full((3, 70), -128, np.int8), "w": np.full((17, 70), -128, np.int8)}
    assert_equal(compile_source(op, ISA, {}), tensors)
    op = ce.parse_formula("y[n,m] += x[n,k] * w[m,k]; mul 2147483647; add b[m]; shr -3; shr 1",
                          {"x": (2, 5), "w": (3, 5), "b": (3,)})  # fmt: skip
    tensors = {"x": np.full((2, 5), 127, np.int8), "w": np.full((3, 5), -128, np.int8),
               "b": np.array([2**31 - 1, -(2**31), 7], np.int32)}  # fmt: skip
    assert_equal(compile_source(op, ISA, {}), tensors)
