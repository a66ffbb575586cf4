"""Index maps of compiled kernels: right ones pass, every kind of index error is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import csp_embed as ce
from csp_embed.compiler.source import certifying as certifying_source
from csp_embed.compiler.source.certifying import bare_of
from csp_embed.compiler.source.chain import compile_source
from csp_embed.errors import CheckError
from csp_embed.judge.certify.library import sums_at_random, values_at_random
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source.written.emit import write, write_plain

sys.path.insert(0, str(Path(__file__).parents[1] / "targets"))
import plain_machines

CONV = ce.conv2d(n=1, c=3, h=7, w=6, k=5, r=3, s=3, pad=1, shift=6, bias=True, clip=(0, 127))
BARE = bare_of(CONV)


def wrong(change):
    """NumPy's convolution of operands that `change` spoils as an index error would."""

    def run(tensors):
        x, w = change(tensors["x"].astype(np.int32), tensors["w"].astype(np.int32))
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        return np.einsum("ncpqrs,kcrs->nkpq", views, w, dtype=np.int32)

    return run


def one_missing(x, w):
    w[4, 2, 2, 2] = 0  # a single tap of a single channel
    return x, w


def one_twice(x, w):
    w[0, 0, 0, 0] *= 2
    return x, w


def neighbour(x, w):
    x[0, 1, 3, 3] = x[0, 1, 3, 4]
    return x, w


def test_the_right_form_passes_with_its_bound():
    part = sums_at_random(BARE, wrong(lambda x, w: (x, w)), 27, 8, 1)
    assert part.ok, part.problems
    assert part.log2_error == -56.0


@pytest.mark.parametrize(
    "change",
    [
        one_missing, one_twice, neighbour,
        lambda x, w: (x, w[:, :, ::-1]), lambda x, w: (x, w[:, [1, 0, 2]]),
        lambda x, w: (np.roll(x, 1, 3), w),
    ],
)  # fmt: skip
def test_index_errors_are_refused(change):
    part = sums_at_random(BARE, wrong(change), 27, 8, 1)
    assert not part.ok
    assert "are not the formula's" in part.problems[0]


def test_sums_beyond_int32_are_not_decided():
    with pytest.raises(CheckError, match="cannot be told apart in int32"):
        sums_at_random(BARE, wrong(lambda x, w: (x, w)), 1 << 17, 1, 1)


def test_a_wrong_epilogue_shows_in_the_values():
    other = ce.conv2d(
        n=1, c=3, h=7, w=6, k=5, r=3, s=3, pad=1, shift=5, bias=True, clip=(0, 127)
    )  # fmt: skip
    rng = np.random.default_rng(0)
    tensors = {
        n: rng.integers(-99, 99, t.shape).astype(t.dtype)
        for n, t in CONV.tensors.items() if n != "y"
    }  # fmt: skip
    right = values_at_random(CONV, lambda t: evaluate(CONV, t)["y"], lambda n: tensors, 2)
    shifted = values_at_random(CONV, lambda t: evaluate(other, t)["y"], lambda n: tensors, 2)
    assert right.ok
    assert not shifted.ok


PARTS = ["embedding", "addresses", "loops", "text", "sums", "values"]


def test_a_kernel_is_certified():
    found = compile_source(CONV, plain_machines.machine("scalar"), {}).certify()
    assert found.ok, found.problems
    assert [p.name for p in found.parts] == PARTS
    assert "index maps certified for all inputs, values tested" in found.show()


def test_a_changed_text_is_refused():
    kernel = compile_source(CONV, plain_machines.machine("scalar"), {})
    assert "lhs_ + 72" in kernel.text
    text = kernel.text.replace("lhs_ + 72", "lhs_ + 71", 1)
    found = replace(kernel, file=replace(kernel.file, text=text)).certify()
    assert found.problems == ("text: it is not what the embedding and the tile give",)


def test_an_error_of_the_writer_shows_in_the_sums(monkeypatch):
    """What writes C is wrong in the same way for the kernel and for the library of sums."""

    def wrong_write(*arguments):
        file = write(*arguments)
        return replace(file, text=file.text.replace("lhs_ + 72", "lhs_ + 71", 1))

    kernel = compile_source(CONV, plain_machines.machine("scalar"), {})
    assert "lhs_ + 72" in kernel.text
    changed = kernel.text.replace("lhs_ + 72", "lhs_ + 71", 1)
    kernel = replace(kernel, file=replace(kernel.file, text=changed))
    monkeypatch.setattr(certifying_source, "write", wrong_write)
    found = kernel.certify()
    assert [p.name for p in found.parts if not p.ok] == ["sums"]


def test_a_kernel_with_known_weights_and_plain_loops():
    weights = np.arange(-60, 75, dtype=np.int8).reshape(5, 3, 3, 3)
    bias = np.arange(5, dtype=np.int32)
    known = compile_source(CONV, plain_machines.machine("scalar"), {"w": weights, "b": bias})
    assert known.certify(rounds=2).ok
    # The same as plain C loops, which no embedding stands behind.
    plain = replace(known, program=None, embedding=None, file=write_plain(CONV, known.isa, "k", ""))
    found = plain.certify(rounds=2)
    assert found.ok, found.problems
    assert [p.name for p in found.parts] == ["text", "sums", "values"]


def test_a_pool_has_no_sums():
    pool = ce.max_pool2d(n=1, c=2, h=4, w=4, r=2, s=2, stride=2)
    kernel = compile_source(pool, plain_machines.machine("scalar"), {})
    with pytest.raises(CheckError, match="no sums of products"):
        kernel.certify()
