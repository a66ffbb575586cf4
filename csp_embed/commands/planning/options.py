"""Options and small helpers that the partitioning commands share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from csp_embed.errors import InputError
from csp_embed.files import atomic
from csp_embed.ir.network import LATENCY, THROUGHPUT

# Suffixes of a plan file; all hold JSON, which is YAML too.
PLANS = (".json", ".yaml", ".yml")
# Names of the two cost models, as plans have them.
LINKS, DNN = "links", "dnn-partitioning"

NetworkArgument = Annotated[str, typer.Argument(help="model.onnx, graph.json or .yaml.")]
ObjectiveOption = Annotated[str, typer.Option(help="latency or throughput.")]
MethodOption = Annotated[str, typer.Option(help="auto, exact, milp, split, lns, heft, …")]
ContiguousOption = Annotated[bool, typer.Option(help="Each device's set is convex.")]
PipelineOption = Annotated[bool, typer.Option(help="Also no cycle among devices.")]
ReplicasOption = Annotated[int, typer.Option(help="Data parallelism: copies of the network.")]
BatchOption = Annotated[int, typer.Option(help="Samples of one input (latency).")]
GranularityOption = Annotated[str, typer.Option(help="ONNX: node, fused or block.")]
IoFreeOption = Annotated[bool, typer.Option(help="ONNX: inputs and outputs cost nothing.")]
ProfileOption = Annotated[
    list[str] | None, typer.Option("--profile", help="DEVICE=FILE, by name or kind.")
]
PlatformOption = Annotated[
    str | None, typer.Option(help="Platform file, or the name of one that ships (cpu_2gpu).")
]
DimOption = Annotated[
    list[str] | None,
    typer.Option("--dim", help="NAME=EXTENT of a dynamic dimension, or INPUT:AXIS=EXTENT."),
]
InputsOption = Annotated[
    str | None,
    typer.Option(
        "--inputs", help="FILE.npz of input values, for shapes that depend on them.", metavar="FILE"
    ),
]
ClockOption = Annotated[
    str, typer.Option(help="wall, or cpu: the thread's own time, for a busy machine.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def known_objective(name: str) -> None:
    """Raises: InputError."""
    if name not in (LATENCY, THROUGHPUT):
        raise InputError(
            f"unknown objective {name!r}",
            why="latency or throughput",
            hint=f"--objective {LATENCY}",
        )


def batch_sizes(batch: int, replicas: int) -> list[int]:
    """Sizes whose costs are needed: of the whole input and of every replica's share of it."""
    # Shares of a batch are at most the batch over the replicas, and at least one.
    return sorted({1, batch, *range(2, 1 + batch // max(1, replicas))}) if batch > 1 else []


def pairs(values: list[str] | None, option: str) -> dict[str, str]:
    """KEY=VALUE options; a key may hold '='. Raises: InputError."""
    out: dict[str, str] = {}
    for text in values or ():
        key, sep, value = text.rpartition("=")
        if not sep or not key or not value:
            raise InputError(
                f"{option} {text}: expected NAME=VALUE",
                hint=f"{option} name=value, for example {option} conv1=gpu0",
            )
        out[key] = value
    return out


def numbers(values: list[str] | None, option: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for key, value in pairs(values, option).items():
        # Extents of 0 would make empty tensors.
        if not value.isdigit() or int(value) < 1:
            raise InputError(
                f"{option} {key}={value}: expected a positive integer", hint=f"{option} {key}=1"
            )
        out[key] = int(value)
    return out


def write_json(path: str, document: Any) -> None:
    with atomic(path) as file:
        json.dump(document, file, indent=1)
        file.write("\n")
