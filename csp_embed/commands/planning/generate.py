"""`partition generate`: writes a made-up network as a graph file or an ONNX model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from csp_embed.commands.common import print_json, say
from csp_embed.commands.given import refuse_ignored
from csp_embed.errors import InputError
from csp_embed.files import atomic, check_writable
from csp_embed.ir.network import Platform, TaskGraph

# Of random graphs; see network/made/wired.py.
WIRED = ("watts-strogatz", "erdos-renyi", "barabasi-albert")
KINDS = ("layered", *WIRED, "transformer", "quantised")


# What all wired networks read.
_WIRED = ("platform", "stages", "channels", "size", "seed")
# Of each kind, the options that it reads; --n and -o are for all.
READS = {
    "layered": ("ccr", "related", "devices", "seed"),
    "quantised": ("channels", "size", "branches", "seed"),
    "transformer": ("platform", "hidden", "sequence", "blocks"),
    "watts-strogatz": (*_WIRED, "k", "p"),
    "erdos-renyi": (*_WIRED, "p"),
    "barabasi-albert": (*_WIRED, "m"),
}


def generate(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS))],
    output: Annotated[str, typer.Option("-o", "--output", help="graph.json, or model.onnx.")],
    n: Annotated[int, typer.Option(help="Tasks, nodes or layers.")] = 20,
    ccr: Annotated[float, typer.Option(help="layered: transfer time over task time.")] = 1.0,
    related: Annotated[bool, typer.Option(help="layered: one speed per device.")] = False,
    devices: Annotated[int, typer.Option(help="layered: unlike devices.")] = 3,
    platform: Annotated[str, typer.Option(help="Others: whose costs.")] = "cpu_2gpu",
    stages: Annotated[int, typer.Option(help="Wired: stages.")] = 3,
    channels: Annotated[int | None, typer.Option(help="Wired, quantised: width.")] = None,
    size: Annotated[int | None, typer.Option(help="Wired, quantised: image side.")] = None,
    k: Annotated[int, typer.Option("-k", help="watts-strogatz: neighbours.")] = 4,
    p: Annotated[float | None, typer.Option("-p", help="Rewiring or edge probability.")] = None,
    m: Annotated[int, typer.Option("-m", help="barabasi-albert: edges of a new node.")] = 5,
    hidden: Annotated[int, typer.Option(help="transformer: width.")] = 1024,
    sequence: Annotated[int, typer.Option(help="transformer: tokens.")] = 128,
    blocks: Annotated[bool, typer.Option(help="transformer: one task a layer.")] = False,
    branches: Annotated[int, typer.Option(help="quantised: parallel chains.")] = 2,
    seed: Annotated[int, typer.Option(help="Equal seeds, equal bytes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Make a network to try: random task graphs, wired networks, transformers, integer ONNX."""
    from csp_embed.network.files.platform import find_platform, read_platform
    from csp_embed.network.made.generate import layered, with_costs
    from csp_embed.network.made.transformer import transformer
    from csp_embed.network.made.wired import wired

    if kind not in KINDS:
        raise InputError(
            f"unknown kind of network {kind!r}",
            why=", ".join(KINDS),
            hint="csp-embed partition generate layered -o g.json",
        )
    # Every option that some kind reads and this one does not is without effect.
    every = {name for names in READS.values() for name in names}
    suffix = "onnx" if kind == "quantised" else "json"
    refuse_ignored(
        context, sorted(every - set(READS[kind])), f"the kind {kind}",
        why=f"it reads {', '.join(READS[kind])}",
        hint=f"csp-embed partition generate {kind} -o NAME.{suffix}",
    )  # fmt: skip
    # The kind decides the format.
    check_writable(output, (".onnx",) if kind == "quantised" else (".json", ".yaml", ".yml"))
    if seed < 0:
        raise InputError("--seed must be at least 0", hint="--seed 0")
    if kind == "quantised":
        nodes = _quantised(output, n, seed, channels or 16, size or 16, branches)
        _say(output, nodes, 0, as_json)
        return
    # Layered graphs bring their own devices.
    if kind == "layered":
        graph, machine = layered(n, ccr, seed, related=related, devices=devices)
    else:
        # The others take costs from a platform.
        machine = read_platform(find_platform(platform))
        if kind == "transformer":
            sketch = transformer(n, hidden=hidden, sequence=sequence, blocks=blocks)
        else:
            # Usual chances differ by kind.
            chance = p if p is not None else (0.2 if kind == "erdos-renyi" else 0.75)
            sketch = wired(
                kind, n, seed, stages=stages, channels=channels or 64, size=size or 56,
                k=k, p=chance, m=m,
            )  # fmt: skip
        # Several batches, so that plans with replicas have their costs.
        graph = with_costs(sketch, machine, batches=(1, 2, 4, 8, 16, 32))
    _write(output, graph, machine)
    _say(output, len(graph.tasks), len(graph.edges), as_json)


def _write(output: str, graph: TaskGraph, platform: Platform) -> None:
    from csp_embed.network.files.graph import graph_document

    with atomic(output) as file:
        json.dump(graph_document(graph, platform), file, indent=1)
        file.write("\n")


def _quantised(output: str, n: int, seed: int, channels: int, size: int, branches: int) -> int:
    from csp_embed.network.made.quantised import quantised_net

    model = quantised_net(n, seed, channels=channels, size=size, branches=branches)
    with atomic(output, "wb") as file:
        # Deterministic: equal seeds give equal bytes.
        file.write(model.SerializeToString(deterministic=True))
    return len(model.graph.node)


def _say(output: str, tasks: int, edges: int, as_json: bool) -> None:
    if as_json:
        print_json({"file": output, "tasks": tasks, "edges": edges})
    else:
        say(f"{output}: {tasks} tasks, {edges} edges")
