"""A discrete-event simulation of a plan under a trace of requests.

Takes: an instance, a placement, requests (arrival, prompt tokens, output tokens).  Leaves: served
tokens/s, times to first token and per token, queueing, and how busy every machine and link is.

A request keeps to one route, since its cache lives on that route's machines. Routes are those of
the plan, or the paths of its maximum flow, and get requests in proportion to their rates. The
prompt goes through in one pass; then its cache moves, where decode has machines of its own; after
that each token waits for the one before. Every machine and every link serves its passes first come,
first served, at its rate; links add their latency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.jit import njit
from csp_embed.serving.flow import SINK, SOURCE, Flow, max_flow
from csp_embed.serving.instance import Floats, Instance, Ints, Placement, delays

Way = tuple[Sequence[int], Sequence[int], float]  # machines of prefill, of decode, requests/s


@dataclass(frozen=True)
class Trace:
    """arrival [s], prompt and output [tokens], by request, in order of arrival."""

    arrival: Floats
    prompt: Ints
    output: Ints


@dataclass(frozen=True)
class Simulated:
    """tokens_per_s: passed in the middle part of the run (prompt and generated alike), while the
    pipelines were full. served, first, each: requests that ended, seconds to their first token and
    seconds per further token. waited: seconds before a request was begun. busy: share of that time
    by resource name. binding: the busiest."""

    tokens_per_s: float
    predicted: float
    served: int
    seconds: float
    first: Floats
    each: Floats
    waited: Floats
    busy: Mapping[str, float]

    @property
    def binding(self) -> str:
        """The busiest machine or link."""
        return max(self.busy, key=lambda name: self.busy[name], default="")


def generated_trace(
    requests: int, rate: float | None, seed: int = 0, prompt: int = 750, output: int = 240
) -> Trace:
    """Poisson arrivals of `rate` requests/s (None: all at once, to find the capacity), lengths
    geometric around the given means, which are those that the published placements plan with."""
    # A generator of its own: the same seed gives the same trace.
    draw = np.random.default_rng(seed)
    arrival = np.zeros(requests)
    if rate is not None:
        arrival = np.cumsum(draw.exponential(1 / rate, requests))
    return Trace(
        arrival, draw.geometric(1 / prompt, requests), draw.geometric(1 / output, requests)
    )


def simulate(
    instance: Instance,
    placement: Placement,
    trace: Trace,
    in_flight: int | None = None,
    routes: Sequence[Way] | None = None,
) -> Simulated:
    """Runs the trace. in_flight: requests that one route holds at a time (memory for caches);
    None = no limit. routes: those of the plan; None = the paths of its maximum flow.

    Raises: InputError where the plan carries nothing or the trace is empty."""
    if not len(trace.arrival):
        raise InputError("the trace has no requests", hint="give at least one row")
    if routes is None:
        flow = max_flow(instance, placement)
        # Without routes of the plan any decomposition of its flow will do.
        routes = [(path, path, rate) for path, rate in pipelines(flow)]
        predicted = float(flow.value)
    else:
        assert instance.phases is not None
        # Rates count requests, what is told counts tokens.
        predicted = instance.phases.tokens * sum(rate for _, _, rate in routes)
    if not predicted:
        raise InputError(
            "the plan carries nothing, so there is nothing to simulate",
            hint="csp-embed serve plan says why nothing flows",
        )
    hops = _Hops(instance, placement)
    table, pace, wait = hops.of([(prefill, decode) for prefill, decode, _ in routes])
    chosen = _dealt(trace, np.array([rate for _, _, rate in routes]))
    # No limit: all requests at once would still fit.
    limit = len(trace.arrival) if in_flight is None else in_flight
    begun, first_at, done, log_time, log_busy, log_tokens = _run(
        table, pace, wait, len(hops.names), trace.arrival, trace.prompt, trace.output, chosen, limit
    )
    # The middle of the run only: filling and emptying tell nothing of the rate.
    low, high = _steady(log_time, log_tokens)
    span = log_time[high] - log_time[low]
    tokens = (log_tokens[high] - log_tokens[low]) / span if span > 0 else 0.0
    share = (log_busy[high] - log_busy[low]) / span if span > 0 else log_busy[high] * 0
    # One output token has no further ones; nothing is divided by 0.
    further = np.maximum(trace.output - 1, 1)
    return Simulated(
        tokens_per_s=float(tokens),
        predicted=predicted,
        served=len(done),
        seconds=float(done.max()),
        first=first_at - trace.arrival,
        each=(done - first_at) / further,
        waited=begun - trace.arrival,
        busy={name: float(s) for name, s in zip(hops.names, share, strict=True)},
    )


class _Hops:
    """Machines and links as numbered resources, and what a token takes of each on a route."""

    def __init__(self, instance: Instance, placement: Placement) -> None:
        self.instance, self.placement = instance, placement
        self.late = delays(instance)
        self.names: list[str] = []
        self.number: dict[str, int] = {}

    def of(
        self, routes: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> tuple[Ints, Floats, Floats]:
        """(resource, seconds a token, seconds of latency) by route, phase and hop; -1: no more."""
        rows = [
            (self._path(prefill, 0), self._moves(prefill, decode), self._path(decode, 1))
            for prefill, decode in routes
        ]
        # Rows are padded to the longest, as compiled loops want rectangles.
        longest = max(len(hops) for row in rows for hops in row)
        shape = (len(rows), 3, longest)
        table, pace, wait = np.full(shape, -1, np.int64), np.zeros(shape), np.zeros(shape)
        for r, row in enumerate(rows):
            for phase, hops in enumerate(row):
                for h, (name, seconds, late) in enumerate(hops):
                    # Numbered as they come: routes share machines and links by name.
                    if name not in self.number:
                        self.number[name] = len(self.names)
                        self.names.append(name)
                    table[r, phase, h] = self.number[name]
                    pace[r, phase, h], wait[r, phase, h] = seconds, late
        return table, pace, wait

    def _path(self, path: Sequence[int], phase: int) -> list[tuple[str, float, float]]:
        names, late = self.instance.machines, self.late
        first, last = path[0], path[-1]
        hops = [(f"coordinator -> {names[first]}", 1 / float(self.instance.start[first]),
                 float(late.start[first]))]  # fmt: skip
        # Each machine, then the link behind it; the last one has none.
        for a, b in zip(path, [*path[1:], None], strict=True):
            hops.append((names[a], 1 / self._rate(a, phase), 0.0))
            if b is not None:
                hops.append(self._link(a, b, 1.0))
        hops.append((f"{names[last]} -> coordinator", 1 / float(self.instance.end[last]),
                     float(late.end[last])))  # fmt: skip
        return hops

    def _moves(
        self, prefill: Sequence[int], decode: Sequence[int]
    ) -> list[tuple[str, float, float]]:
        """The links over which a cache goes."""
        layer, x, y, hops = 0, 0, 0, []
        # The same machines in both phases: no cache moves.
        while layer < self.instance.layers and tuple(prefill) != tuple(decode):
            i, j = prefill[x], decode[y]
            end = min(self.placement[i][1], self.placement[j][1])
            if i != j:
                assert self.instance.phases is not None
                # A cache is as heavy as its layers, in activations per token.
                hops.append(self._link(i, j, (end - layer) * (self.instance.phases.cache or 0.0)))
            layer = end
            x += self.placement[i][1] == end
            y += self.placement[j][1] == end
        return hops

    def _link(self, a: int, b: int, weight: float) -> tuple[str, float, float]:
        name = f"{self.instance.machines[a]} -> {self.instance.machines[b]}"
        return name, weight / float(self.instance.link[a, b]), float(self.late.link[a, b])

    def _rate(self, i: int, phase: int) -> float:
        """Tokens/s of a machine in a phase."""
        phases = self.instance.phases
        if phases is None:
            return self.instance.rate(i, self.placement[i])
        # By layers held; first and last layer are half open here.
        held = self.placement[i][1] - self.placement[i][0]
        tables = phases.prefill if phase == 0 else phases.decode
        return tables[int(self.instance.kind[i])][held - 1]


def ways(instance: Instance, plan: Mapping[str, Any]) -> list[Way] | None:
    """The routes of a plan document; None where it has none."""
    if "routes" not in plan:
        return None
    at = {name: i for i, name in enumerate(instance.machines)}
    return [
        (
            [at[m] for m in row["prefill"]],
            [at[m] for m in row.get("decode", row["prefill"])],
            float(row["requests_per_s"]),
        )
        for row in plan["routes"]
    ]


def pipelines(flow: Flow) -> list[tuple[tuple[int, ...], float]]:
    """The flow as paths: (machines in order, tokens/s). Their rates add up to the flow."""
    left = dict(flow.arcs)
    out: dict[Any, list[Any]] = {}
    # Sorted, so that the decomposition is the same on every run.
    for a, b in sorted(left, key=str):
        out.setdefault(a, []).append(b)
    paths: dict[tuple[int, ...], float] = {}
    while True:
        node: Any = SOURCE
        arcs, machines = [], []
        while node != SINK:
            # Any arc with flow left leads on: what comes in goes out.
            after = next((b for b in out.get(node, ()) if left[node, b] > 0), None)
            if after is None:
                return list(paths.items())  # no source arc is left: all flow is taken
            arcs.append((node, after))
            node = after
            if node[0] == "in":
                machines.append(int(node[1]))
        # The path's narrowest arc is used up, so every round ends one arc.
        share = min(left[arc] for arc in arcs)
        for arc in arcs:
            left[arc] -= share
        key = tuple(machines)
        paths[key] = paths.get(key, 0.0) + float(share)


def _dealt(trace: Trace, weight: Floats) -> Ints:
    """The route of each request: always the one that is furthest behind its share of tokens."""
    given = np.zeros(len(weight))
    chosen = np.zeros(len(trace.arrival), np.int64)
    for at, tokens in enumerate(trace.prompt + trace.output):
        # As if it were given: who would then still be furthest behind.
        p = int(np.argmin((given + tokens) / weight))
        given[p] += tokens
        chosen[at] = p
    return chosen


def _steady(times: Floats, tokens: Floats) -> tuple[int, int]:
    """Positions in the log between which a fifth and three fifths of all tokens passed."""
    low = int(np.searchsorted(tokens, 0.2 * tokens[-1]))
    high = int(np.searchsorted(tokens, 0.6 * tokens[-1]))
    return low, max(high, min(low + 1, len(times) - 1))


@njit(cache=True)
def _run(  # type: ignore[no-untyped-def]
    table, pace, wait, resources, arrival, prompt, output, chosen, in_flight
):
    """The event loop. One event = a pass reaches its next resource; a heap orders them by time."""
    n, paths, longest = arrival.shape[0], table.shape[0], table.shape[2]
    free, busy = np.zeros(resources), np.zeros(resources)
    phase = np.zeros(n, np.int64)  # prefill, moving its cache, decode
    begun, first_at, done = np.zeros(n), np.zeros(n), np.zeros(n)
    at_hop, made = np.zeros(n, np.int64), np.zeros(n, np.int64)
    inside = np.zeros(paths, np.int64)
    # Requests that wait for room in their pipeline, as linked lists in order of arrival.
    head, tail = np.full(paths, -1, np.int64), np.full(paths, -1, np.int64)
    following = np.full(n, -1, np.int64)
    heap_time, heap_request, size = np.zeros(n + 1), np.zeros(n + 1, np.int64), 0
    waiting = np.ones(n, np.bool_)
    total = 0.0
    for r in range(n):
        # The first generated token comes with the prompt's pass.
        total += prompt[r] + output[r] - 1
    marks = 200
    log_time, log_tokens = np.zeros(marks + 1), np.zeros(marks + 1)
    log_busy = np.zeros((marks + 1, resources))
    passed, mark = 0.0, 1
    for r in range(n):  # arrivals are sorted, so this is already a heap
        heap_time[size], heap_request[size] = arrival[r], r
        size += 1
    while size:
        now, r = heap_time[0], heap_request[0]
        size -= 1
        # The heap is sifted by hand: Numba has no heap of pairs.
        time, request = heap_time[size], heap_request[size]
        i = 0
        while True:
            c = 2 * i + 1
            if c >= size:
                break
            if c + 1 < size and (
                heap_time[c + 1] < heap_time[c]
                # Ties by request, so that runs are the same.
                or (heap_time[c + 1] == heap_time[c] and heap_request[c + 1] < heap_request[c])
            ):
                c += 1
            if heap_time[c] < time or (heap_time[c] == time and heap_request[c] < request):
                heap_time[i], heap_request[i] = heap_time[c], heap_request[c]
                i = c
            else:
                break
        heap_time[i], heap_request[i] = time, request
        p = chosen[r]
        if waiting[r]:
            waiting[r] = False
            # No room for its cache: it waits at the door.
            if inside[p] >= in_flight:
                if tail[p] >= 0:
                    following[tail[p]] = r
                else:
                    head[p] = r
                tail[p] = r
                continue
            inside[p] += 1
            begun[r] = now
        hop = at_hop[r]
        q = phase[r]
        tokens = prompt[r] if q < 2 else 1
        again = -1
        if hop < longest and table[p, q, hop] >= 0:
            x = table[p, q, hop]
            # First come, first served: it begins when the resource is free.
            begin = max(now, free[x])
            free[x] = begin + tokens * pace[p, q, hop]
            busy[x] += tokens * pace[p, q, hop]
            at_hop[r] = hop + 1
            # Latency delays the pass but does not keep the link busy.
            time, again = free[x] + wait[p, q, hop], r
        elif q == 1:  # its cache is where decode goes on
            phase[r], at_hop[r] = 2, 0
            time, again = now, r
        else:  # the pass is through
            passed += tokens
            # A log at fixed shares of all tokens: its length does not grow with the trace.
            while mark <= marks and passed >= total * mark / marks:
                log_time[mark], log_tokens[mark] = now, passed
                # Time is booked when a pass joins a queue; what lies ahead is not yet spent.
                log_busy[mark] = busy - np.maximum(free - now, 0.0)
                mark += 1
            if made[r] == 0:
                first_at[r] = now
            made[r] += 1
            if made[r] < output[r]:
                # After the prompt its cache moves, once; then every token takes the decode way.
                phase[r], at_hop[r] = max(q, 1), 0
                time, again = now, r
            else:
                done[r] = now
                inside[p] -= 1
                # A place is free: the first that waits gets it.
                if head[p] >= 0:
                    again = head[p]
                    head[p] = following[again]
                    if head[p] < 0:
                        tail[p] = -1
                    inside[p] += 1
                    begun[again] = now
                    time = now
        if again >= 0:
            i = size
            size += 1
            while i > 0:
                up = (i - 1) // 2
                if time < heap_time[up] or (time == heap_time[up] and again < heap_request[up]):
                    heap_time[i], heap_request[i] = heap_time[up], heap_request[up]
                    i = up
                else:
                    break
            heap_time[i], heap_request[i] = time, again
    return begun, first_at, done, log_time, log_busy, log_tokens
