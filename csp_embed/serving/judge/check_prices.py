"""Verifies the certificate of a bound: prices of machines, exactly.

The claim "no plan carries more than U" holds if, with price m_g for each machine of group g,

    every set of machines (with layers held k) whose rates add up to more than U costs more than
    T = (sum of all prices + a * s - d) / L,   where a machine costs m_g / k,

because the L layers of a plan pay each machine's price once in all, so some layer pays T or less.
a (alternation): a set also pays a times its visits to the unlinked machines less its visits to the
others, per flow; a whole pipeline has at most s of these. d (side by side): sets of two or more
machines are forgiven d, where at least one layer must be carried by such a set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import networkx as nx

from csp_embed.serving.instance import Instance, part_of
from csp_embed.serving.judge.check_covers import Covers


def refute(instance: Instance, certificate: Mapping[str, Any], bound: Fraction) -> str | None:
    """Why the certificate does not prove the bound; None where it does."""
    if certificate.get("rule") == "fits nowhere":
        return _somewhere(instance)
    if certificate.get("rule") == "coordinator":
        return _coordinator(instance, bound)
    if certificate.get("rule") == "islands":
        return _islands(instance, certificate, bound)
    if certificate.get("rule") != "prices":
        return f"unknown rule {certificate.get('rule')!r}"
    # A malformed certificate is a reason, not a crash.
    try:
        return _prices(instance, certificate, bound)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        return f"not of the stated form: {error!r}"


def _coordinator(instance: Instance, bound: Fraction) -> str | None:
    """All flow comes from the coordinator, and goes back to it."""
    ways = (instance.start, instance.end)
    # Of machines that reach the coordinator, each as far as its own rate.
    most = min(
        sum(
            min(Fraction(float(way[i])), Fraction(max(instance.table(i))))
            for i in range(instance.size)
        )
        for way in ways
    )
    return None if most <= bound else f"{float(most)!r} could come or go"


def _islands(instance: Instance, certificate: Mapping[str, Any], bound: Fraction) -> str | None:
    """Machines without links between them carry flows of their own, which add up."""
    try:
        position = {name: i for i, name in enumerate(instance.machines)}
        total, label = Fraction(0), [-1] * instance.size
        for at, part in enumerate(certificate["parts"]):
            members = [position[str(name)] for name in part["machines"]]
            for i in members:
                if label[i] >= 0:
                    return f"machine {instance.machines[i]} is there twice"
                label[i] = at
            own = Fraction(part["bound"])
            # Each island has a certificate of its own kind.
            reason = refute(part_of(instance, members), part["certificate"], own)
            if reason is not None:
                return f"part {at}: {reason}"
            total += own
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"not of the stated form: {error!r}"
    if -1 in label:
        return f"machine {instance.machines[label.index(-1)]} is missing"
    # In either direction: nothing may flow between two parts.
    for i, j in zip(*instance.link.nonzero(), strict=True):
        if label[i] != label[j]:
            return f"{instance.machines[i]} and {instance.machines[j]} are linked"
    return None if total <= bound else f"the parts add up to {float(total)!r}"


def _somewhere(instance: Instance) -> str | None:
    """Where the model could fit: joined machines with room for all layers, each on a way from the
    coordinator and back to it, and with such a way through no more machines than layers."""
    graph = nx.DiGraph()
    # A machine whose table is all 0 holds nothing.
    able = [i for i in range(instance.size) if max(instance.table(i)) > 0]
    graph.add_nodes_from(["out", "back", *able])
    graph.add_edges_from((i, j) for i in able for j in able if instance.link[i, j] > 0)
    graph.add_edges_from(("out", i) for i in able if instance.start[i] > 0)
    graph.add_edges_from((i, "back") for i in able if instance.end[i] > 0)
    usable = set(nx.descendants(graph, "out")) & set(nx.ancestors(graph, "back")) - {"out", "back"}
    for part in nx.connected_components(graph.subgraph(usable).to_undirected()):
        room = sum(len(instance.table(i)) for i in part)
        # The way counts two ends beside its machines: n machines are n + 1 arcs.
        way = nx.shortest_path_length(graph.subgraph({"out", "back", *part}), "out", "back")
        if room >= instance.layers >= way - 1:
            return f"{room} layers fit on joined machines, so more than 0 is not excluded"
    return None


def grouped(
    instance: Instance, certificate: Mapping[str, Any]
) -> list[tuple[list[int], Fraction]] | str:
    """(machines, price) of each group, or what is wrong with them."""
    position = {name: i for i, name in enumerate(instance.machines)}
    groups = [
        ([position[str(name)] for name in g["machines"]], Fraction(g["price"]))
        for g in certificate["groups"]
    ]
    # Every machine exactly once: one that is left out would be free of charge.
    listed = sorted(i for members, _ in groups for i in members)
    if listed != list(range(instance.size)):
        return "the groups do not name every machine once"
    if any(price < 0 for _, price in groups):
        return "a price is negative"
    return groups


def no_set_below(
    instance: Instance,
    groups: Sequence[tuple[Sequence[int], Fraction]],
    above: Fraction,
    threshold: Fraction,
) -> str | None:
    """Why not every set that carries more than `above` costs the threshold or more; None where
    every one does."""
    tables = [_table(instance, members) for members, _ in groups]
    room = [len(members) for members, _ in groups]
    prices = [price for _, price in groups]
    zero = Fraction(0)
    # No alternation and no discount: sides have no meaning here.
    covers = Covers(prices, tables, [1] * len(groups), room, zero, zero, above)
    return covers.cheaper(threshold, strict=True)


def _prices(instance: Instance, certificate: Mapping[str, Any], bound: Fraction) -> str | None:
    position = {name: i for i, name in enumerate(instance.machines)}
    groups = grouped(instance, certificate)
    if isinstance(groups, str):
        return groups
    alternation = certificate.get("alternation") or {"multiplier": "0", "unlinked": []}
    multiplier = Fraction(alternation["multiplier"])
    # Stated by the certificate, checked below: nothing is taken on trust.
    unlinked = {position[str(name)] for name in alternation["unlinked"]}
    discount = Fraction(certificate.get("side_by_side", "0"))
    if multiplier < 0 or discount < 0:
        return "a multiplier is negative"
    if multiplier and instance.partial:
        return "visits cannot be counted by layers with partial inference: no alternation"
    if multiplier and _linked(instance, unlinked):
        return "two of the unlinked machines have a link"
    tables = [_table(instance, members) for members, _ in groups]
    for members, _ in groups:
        # A group pays one slope, so it stands on one side.
        if len({i in unlinked for i in members}) > 1:
            return "a group has machines on both sides of the alternation"
    if discount and not _widens(instance, groups, tables, bound):
        return "a single file of machines is not excluded, so nothing is side by side for sure"
    total = _paid(instance, certificate, groups)
    if isinstance(total, str):
        return total
    total += multiplier * _slack(instance, unlinked) - discount
    sides = [1 if members[0] in unlinked else -1 for members, _ in groups]
    room = [len(members) for members, _ in groups]
    prices = [price for _, price in groups]
    return Covers(prices, tables, sides, room, multiplier, discount, bound).cheaper(
        total / instance.layers
    )


def _paid(
    instance: Instance,
    certificate: Mapping[str, Any],
    groups: Sequence[tuple[Sequence[int], Fraction]],
) -> Fraction | str:
    """What the machines of any plan cost together at the most, or what is wrong.

    Machines that share devices are never all in use; but each pays no more than its devices are
    worth, and a device is used once."""
    # Without shared devices each machine may be in use.
    if "devices" not in certificate:
        return sum((price * len(members) for members, price in groups), Fraction(0))
    if instance.devices is None:
        return "no machines share devices"
    worth: dict[str, Fraction] = {}
    for entry in certificate["devices"]:
        price = Fraction(entry["price"])
        if price < 0:
            return "a price is negative"
        for name in entry["devices"]:
            if str(name) in worth:
                return f"device {name} is there twice"
            worth[str(name)] = price
    for members, price in groups:
        for i in members:
            # A machine may be priced below its devices, which only weakens the bound.
            if price > sum(worth[name] for name in instance.devices[i]):
                return f"{instance.machines[i]} costs more than its devices"
    return sum(worth.values(), Fraction(0))


def _table(instance: Instance, members: Sequence[int]) -> list[Fraction]:
    """Rates by layers held that no member exceeds: its table, and what its links carry in all."""
    longest = max(len(instance.table(i)) for i in members)
    rates = [Fraction(0)] * longest
    for i in members:
        top = Fraction(max(instance.table(i)))
        # A limit above the best rate cuts nothing: sums stop there.
        into, out = (
            _total(instance.link[:, i], instance.start[i], top),
            _total(instance.link[i], instance.end[i], top),
        )
        limit = min(into, out)
        for k, rate in enumerate(instance.table(i)):
            # The most of any member: a group is priced by its best.
            rates[k] = max(rates[k], min(Fraction(rate), limit))
    return rates


def _total(links: Any, own: Any, enough: Fraction) -> Fraction:
    """Sum of capacities, or `enough` as soon as it is reached."""
    total = Fraction(float(own))
    for value in links:
        if total >= enough:
            return enough
        total += Fraction(float(value))
    return total


def _linked(instance: Instance, machines: set[int]) -> bool:
    rows = sorted(machines)
    return bool((instance.link[rows][:, rows] > 0).any())


def _slack(instance: Instance, unlinked: set[int]) -> int:
    """Visits to unlinked machines less others in one pipeline, at most: between two of them stands
    another; one more where a pipeline can both start and end with them, one less where neither."""
    starts = any(instance.start[i] > 0 for i in unlinked)
    ends = any(instance.end[i] > 0 for i in unlinked)
    return int(starts) + int(ends) - 1


def _widens(
    instance: Instance,
    groups: Sequence[tuple[Sequence[int], Fraction]],
    tables: Sequence[Sequence[Fraction]],
    bound: Fraction,
) -> bool:
    """Above the bound, a single file needs machines that carry it alone, joined by links that carry
    it alone. Whether no joined group of them holds all layers."""
    holds: dict[int, int] = {}
    for (members, _), table in zip(groups, tables, strict=True):
        # Machines that cannot carry the bound alone stand in no single file.
        most = max((k + 1 for k, rate in enumerate(table) if rate > bound), default=0)
        holds |= {i: most for i in members if most}
    graph = nx.Graph()
    graph.add_nodes_from(holds)
    for i in holds:
        for j in holds:
            if i != j and Fraction(float(instance.link[i, j])) > bound:
                graph.add_edge(i, j)
    return all(
        sum(holds[i] for i in part) < instance.layers for part in nx.connected_components(graph)
    )
