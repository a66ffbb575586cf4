"""How often an embedding of one DeepBench layer, reused for another of the same operator, is proved
good: bench_reuse.py [conv|gemm|all] [every]

Layers are taken in order; a layer's donors are the optimal embeddings of earlier layers with the
same formula up to padding constants. Two proofs: the bound that takes no search, and the exact
optimum of the lifted model (here from the layer's own solution). One line a layer, then shares.
"""

from __future__ import annotations

import argparse
import re
import time

from csp_embed.embed.certificate.reuse import bound, reuse
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.search import embeddings
from csp_embed.machine.load import load_isa
from csp_embed.ops.deepbench import layer, layers

GAPS = (0.0, 0.01, 0.02, 0.05)
_ROUNDING = 1e-9


def key(formula: str) -> str:
    """The formula without the constants that padding puts into its indices."""
    return re.sub(r"[+-]\d+(?=[\],])", "", formula)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("selection", nargs="?", choices=("conv", "gemm", "all"), default="all")
    parser.add_argument("every", nargs="?", type=int, default=1, help="every so manieth layer")
    args = parser.parse_args()
    isa = load_isa("vta")
    donors: dict[str, list] = {}
    first, asked, spent, tried = 0, 0, 0.0, 0
    layer_hits = {kind: dict.fromkeys(GAPS, 0) for kind in ("bound", "exact")}
    pair_hits = {kind: dict.fromkeys(GAPS, 0) for kind in ("bound", "exact")}
    for record in layers(args.selection)[:: args.every]:
        op = layer(record["id"])
        problem = EmbedProblem.of(op, isa)
        optimum = embeddings(problem)[0]
        best = optimum.cost["objective"]
        earlier = donors.setdefault(key(op.formula()), [])
        start = time.process_time()
        low = bound(problem)
        found = [reuse(e, problem, sweep_too=False) for e in earlier]
        spent += time.process_time() - start
        tried += len(found)
        costs = [r.cost for r in found if r is not None]
        for kind, floor in (("bound", low), ("exact", best)):
            for gap in GAPS:
                good = [c <= floor * (1 + gap) * (1 + _ROUNDING) for c in costs]
                pair_hits[kind][gap] += sum(good)
                layer_hits[kind][gap] += any(good)
        if earlier:
            asked += 1
            least = min(costs, default=float("inf"))
            print(
                f"{record['id']} {len(earlier):3d} donors, best {least / best - 1:8.4f} above the "
                f"optimum, {least / low - 1:8.4f} above the bound",
                flush=True,
            )
        else:
            first += 1
        if all(e.formula() != optimum.formula() for e in earlier):
            earlier.append(optimum)
    print(f"{asked} layers had donors, {first} are the first of their formula; {tried} pairs")
    if tried:
        print(f"{1000 * spent / tried:.2f} ms of CPU a pair, bound and check included")
    for kind in ("bound", "exact"):
        for gap in GAPS:
            print(
                f"proved by {kind:5s} within {100 * gap:3.0f} %: "
                f"{layer_hits[kind][gap]}/{asked} layers by some donor, "
                f"{pair_hits[kind][gap]}/{tried} pairs"
            )


if __name__ == "__main__":
    main()
