"""What of a cluster's network the relaxation knows: devices in common, machines without links among
them, whether one machine after another can carry everything.

Takes: an Instance.  Leaves: facts that hold of every plan.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csp_embed.serving.instance import Instance


def device_pools(
    instance: Instance, tables: Sequence[tuple[float, ...]]
) -> tuple[tuple[tuple[str, ...], ...], list[tuple[int, ...]]]:
    """(pools of devices that serve machines of the same tables, how many of each pool every machine
    takes); ((), …) where no machines share devices."""
    if instance.devices is None:
        return (), [()] * instance.size
    users: dict[str, list[tuple[float, ...]]] = {}
    for devices, table in zip(instance.devices, tables, strict=True):
        for name in devices:
            users.setdefault(name, []).append(table)
    # Devices used by machines of the same tables are worth the same.
    pools: dict[tuple[tuple[float, ...], ...], list[str]] = {}
    for name, used_by in users.items():
        # Sorted: the order of machines in the file is of no meaning.
        pools.setdefault(tuple(sorted(used_by)), []).append(name)
    at = {name: q for q, names in enumerate(pools.values()) for name in names}
    takes = []
    for devices in instance.devices:
        row = [0] * len(pools)
        for name in devices:
            row[at[name]] += 1
        takes.append(tuple(row))
    return tuple(tuple(names) for names in pools.values()), takes


def unlinked_machines(instance: Instance) -> tuple[int, ...]:
    """A large set of machines without any link among them; () where that is no news."""
    # A link in one direction is enough to hand over.
    joined = (instance.link > 0) | (instance.link.T > 0)
    degree = joined.sum(axis=1)
    left = np.ones(instance.size, bool)
    chosen: list[int] = []
    # Greedy by few neighbours: the largest such set is hard to find, and any is valid.
    for i in np.argsort(degree, kind="stable"):
        if left[i]:
            chosen.append(int(i))
            left &= ~joined[i]
            left[i] = False
    # One machine alone never follows another unlinked one anyway.
    return tuple(sorted(chosen)) if len(chosen) > 1 else ()


def alternation_slack(instance: Instance, unlinked: Sequence[int]) -> int:
    """By how much visits to unlinked machines can exceed the others in one pipeline."""
    inside = list(unlinked)
    starts = bool((instance.start[inside] > 0).any()) if inside else False
    ends = bool((instance.end[inside] > 0).any()) if inside else False
    # Between two unlinked visits stands another; ends add one where the coordinator reaches them.
    return int(starts) + int(ends) - 1


def must_widen(
    instance: Instance,
    tables: Sequence[tuple[float, ...]],
    members: Sequence[Sequence[int]],
    above: float,
) -> bool:
    """Whether no machines joined by links above `above` can hold all layers one after another."""
    longest = np.zeros(instance.size, np.int64)
    for table, group in zip(tables, members, strict=True):
        # Alone in its layers a machine must carry the whole rate.
        fits = [k + 1 for k, rate in enumerate(table) if rate > above]
        longest[list(group)] = max(fits, default=0)
    joined = (instance.link > above) | (above < instance.link.T)
    left = longest > 0
    while left.any():
        # Grows one component: a single file cannot leave it.
        part = np.zeros(instance.size, bool)
        front = np.flatnonzero(left)[:1]
        while len(front):
            part[front] = True
            front = np.flatnonzero(joined[front].any(axis=0) & left & ~part)
        # This component could hold all layers in a file, as far as lengths go.
        if longest[part].sum() >= instance.layers:
            return False
        left &= ~part
    return True
