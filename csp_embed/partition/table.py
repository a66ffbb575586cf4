"""All methods by name: a new one is a file in `methods/`, a line here, a step in the portfolio."""

from __future__ import annotations

from csp_embed.partition.methods import (
    annealing,
    balancing,
    boundaries,
    exact_search,
    genetic,
    lists,
    load_neighbourhoods,
    mixed_integer,
    neighbourhoods,
    period,
    refute,
    relaxed,
    seeds,
    splitting,
    steady,
)

TABLE = {
    method.name: method
    # The order is of no meaning: the portfolio names the steps.
    for method in (
        *lists.RULES,
        lists.METHOD,
        seeds.METHOD,
        steady.METHOD,
        refute.METHOD,
        splitting.METHOD,
        period.METHOD,
        annealing.METHOD,
        balancing.METHOD,
        relaxed.METHOD,
        genetic.METHOD,
        mixed_integer.METHOD,
        exact_search.METHOD,
        exact_search.BETWEEN,
        neighbourhoods.METHOD,
        load_neighbourhoods.METHOD,
        boundaries.METHOD,
    )
}
