"""Which part goes first: due dates by hand, and no convoys in pipelines that return to a device."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Mapping

import numpy as np
import pytest

from csp_embed.run.device_parts import Part
from csp_embed.run.pace import NO_PACE, Alone, Pace, pace_of, run_alone
from csp_embed.run.runner import Array, Ran
from csp_embed.run.turn import Turn


def part(index: int, device: str, reads: tuple[str, ...], makes: str, replica: int = 0) -> Part:
    return Part(index, device, (f"t{index}",), (), reads, (makes,), 0.0, replica)


# Device a begins and ends a sample, b has the middle.
RETURN = [part(0, "a", ("x",), "u"), part(1, "b", ("u",), "v"), part(2, "a", ("v",), "y")]
INPUTS = [{"x": np.array([0])}, {"x": np.array([10])}]


class Sleeper:
    """Adds one; takes so many ms for each part."""

    def __init__(self, ms: Mapping[int, float], lanes: int = 1) -> None:
        self.ms, self.lanes, self.order = ms, lanes, list[int]()

    def run(self, part: Part, feeds: Mapping[str, Array], turn: Turn | None = None) -> Ran:
        self.order.append(part.index)
        time.sleep(self.ms[part.index] / 1e3)
        return Ran({part.makes[0]: sum(feeds.values()) + 1}, self.ms[part.index])  # type: ignore[dict-item]


def test_one_sample_alone_goes_as_its_tensors_allow() -> None:
    """Two branches of 5 and 20 ms, then a join: it starts after the longer one."""
    parts = [part(0, "a", ("x",), "u"), part(1, "b", ("x",), "v"), part(2, "a", ("u", "v"), "y")]
    device = Sleeper({0: 5.0, 1: 20.0, 2: 1.0})
    alone = run_alone(parts, {"a": device, "b": device}, INPUTS[1], ["y"])  # type: ignore[dict-item]
    assert alone.values["y"] == 23
    assert alone.work == {0: 5.0, 1: 20.0, 2: 1.0}
    # Sleeps may last longer, never shorter.
    assert all(alone.ms[i] >= alone.work[i] for i in range(3))
    by_hand = Alone(alone.values, {0: 5.0, 1: 20.0, 2: 1.0}, alone.work)
    assert pace_of(parts, [by_hand], []).latency == 21.0


def test_due_dates_by_hand() -> None:
    """a has 2 + 6 = 8 ms a sample, b 7; with ways a sample alone takes 6 + 12 + 6 = 24 ms. Among
    others each part waits for the longest of its device, 6, 7 and 6: it is through after 43 ms,
    and the parts start at 6, 19 and 37. Ten in flight have 80 ms each."""
    alone = Alone({}, {0: 6.0, 1: 12.0, 2: 6.0}, {0: 2.0, 1: 7.0, 2: 6.0})
    pace = pace_of(RETURN, [alone], [], 10)
    assert (pace.period, pace.latency, pace.through) == (8.0, 24.0, 43.0)
    assert pace.fills == 8  # 4/3 of 43 / 8
    assert pace.due == pytest.approx({0: 6 * 80 / 43, 1: 19 * 80 / 43, 2: 37 * 80 / 43})
    # 37 - 6 of 43 parts of 80 ms are 57.7 ms, seven periods: the end of sample 0 comes behind the
    # begin of sample 7.
    ranks = [(pace.rank(0, RETURN[2]), "end")] + [(pace.rank(n, RETURN[0]), n) for n in range(10)]
    assert [what for _, what in sorted(ranks)] == [*range(8), "end", 8, 9]
    # Too few in flight: nothing is due before it can be there.
    assert pace_of(RETURN, [alone], [], 2).due[2] == pytest.approx(37 * 24 / 43)


def test_shares_of_replicas_weigh_their_load() -> None:
    """Replica 0 takes 3 of 4 samples on a, 8 ms each; replica 1 one of 4 on b, 12 ms each."""
    parts = [part(0, "a", ("x",), "y", 0), part(1, "b", ("x",), "y", 1)]
    alone = [Alone({}, {0: 8.0}, {0: 8.0}), Alone({}, {1: 12.0}, {1: 12.0})]
    assert pace_of(parts, alone, [0.75, 0.25], 2).period == 6.0
    assert pace_of(parts, alone, [], 2).period == 6.0  # half of 12 on b


def period_of(pace: Pace, work: Mapping[int, float], way: float, in_flight: int) -> float:
    """ms a sample of RETURN over samples 20 to 219, event by event; times vary by 30 % either way.
    Each device takes the least rank of what waits, then the oldest sample; what it hands on is
    `way` ms under way."""
    waiting: dict[str, list[tuple[float, int, int]]] = {"a": [], "b": []}
    rng = random.Random(1)
    free, ends, entered = {"a": True, "b": True}, list[float](), in_flight
    # (time, what comes first at that time, sample, part): a part arrives, or has run.
    events = [(0.0, "arrives", n, 0) for n in range(in_flight)]
    while len(ends) < 220:
        now, what, sample, at = heapq.heappop(events)
        device = RETURN[at].device
        if what == "arrives":
            heapq.heappush(waiting[device], (pace.rank(sample, RETURN[at]), sample, at))
        else:
            free[device] = True
            if at == 2:
                ends.append(now)
                heapq.heappush(events, (now, "arrives", entered, 0))
                entered += 1
            else:
                heapq.heappush(events, (now + way, "arrives", sample, at + 1))
        # Whoever arrives at the same moment is seen first.
        if events and events[0][:2] == (now, "arrives"):
            continue
        for name, queue in waiting.items():
            if free[name] and queue:
                _, sample, at = heapq.heappop(queue)
                free[name] = False
                ms = work[at] * (1 + 0.3 * rng.uniform(-1, 1))
                heapq.heappush(events, (now + ms, "ran", sample, at))
    return (ends[219] - ends[19]) / 200


def test_a_device_that_is_returned_to_does_not_let_the_others_starve() -> None:
    """a begins and ends each sample, 2 + 18 ms; b has 20 ms between, each way takes 16. The oldest
    sample first, a works off its ends and begins the next ones together: b waits for them."""
    work = {0: 2.0, 1: 20.0, 2: 18.0}
    alone = Alone({}, {0: 18.0, 1: 36.0, 2: 18.0}, work)
    # The busiest device needs 20 ms a sample: what is lost is waiting.
    assert period_of(pace_of(RETURN, [alone], [], 6), work, 16.0, 6) < 20.8
    assert period_of(NO_PACE, work, 16.0, 6) > 23.0
