"""Quick enumeration of embeddings without skew or diagonal, until the CP-SAT model takes over."""

from __future__ import annotations

import math
from collections.abc import Iterator

from csp_embed.embed.build import build
from csp_embed.embed.choice import Carry, Choice
from csp_embed.embed.machine import accesses, unit_for
from csp_embed.embed.rows import Reject
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.isa.spec import Isa


def partitions(items: tuple[str, ...]) -> Iterator[list[tuple[str, ...]]]:
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for p in partitions(rest):
        yield [(first,), *p]
        for n, g in enumerate(p):
            yield [*p[:n], (first, *g), *p[n + 1 :]]


def factorings(extents: list[int], lanes: int) -> Iterator[tuple[int, ...]]:
    """Factors per coordinate with product <= lanes; only the least factor for a number of steps."""
    if not extents:
        yield ()
        return
    seen = set()
    for f in range(1, min(lanes, extents[0]) + 1):
        steps = -(-extents[0] // f)
        if steps in seen:
            continue
        seen.add(steps)
        for rest in factorings(extents[1:], lanes // f):
            yield (f, *rest)


def enumerate_choices(op: Operator, isa: Isa) -> Iterator[tuple[float, Choice]]:
    unit = unit_for(op, isa)
    for commuted in (False, True) if op.rhs is not None else (False,):
        roles = accesses(op, commuted)
        moves = {
            a: {r for r, acc in roles.items() if any(ix.coef(a) for ix in acc.index)}
            for a in op.axes
        }
        home: dict[str, list[str]] = {d: [] for d in unit.size}
        for a in op.axes:
            for d in unit.size:
                reduced = d in unit.reduced
                if (
                    op.axes[a] > 1
                    and (a in op.reduced_axes) == reduced
                    and not moves[a] & set(unit.lacking(d))
                ):
                    home[d].append(a)
        used: set[str] = set()
        per_dim = []
        for d in unit.size:
            axes = tuple(a for a in home[d] if a not in used)
            used |= set(axes)
            options = []
            for groups in partitions(axes) if d in unit.reduced else [[(a,) for a in axes]]:
                extents = [math.prod(op.axes[a] for a in g) for g in groups]
                for fs in factorings(extents, unit.size[d]):
                    if any(f == 1 and len(g) > 1 for f, g in zip(fs, groups, strict=True)):
                        continue
                    steps = math.prod(-(-e // f) for e, f in zip(extents, fs, strict=True))
                    carries = [
                        Carry(g, ((d, f),) if f > 1 else ())
                        for g, f in zip(groups, fs, strict=True)
                    ]
                    options.append((steps, len(carries), carries))
            options.sort(key=lambda o: (o[0], -o[1]))
            per_dim.append(options[:40])
        rest = [Carry((a,)) for a in op.axes if a not in used]
        base = math.prod(op.axes[c.axes[0]] for c in rest)

        def walk(n: int, steps: int, carries: list[Carry]) -> Iterator[tuple[float, Choice]]:
            if n == len(per_dim):
                order = {a: k for k, a in enumerate(op.axes)}
                full = sorted([*carries, *rest], key=lambda c: order[c.axes[0]])
                yield steps, Choice(commuted, tuple(full))
                return
            for s, _, c in per_dim[n]:
                yield from walk(n + 1, steps * s, carries + c)

        yield from walk(0, base, [])


def embed(op: Operator, isa: Isa, *, layout: str = "relaxed", top: int = 1) -> list[Embedding]:
    found = sorted(enumerate_choices(op, isa), key=lambda x: x[0])
    out, kinds = [], {}
    for _, choice in found[:400]:
        try:
            e = build(op, isa, choice, layout)
        except Reject:
            continue
        key = (e.kind, e.commuted)
        kinds[key] = kinds.get(key, 0) + 1
        if kinds[key] <= 20:
            out.append(e)
    out.sort(key=lambda e: e.cost["objective"])
    picked, seen = [], {}
    for e in out:
        key = (e.kind, e.commuted)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= max(1, top // 2):
            picked.append(e)
    return picked[:top]
