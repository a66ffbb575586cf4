"""The last stage: the kernel's program over real tensors, simulated and compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from csp_embed.compiler.kernel import Kernel
from csp_embed.compiler.program.verify import Verdict, judge
from csp_embed.compiler.request.setting import Tell, silent
from csp_embed.errors import CspEmbedError, InputError
from csp_embed.ir.operator import Operator


def stores_nothing(op: Operator) -> CspEmbedError | None:
    """Why a program is not compared: a result of no elements would be equal to anything."""
    if prod(op.tensors[op.out.tensor].shape):
        return None
    return InputError(f"{op.name} stores nothing", where=op.formula())


@dataclass(frozen=True)
class ValuesStage:
    """tensors: makes the operands, late: they may be large. simulate: whether values are compared;
    fill: the program is wanted even if they are not. data: what the tensors are, in words."""

    tensors: Callable[[], Mapping[str, Any]]
    simulate: bool = True
    fill: bool = False
    data: str = "these tensors"
    tell: Tell = silent
    name: ClassVar[str] = "values"
    takes: ClassVar[str] = "program"
    leaves: ClassVar[str] = "Verdict: the program over tensors, and what was compared"
    judge: ClassVar[str] = "NumPy, from the formula"

    def accepts(self, x: Kernel) -> CspEmbedError | None:
        return stores_nothing(x.operator)

    def apply(self, x: Kernel) -> Verdict:
        """Raises: CheckError where a check refuses the stream, or it differs from NumPy."""
        # Late: nothing large is made where only rules are checked.
        tensors = self.tensors() if self.simulate or self.fill else None
        return judge(
            x, tensors, simulate=self.simulate, fill=self.fill, data=self.data, tell=self.tell
        ).accepted()

    def verify(self, x: Kernel, y: Verdict) -> Sequence[object]:
        # The stream that was judged is the one that is written.
        if y.program is None or np.array_equal(y.program.insn, x.words):
            return []
        return ["the program that was judged has other instructions than the kernel"]
