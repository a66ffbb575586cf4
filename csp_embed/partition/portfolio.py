"""Which methods run in which order, and the numbers that they run with: a data file, typed.

Takes: `portfolio.json` beside this file.  Leaves: `PORTFOLIO` and its `NUMBERS`, frozen.

What stands inside compiled loops (how far one proposal reaches, weights of an energy) is no part of
it: Numba builds such constants into the code that it keeps, where a changed file would not reach.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

FILE = Path(__file__).with_suffix(".json")
STRICT = ConfigDict(extra="forbid")


# Unknown keys are refused: a mistyped number in the file would else have no effect.
@checked(frozen=True, config=STRICT)
class Step:
    """One method in an order.

    do: the method's name in `methods.table`. when: which of the method's conditions decides (each
    method says which it knows; "" is its usual one). share: of what is left of a wall-clock limit.
    rounds: at effort 1. tasks: up to which the method is worth it. effort: times the request's:
    less is another search, which may end in another valley."""

    do: str
    when: str = ""
    share: float = 1.0
    rounds: int = 0
    tasks: int = 0
    effort: float = 1.0


@checked(frozen=True, config=STRICT)
class Bounds:
    """Lower bounds."""

    load_costs: int
    levels: int
    window_costs: int
    path_times: int
    choices: int
    refutations: int
    creeping: float
    bisected: float


@checked(frozen=True, config=STRICT)
class Lists:
    """List schedules and the other first placements."""

    interpreted: int
    quick_pairs: int
    few_rules: int
    cuts: int
    sets: int


@checked(frozen=True, config=STRICT)
class Anneal:
    """Annealing chains for the makespan."""

    proposals: int
    touches: float
    least: int
    starts: int
    share_free: float
    share_queued: float
    share_tasks: int
    heats: tuple[tuple[float, float, float], ...]
    decoded_heats: tuple[float, ...]
    decoded_cold: float
    probes: int
    decoded_probes: int
    trial: int
    growth: int
    patience: int
    gain: float
    decoded_work: float


@checked(frozen=True, config=STRICT)
class Exact:
    """CP-SAT and HiGHS on the whole problem."""

    tasks: int
    near_gap: float
    near_tasks: int
    period_tasks: int
    build: float
    refusals: int
    refused: float
    listable: float
    goals: tuple[float, ...]
    hits: tuple[int, ...]
    rounds: tuple[tuple[float, float], ...]
    large_rounds: tuple[tuple[float, float], ...]
    small: int
    among: tuple[float, ...]
    bisections: int
    bisection: float
    wide_gap: float
    closing: float
    least: float
    steady: tuple[float, ...]
    why: float
    nodes: float


@checked(frozen=True, config=STRICT)
class Listing:
    """All placements that may stay below a makespan."""

    table: int
    open: int
    lookups: int
    chunk: int
    bins: int
    many: int


@checked(frozen=True, config=STRICT)
class Neighbourhoods:
    """Large neighbourhood search by CP-SAT."""

    tasks: int
    size: int
    least: int
    step: int
    units: float
    seconds: float
    beside: float
    beside_warm: float


@checked(frozen=True, config=STRICT)
class LoadNeighbourhoods:
    """Large neighbourhood search for the period."""

    tasks: int
    size: int
    least: int
    step: int
    units: float
    seconds: float
    patience: int
    gain: float


@checked(frozen=True, config=STRICT)
class Split:
    """Splitting for the makespan."""

    queued_tasks: int
    part: int
    nodes: int
    proposals: int
    large_part: int
    best_part: int
    polish_part: int
    polish: int
    small: int
    pass_tasks: int
    passes: tuple[int, ...]
    widths: tuple[int, ...]
    heat: float
    level_heat: float
    level_width: int
    level_proposals: int
    decoded: int
    decoded_touches: float
    decoded_share: float
    shaped: float
    windows_part: int
    again: int


@checked(frozen=True, config=STRICT)
class Period:
    """Splitting for the period."""

    part: int
    moves: int
    touches: int
    least: int
    lanes: int
    large_lanes: int
    small: int
    priced: int
    pulls: tuple[tuple[float, float], ...]
    priced_cooling: float
    priced_bound: float
    near: float
    walk: int
    slice: int
    heat: float
    warmth: tuple[float, ...]
    again: tuple[float, ...]
    cold: float
    probes: int
    shaped: tuple[float, ...]


@checked(frozen=True, config=STRICT)
class Balance:
    """Annealing on loads."""

    proposals: int
    chains: int
    heats: tuple[float, ...]
    cold: float
    probes: int
    trial: int
    least: int


@checked(frozen=True, config=STRICT)
class Relaxation:
    """The period's relaxation, rounded."""

    places: int
    roundings: int
    proposals: int
    heats: tuple[float, ...]
    cold: float
    probes: int


@checked(frozen=True, config=STRICT)
class BatchShares:
    """Shares of a batch, for the latency."""

    most: int
    tasks: int
    whole: int
    levels: int


@checked(frozen=True, config=STRICT)
class Dispatched:
    """Many equal shares, by dispatching."""

    stretches: tuple[float, ...]
    roundings: int
    balanced: int
    balance_heats: tuple[float, float]
    heats: tuple[float, float]
    probes: int
    priced: float
    late: float
    trial: float
    lanes: int
    touches: float
    slice: int


@checked(frozen=True, config=STRICT)
class Genetic:
    """The genetic algorithm."""

    population: int
    generations: int
    touch: int
    heat: float
    cold: float


@checked(frozen=True, config=STRICT)
class Dnn:
    """The dnn-partitioning cost model."""

    first: float
    last: float
    total: float
    build: float
    groups: int
    orders: int
    order_work: float
    ideals: int
    ideal_work: float
    chains: tuple[int, ...]
    proposals: int
    touches: float
    slice: int
    load_anneal: tuple[tuple[float, float], ...]
    block_anneal: tuple[tuple[float, float], ...]
    probes: int
    pair: float
    pair_seconds: float


@checked(frozen=True, config=STRICT)
class Numbers:
    """Units and meanings stand beside the values in the file."""

    bounds: Bounds
    lists: Lists
    anneal: Anneal
    exact: Exact
    listing: Listing
    neighbourhoods: Neighbourhoods
    load_neighbourhoods: LoadNeighbourhoods
    split: Split
    period: Period
    balance: Balance
    relaxed: Relaxation
    batch_shares: BatchShares
    dispatched: Dispatched
    genetic: Genetic
    dnn: Dnn


@dataclass(frozen=True)
class Portfolio:
    """orders: the steps of each method that a user may ask for, by objective."""

    orders: Mapping[str, Mapping[str, tuple[Step, ...]]]
    numbers: Numbers


# The text, not the file: `scripts/tune` tries changed portfolios without writing them.
def read(text: str) -> Portfolio:
    """A portfolio from the text of a file. Raises: pydantic's ValidationError."""
    told = json.loads(text)
    numbers = {
        # Units and meanings are for readers of the file; only values are used.
        group: {name: entry["value"] for name, entry in entries.items()}
        for group, entries in told["numbers"].items()
    }
    return TypeAdapter(Portfolio).validate_python({"orders": told["orders"], "numbers": numbers})


# Read once, when the package is loaded: the numbers are constants of the searches.
PORTFOLIO = read(FILE.read_text(encoding="utf-8"))
NUMBERS = PORTFOLIO.numbers
METHODS = tuple(PORTFOLIO.orders["latency"])  # names that a user may ask for
