"""Judges a kernel: checks of its embedding and stream, simulation, comparison with NumPy.

Shares no code with the builders beyond the kernel's own packing of operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from csp_embed.ir.stream import Program
from csp_embed.kernel import Kernel
from csp_embed.ops.reference import evaluate


@dataclass(frozen=True)
class Verdict:
    """verified: "checks" (no simulation), "simulated" (bit-equal to NumPy) or "unequal"."""

    problems: tuple[Any, ...]
    verified: str
    program: Program | None
    difference: str = ""


def judge(
    kernel: Kernel,
    tensors: Mapping[str, Any] | None,
    *,
    simulate: bool = True,
    fill: bool = False,
    tell: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> Verdict:
    """Runs the checks; simulates and compares where asked; fill: the program is wanted even if not
    compared.

    Raises: InputError for missing tensors, SimError where the stream cannot run.
    """
    from csp_embed.embed import check as embedding_check
    from csp_embed.sim import check as stream_check

    tell("checking", 0, 1)
    problems: list[Any] = list(
        embedding_check.judge(kernel.embedding, kernel.isa, limit=1_000_000).breaches
    )
    program = None
    if simulate or fill:
        assert tensors is not None
        tell("simulating", 0, 1)
        program = kernel.program(tensors)
    checked = program or kernel.blank_program()
    problems += stream_check.check_program(kernel.isa, checked, values=False)
    if not simulate or program is None or tensors is None:
        return Verdict(tuple(problems), "checks", program)
    tell("comparing with NumPy", 0, 1)
    name = kernel.operator.out.tensor
    want = evaluate(kernel.operator, tensors)[name]
    got = program.tensors[name]
    if np.array_equal(got, want):
        return Verdict(tuple(problems), "simulated", program)
    index = tuple(int(i) for i in np.argwhere(got != want)[0])
    text = f"{name}{list(index)} is {got[index]}, NumPy has {want[index]}"
    return Verdict(tuple(problems), "unequal", program, text)
