"""Finished searches are told apart by all that a search depends on."""

from __future__ import annotations

from dataclasses import replace

import csp_embed as ce
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.search.cache import key
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa


def _key(isa: Isa) -> str:
    return key(ce.matmul(m=16, n=4, k=32), isa, Options(), {})


def test_machines_that_differ_in_depths_limits_or_costs_have_searches_of_their_own() -> None:
    vta = load_isa("vta")
    small, smaller = (
        load_isa("vta", {**vta.config, "LOG_INP_BUFF_SIZE": size}) for size in (12, 11)
    )
    slower = {name: dict(section) for name, section in vta.costs.items()}
    slower["read"]["tags"] /= 2
    others = [
        small,
        smaller,
        replace(vta, costs=slower),
        replace(vta, limits=replace(vta.limits, map_hazard=3)),
    ]
    assert len({_key(isa) for isa in (vta, *others)}) == 1 + len(others)


def test_a_machine_read_twice_is_one() -> None:
    assert _key(load_isa("vta")) == _key(load_isa("vta", dict(load_isa("vta").config)))
