"""Which groups of tiles stay on the chip, and when the others are loaded.

Takes: the groups that each step uses, how many slots there are.  Leaves: a `Residence`. All
commands are written out, so the whole future is known: the group whose next use is furthest leaves
the scratchpad (Belady's rule), whatever the loops look like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit

Ints = NDArray[np.int64]
# Beyond every step: a group that is never used again.
FAR = 1 << 60
Loads = Mapping[int, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True)
class Pool:
    """A memory's slots, and the groups that lie there. keys: [steps, roles], the groups of all
    roles numbered on end; first: where the numbers of each role begin."""

    roles: tuple[str, ...]
    first: tuple[int, ...]
    keys: Ints
    slots: int

    @property
    def most(self) -> int:
        """One more than the greatest key."""
        return int(self.keys.max(initial=0)) + 1

    def distinct(self) -> int:
        """Groups that are used at all: each is loaded once at least."""
        return int((np.bincount(self.keys.reshape(-1)) > 0).sum())


@dataclass(frozen=True)
class Residence:
    """fresh, chosen: for each pool and [steps, roles] of it, whether the group is loaded in front
    of the step, and its slot. count: loads."""

    pools: tuple[Pool, ...]
    fresh: tuple[NDArray[np.bool_], ...]
    chosen: tuple[Ints, ...]
    count: int

    def slots(self, role: str) -> Ints:
        """The slot of the role's group in every step."""
        n = next(n for n, p in enumerate(self.pools) if role in p.roles)
        return self.chosen[n][:, self.pools[n].roles.index(role)]

    def loads(self) -> Loads:
        """Step -> groups (role, number, slot) loaded in front of it."""
        out: dict[int, tuple[tuple[str, int, int], ...]] = {}
        for pool, fresh, chosen in zip(self.pools, self.fresh, self.chosen, strict=True):
            steps, roles = np.nonzero(fresh)
            keys, places = pool.keys[fresh].tolist(), chosen[fresh].tolist()
            for n, k, key, slot in zip(steps.tolist(), roles.tolist(), keys, places, strict=True):
                out[n] = (*out.get(n, ()), (pool.roles[k], key - pool.first[k], slot))
        return out


def pools_of(
    groups: Mapping[str, Ints], pools: Mapping[str, str], slots: Mapping[str, int]
) -> tuple[Pool, ...]:
    """groups: role -> group of every step; pools: role -> its pool; slots: pool -> how many."""
    found: list[Pool] = []
    # Memories in a fixed order; both factors may lie in one.
    for pool in dict.fromkeys(pools.values()):
        roles = tuple(r for r in groups if pools[r] == pool)
        counts = [int(groups[r].max(initial=0)) + 1 for r in roles]
        # Numbers of all roles in one sequence, so that a pool sees one kind of key.
        first = tuple(sum(counts[:k]) for k in range(len(roles)))
        keys = np.stack([groups[r] + a for r, a in zip(roles, first, strict=True)], axis=1)
        found.append(Pool(roles, first, keys, slots[pool]))
    return tuple(found)


def reside(pools: tuple[Pool, ...], limit: int | None = None) -> Residence | None:
    """The fewest loads of this order. None: more than `limit` are needed."""
    left = FAR if limit is None else limit
    total = 0
    fresh: list[NDArray[np.bool_]] = []
    chosen: list[Ints] = []
    for p in pools:
        # What is left of the limit: the search stops where it cannot win.
        count, new, slot = _belady(p.keys, p.most, p.slots, left - total)
        total += count
        if total > left:
            return None
        fresh.append(new)
        chosen.append(slot)
    return Residence(pools, tuple(fresh), tuple(chosen), total)


@njit(cache=True, nogil=True)
def _belady(keys: Ints, most: int, slots: int, limit: int) -> tuple[int, NDArray[np.bool_], Ints]:
    """(loads, which uses load, slot of each use); stops once the loads exceed the limit."""
    steps, width = keys.shape
    # From the back: the next use of each group is known before the walk.
    following = np.full(keys.shape, FAR, np.int64)
    ahead = np.full(most, FAR, np.int64)
    for n in range(steps - 1, -1, -1):
        for k in range(width - 1, -1, -1):
            following[n, k] = ahead[keys[n, k]]
            ahead[keys[n, k]] = n * width + k
    fresh = np.zeros(keys.shape, np.bool_)
    chosen = np.zeros(keys.shape, np.int64)
    where = np.full(most, -1, np.int64)
    holds = np.full(slots, -1, np.int64)
    due = np.zeros(slots, np.int64)
    used = total = 0
    for n in range(steps):
        for k in range(width):
            key = keys[n, k]
            slot = where[key]
            if slot < 0:
                total += 1
                if total > limit:
                    return total, fresh, chosen
                # Free slots first.
                if used < slots:
                    slot = used
                    used += 1
                else:
                    # The furthest next use leaves; of equal ones, which have none, the first key.
                    for s in range(slots):
                        here = False
                        # A group of this very step stays: its next use is not behind the step.
                        for other in range(width):
                            here = here or keys[n, other] == holds[s]
                        if not here and (
                            slot < 0
                            or due[s] > due[slot]
                            or (due[s] == due[slot] and holds[s] < holds[slot])
                        ):
                            slot = s
                    where[holds[slot]] = -1
                holds[slot] = key
                where[key] = slot
                fresh[n, k] = True
            due[slot] = following[n, k]
            chosen[n, k] = slot
    return total, fresh, chosen
