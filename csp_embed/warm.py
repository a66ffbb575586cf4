"""`python -m csp_embed.warm`: compiles the simulators and planners once, so that no command waits.

Numba keeps what it compiled beside the sources (or, where those are read-only, in the user's cache
folder), by argument types. So every function is called here once on something tiny.
"""

from __future__ import annotations


def warm() -> None:
    """Takes about half a minute of one core where nothing is compiled, else two seconds."""
    for part in (_compiler, _planner):
        part()


def _compiler() -> None:
    """The cycle engine, the functional simulator and the stream checks."""
    import csp_embed as ce
    from csp_embed.judge import judge
    from csp_embed.ops.data import random_tensors
    from csp_embed.sim.cycles import simulate_cycles

    op = ce.matmul(m=32, n=2, k=32, shift=8, clip=(0, 127), bias=True)
    kernel = ce.compile(op)
    judge(kernel, random_tensors(op, 0))
    simulate_cycles(kernel.isa, kernel.lowered.stream, trace=True)


def _planner() -> None:
    """List schedules, annealing, splitting and windows, for both objectives."""
    from csp_embed.ir.network import LATENCY, THROUGHPUT
    from csp_embed.network.generate import layered
    from csp_embed.partition.solve import solve

    graph, platform = layered(24, 1.0, 0)
    for objective in (LATENCY, THROUGHPUT):
        for method in ("heft", "anneal", "split"):
            solve(graph, platform, objective=objective, method=method, effort=0.02)


if __name__ == "__main__":
    warm()
