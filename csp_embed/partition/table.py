"""All methods by name: a new one is a file under `methods/`, a line here, a portfolio step."""

from __future__ import annotations

from csp_embed.partition.methods import (
    boundaries,
    exact_search,
    lists,
    mixed_integer,
    neighbourhoods,
    refute,
    seeds,
    splitting,
    steady,
)
from csp_embed.partition.methods.local import annealing, genetic
from csp_embed.partition.methods.period import balancing, load_neighbourhoods, period, relaxed

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
        splitting.AGAIN,
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
