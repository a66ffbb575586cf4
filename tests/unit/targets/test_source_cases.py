"""Every row of the case table as C: bit-equal to NumPy, run by the CPU."""

import numpy as np
import pytest
from cases import CASES
from source_machine import ISA, assert_equal

import csp_embed as ce
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.source.chain import compile_source
from csp_embed.judge.embedding import judge as embedding_check
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate


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
    op = ce.matmul(m=17, n=3, k=70, shift=0)
    tensors = {"x": np.full((3, 70), -128, np.int8), "w": np.full((17, 70), -128, np.int8)}
    assert_equal(compile_source(op, ISA, {}), tensors)
    op = ce.parse_formula("y[n,m] += x[n,k] * w[m,k]; mul 2147483647; add b[m]; shr -3; shr 1",
                          {"x": (2, 5), "w": (3, 5), "b": (3,)})  # fmt: skip
    tensors = {"x": np.full((2, 5), 127, np.int8), "w": np.full((3, 5), -128, np.int8),
               "b": np.array([2**31 - 1, -(2**31), 7], np.int32)}  # fmt: skip
    assert_equal(compile_source(op, ISA, {}), tensors)


ODD = {
    "an axis of one factor alone": ("y[i] += x[i,k]*w[j,k]; shr 9", {"x": (18, 7), "w": (5, 7)}),
    "one sum": ("y[i] += x[i,k]*w[k]; shr 5", {"x": (1, 70), "w": (70,)}),
    "no sum": ("y[i,j] += x[i]*w[j]; shr 4", {"x": (33,), "w": (17,)}),
    "every tensor step": (
        "y[i,j] += x[i,k]*w[j,k]; shr s[j]; mul m[j]; add b[j]; min u[j]; max -7",
        {"x": (5, 9), "w": (21, 9), "s": (21,), "m": (21,), "b": (21,), "u": (21,)},
    ),
    "a tensor of the result's shape, transposed": (
        "y[i,j] += x[i,k]*w[j,k]; add z[j,i]", {"x": (7, 9), "w": (21, 9), "z": (21, 7)},
    ),
    "walking backwards": (
        "y[k,p] += x[c,20-p+r]*w[k,2-r,c]; shr 4; r < 3; p < 19", {"x": (5, 25), "w": (18, 3, 5)},
    ),
    "wide strides": ("y[k,p] += x[c,5*p+3*r]*w[k,c,r]; shr 4", {"x": (3, 60), "w": (7, 3, 4)}),
    "a transposed result": ("y[j,i] += x[i,k]*w[j,k]; shr 4", {"x": (13, 9), "w": (21, 9)}),
    "shared axes": ("y[a,b,c,d] += x[a,c,k]*w[b,d,k]; shr 4", {"x": (3, 4, 5), "w": (2, 6, 5)}),
    "the least and greatest constants": (
        "y[i,j] += x[i,k]*w[j,k]; max -2147483648; min 2147483647; shr 31; add 5; shr -8",
        {"x": (3, 4), "w": (2, 4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_formulas_are_bit_equal(name):
    formula, shapes = ODD[name]
    op = ce.parse_formula(formula, shapes)
    assert_equal(compile_source(op, ISA, {}), random_tensors(op, 1))
