"""Calls through ctypes refuse what C would read wrongly; a missing compiler or CPU is told."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from source_machine import DOT4, ISA

import csp_embed as ce
from csp_embed.compiler.source.chain import compile_source
from csp_embed.errors import InputError, MissingLibrary
from csp_embed.machine.load import load_text
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source.toolchain import build

OP = ce.matmul(m=5, n=4, k=6)
RNG = np.random.default_rng(0)
X, W = RNG.integers(-128, 128, (4, 6), np.int8), RNG.integers(-128, 128, (5, 6), np.int8)


@pytest.fixture(scope="module")
def native():
    return compile_source(OP, ISA, {}).native


@pytest.mark.parametrize("x", [X[:3], X.astype(np.int16), X.T, X.astype(np.uint8)])
def test_a_wrong_array_is_refused_before_the_call(native, x):
    with pytest.raises(InputError, match="the kernel reads int8 of shape"):
        native.run({"x": x, "w": W})


def test_arrays_that_do_not_lie_row_major_are_copied(native):
    expected = (X.astype(np.int32) @ W.T.astype(np.int32)).astype(np.int8)
    wide = np.zeros((8, 12), np.int8)
    wide[::2, ::2] = X
    odd = np.zeros(31, np.uint8)[1:].view(np.int8).reshape(5, 6)
    odd[...] = W
    for x, w in ((np.asfortranarray(X), W), (wide[::2, ::2], odd)):
        np.testing.assert_array_equal(native.run({"x": x, "w": w}), expected)


def test_run_takes_operands_by_place_or_name_and_refuses_others():
    kernel = ce.compile(OP, isa="x86_avx512_vnni")
    expected = (X.astype(np.int32) @ W.T.astype(np.int32)).astype(np.int8)
    np.testing.assert_array_equal(kernel.run(X, w=W), expected)
    with pytest.raises(InputError, match="tensor w is missing"):
        kernel.run(X)
    with pytest.raises(InputError, match="z is no operand"):
        kernel.run(X, W, z=X)
    with pytest.raises(InputError, match="has no effect on a machine that runs C"):
        ce.compile(OP, isa="x86_avx512_vnni", options=ce.Options(refine=2))


def test_a_computer_without_compiler_or_instructions_is_told_what_to_do(monkeypatch):
    kernel = compile_source(OP, ISA, {})
    with monkeypatch.context() as patch:
        patch.setattr(build, "cpu_features", lambda: frozenset({"sse2", "avx512f"}))
        with pytest.raises(MissingLibrary, match="does not report avx512bw, avx512vl, avx512_vnni"):
            kernel.run(X, W)
        assert kernel.engine()[0] == "interpreted"
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(MissingLibrary, match="no C compiler is on the path"):
        kernel.run(X, W)
    expected = (X.astype(np.int32) @ W.T.astype(np.int32)).astype(np.int8)
    np.testing.assert_array_equal(kernel.interpret(X, W), expected)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(MissingLibrary, match=r"\$CC names no C compiler on the path: no-such"):
        kernel.run(X, W)


def test_threads_may_call_a_kernel_at_once():
    """ctypes lets other threads run meanwhile: what a run writes between must be its own."""
    op = ce.conv2d(n=1, c=16, h=40, w=40, k=16, r=3, s=3, pad=1)
    kernel = compile_source(op, load_text(DOT4, "dot4.yaml", None), {})
    given = [random_tensors(op, seed) for seed in range(4)]
    kernel.native.run(given[0])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(kernel.native.run, given * 3))
    for tensors, result in zip(given * 3, results, strict=True):
        np.testing.assert_array_equal(result, evaluate(op, tensors)["y"])
