"""What is fixed while one operator is compiled: machine, options, costs, constants, meter.

Takes: the arguments of `compile`, read.  Leaves: a `Setting`, made once and handed to every stage,
so that no stage derives a fact again that an earlier one has derived.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from csp_embed.compiler.request.arguments import constants_of
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.ranges import magnitudes
from csp_embed.compiler.search.measuring import Meter
from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator
from csp_embed.machine.compilable import require
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.spec import Isa

Tell = Callable[[str, int, int], None]


def silent(text: str, done: int, total: int) -> None:
    """Shows no progress."""


def refuse_idle(options: Options, idle: Sequence[str], machine: str, why: str) -> None:
    """Raises: InputError for the first of `idle` that is not at its default: it would have no
    effect on a machine `machine`, for the reason why."""
    for name in idle:
        # Against a fresh Options: its defaults are the one list of what is normal.
        if getattr(options, name) != getattr(Options(), name):
            raise InputError(
                f"{name} has no effect on a machine {machine}", where=f"Options.{name}", why=why,
                hint=f"leave out {name}",
            )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """costs, meter: behind the memory interface of the options. constants: operands whose values
    the stream may use. ranges: epilogue step -> largest magnitude. begun: seconds of the clock."""

    isa: Isa
    options: Options
    costs: Costs
    meter: Meter
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    ranges: Mapping[int, int] = field(default_factory=dict[int, int])
    tell: Tell = silent
    begun: float = field(default_factory=time.perf_counter)


def setting_of(
    op: Operator,
    isa: Isa,
    options: Options,
    *,
    w: NDArray[Any] | None = None,
    b: NDArray[Any] | None = None,
    tell: Tell | None = None,
) -> Setting:
    """Raises: SpecError for a machine that cannot be compiled for, InputError and OperatorError for
    options and constants that do not go with it."""
    # The clock begins before the machine is judged: that is part of compiling.
    begun = time.perf_counter()
    constants = constants_of(op, w, b)
    # First of all: no search for a machine that cannot be compiled for.
    require(isa)
    if options.threads != 1:
        raise InputError(
            f"threads={options.threads} has no effect on {isa.name}",
            where="Options.threads",
            why="it reads one stream of instructions",
            hint="leave out threads",
        )
    costs = costs_of(isa, options.memory or "")
    # Promises of constants are checked here, before anything is scheduled.
    ranges = magnitudes(op, constants)
    return Setting(isa, options, costs, Meter(isa, costs), constants, ranges, tell or silent, begun)
