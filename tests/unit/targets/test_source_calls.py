"""Calls through ctypes refuse what C would read wrongly; a missing compiler or CPU is told."""

import numpy as np
import pytest
from source_machine import ISA

import csp_embed as ce
from csp_embed.compiler.source.chain import compile_source
from csp_embed.errors import InputError, MissingLibrary
from csp_embed.targets.source import build

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
