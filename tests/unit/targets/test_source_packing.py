"""How C kernels move tensors into lanes and out of them: whole runs where the layout allows, value
by value elsewhere; threads; the header. Expected values are NumPy's."""

import subprocess

import numpy as np
import pytest
from source_machine import ISA, assert_equal

import csp_embed as ce
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.source.chain import compile_source
from csp_embed.errors import InputError
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source.toolchain.build import c_compiler
from csp_embed.targets.source.written import moves

# name -> (operator, what its C file calls)
KINDS = {
    "four streams": (ce.conv2d(n=1, c=8, h=7, w=7, k=16, r=1, s=1), ["zip_4"]),
    "a margin": (ce.conv2d(n=2, c=8, h=9, w=9, k=16, r=3, s=3, pad=1), ["zip_4", "margin"]),
    "long runs, taken apart": (ce.conv2d(n=1, c=16, h=20, w=23, k=32, r=3, s=3, pad=1),
                               ["zip_4", "unzip_16"]),
    "strides in phases": (ce.conv2d(n=1, c=8, h=41, w=45, k=16, r=1, s=1, stride=2),
                          ["every_nth", "zip_4"]),
    "strides of three": (ce.conv2d(n=1, c=8, h=40, w=50, k=16, r=3, s=3, stride=3, pad=2),
                         ["zip_4"]),
    "few channels": (ce.conv2d(n=1, c=3, h=24, w=40, k=32, r=3, s=3, pad=1), ["zip_4"]),
    "few channels and strides": (ce.conv2d(n=1, c=3, h=25, w=41, k=32, r=5, s=5, stride=2, pad=2),
                                 ["zip_4"]),
    "one channel": (ce.conv2d(n=2, c=1, h=20, w=70, k=16, r=5, s=20, stride=2), ["zip_4"]),
    "ragged channels": (ce.conv2d(n=1, c=7, h=12, w=12, k=19, r=3, s=3, dilation=2), ["zip_4"]),
    "words across": (ce.matmul(m=5, n=50, k=68), ["zip_words"]),
    "a ragged row of words": (ce.matmul(m=35, n=33, k=36), []),
    "words side by side": (ce.matmul(m=64, n=7, k=20), ["copy_flipped"]),
    "grouped": (ce.conv2d(n=1, c=12, h=9, w=9, k=24, r=3, s=3, groups=3, pad=1), []),
    "depthwise": (ce.depthwise_conv2d(n=1, c=20, h=18, w=19, r=3, s=3, pad=1), []),
    "asymmetric pads": (ce.conv2d(n=1, c=4, h=17, w=18, k=16, r=3, s=2, pad=(2, 0, 1, 3)), []),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_way_of_packing_is_bit_equal(name):
    op, calls = KINDS[name]
    kernel = compile_source(op, ISA, {})
    for called in calls:
        assert called in kernel.text
    for seed in (0, 1):
        assert_equal(kernel, random_tensors(op, seed))


@pytest.mark.parametrize("name", ["a margin", "few channels", "words across", "grouped"])
def test_the_value_by_value_way_computes_the_same(name, monkeypatch):
    from csp_embed.targets.source import lower

    monkeypatch.setattr(lower, "streams_of", lambda place: None)
    monkeypatch.setattr(lower, "results_of", lambda place, size: None)
    kernel = compile_source(KINDS[name][0], ISA, {})
    assert not any(f"{h}" in kernel.text for h in moves.HELPERS)
    assert_equal(kernel, random_tensors(kernel.operator, 2))


def test_a_work_area_of_an_earlier_run_does_not_matter():
    op = KINDS["a margin"][0]
    native = compile_source(op, ISA, {}).native
    native.own.work = native.buffer("work")
    native.own.work[:] = 0x5A
    tensors = random_tensors(op, 3)
    np.testing.assert_array_equal(native.run(tensors), evaluate(op, tensors)["y"])


POOLS = {
    "plain": ce.max_pool2d(n=2, c=3, h=8, w=8, r=2, s=2, stride=2),
    "padded": ce.max_pool2d(n=1, c=5, h=13, w=17, r=3, s=3, stride=2, pad=1),
    "wider than its row": ce.max_pool2d(n=1, c=2, h=6, w=6, r=5, s=5, stride=1, pad=4),
    "minima": ce.parse_formula("y[c,p] min= x[c,2*p+r-1]; add 3", {"x": (3, 21), "y": (3, 11)},
                               extents={"r": 3}),
    "backwards": ce.parse_formula("y[c,p] max= x[c,20-p+r]", {"x": (3, 24), "y": (3, 19)},
                                  extents={"r": 3}),
    "a short row": ce.max_pool2d(n=1, c=9, h=4, w=4, r=2, s=2, stride=2),
}  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", POOLS)
def test_pools_are_bit_equal(name, threads):
    kernel = compile_source(POOLS[name], ISA, {}, options=Options(threads=threads))
    assert_equal(kernel, random_tensors(POOLS[name], 1))


@pytest.mark.parametrize("name", ["a margin", "one channel", "words across", "grouped",
                                  "few channels and strides"])  # fmt: skip
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_compute_the_same(name, threads):
    op = KINDS[name][0]
    kernel = compile_source(op, ISA, {}, options=Options(threads=threads))
    assert f"num_threads({threads})" in kernel.text
    for seed in range(4):
        assert_equal(kernel, random_tensors(op, seed))


def test_one_thread_needs_no_directive_and_streams_have_none():
    op = KINDS["a margin"][0]
    assert "#pragma omp" not in compile_source(op, ISA, {}).text
    with pytest.raises(InputError, match="threads=2 has no effect on vta"):
        ce.compile(op, options=Options(threads=2))
    with pytest.raises(InputError, match="threads is 0"):
        Options(threads=0)


def test_a_program_calls_the_kernel_by_its_header(tmp_path):
    op = ce.matmul(m=3, n=2, k=4)
    kernel = compile_source(op, ISA, {}, name="mm")
    assert kernel.save(tmp_path / "mm.c") == [str(tmp_path / "mm.c"), str(tmp_path / "mm.h")]
    text = (tmp_path / "mm.h").read_text()
    assert "int8_t[2][4], read" in text
    (tmp_path / "main.c").write_text(
        '#include "mm.h"\n#include <stdlib.h>\n'
        "int main(void) {\n"
        "  static const int8_t x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, w[12] = {1, 1, 1, 1, 2};\n"
        "  int8_t y[6];\n"
        "  mm_packed_t *p = aligned_alloc(64, (mm_packed_bytes() + 63) / 64 * 64);\n"
        "  mm_work_t *k = aligned_alloc(64, (mm_work_bytes() + 63) / 64 * 64);\n"
        "  mm_pack(w, p);\n  mm(x, p, k, y);\n  free(p);\n  free(k);\n"
        "  return !(y[0] == 10 && y[1] == 2 && y[2] == 0 && y[3] == 26 && y[4] == 10);\n}\n"
    )
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-std=c11", *ISA.program.flags]
    files = [str(tmp_path / f) for f in ("mm.c", "main.c")]
    subprocess.run([c_compiler(), *flags, *files, "-o", str(tmp_path / "a.out")], check=True)
    engine, _ = kernel.engine()
    if engine == "native":
        subprocess.run([str(tmp_path / "a.out")], check=True)
