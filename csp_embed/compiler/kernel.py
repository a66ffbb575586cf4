"""A compiled operator as `csp_embed.compile` returns it: the data, and what users ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.compiled import Compiled
from csp_embed.compiler.program import content as program_content
from csp_embed.compiler.program import verify
from csp_embed.compiler.request.operands import by_name
from csp_embed.errors import InputError
from csp_embed.ir.stream import Program
from csp_embed.machine.program_file import write_program
from csp_embed.ops.data import random_tensors
from csp_embed.report.kernel import render

# Only for annotations: judge and simulator load slowly.
if TYPE_CHECKING:
    from csp_embed.judge.certify.certificate import Certificate
    from csp_embed.sim.functional.run import Run

Array = NDArray[Any]


@dataclass(frozen=True, repr=False, eq=False)
class Kernel(Compiled):
    """operator, machine, and every artefact between them; fields: see `Compiled`."""

    def __repr__(self) -> str:
        cycles = "cycles not known" if self.cycles is None else f"{self.cycles:,} cycles"
        return (
            f"<Kernel {self.operator.name} {self.operator.formula()} on {self.isa.name} "
            f"{self.isa.config_name}: {len(self.lowered.stream):,} instructions, {cycles}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the report."""
        return f"<pre>{escape(self.report())}</pre>"

    def program(self, tensors: Mapping[str, Array], *, reference: bool = True) -> Program:
        """A program file's content with these operands; `after` and the result are what NumPy
        computes from the formula, placed by the claimed layout.

        reference: False leaves both out, for layers that NumPy would take minutes for; `meta` says
        which. Raises: InputError for missing, unknown or wrong tensors.
        """
        return program_content.filled(self, tensors, reference=reference)

    def blank_program(self) -> Program:
        """The program over zeros: for checks that look at addresses only."""
        return program_content.blank(self)

    def loaded(self, tensors: Mapping[str, Array]) -> Program:
        """The program with these operands in DRAM, before it runs: `after` holds zeros.

        Raises: InputError for missing or wrong tensors.
        """
        return program_content.loaded(self, tensors)

    def show(self) -> str:
        """Its instructions, as `disassemble`: what `--print-after program` prints."""
        return self.disassemble()

    def verify(self) -> list[Any]:
        """Rules that the embedding and the stream break, whatever the operands; see `check`."""
        return verify.problems_of(self, self.blank_program())

    def meta(self) -> dict[str, Any]:
        """The program file's `meta`."""
        return program_content.meta(self)

    def run(self, *operands: Any, **named: Any) -> Array:
        """Logical NumPy tensors in and out, simulated: what the machine stores, not the reference.

        Operands by position as in the formula (lhs, rhs, epilogue tensor) or by name. Constants
        that were given to `compile` need not be given again.
        Raises: InputError for missing or unknown tensors or wrong shapes; SimError where the
        program cannot run.
        """
        # Imported late, as most users never simulate.
        from csp_embed.sim.functional import run as functional

        # Values are wanted, not compared: NumPy need not run.
        program = self.program(by_name(self.operator, operands, named), reference=False)
        n = self.region("dst")
        # The whole region is asked for, pad lanes too: nothing is compared here.
        blank = ((self.lowered.address[n], np.zeros(self.lowered.size_bytes[n], np.uint8)),)
        done = functional.run(self.isa, replace(program, after=blank))
        return self.result(np.ascontiguousarray(done.outputs[0][1]))

    def simulate(self, *operands: Any, **named: Any) -> Run:
        """The simulated run of the stream on these operands (random ones where none are given),
        compared with NumPy: `.values_equal`. Raises: as `run`."""
        from csp_embed.sim.functional import run as functional

        return functional.run(self.isa, self.program(self._filled(operands, named)))

    def check(self, *operands: Any, **named: Any) -> list[Any]:
        """Problems of the embedding and the stream, and of the values on these operands (random
        ones where none are given); empty for a good kernel. What `csp-embed check` does."""
        return verify.problems_of(self, self.program(self._filled(operands, named)), values=True)

    def certify(self, *, rounds: int = 1, seed: int | None = None) -> Certificate:
        """Whether the stream computes the formula for every input: `.ok`, `.show()`; what is
        proved and assumed is in docs/certify.md. What `csp-embed certify` does of a file.

        rounds: random points; each multiplies the error's probability. seed: of these points.
        """
        # The claims are the kernel's, the proof is the judge's.
        from csp_embed.compiler.program.certifying import certified

        return certified(self, rounds=rounds, seed=seed)

    def save(self, path: str | Path, *operands: Any, **named: Any) -> None:
        """Writes a program file (docs/program-file.md) with these operands, random ones where none
        are given. It is judged first, as `csp-embed compile -o` does.

        Raises: CheckError where a check refuses it or its values differ from NumPy, and then
        nothing is written; InputError where the path cannot be written.
        """
        # Before anything is computed for it.
        if not isinstance(path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
            raise InputError(
                f"a {type(path).__name__} is no path", where="path", hint="kernel.save('own.npz')"
            )
        tensors = self._filled(operands, named)
        # simulate=None: large layers are checked but not simulated, as in the command.
        verdict = verify.judge(self, tensors, simulate=None, fill=True).accepted()
        assert verdict.program is not None
        write_program(path, verdict.program)

    def report(self) -> str:
        """What a person wants to know, as text."""
        return render(self)

    def explain(self) -> str:
        """The report with the alternatives that were scheduled."""
        return render(self, explain=True)

    def _filled(self, operands: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The operands given; where there are none, random ones beside the constants."""
        # Given operands must be complete; random ones must agree with known constants.
        given = by_name(self.operator, operands, named)
        return given or {**random_tensors(self.operator, 0), **self.constants}


__all__ = ["Kernel"]
