"""From an operator to a kernel: reads the arguments, runs the chain of stages (`chain.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from csp_embed.compiler.chain import chain
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.kernel import CommandKernel
from csp_embed.compiler.kernel import Kernel
from csp_embed.compiler.request.arguments import constants_of, fitted, machine_of, operator_of
from csp_embed.compiler.request.options import Options, with_short
from csp_embed.compiler.request.ranges import magnitudes
from csp_embed.compiler.request.setting import setting_of
from csp_embed.compiler.search.candidates import embeddings_of, problem_of
from csp_embed.compiler.search.measuring import Meter
from csp_embed.compiler.source.chain import compile_source
from csp_embed.compiler.source.kernel import SourceKernel
from csp_embed.compiler.source.schedule import schedule_source
from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import costs_of
from csp_embed.machine.spec import Isa
from csp_embed.schedule.choose import search
from csp_embed.schedule.inputs import build as build_problem
from csp_embed.targets import target_of
from csp_embed.targets.commands.lower import lower

Array = NDArray[Any]


def compile(
    op: Operator | str,
    isa: Isa | str | Path | Mapping[str, Any] = "vta",
    w: Array | None = None,
    b: Array | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    layout: str | None = None,
    memory: str | None = None,
    options: Options | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Kernel | SourceKernel | CommandKernel:
    """Compiles an operator for a machine.

    op: an operator, or the text of a formula with the `shapes` of its tensors.
    w, b: constants, where known; the stream may then use their values. Without them it is right for
    every w and for every b within the operator's promise. config: the machine's sizes, where `isa`
    is not loaded yet. layout, memory: short for the fields of `options`, beside which they hold.
    Raises: OperatorError, SpecError, InputError, Infeasible.

    >>> compile("y[n,m] += x[n,k] * w[m,k]", shapes={"x": (4, 8), "w": (3, 8)}).operator.axes
    {'n': 4, 'm': 3, 'k': 8}
    """
    op = operator_of(op, shapes)
    options = Options() if options is None else options
    # Users pass a dict here now and then; it would fail far away, at an attribute.
    if not isinstance(options, Options):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
        raise InputError(
            f"options is a {type(options).__name__}",
            where="options",
            hint="options=csp_embed.Options(top=1)",
        )
    options = with_short(options, layout=layout, memory=memory)
    # A loaded machine keeps its configuration.
    machine = machine_of(isa, config)
    op = fitted(op, machine)
    # Three targets, one chain each; which one follows from the machine alone.
    if target_of(machine) == "source":
        return compile_source(op, machine, constants_of(op, w, b), options=options, tell=progress)
    if target_of(machine) == "commands":
        return compile_commands(op, machine, constants_of(op, w, b), options=options, tell=progress)
    made = chain(setting_of(op, machine, options, w=w, b=b, tell=progress)).run(op)
    kernel: Kernel = made["program"]
    return kernel


def scheduled_cycles(
    embedding: Embedding, isa: Isa, options: Options, *, schedules: int = 4, refine: int = 6
) -> float | None:
    """Cycles of a good schedule of one embedding by the cycle engine; None where no tile of it
    fits. A shorter search than that of `compile`. Of a machine that runs C: the price of its best
    register tile; of one that is fed commands: the prediction for its stream.
    """
    if target_of(isa) == "source":
        # No schedule to search: loops of C have one price for each tile.
        return schedule_source([embedding], isa).tried[0].price.total
    if target_of(isa) == "commands":
        return lower(embedding, isa, magnitudes(embedding.operator, {})).cycles
    costs = costs_of(isa, options.memory or "")
    try:
        found = search(
            [build_problem(embedding, isa)],
            Meter(isa, costs),
            costs,
            ranges=magnitudes(embedding.operator, {}),
            count=schedules,
            refine=refine,
        )
    # No tile fits: an answer, since whoever asks compares embeddings.
    except Infeasible:
        return None
    return found[0].cycles


__all__ = ["Kernel", "Options", "compile", "embeddings_of", "problem_of", "scheduled_cycles"]
