"""What tasks and transfers take, in exact ms, and on which queue a transfer waits for its turn.

Takes: a platform.  Leaves: times by the rules of docs/partition-model.md; no faults, which are for
`plan.py` to say.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

from csp_embed.ir.network import Device, Link, Platform, Task, Transfer
from csp_embed.judge.plan.rules import exact


def cost_of(task: Task, device: Device, batch: int) -> Fraction | None:
    """ms of a task for `batch` samples; None where the device cannot run it."""
    cost, linear = task.batch_cost_on(device, batch) if batch > 1 else (None, True)
    if cost is None or linear:  # by the sample: exactly so many times one
        cost = task.cost_on(device)
        return None if cost is None else exact(cost) * batch
    return exact(cost)


class Links:
    """The links of a platform."""

    def __init__(self, platform: Platform) -> None:
        self.named: dict[str, list[Link]] = defaultdict(list)
        for link in platform.links:
            self.named[link.name].append(link)
        self.rates = {k: exact(platform.rate(k)) for k in platform.links}

    def need(self, link: Link, size: float, batch: int = 1) -> Fraction:
        """ms of a value over a link."""
        return exact(link.latency_ms) + exact(size) * batch / self.rates[link]

    @staticmethod
    def handling(link: Link, end: str, size: float) -> Fraction:
        """ms that a value over a link takes of the device at one end."""
        if link.handling is None or end not in link.between:
            return Fraction(0)
        own = link.handling[link.between.index(end)]
        by_size = exact(size) / exact(own.bytes_per_ms) if own.bytes_per_ms else Fraction(0)
        return exact(own.ms) + by_size

    def link_of(self, hop: Transfer) -> Link | None:
        """The link that a hop names, if it joins the hop's devices (the quickest of that name)."""
        ends = {hop.from_device, hop.to_device}
        found = [k for k in self.named.get(hop.link, ()) if set(k.between) == ends]
        size = exact(hop.bytes)
        return min(found, key=lambda k: exact(k.latency_ms) + size / self.rates[k], default=None)

    @staticmethod
    def queue_of(link: Link, hop: Transfer) -> str | None:
        """The queue of a link in the hop's direction; None where it is uncontended."""
        if link.shared is not None:
            return link.shared
        if link.duplex == "half":
            return link.name
        if link.duplex == "full":
            return f"{link.name}:{hop.from_device}>{hop.to_device}"
        return None
