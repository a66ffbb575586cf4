"""Several inputs in flight: the rate of a pipeline whose devices' times are known, and mix-ups."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from csp_embed.errors import InputError, SimError, WorkerDied
from csp_embed.run.device_parts import Part
from csp_embed.run.in_flight import measure_rate, turns
from csp_embed.run.runner import Array, Ran
from csp_embed.run.turn import Turn


def part(index: int, device: str, reads: str, makes: str, replica: int = 0) -> Part:
    return Part(index, device, (f"t{index}",), (), (reads,), (makes,), 0.0, replica)


class Adder:
    """Adds one to what it reads, taking so many ms; counts how many run at once."""

    def __init__(
        self, ms: float = 0.0, lanes: int = 1, fail_at: int = 0, stale: bool = False
    ) -> None:
        self.ms, self.lanes, self.fail_at, self.stale = ms, lanes, fail_at, stale
        self.calls, self.now, self.most = 0, 0, 0
        self.last: Array | None = None
        self.lock = threading.Lock()

    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran:
        with self.lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
            if self.calls == self.fail_at:
                raise WorkerDied("gone").of(part.device)
        time.sleep(self.ms / 1e3)
        value = next(iter(feeds.values())) + 1
        with self.lock:
            self.now -= 1
            given, self.last = (self.last if self.stale and self.last is not None else value), value
        return Ran({part.makes[0]: given}, self.ms)


PIPELINE = [part(0, "a", "x", "u"), part(1, "b", "u", "v"), part(2, "a", "v", "y")]
INPUTS = [{"x": np.array([0])}, {"x": np.array([10])}]
EXPECTED = [[{"y": np.array([3])}, {"y": np.array([13])}]]


def rate(runners: dict[str, Any], in_flight: int, samples: int = 20, **changed: Any) -> Any:
    return measure_rate(
        changed.get("parts", PIPELINE), runners, INPUTS, changed.get("expected", EXPECTED),
        in_flight, samples,
    )  # fmt: skip


def test_a_full_pipeline_is_as_fast_as_its_busiest_device() -> None:
    """Device a sleeps 2 x 20 ms a sample, b 10 ms: 40 ms a sample in flight, 50 ms one by one.
    Sleeping takes no processor, so that a busy machine changes little."""
    full = rate({"a": Adder(20.0), "b": Adder(10.0)}, 4)
    alone = rate({"a": Adder(20.0), "b": Adder(10.0)}, 1)
    assert (full.wrong, alone.wrong) == (0, 0)
    assert full.ms_per_sample >= 40.0
    assert alone.ms_per_sample >= 50.0
    assert full.busy["a"] > 2 * full.busy["b"]


def test_as_many_run_at_once_as_there_are_lanes_or_samples() -> None:
    three = Adder(5.0, lanes=3)
    rate({"a": three, "b": Adder()}, 8)
    assert three.most == 3
    three = Adder(5.0, lanes=3)
    rate({"a": three, "b": Adder()}, 2)
    assert three.most <= 2


def test_every_sample_runs_every_part_once() -> None:
    a, b = Adder(), Adder()
    assert rate({"a": a, "b": b}, 3, 20).samples == 20
    assert (a.calls, b.calls) == (2 * 23, 23)


def test_replicas_take_turns() -> None:
    parts = [part(0, "a", "x", "y", 0), part(1, "b", "x", "y", 1)]
    one = [{"y": np.array([1])}, {"y": np.array([11])}]
    a, b = Adder(), Adder()
    found = rate({"a": a, "b": b}, 2, 10, parts=parts, expected=[one, one])
    assert found.wrong == 0
    assert (a.calls, b.calls) == (6, 6)


def test_replicas_take_their_shares() -> None:
    """Shares 5 : 3 : 2: of every ten samples five, three, two, well spread."""
    route = turns([0.5, 0.3, 0.2], 1000)
    assert [route.count(r) for r in range(3)] == [500, 300, 200]
    for begin in range(0, 1000, 10):
        assert [route[begin : begin + 10].count(r) for r in range(3)] == [5, 3, 2]
    assert turns([1.0, 1.0], 6) == [0, 1, 0, 1, 0, 1]


def test_a_device_that_mixes_samples_up_is_seen() -> None:
    assert rate({"a": Adder(), "b": Adder(stale=True)}, 3).wrong > 0


def test_the_death_of_a_device_ends_the_run() -> None:
    with pytest.raises(WorkerDied) as caught:
        rate({"a": Adder(1.0), "b": Adder(1.0, fail_at=5)}, 4, 100_000)
    assert caught.value.device == "b"


def test_a_part_that_nobody_feeds() -> None:
    with pytest.raises(SimError, match="nothing makes"):
        rate({"a": Adder()}, 1, parts=[part(0, "a", "nowhere", "y")])


@pytest.mark.parametrize(("in_flight", "samples"), [(0, 10), (1, 1)])
def test_too_few(in_flight: int, samples: int) -> None:
    with pytest.raises(InputError, match="in flight"):
        rate({"a": Adder(), "b": Adder()}, in_flight, samples)
