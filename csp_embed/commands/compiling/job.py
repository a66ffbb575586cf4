"""One compilation as the command line asks for it: compile, check, simulate, compare, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from csp_embed.commands.compiling.data_file import read_operands
from csp_embed.commands.compiling.watch import Watch
from csp_embed.commands.compiling.written import write_certificate, write_refusal
from csp_embed.compiler.chain import FRONT, chain, front
from csp_embed.compiler.kernel import Kernel
from csp_embed.compiler.program.values import ValuesStage
from csp_embed.compiler.program.verify import SIMULATED_MACS, Verdict
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.setting import setting_of
from csp_embed.compiler.stages import Chain, Made
from csp_embed.errors import Infeasible, TimeLimit
from csp_embed.files import atomic
from csp_embed.ir.operator import Operator
from csp_embed.judge.embedding.lower_bound import LowerBound, lower_bound
from csp_embed.machine.costs import costs_of
from csp_embed.machine.load import load_isa
from csp_embed.ops.bound import bound_cycles, natural
from csp_embed.ops.data import random_tensors


@dataclass
class Result:
    """verdict: accepted, so its `verified` is "checks" or "simulated". notes: options that had no
    effect this time, in words."""

    kernel: Kernel
    verdict: Verdict
    bound: int
    written: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lower_bound(self) -> LowerBound:
        """What no covering of the operator can undercut on this machine."""
        # The machine's own costs: a bound for another memory would be another bound.
        kernel = self.kernel
        costs = costs_of(kernel.isa, kernel.memory)
        return lower_bound(kernel.operator, kernel.isa, costs, kernel.constants)

    def document(self, explain: bool, bound: bool = False) -> dict[str, Any]:
        """What `--json` prints."""
        from csp_embed.report.kernel import alternatives, figures

        found = figures(self.kernel, self.bound, self.verdict)
        if explain:
            # Asked for only where it is wanted: bounds cost time.
            found["alternatives"] = alternatives(self.kernel)
        if bound:
            found["lower_bound"] = asdict(self.lower_bound())
        return found | {"written": self.written, "notes": self.notes}

    def text(self, explain: bool, bound: bool = False) -> str:
        from csp_embed.report.kernel import render

        lines = render(self.kernel, self.bound, self.verdict, explain=explain)
        if bound:
            proved = self.lower_bound()
            cycles = self.kernel.cycles
            over = f"; the stream takes {cycles / proved.cycles:.4f} of it" if cycles else ""
            lines += f"\n  bound        {proved.show()}{over}"
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
    watch: Watch = field(default_factory=Watch)
    # What had no effect this time; printed at the end.
    notes: list[str] = field(default_factory=list)

    def stop(self) -> str:
        """Runs the chain up to `watch.stop_after`; the artefact there as text."""
        # The caller has seen to it.
        assert self.watch.stop_after is not None
        made = self._run(self.chain(self.tensors()))
        text: str = made[self.watch.stop_after].show()
        return text

    def chain(self, given: dict[str, Any] | None, *, fill: bool = False) -> Chain:
        """The stages that this job runs; none that looks at a machine where it stops before.
        fill: the program is to be written."""
        # The first stages need no machine, and none is loaded.
        if self.watch.stop_after in FRONT:
            return front()
        setting = setting_of(
            self.op, load_isa(self.isa, self.config), self.options(),
            **self._constants(given or {}), tell=self.tell,
        )  # fmt: skip
        # For the report: where the values came from.
        source = f"random tensors of seed {self.seed or 0}" if given is None else str(self.data)
        values = ValuesStage(
            tensors=lambda: random_tensors(self.op, self.seed or 0) if given is None else given,
            # Large operators take long to simulate; --verify wants it all the same.
            simulate=self.verify or natural(self.op)["macs"] <= SIMULATED_MACS,
            fill=fill,
            data=source,
            tell=self.tell,
        )
        return Chain((*chain(setting).stages, values))

    def _run(self, stages: Chain) -> Made:
        made = stages.run(
            self.op, stop_after=self.watch.stop_after, check=self.watch.check, seen=self.watch.seen
        )
        if self.watch.check:
            self.notes.append(f"verified after each stage: {', '.join(made.checked)}")
        return made

    def tensors(self) -> dict[str, Any] | None:
        """Operands of --data by name, or None. Raises: InputError where they cannot be read."""
        if self.data is None:
            return None
        found, unused = read_operands(self.op, self.data)
        self.notes += unused
        return found

    def _constants(self, given: dict[str, Any]) -> dict[str, Any]:
        """Those of the operands whose values the stream may use, as `compile` calls them."""
        # The driver's names: w for the weights, b for a constant bias.
        names = {"w": self.op.rhs.tensor if self.op.rhs else None}
        adds = [s.access.tensor for s in self.op.epilogue if s.access is not None]
        # A bias that comes with each run is no constant.
        names["b"] = adds[0] if adds and self.op.tensors[adds[0]].constant else None
        return {k: given[t] for k, t in names.items() if t is not None and t in given}

    def options(self) -> Options:
        """What the search is told. Raises: InputError for options without effect."""
        earlier = None
        if self.reuse is not None:
            from csp_embed.commands.compiling.reused import embedding_of

            earlier = embedding_of(self.reuse, load_isa(self.isa, self.config))
        return Options(layout=self.layout, memory=self.memory, host_weight=self.host_weight,
                       cache=self.cache, pins=self.pins, reuse=earlier, within=self.within,
                       top=self.top)  # fmt: skip

    def _refuse(self, error: Infeasible | TimeLimit, path: Path) -> None:
        """Writes the certificate of a problem without an answer."""
        from csp_embed.embed.explain.reasons import none

        machine = load_isa(self.isa, self.config)
        # An infeasible problem has reasons; one that ran into its limit has none.
        decided = isinstance(error, Infeasible)
        found = none(self.op, machine, self.layout, self.pins) if decided else None
        write_refusal(path, self.op, machine, self.layout, self.pins, error, found)

    def run(self, output: Path | None, report: Path | None, certificate: Path | None) -> Result:
        """Compiles, judges, writes. Raises: CheckError where a check refuses the stream or its
        values differ from NumPy, before anything is written."""
        from csp_embed.machine.program_file import write_program

        given = self.tensors()
        try:
            # Data are filled in only where a file is to be written.
            made = self._run(self.chain(given, fill=output is not None))
        except (Infeasible, TimeLimit) as error:
            # A reused embedding was not searched for, so there is nothing to explain.
            if certificate is not None and self.reuse is None:
                self._refuse(error, certificate)
            raise
        kernel, verdict = made["program"], made["values"]
        bound = bound_cycles(self.op, kernel.isa, costs_of(kernel.isa, kernel.memory))
        result = Result(kernel, verdict, bound, notes=self.notes)
        # Told, not refused: whether values are computed shows only now.
        if self.seed is not None and verdict.program is None:
            result.notes.append(f"--seed {self.seed} had no effect: no values were computed")
        if output is not None:
            self.tell("writing", 0, 1)
            # fill=True made one.
            assert verdict.program is not None
            write_program(output, verdict.program)
            result.written.append(str(output))
        if certificate is not None:
            write_certificate(certificate, kernel.certificate())
            result.written.append(str(certificate))
        if report is not None:
            from csp_embed.report.html import kernel_page

            with atomic(report) as file:
                file.write(kernel_page(kernel, bound, verdict))
            result.written.append(str(report))
        return result
