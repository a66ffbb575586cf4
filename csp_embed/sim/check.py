"""A program judged by the rules of streams and by what the functional simulator stores.

Takes: a program file's content.  Leaves: problems and remarks. The rules are
`judge/stream/judge.py`; values are simulated here, where the simulator is at hand.
"""

from __future__ import annotations

from collections.abc import Callable

from csp_embed.errors import SimError
from csp_embed.ir.stream import Program
from csp_embed.judge.stream.judge import Problem
from csp_embed.judge.stream.judge import judge as judge_stream
from csp_embed.machine.spec import Isa
from csp_embed.sim.debug import first_difference
from csp_embed.sim.functional import run as functional
from csp_embed.sim.functional.engine import NEGATIVE_SHIFTS

Progress = Callable[[str, int, int], None]


def check_program(
    isa: Isa, program: Program, *, values: bool = True, progress: Progress | None = None
) -> list[Problem]:
    """All problems of `program`, at most 100, by instruction; values: compare by simulation."""
    return judge(isa, program, values=values, progress=progress)[0]


def judge(
    isa: Isa, program: Program, *, values: bool = True, progress: Progress | None = None
) -> tuple[list[Problem], list[str]]:
    """(problems, remarks): remarks are odd but legal, such as tokens that are left at the end."""

    def compare() -> list[Problem]:
        return _values(isa, program, progress)

    return judge_stream(isa, program, values=compare if values else None, progress=progress)


def _values(isa: Isa, program: Program, progress: Progress | None) -> list[Problem]:
    try:
        run = functional.run(isa, program, progress=progress)
    # A stream that cannot run is a problem of the file, not of this command.
    except SimError as error:
        return [Problem(None, "values", f"it does not run: {error.what}")]
    found = [Problem(None, "portable", text) for text in run.warnings if NEGATIVE_SHIFTS in text]
    if run.values_equal is False:
        difference = first_difference(run)
        assert difference is not None
        found.append(Problem(difference.insn, "values", difference.text))
    return found
