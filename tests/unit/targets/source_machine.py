"""The machine that these tests write C for, and small helpers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.source.kernel import SourceKernel
from csp_embed.machine.load import load_isa
from csp_embed.ops.reference import evaluate

ISA = load_isa("x86_avx512_vnni")
_PAGE = Path(__file__).parents[3] / "docs" / "machines.md"
# The worked example of the docs, plain C.
DOT4 = re.findall(r"```yaml\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]


def result(kernel: SourceKernel, tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The kernel's values: natively where this CPU has the instructions, else by the meanings."""
    engine, why = kernel.engine()
    assert engine, why
    return kernel.native.run(tensors) if engine == "native" else kernel.interpret(**tensors)


def assert_equal(kernel: SourceKernel, tensors: dict[str, NDArray[Any]]) -> None:
    op = kernel.operator
    np.testing.assert_array_equal(result(kernel, tensors), evaluate(op, tensors)[op.out.tensor])
