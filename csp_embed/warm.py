"""`python -m csp_embed.warm`: compiles the simulators and planners once, so that no command waits.

Numba keeps what it compiled beside the sources (or, where those are read-only, in the user's cache
folder), by argument types. So every function is called here once on something tiny; the two halves
share no compiled function and run side by side.
"""

from __future__ import annotations

from multiprocessing import get_context


def main() -> None:
    """A minute of one core where nothing is compiled, else two seconds."""
    other = get_context("spawn").Process(target=planner)
    other.start()
    compiler()
    serving()
    other.join()
    if other.exitcode:
        raise SystemExit(other.exitcode)


def compiler() -> None:
    """The cycle engine, the functional simulator and the stream checks."""
    import csp_embed as ce
    from csp_embed.compiler.program.verify import judge
    from csp_embed.ops.data import random_tensors
    from csp_embed.sim.cycles.engine import simulate_cycles

    op = ce.matmul(m=32, n=2, k=32, shift=8, clip=(0, 127), bias=True)
    kernel = ce.compile(op)
    assert isinstance(kernel, ce.Kernel)
    judge(kernel, random_tensors(op, 0))
    simulate_cycles(kernel.isa, kernel.lowered.stream, trace=True)


def planner() -> None:
    """List schedules, annealing, splitting and windows, for both objectives; pipelines."""
    from csp_embed.ir.network import LATENCY, THROUGHPUT
    from csp_embed.network.made.generate import layered
    from csp_embed.partition.solve import solve

    graph, platform = layered(24, 1.0, 0)
    for objective in (LATENCY, THROUGHPUT):
        for method in ("heft", "anneal", "split"):
            solve(graph, platform, objective=objective, method=method, effort=0.02)
        solve(
            graph, platform, objective=objective, method="anneal", effort=0.02,
            cost_model="dnn-partitioning",
        )  # fmt: skip


def serving() -> None:
    """Covers, assignments and polishing of a large model's placement."""
    from csp_embed.serving.files.read import instance_from
    from csp_embed.serving.plan import plan

    names = [f"m{i}" for i in range(9)]
    rates = {f"t{i}": [100.0 * (i + 3) / (k + 0.01 * i * k * k) for k in range(1, 5)]
             for i in range(3)}  # fmt: skip
    document: dict[str, object] = {
        "format": "layer-placement-1",
        "name": "warm",
        "model": {"name": "m", "layers": 9},
        "partial_inference": True,
        "node_types": {
            t: {"max_layers": 4, "tokens_per_s_by_layers": r} for t, r in rates.items()
        },
        "nodes": [{"id": n, "type": f"t{i % 3}"} for i, n in enumerate(names)],
        # Unlike links, some missing: equal ones would be planned without any search.
        "links": [
            {"from": a, "to": b, "tokens_per_s": 90.0 + 7 * ((i * 5 + j) % 9)}
            for i, a in enumerate(names) for j, b in enumerate(names)
            if i != j and (i + 2 * j) % 3
        ],
        "coordinator": {
            "to_nodes": [{"to": n, "tokens_per_s": 1e6} for n in names],
            "from_nodes": [{"from": n, "tokens_per_s": 1e6} for n in names],
        },
    }  # fmt: skip
    plan(instance_from(document), time_limit=2.0)


if __name__ == "__main__":
    main()
