"""Judges a kernel: checks of its embedding and stream, simulation, comparison with NumPy.

Shares no code with the builders beyond the kernel's own packing of operands and result. What the
stream stores is compared with bytes that come from NumPy alone (compiler/program/expected.py); a
program that a check refuses or that differs never leaves here as one to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from csp_embed.compiler.compiled import Compiled
from csp_embed.compiler.program import content as program_content
from csp_embed.errors import CheckError
from csp_embed.ir.stream import Program
from csp_embed.judge.formula import REFERENCE_MACS
from csp_embed.ops.bound import natural

# Simulation and NumPy take about five seconds for 10^9 MACs. The README's layer has 323 million.
SIMULATED_MACS = 400_000_000

_REPORT = "this is our mistake: please report the command"


@dataclass(frozen=True)
class Verdict:
    """verified: "checks" (values were not compared), "simulated" (the simulated stream stored the
    bytes that NumPy computes) or "unequal". words: the same for people, with what was compared."""

    problems: tuple[Any, ...]
    verified: str
    program: Program | None
    difference: str = ""
    words: str = ""
    name: str = ""

    def show(self) -> str:
        """What was compared with what."""
        return "\n".join([self.words, *map(str, self.problems)])

    def verify(self) -> list[Any]:
        """What the checks found, and the first value that differs."""
        return [*self.problems, *([self.difference] if self.verified == "unequal" else [])]

    def accepted(self) -> Verdict:
        """Itself. Raises: CheckError where a check found a problem or the values differ."""
        if self.problems:
            raise CheckError(
                f"the checks refuse this program ({len(self.problems)} problems)",
                where=self.name,
                why="; ".join(str(p) for p in self.problems[:3]),
                hint=_REPORT,
            )
        if self.verified == "unequal":
            raise CheckError(
                "the simulated result differs from NumPy",
                where=self.name,
                why=self.difference,
                hint=_REPORT,
            )
        return self


def judge(
    kernel: Compiled,
    tensors: Mapping[str, Any] | None,
    *,
    simulate: bool | None = True,
    fill: bool = False,
    data: str = "these tensors",
    tell: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> Verdict:
    """Runs the checks; simulates and compares where asked.

    simulate: None decides by the layer's size (`SIMULATED_MACS`). fill: the program is wanted even
    if not compared. data: what `tensors` are, for the words.
    Raises: InputError for missing tensors, SimError where the stream cannot run.
    """
    macs = natural(kernel.operator)["macs"]
    simulate = macs <= SIMULATED_MACS if simulate is None else simulate
    # NumPy is faster than the simulator, so that expected bytes may exist without a simulation.
    reference = simulate or macs <= REFERENCE_MACS
    program = None
    if simulate or fill:
        assert tensors is not None
        tell("computing with NumPy" if reference else "packing", 0, 1)
        program = program_content.filled(kernel, tensors, reference=reference)
    tell("checking", 0, 1)
    # Over zeros where there are no operands: addresses and tokens do not depend on values.
    problems = problems_of(kernel, program or program_content.blank(kernel))
    name = kernel.operator.name
    if not simulate or program is None:
        return Verdict(tuple(problems), "checks", program, "", _unsimulated(macs, program), name)
    tell("simulating", 0, 1)
    difference = _difference(kernel, program)
    if difference:
        words = f"NOT EQUAL: the simulated stream differs from NumPy on {data}: {difference}"
        return Verdict(tuple(problems), "unequal", program, difference, words, name)
    # How much was compared is part of the statement.
    said = program.meta["after"]
    words = (
        f"simulated bit-equal to NumPy: the {said['bytes']:,} bytes of the result as the stream"
        f" stores them and as the formula gives them, on {data}; the rules of the embedding and of"
        " the stream hold"
    )
    if said["bytes_left_out"]:
        words += f"; {said['bytes_left_out']:,} bytes of pad lanes were not compared"
    return Verdict(tuple(problems), "simulated", program, "", words, name)


def problems_of(kernel: Compiled, program: Program, *, values: bool = False) -> list[Any]:
    """What is wrong with the embedding and the stream; values: by simulation, with the bytes that
    the program expects, too."""
    from csp_embed.judge.embedding import judge as embedding_check
    from csp_embed.sim.check import check_program

    # Beyond the limit the judge goes by arithmetic and single steps.
    found = embedding_check.judge(kernel.embedding, kernel.isa, limit=1_000_000).breaches
    return [*found, *check_program(kernel.isa, program, values=values)]


def _difference(kernel: Compiled, program: Program) -> str:
    """The first byte that the simulated stream stores otherwise than expected, or ""."""
    from csp_embed.sim.debug import first_difference
    from csp_embed.sim.functional import run as functional

    # Nothing expected would be equal to anything.
    assert program.after, "there is nothing to compare with"
    done = functional.run(kernel.isa, program)
    if done.values_equal:
        return ""
    # The first byte in the order of DRAM, named as an element.
    found = first_difference(done)
    assert found is not None
    return found.text


def _unsimulated(macs: int, program: Program | None) -> str:
    # Said in capitals: a program of which no value was compared must not look proved.
    words = (
        f"values were NOT compared: {macs:,} MACs were not simulated (--verify does it); only the"
        " embedding's rules and the stream's addresses, tokens and races were checked"
    )
    if program is None:
        return words
    if program.after:
        return words + "; the file's expected bytes are NumPy's, from the formula"
    return words + "; the file expects no bytes, NumPy would take minutes (--verify does it)"
