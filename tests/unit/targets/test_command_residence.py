"""Which groups stay on the chip: against the fewest loads that a search over all choices finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from csp_embed.machine.commands.code import code_of
from csp_embed.machine.commands.code_lines import Names
from csp_embed.targets.commands.residence import pools_of, reside


def fewest(uses: list[tuple[int, ...]], slots: int) -> int:
    """Loads of the best choice: every set of groups that may lie there is followed."""
    states = {frozenset[int](): 0}
    for used in uses:
        found: dict[frozenset[int], int] = {}
        for held, loads in states.items():
            wanted = held | set(used)
            needed = loads + len(set(used) - held)
            drop = max(0, len(wanted) - slots)
            for gone in itertools.combinations(sorted(wanted - set(used)), drop):
                left = wanted - set(gone)
                found[left] = min(found.get(left, needed), needed)
        states = found
    return min(states.values())


@pytest.mark.parametrize("seed", range(12))
def test_loads_are_the_fewest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = {r: rng.integers(0, 5, 40) for r in ("lhs", "rhs")}
    slots = 2 + seed % 4
    pools = pools_of(groups, {"lhs": "SP", "rhs": "SP"}, {"SP": slots})
    found = reside(pools)
    assert found is not None
    uses = [(int(a), 5 + int(b)) for a, b in zip(groups["lhs"], groups["rhs"], strict=True)]
    assert found.count == fewest(uses, slots)
    assert reside(pools, found.count) is not None
    assert reside(pools, found.count - 1) is None


def test_what_a_step_uses_lies_in_its_slot() -> None:
    rng = np.random.default_rng(1)
    groups = {r: rng.integers(0, 9, 200) for r in ("lhs", "rhs")}
    found = reside(pools_of(groups, {"lhs": "A", "rhs": "B"}, {"A": 3, "B": 4}))
    assert found is not None
    held: dict[tuple[str, int], int] = {}
    loads = found.loads()
    for n in range(200):
        for role, group, slot in loads.get(n, ()):
            held[role, slot] = group
        for role in groups:
            assert held[role, int(found.slots(role)[n])] == groups[role][n]
    assert max(slot for _, slot in held) == 3
    assert sum(map(len, loads.values())) == found.count


def test_a_loop_that_only_counts_is_run_point_by_point() -> None:
    """`A[0][0] += 2`, r times: all points at once would add it once."""

    class Sum:
        total = 0

        def add_row(self, name: str, row: int, lane: int, value: int) -> None:
            self.total += value

    code = code_of("for n in range(r):\n  A[0][0] += 2", Names(["A"], [], [], ["r"]))
    there = Sum()
    code.run(there, {"r": 5}, whole=True)
    assert there.total == 10
