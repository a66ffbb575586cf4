"""The cycle engine against cycles measured on the RTL: 213 programs, two memory interfaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cycle_programs import Measured, measured

from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa
from csp_embed.sim.cycles.engine import Engine

VTA = load_isa("vta")
PROGRAMS = list(measured(VTA))


def _with_wait(isa: Isa, wait: int) -> Isa:
    """The machine behind a memory whose delay counter runs to `wait`; its queue adds a cycle."""
    sections = {
        name: {**section, "wake": wait + 1} if "wake" in section else section
        for name, section in isa.costs.items()
    }
    return replace(isa, costs=sections)


def _error(item: Measured, memory: str) -> float:
    machine = _with_wait(VTA, item.request_wait)
    return Engine(machine, memory).total(item.stream) / item.cycles[memory] - 1


@pytest.mark.parametrize("memory", ["de10", "pynq"])
@pytest.mark.parametrize("group", ["micro", "tvm", "rtl"])
def test_every_measured_program_takes_exactly_its_cycles(group: str, memory: str) -> None:
    chosen = [p for p in PROGRAMS if p.group == group and memory in p.cycles]
    wrong = {p.name: e for p in chosen if (e := _error(p, memory)) != 0.0}
    assert len(chosen) >= 40
    assert not wrong


@pytest.mark.parametrize("memory", ["de10", "pynq"])
def test_the_stated_accuracy_holds_over_all_programs(memory: str) -> None:
    """The project's promise, in its own words, should exactness ever be given up."""
    chosen = [p for p in PROGRAMS if memory in p.cycles]
    errors = np.array([abs(_error(p, memory)) for p in chosen])
    long = np.array([p.cycles[memory] > 1000 for p in chosen])
    assert np.percentile(errors, 90) <= 0.01
    assert errors[long].max() <= 0.03


def test_the_default_interface_is_the_first_of_the_spec() -> None:
    item = next(p for p in PROGRAMS if p.name == "mix_x16")
    assert Engine(VTA).memory.name == "de10"
    assert Engine(VTA).total(item.stream) == item.cycles["de10"] != item.cycles["pynq"]
