"""One compilation as the command line asks for it: compile, check, simulate, compare, write."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.compiler.kernel import Kernel, operand
from csp_embed.compiler.verify import SIMULATED_MACS, Verdict, judge
from csp_embed.errors import Infeasible, InputError, TimeLimit
from csp_embed.files import atomic
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa
from csp_embed.ops.bound import bound_cycles, natural
from csp_embed.ops.data import random_tensors

STAGES = ("operator", "dataflow", "embedding", "schedule", "program")


@dataclass
class Result:
    """verdict: accepted, so its `verified` is "checks" or "simulated". notes: options that had no
    effect this time, in words."""

    kernel: Kernel
    verdict: Verdict
    bound: int
    written: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def document(self, explain: bool) -> dict[str, Any]:
        """What `--json` prints."""
        from csp_embed.report.kernel import alternatives, figures

        found = figures(self.kernel, self.bound, self.verdict)
        if explain:
            found["alternatives"] = alternatives(self.kernel)
        return found | {"written": self.written, "notes": self.notes}

    def text(self, explain: bool) -> str:
        from csp_embed.report.kernel import render

        lines = render(self.kernel, self.bound, self.verdict, explain=explain)
        notes = (f"note: {text}" for text in self.notes)
        return "\n".join([lines, *notes, *(f"wrote {w}" for w in self.written)])


@dataclass
class Job:
    """Arguments as in `csp-embed compile --help`."""

    op: Operator
    isa: str
    config: Path | None
    memory: str | None
    layout: str
    host_weight: float
    top: int
    cache: Path | None
    seed: int | None
    data: Path | None
    verify: bool
    tell: Callable[[str, int, int], None]
    pins: tuple[str, ...] = ()
    reuse: Path | None = None
    within: float = 0.0
    notes: list[str] = field(default_factory=list)

    def stop_after(self, stage: str, dot: Path | None) -> str:
        """The artefact of an early stage as text."""
        from csp_embed.ir.dfg import dataflow

        if dot is not None:
            with atomic(dot) as file:
                file.write(dataflow(self.op).dot())
        if stage == "operator":
            return self.op.show()
        if stage == "dataflow":
            return dataflow(self.op).show()
        kernel = self.compile(self.tensors())
        if stage == "embedding":
            return kernel.embedding.formula()
        if stage == "schedule":
            return kernel.schedule.show()
        from csp_embed.machine.listing import listing

        assert stage == "program", stage
        return "\n".join(listing(kernel.isa, kernel.lowered.stream))

    def tensors(self) -> dict[str, Any] | None:
        """Operands of --data by name, or None.

        Raises: InputError where the file cannot be read, or an operand is missing or of the wrong
        shape or type.
        """
        if self.data is None:
            return None
        hint = "--data takes a NumPy .npz file: numpy.savez(FILE, x=…, w=…)"
        try:
            # numpy.load takes anything else for a pickle, and says so.
            if not zipfile.is_zipfile(self.data):
                with open(self.data, "rb"):
                    raise InputError(f"{self.data} is no whole .npz file", hint=hint)
            with np.load(self.data, allow_pickle=False) as file:
                given = {k: file[k] for k in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            why = getattr(error, "strerror", None)
            raise InputError(
                f"cannot read {self.data}", why=why or str(error), hint=hint
            ) from error
        wanted = [t for t in self.op.tensors if t != self.op.out.tensor and t not in self.op.values]
        try:
            found = {name: operand(self.op, given, name) for name in wanted}
        except InputError as error:
            raise InputError(
                error.what, where=str(self.data), why=error.why, hint=error.hint
            ) from error
        self.notes += [
            f"{name} of {self.data} is not used: {self.op.name} takes {', '.join(wanted)}"
            for name in given
            if name not in found
        ]
        return found

    def compile(self, given: dict[str, Any] | None) -> Kernel:
        from csp_embed.compiler.driver import Options, compile

        machine = load_isa(self.isa, self.config)
        constants = {}
        if given:
            names = {"w": self.op.rhs.tensor if self.op.rhs else None}
            adds = [s.access.tensor for s in self.op.epilogue if s.access is not None]
            names["b"] = adds[0] if adds and self.op.tensors[adds[0]].constant else None
            constants = {k: given[t] for k, t in names.items() if t is not None and t in given}
        options = Options(layout=self.layout, memory=self.memory, host_weight=self.host_weight,
                          cache=self.cache, pins=self.pins, reuse=self._earlier(machine),
                          within=self.within)  # fmt: skip
        if self.top:
            options = Options(**{**options.__dict__, "top": self.top})
        return compile(self.op, machine, **constants, options=options, progress=self.tell)

    def _earlier(self, machine: Isa) -> Embedding | None:
        """The embedding of --reuse."""
        if self.reuse is None:
            return None
        from csp_embed.commands.reused import embedding_of

        return embedding_of(self.reuse, machine)

    def _refuse(self, error: Infeasible | TimeLimit, path: Path) -> None:
        """Writes the certificate of a problem without an answer."""
        from csp_embed.embed.certificate.make import refusal
        from csp_embed.embed.explain.reasons import none

        machine = load_isa(self.isa, self.config)
        status, conflict, relaxations = "unknown", (), ()
        if isinstance(error, Infeasible):
            explanation = none(self.op, machine, self.layout, self.pins)
            status, conflict = "infeasible", explanation.conflict
            relaxations = explanation.relaxations
        document = refusal(
            self.op, machine, self.layout, status=status, why=error.why or error.what,
            search={"pins": list(self.pins)},
            conflict=conflict, relaxations=relaxations,
        )  # fmt: skip
        with atomic(path) as file:
            json.dump(document, file, indent=1)

    def run(self, output: Path | None, report: Path | None, certificate: Path | None) -> Result:
        """Compiles, judges, writes. Raises: CheckError where a check refuses the stream or its
        values differ from NumPy, before anything is written."""
        from csp_embed.machine.program_file import write_program

        given = self.tensors()
        try:
            kernel = self.compile(given)
        except (Infeasible, TimeLimit) as error:
            if certificate is not None and self.reuse is None:
                self._refuse(error, certificate)
            raise
        bound = bound_cycles(self.op, kernel.isa, costs_of(kernel.isa, kernel.memory))
        simulate = self.verify or natural(self.op)["macs"] <= SIMULATED_MACS
        tensors = given
        if given is None and (simulate or output is not None):
            tensors = random_tensors(self.op, self.seed or 0)
        data = f"random tensors of seed {self.seed or 0}" if given is None else str(self.data)
        verdict = judge(
            kernel, tensors, simulate=simulate, fill=output is not None,
            data=data, tell=self.tell,
        ).accepted()  # fmt: skip
        result = Result(kernel, verdict, bound, notes=self.notes)
        if self.seed is not None and verdict.program is None:
            result.notes.append(f"--seed {self.seed} had no effect: no values were computed")
        if output is not None:
            self.tell("writing", 0, 1)
            assert verdict.program is not None
            write_program(output, verdict.program)
            result.written.append(str(output))
        if certificate is not None:
            with atomic(certificate) as file:
                json.dump(kernel.certificate(), file, indent=1)
            result.written.append(str(certificate))
        if report is not None:
            from csp_embed.report.html import kernel_page

            with atomic(report) as file:
                file.write(kernel_page(kernel, bound, verdict))
            result.written.append(str(report))
        return result
