"""The stages in order: operator -> embeddings -> schedules -> stream. The only place that knows all
of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler import cache
from csp_embed.compiler.arguments import check_options, constants_of, operator_of, with_short
from csp_embed.compiler.kernel import Kernel
from csp_embed.embed import embed
from csp_embed.embed.certificate.reuse import reuse
from csp_embed.embed.explain.reasons import none as explain_none
from csp_embed.embed.pins.text import read_pins
from csp_embed.errors import Infeasible, InputError, OperatorError, SpecError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.ir.schedule import COMPUTE, LOAD, STORE, Schedule
from csp_embed.machine.compilable import require
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.interface import parse_memory
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa
from csp_embed.schedule.choose import POOL, Found, rebuild, search
from csp_embed.schedule.inputs import Problem
from csp_embed.schedule.inputs import build as build_problem
from csp_embed.sim.cycles.engine import Engine
from csp_embed.targets.stream.lower import lower

Array = NDArray[Any]


@dataclass(frozen=True)
class Options:
    """layout: "relaxed" or "strict". memory: the interface whose cycles are minimised (None: the
    first that the spec names). top: embeddings whose schedules are improved; 0: those whose first
    schedules come close to the best. schedules: tiles of such an embedding that are built from
    estimates and simulated; refine: changes to the best one that are tried at most. More of each
    never gives more cycles. host_weight: cycles that a byte of host packing counts as. cache:
    folder that keeps finished
    searches by content, or None. pins: decisions that the user makes, as text
    (embed/pins/text.py). reuse: an embedding of the same operator in another shape: it is applied
    instead of searching, where it is proved to cost at most `within` (a share) over the least.
    """

    layout: str = "relaxed"
    memory: str | None = None
    top: int = 0
    schedules: int = 8
    refine: int = 80
    host_weight: float = 0.0
    cache: Path | None = None
    pins: tuple[str, ...] = ()
    reuse: Embedding | None = None
    within: float = 0.0

    def __post_init__(self) -> None:
        """Raises: InputError for values that mean nothing and for those that have no effect."""
        check_options(self)
        if self.cache is not None:
            object.__setattr__(self, "cache", Path(self.cache))  # A text will do.


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
) -> Kernel:
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
    if not isinstance(options, Options):
        raise InputError(
            f"options is a {type(options).__name__}",
            where="options",
            hint="options=csp_embed.Options(top=1)",
        )
    options = with_short(options, layout=layout, memory=memory)
    if isinstance(isa, Isa) and config is not None:
        raise InputError(
            "config has no effect on a machine that is loaded",
            where="config",
            hint=f"load_isa({isa.name!r}, config)",
        )
    machine = isa if isinstance(isa, Isa) else load_isa(isa, config)
    refuse_memory(machine, options.memory)
    constants = constants_of(op, w, b)
    start = time.perf_counter()
    require(machine)
    costs = costs_of(machine, options.memory or "")
    engine = engine_of(machine, costs.memory)
    tell = progress or (lambda text, done, total: None)
    tell("embedding", 0, 1)
    embeddings = embeddings_of(op, machine, options)
    if not embeddings:
        raise Infeasible(
            f"{op.name} has no embedding in {machine.name}",
            where=op.formula(),
            why=f"no digits satisfy the rules with the {options.layout} layout",
            hint="csp-embed explain names the rules in conflict; --layout relaxed allows more",
        )
    ranges = _ranges(op, constants)

    def measure(schedule: Schedule) -> float:
        if engine is None:
            return estimate(schedule, machine)
        return float(engine.total(lower(schedule, machine).stream))

    embeddings = _addressable(op, embeddings, machine)
    tell("scheduling", 0, 1)
    problems = [build_problem(e, machine) for e in embeddings]
    name = "" if options.cache is None else cache.key(op, machine, _search_key(options), ranges)
    found = _cached(options.cache, name, embeddings, problems, measure, costs, ranges)
    if not found:
        penalties = [options.host_weight * _host_bytes(e, machine) for e in embeddings]
        found = search(
            problems,
            measure,
            costs,
            ranges=ranges,
            penalties=penalties,
            top=options.top,
            count=options.schedules,
            refine=options.refine,
        )
        if options.cache is not None and found[0].config is not None:
            winner = embeddings[found[0].number]
            cache.save(options.cache, name, winner.formula(), found[0].config)
    best = found[0]
    embedding, schedule = embeddings[best.number], best.schedule
    lowered = lower(schedule, machine)
    tried = [(embeddings[f.number], f.cycles) for f in found]
    return Kernel(
        operator=op,
        isa=machine,
        embedding=embedding,
        schedule=schedule,
        lowered=lowered,
        cycles=None if engine is None else engine.total(lowered.stream),
        seconds=time.perf_counter() - start,
        memory=costs.memory,
        constants=constants,
        candidates=tuple(tried),
    )


def embeddings_of(op: Operator, machine: Isa, options: Options) -> list[Embedding]:
    """The embeddings that the options ask for, best first under the analytic cost.

    Raises: Infeasible, InputError for pins that cannot be read.
    """
    costs = costs_of(machine, options.memory or "")
    if options.reuse is not None:
        return [_reused(options.reuse, op, machine, options.within, costs)]
    pins = read_pins(op, machine, options.pins)
    try:
        found = embed(
            op,
            machine,
            layout="strict" if pins.strict else options.layout,
            top=max(POOL, options.top),
            pins=pins.keeps,
            factors=pins.factors,
            costs=costs,
        )
    except Infeasible as error:
        explanation = explain_none(op, machine, options.layout, options.pins)
        raise explanation.error(op, machine) from error
    return [pins.arrange(e) for e in found]


def _reused(
    embedding: Embedding, op: Operator, machine: Isa, within: float, costs: Costs
) -> Embedding:
    """The embedding for the shape of `op`. Raises: Infeasible, where it does not fit or costs more
    than `within` over what is proved to be least."""
    found = reuse(embedding, op, machine, within=within, costs=costs)
    hint = "compile without reuse"
    if found is None:
        raise Infeasible(
            f"the embedding cannot be reused for {op.name}",
            where=op.formula(),
            why=f"its structure breaks a rule there: {embedding.formula()}",
            hint=hint,
        )
    if found.gap > within:
        raise Infeasible(
            f"the reused embedding costs {found.gap:.2%} more than the least there",
            where=op.formula(),
            why=f"{within:.2%} is allowed; {found.cost:,.0f} cycles against {found.bound:,.0f}",
            hint=f"allow more (--within {math.ceil(1000 * found.gap) / 1000}), or {hint}",
        )
    return found.embedding


def scheduled_cycles(
    embedding: Embedding, isa: Isa, options: Options, *, schedules: int = 4, refine: int = 6
) -> float | None:
    """Cycles of a good schedule of one embedding by the cycle engine; None where no tile of it
    fits. A shorter search than that of `compile`.
    """
    costs = costs_of(isa, options.memory or "")
    engine = engine_of(isa, costs.memory)

    def measure(schedule: Schedule) -> float:
        if engine is None:
            return estimate(schedule, isa)
        return float(engine.total(lower(schedule, isa).stream))

    try:
        found = search(
            [build_problem(embedding, isa)],
            measure,
            costs,
            ranges=_ranges(embedding.operator, {}),
            count=schedules,
            refine=refine,
        )
    except Infeasible:
        return None
    return found[0].cycles


def _addressable(op: Operator, embeddings: list[Embedding], isa: Isa) -> list[Embedding]:
    """Those whose packed operands the machine can address.

    Raises: OperatorError where none is left.
    """
    limit = 1 << isa.limits.dram_bits
    needs = [
        sum(v.elements * isa.memory(v.memory).elem_bytes for v in e.layouts.values())
        for e in embeddings
    ]
    out = [e for e, need in zip(embeddings, needs, strict=True) if need < limit]
    if not out:
        raise OperatorError(
            f"{op.name} needs {min(needs):,} bytes of device memory",
            why=f"{isa.name} addresses {limit:,}",
            hint="split the operator into smaller ones",
        )
    return out


def _search_key(options: Options) -> dict[str, Any]:
    plain = {k: str(v) for k, v in vars(options).items() if k not in ("cache", "reuse")}
    return plain | {"reuse": options.reuse.formula() if options.reuse else ""}


def _cached(
    folder: Path | None,
    name: str,
    embeddings: list[Embedding],
    problems: list[Problem],
    measure: Callable[[Schedule], float],
    costs: Costs,
    ranges: Mapping[int, int],
) -> list[Found]:
    """The winner of an earlier equal search, rebuilt; empty where there is none."""
    known = None if folder is None else cache.load(folder, name)
    if known is None:
        return []
    for n, (embedding, problem) in enumerate(zip(embeddings, problems, strict=True)):
        if embedding.formula() == known[0]:
            found = rebuild(n, problem, known[1], measure, costs, ranges)
            return [] if found is None else [found]
    return []


def _broken_promise(name: str, array: Array, size: Array, promised: int) -> OperatorError:
    at = np.unravel_index(int(np.argmax(size)), size.shape)
    index = ",".join(str(int(n)) for n in at)
    return OperatorError(
        f"{name}[{index}] is {int(array[at])}",
        where="bias_range (--bias-range)",
        why=f"the operator promises |{name}| <= {promised}",
        hint=f"--bias-range {int(size.max())}; or none: values that are known need no promise",
    )


def _host_bytes(embedding: Embedding, isa: Isa) -> int:
    """Bytes of activations that the host packs per run."""
    op = embedding.operator
    return sum(
        layout.elements * isa.memory(layout.memory).elem_bytes
        for name, layout in embedding.layouts.items()
        if name != "dst" and not op.tensors[layout.tensor].constant
    )


def _ranges(op: Operator, constants: Mapping[str, Array]) -> dict[int, int]:
    """Largest magnitude of each epilogue tensor, where it is known or promised."""
    out = {}
    for i, step in enumerate(op.epilogue):
        if step.access is None:
            continue
        name = step.access.tensor
        known = op.values.get(name, constants.get(name))
        if known is not None:
            array = np.asarray(known)
            size = np.abs(array.astype(np.int64))
            if step.bias_range is not None and array.size and size.max() > step.bias_range:
                raise _broken_promise(name, array, size, step.bias_range)
            out[i] = int(size.max()) if array.size else 0
        elif step.bias_range is not None:
            out[i] = step.bias_range
    return out


def refuse_memory(machine: Isa, memory: str | None) -> None:
    """Raises: InputError for a memory interface that has no effect on that machine."""
    if memory and not has_costs(machine):
        raise InputError(
            f"memory {memory!r} has no effect on {machine.name}",
            where="memory",
            why="its spec states no costs, so no cycles are predicted",
            hint="leave out the memory",
        )


def default_memory(isa: Isa) -> str:
    """The first memory interface that the spec states costs for; "" where it states none."""
    return next((name for name, c in isa.costs.items() if "burst_beats" in c), "")


def engine_of(isa: Isa, interface: str) -> Engine | None:
    """The cycle engine behind that memory interface; None where the spec states no costs.

    Raises: SpecError where the costs are incomplete, InputError for an unreadable interface.
    """
    if not has_costs(isa):
        return None
    if not interface:
        raise SpecError(
            f"the costs of {isa.name} name no memory interface",
            where=isa.where("costs"),
            why="no section has burst_beats",
            hint="add one, such as `ideal` in isa_specs/toy_dot.yaml, or leave `costs` out",
        )
    return Engine(isa, parse_memory(interface))


def has_costs(isa: Isa) -> bool:
    """The spec states what the cycle engine needs."""
    return "instruction" in isa.costs and "contract" in isa.costs


def estimate(schedule: Schedule, isa: Isa) -> float:
    """Without cost parameters: steps, and bytes at eight a cycle, one after the other."""
    sizes = [
        [isa.memory(r.memory).elem_bytes * math.prod(b - a for a, b in box) for box in r.boxes]
        for r in schedule.regions
    ]
    total = 0.0
    for kind, a, b, _ in schedule.ops.tolist():
        total += schedule.templates[a].steps if kind == COMPUTE else 0
        total += sizes[a][b] / 8 + 16 if kind in (LOAD, STORE) else 0
    return total


__all__ = ["Kernel", "Options", "compile"]
