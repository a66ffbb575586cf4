"""Rules that the verifier needs on placements: convex sets, rings of devices, memory.

Imports nothing of the solvers. Every function takes device names by task id.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from csp_embed.ir.network import Platform, TaskGraph

# Room for sums of many times that a file states in nine digits.
ROUNDED = Fraction(1, 10**6)  # relative: two times that differ by no more are the same


def exact(x: float) -> Fraction:
    """A number as the decimal that files state it as."""
    # repr is the shortest text that gives the double back: 0.1 is meant as 1/10, not as what binary
    # has.
    return Fraction(repr(float(x)))


def same_time(a: Fraction, b: Fraction) -> bool:
    """Equal but for rounded decimals; 0 is equal to 0 only."""
    return abs(a - b) <= ROUNDED * max(abs(a), abs(b))


def sooner(a: Fraction, b: Fraction) -> bool:
    """Whether a is less than b by more than rounded decimals explain."""
    return a < b and not same_time(a, b)


def convexity(
    graph: TaskGraph, device: Mapping[str, str], only: frozenset[str] | None = None
) -> Iterator[str]:
    """One line for each device whose tasks a path leaves and enters again.

    Walks from every task's consumers elsewhere and looks for the device. only: tasks considered."""
    after: dict[str, set[str]] = defaultdict(set)
    # Edges outside of `only` are no paths: forward and backward parts of training are judged apart.
    for edge in graph.edges:
        if only is None or (edge.src in only and edge.dst in only):
            after[edge.src].add(edge.dst)
    for d in sorted(set(device.values())):
        inside = {t for t, x in device.items() if x == d and (only is None or t in only)}
        # Starts at what leaves the set; whatever is reached from there and lies inside is a return.
        stack = sorted({c for t in inside for c in after[t]} - inside)
        came: dict[str, str | None] = dict.fromkeys(stack)
        while stack:
            here = stack.pop()
            if here in inside:
                yield f"a path leaves {d} and comes back at task {here!r} (through {came[here]!r})"
                break
            for c in sorted(after[here]):
                if c not in came:
                    came[c] = here
                    stack.append(c)


def cycle_among(graph: TaskGraph, device: Mapping[str, str]) -> list[str] | None:
    """A ring of devices that feed each other, or None."""
    after: dict[str, set[str]] = defaultdict(set)
    for edge in graph.edges:
        a, b = device.get(edge.src), device.get(edge.dst)
        if a is not None and b is not None and a != b:
            after[a].add(b)
    # 1: on the path, 2: done. A device met again while on the path closes a ring.
    state: dict[str, int] = {}

    def walk(d: str, path: list[str]) -> list[str] | None:
        state[d] = 1
        for e in sorted(after[d]):
            if state.get(e) == 1:
                return [*path[path.index(e) :], e]
            if e not in state:
                ring = walk(e, [*path, e])
                if ring:
                    return ring
        state[d] = 2
        return None

    for d in sorted(after):
        if d not in state:
            ring = walk(d, [d])
            if ring:
                return ring
    return None


def live_peak(
    graph: TaskGraph,
    platform: Platform,
    device: Mapping[str, str],
    times: Mapping[str, tuple[Fraction, Fraction]],
    batch: int,
) -> Iterator[tuple[str, str]]:
    """(device, text) where weights plus live activations exceed memory at some time.

    An activation (times `batch` samples) lives from its task's start to its last consumer's end."""
    # A value lives until its last consumer ends, wherever that runs: sending it needs the buffer
    # too.
    tasks, until = graph.by_id(), {t: f for t, (_, f) in times.items()}
    for edge in graph.edges:
        if edge.src in times and edge.dst in times:
            until[edge.src] = max(until[edge.src], times[edge.dst][1])
    for d in platform.devices:
        mine = [t for t in times if device.get(t) == d.name]
        if d.memory_bytes is None:
            continue
        weights = sum((exact(tasks[t].weight_bytes) for t in mine), Fraction(0))
        # What ends at a time is gone before what begins then; zero-length lives hold nothing.
        moves: list[tuple[Fraction, int, Fraction]] = []
        for t in mine:
            size = exact(tasks[t].activation_bytes) * batch
            if size and until[t] > times[t][0]:
                moves += [(times[t][0], 1, size), (until[t], 0, -size)]
        level = weights
        # Tuples sort frees (0) before claims (1) at one time, as the comment above wants it.
        for now, _, change in sorted(moves):
            level += change
            if level > exact(d.memory_bytes):
                text = f"{float(level):.12g} bytes at {float(now):.9g} ms"
                yield d.name, f"{text}, has {d.memory_bytes:.12g}"
                break


def throughput_memory(
    graph: TaskGraph, platform: Platform, copies: Sequence[Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """(device, text) where weights plus activations of all inputs in flight exceed memory.

    copies: device by task of every placement that samples take. A layer's weights are held once
    however many of them put it there; the activations of all add up.

    Steady state as a software pipeline: stage(t) = the largest, over the values that t reads, of
    stage(producer) + 1 if the device changes, + 0 if not. In one period a device runs its tasks
    once, in topological order. A value whose last consumer is k stages later is held for k further
    inputs; with k = 0 it lives until that consumer's turn."""
    tasks, order = graph.by_id(), graph.order()
    if len(copies) == 1 and not any(t.activation_bytes for t in graph.tasks):
        return  # weights alone are counted where the placement is read
    before: dict[str, list[str]] = defaultdict(list)
    after: dict[str, list[str]] = defaultdict(list)
    for edge in graph.edges:
        before[edge.dst].append(edge.src)
        after[edge.src].append(edge.dst)
    for d in platform.devices:
        if d.memory_bytes is None:
            continue
        kept = {t for copy in copies for t in order if copy.get(t) == d.name}
        need = sum((exact(tasks[t].weight_bytes) for t in kept), Fraction(0))
        for copy in copies:
            stage: dict[str, int] = {}
            for t in order:
                # Changing devices costs one pipeline stage: the consumer works on an earlier
                # sample.
                steps = [stage[s] + (copy.get(s) != copy.get(t)) for s in before[t]]
                stage[t] = max(steps, default=0)
            mine = [t for t in order if copy.get(t) == d.name]
            turn = {t: i for i, t in enumerate(mine)}
            change = [Fraction(0)] * (len(mine) + 1)
            for t in mine:
                size = exact(tasks[t].activation_bytes)
                later = max((stage[c] for c in after[t]), default=stage[t]) - stage[t]
                # `later` further samples of this value wait in memory while the newest is made.
                need += later * size
                end = len(mine) if later else max((turn[c] for c in after[t]), default=turn[t]) + 1
                change[turn[t]] += size
                change[end] -= size
            need += max(itertools.accumulate(change), default=Fraction(0))
        if need > exact(d.memory_bytes):
            text = f"{float(need):.12g} bytes with all inputs in flight"
            yield d.name, f"{text}, has {d.memory_bytes:.12g}"
