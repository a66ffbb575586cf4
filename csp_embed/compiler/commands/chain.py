"""The stages for machines that are fed commands: those of `chain.py`, their streams last.

operator -> dataflow
         -> embedding -> schedule -> program -> values
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from numpy.typing import NDArray

from csp_embed.compiler.chain import breaches, front
from csp_embed.compiler.commands.kernel import Choice, CommandKernel
from csp_embed.compiler.program.values import stores_nothing
from csp_embed.compiler.request.arguments import fitted
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.request.ranges import magnitudes
from csp_embed.compiler.request.setting import Tell, refuse_idle, silent
from csp_embed.compiler.search.candidates import Candidates, embeddings_of
from csp_embed.compiler.stages import Chain
from csp_embed.errors import CheckError, CspEmbedError, Infeasible
from csp_embed.ir.operator import Operator
from csp_embed.machine.compilable import require
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.spec import Isa
from csp_embed.targets.commands.lower import lower

Array = NDArray[Any]
# Options that choose between streams of instructions with loops of their own.
_IDLE = ("memory", "schedules", "refine", "host_weight", "cache", "threads")
# Embeddings whose streams are written: each takes seconds where there are many steps.
WRITTEN = 3


@dataclass(frozen=True)
class CommandSetting:
    """What is fixed while an operator is compiled. adds: epilogue step -> largest magnitude of its
    tensor. begun: seconds of the clock."""

    isa: Isa
    options: Options
    costs: Costs
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])
    adds: Mapping[int, int] = field(default_factory=dict[int, int])
    tell: Tell = silent
    begun: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class CommandEmbeddingStage:
    """CP-SAT, as for every other machine."""

    setting: CommandSetting
    name: ClassVar[str] = "embedding"
    takes: ClassVar[str] = "operator"
    leaves: ClassVar[str] = "Candidates: embeddings, the least analytic cost first"
    judge: ClassVar[str] = "judge/embedding/judge.py: every point once, every lane in its home"

    def accepts(self, x: Operator) -> CspEmbedError | None:
        # The machine has no instruction of its own for maps: they are what a copy out does with
        # sums.
        if x.kind == "contract":
            return None
        isa = self.setting.isa
        return Infeasible(
            f"{isa.name} has no command for {x.name}", where=x.formula(),
            why=f"a {x.kind} has no products, and what the machine does with sums it does while it"
            " stores them",
            hint="compile it for another machine, or fuse it behind a contraction",
        )  # fmt: skip

    def apply(self, x: Operator) -> Candidates:
        s = self.setting
        s.tell("embedding", 0, 1)
        # The same search as for all machines: its tiles look like memories there.
        return Candidates(tuple(embeddings_of(x, s.isa, s.options, s.costs)))

    def verify(self, x: Operator, y: Candidates) -> Sequence[object]:
        return breaches(x, y.embeddings, lambda e: self.setting.isa)


@dataclass(frozen=True)
class CommandScheduled:
    """tried: candidates with their streams, the fewest predicted cycles first."""

    operator: Operator
    tried: tuple[Choice, ...]

    def show(self) -> str:
        """Order of steps, what moves, cycles, embedding."""
        p = self.tried[0].program
        return "\n".join([
            p.walk.show(), f"  {p.loaded:,} bytes loaded, {p.stored:,} stored",
            f"  of {p.embedding.formula()}",
            f"  {p.cycles:,.0f} cycles predicted; the least of {len(self.tried)} candidates",
        ])  # fmt: skip

    def verify(self) -> list[str]:
        """What contradicts the statement above; empty where it holds."""
        # Stable order is part of the statement: the first is the kernel.
        cycles = [c.program.cycles for c in self.tried]
        return [] if cycles == sorted(cycles) else ["another candidate costs less"]


@dataclass(frozen=True)
class CommandScheduleStage:
    """Blocks of sums, the order of steps, what stays on the chip; predicted cycles decide."""

    setting: CommandSetting
    name: ClassVar[str] = "schedule"
    takes: ClassVar[str] = "embedding"
    leaves: ClassVar[str] = "CommandScheduled: the embedding that won, its order, its cycles"
    judge: ClassVar[str] = "judge/commands.py, with the program"

    def accepts(self, x: Candidates) -> CspEmbedError | None:
        return None

    def apply(self, x: Candidates) -> CommandScheduled:
        """Raises: Infeasible where the machine cannot compute the epilogue exactly."""
        s = self.setting
        # `top` asks for more or fewer; without it a few, as writing a stream is slow.
        count = s.options.top or WRITTEN
        tried: list[Choice] = []
        refused: Infeasible | None = None
        # Not all embeddings lie so that the machine's copies can move them; what no copy out can
        # compute none of them changes.
        for e in x.embeddings[: 2 * count]:
            if len(tried) == count:
                break
            s.tell("writing streams", len(tried), min(count, len(x.embeddings)))
            try:
                tried.append(Choice(e, lower(e, s.isa, s.adds)))
            except Infeasible as error:
                refused = refused or error
        if refused is not None and not tried:
            raise refused
        # A stable sort: of equal ones the least analytic cost comes first.
        tried.sort(key=lambda c: c.program.cycles)
        return CommandScheduled(x.embeddings[0].operator, tuple(tried))

    def verify(self, x: Candidates, y: CommandScheduled) -> Sequence[object]:
        known = any(e is y.tried[0].embedding for e in x.embeddings)
        return [] if known else ["the stream is of no candidate"]


@dataclass(frozen=True)
class CommandProgramStage:
    """The winner as a kernel."""

    setting: CommandSetting
    name: ClassVar[str] = "program"
    takes: ClassVar[str] = "schedule"
    leaves: ClassVar[str] = "CommandKernel: commands, HOST image"
    judge: ClassVar[str] = "judge/embedding/judge.py; words read back"

    def accepts(self, x: CommandScheduled) -> CspEmbedError | None:
        return None

    def apply(self, x: CommandScheduled) -> CommandKernel:
        s = self.setting
        seconds = time.perf_counter() - s.begun
        return CommandKernel(x.operator, s.isa, x.tried, seconds, s.constants)

    def verify(self, x: CommandScheduled, y: CommandKernel) -> Sequence[object]:
        return [] if y.tried is x.tried else ["the kernel is of another schedule"]


@dataclass(frozen=True)
class CommandVerdict:
    """words: what was compared with what."""

    words: str

    def show(self) -> str:
        """What was compared."""
        return self.words

    def verify(self) -> list[str]:
        """The stage has raised where values differ."""
        # An artefact of a stage that raises is right by its existence.
        return []


@dataclass(frozen=True)
class CommandValuesStage:
    """The stream on real tensors, by the spec's meanings."""

    tensors: Callable[[], Mapping[str, Array]]
    data: str = "these tensors"
    tell: Tell = silent
    name: ClassVar[str] = "values"
    takes: ClassVar[str] = "program"
    leaves: ClassVar[str] = "CommandVerdict: what was run and compared"
    judge: ClassVar[str] = "NumPy, from the formula; judge/commands.py"

    def accepts(self, x: CommandKernel) -> CspEmbedError | None:
        return stores_nothing(x.operator)

    def apply(self, x: CommandKernel) -> CommandVerdict:
        """Raises: CheckError where values differ from NumPy."""
        self.tell("comparing with NumPy", 0, 1)
        # Imported late, as only this stage needs it.
        from csp_embed.compiler.commands.file import content

        file = content(x, self.tensors())
        problems = file.problems()
        if problems:
            raise CheckError("the checks refuse the stream", where=x.operator.name, why=problems[0],
                             hint="this is our mistake: please report the command")  # fmt: skip
        # All values: the interpreter runs the whole stream.
        size = file.tensors[x.operator.out.tensor].size
        return CommandVerdict(
            f"run by the spec's meanings, all {size:,} values equal NumPy's, on {self.data}; no"
            " address outside, nothing read that was not written"
        )

    def verify(self, x: CommandKernel, y: CommandVerdict) -> Sequence[object]:
        return []


