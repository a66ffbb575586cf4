"""What messages take of busy workers: found back from workers whose cost is known."""

from __future__ import annotations

from typing import Any

import pytest

from csp_embed.run.hosts import handling
from csp_embed.run.hosts.wire import Message


class Slow:
    """A worker on a clock of its own. ms a message and bytes a ms that each message takes of it."""

    def __init__(self, ms: float, rate: float) -> None:
        self.ms, self.rate, self.now = ms, rate, 0.0
        self.doing: list[tuple[float, int]] = []

    def ask(self, doing: str, message: Message) -> int:
        size = sum(x.nbytes for x in message.tensors.values())
        self.doing.append((0.004 * message.fields["work"], size))
        return len(self.doing) - 1

    def finish(self, call: int) -> Any:
        work, size = self.doing[call]
        # One message each way.
        self.now += (work + 2 * self.ms + 2 * size / self.rate) / 1e3
        return Message("echo", {"ms": work})


@pytest.mark.parametrize(("ms", "rate"), [(0.0, 1e5), (0.2, 1e6), (1.5, 2e4)])
def test_what_a_message_takes_is_found(monkeypatch: Any, ms: float, rate: float) -> None:
    worker = Slow(ms, rate)
    monkeypatch.setattr(handling.time, "perf_counter", lambda: worker.now)
    found = handling.measure_handling({"d": worker}, {"d": 5e4})["d"]  # type: ignore[dict-item]
    assert found.ms == pytest.approx(ms, abs=1e-9)
    assert found.bytes_per_ms == pytest.approx(rate)
