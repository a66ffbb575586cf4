"""What the lifted model claims, expanded to solutions of the ground problem.

Takes: Ground, Isa.  Leaves: sets of solution keys.

`complete_solutions`: every affine map that the lifted algebra accepts (tests/oracles/complete.py);
these are the regular coverings but the *accidental* ones. `lifted_solutions`: those that the search
weighs, dominated options included: every combination of its blocks' options and its fusions that
fits into the lanes and that `build` does not reject. embed/space/options.py says what it leaves
out.
"""

from __future__ import annotations

import itertools

import numpy as np

from csp_embed.embed.ground.expand import expanded, lifted_embeddings, named_steps
from csp_embed.embed.ground.numerations import STEP, frames
from csp_embed.embed.ground.points import Key, key
from csp_embed.ir.ground import Ground
from csp_embed.judge.embedding.covering import covering_of, judge
from csp_embed.machine.spec import Isa
from tests.oracles.affine import Affine, Clash, Maps
from tests.oracles.complete import complete_embeddings


def lifted_solutions(ground: Ground, isa: Isa, mode: str = "relaxed") -> frozenset[Key]:
    """Those whose counters name at most the ground problem's steps, empty steps counted: a frame
    counts them too."""
    return frozenset(
        key(ground, expanded(ground, e))
        for e in lifted_embeddings(ground, isa, mode)
        if named_steps(e) <= ground.steps
    )


def complete_solutions(ground: Ground, isa: Isa, mode: str = "relaxed") -> frozenset[Key]:
    """Those of the complete lifted space."""
    return frozenset(key(ground, found.at) for found, _ in complete_embeddings(ground, isa, mode))


def regular_maps(ground: Ground) -> dict[Key, list[Affine]]:
    """Every regular covering with all affine maps that say it: rules 2, 3, 6 and 9 between pairs of
    points as the maps grow, the rest by the checker. For relaxed and strict, not for tiles."""
    out: dict[Key, list[Affine]] = {}
    right: dict[Key, bool] = {}
    for frame in frames(ground):
        for found in Maps(ground, frame, lambda f, n, v: True, _clash(ground)):
            name = key(ground, found.at)
            if name not in right:
                right[name] = not judge(ground, covering_of(ground, found.at))
            if right[name]:
                out.setdefault(name, []).append(found)
    return out


def _clash(ground: Ground) -> Clash:
    tables: dict[tuple[bool, ...], np.ndarray] = {}
    count = len(ground.points)

    def clash(a: tuple[int, ...], b: tuple[int, ...]) -> np.ndarray:
        shared = [ground.lane_of(r, a[1:]) == ground.lane_of(r, b[1:]) for r in ground.dims]
        name = (a[0] == b[0], *shared)
        if name not in tables:
            table = np.zeros((count + 1, count + 1), bool)
            for role, one_lane in zip(ground.dims, shared, strict=True):
                same = ground.elements[role][:, None] == ground.elements[role][None]
                if one_lane and a[0] == b[0]:
                    table[:-1, :-1] |= ~same
                if not one_lane and (role == "dst" or role in ground.strict):
                    table[:-1, :-1] |= same
            tables[name] = table
        return tables[name]

    return clash


def accidental(ground: Ground, found: Affine) -> bool:
    """Whether an affine map is right only because of where its pad falls: taken as a map of the
    whole box, some lane would have to read two indices in one step, or an output would be named by
    two lanes. No affine layout says what such lanes hold (`ir.embedding.Layout`)."""
    frame, axes = found.frame, ground.op.axes
    box = list(itertools.product(*(range(d.extent) for d in frame.digits)))
    box = [v for v in box if all(v[a] == v[b] for a, b in frame.equal)]
    reads: dict[tuple[object, ...], tuple[object, ...]] = {}
    homes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for values in box:
        where = dict.fromkeys([STEP, *ground.sizes], 0)
        for digit, v in zip(frame.digits, values, strict=True):
            where[digit.dim] += digit.radix * v
        at = {
            names: const + sum(column[k] * values[n] for n, column in found.columns.items())
            for k, (names, const) in enumerate(zip(frame.coordinates, found.const, strict=True))
        }
        for role, access in ground.accesses.items():
            lanes = tuple(where[d] for d in ground.dims[role])
            fused = tuple(
                v for n, v in at.items()
                if len(n) > 1 and any(ix.coef(a) for ix in access.index for a in n)
            )  # fmt: skip
            plain = tuple(
                sum(ix.coef(n[0]) * v for n, v in at.items() if len(n) == 1) for ix in access.index
            )
            if reads.setdefault((role, where[STEP], lanes), (plain, fused)) != (plain, fused):
                return True
            output = tuple(v for n, v in at.items() if n[0] in ground.op.out_axes)
            inside = all(0 <= at[(a,)] < axes[a] for a in ground.op.out_axes)
            if role == "dst" and inside and homes.setdefault(output, lanes) != lanes:
                return True
    return False