def command_setting(
    op: Operator,
    isa: Isa,
    options: Options | None = None,
    constants: Mapping[str, Array] | None = None,
    *,
    tell: Tell | None = None,
) -> CommandSetting:
    """Raises: SpecError for a machine that cannot be compiled for, InputError for options without
    effect on it."""
    begun = time.perf_counter()
    # Before the search: an option without effect is a mistake that costs seconds.
    options = Options() if options is None else options
    require(isa)
    # Refused, not ignored: these machines have one order of commands.
    refuse_idle(options, _IDLE, "that is fed commands", "its commands are written out in one order")
    known = constants or {}
    adds = magnitudes(op, known)
    return CommandSetting(isa, options, costs_of(isa), known, adds, tell or silent, begun)


def command_chain(setting: CommandSetting) -> Chain:
    """From a formula to a kernel of commands."""
    back = (
        CommandEmbeddingStage(setting), CommandScheduleStage(setting), CommandProgramStage(setting),
    )  # fmt: skip
    return Chain((*front().stages, *back))


def compile_commands(
    op: Operator,
    isa: Isa,
    constants: Mapping[str, Array],
    *,
    options: Options | None = None,
    tell: Callable[[str, int, int], None] | None = None,
) -> CommandKernel:
    """The kernel of an operator for a machine with `control: stream`.

    Raises: SpecError, InputError; Infeasible for an operator or an epilogue that the machine cannot
    compute exactly.
    """
    op = fitted(op, isa)
    setting = command_setting(op, isa, options, constants, tell=tell)
    kernel: CommandKernel = command_chain(setting).run(op)["program"]
    return kernel
