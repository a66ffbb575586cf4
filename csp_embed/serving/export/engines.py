"""What of a plan one running program can hold: a chain of machines, each with its own layers.

vLLM and llama.cpp run one pipeline: one stage after another, each stage one (group of) device(s). A
plan in which pipelines share machines, or split over machines side by side, needs a scheduler that
routes requests, and is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from csp_embed.errors import InputError
from csp_embed.serving.flow import max_flow
from csp_embed.serving.instance import Instance
from csp_embed.serving.simulate import pipelines


@dataclass(frozen=True)
class Engine:
    """One pipeline that shares no machine with another. layers: held by each stage; degree: of
    tensor parallelism in each; rate: tokens/s that the plan sends through it."""

    machines: tuple[str, ...]
    layers: tuple[int, ...]
    degree: tuple[int, ...]
    rate: float


def engines(instance: Instance, plan: Mapping[str, Any], target: str) -> list[Engine]:
    """The plan as engines of `target`. Raises: InputError saying what cannot be expressed."""
    position = {name: i for i, name in enumerate(instance.machines)}
    placement = {position[m]: (a, b + 1) for m, (a, b) in plan["placement"].items()}
    degrees = {
        str(node["id"]): int(node.get("tensor_parallel", 1))
        for node in instance.document.get("nodes", ())
    }
    paths = pipelines(max_flow(instance, placement))
    if not paths:
        raise InputError("the plan carries nothing, so there is nothing to start")
    _alone(instance, paths, placement, target)
    found = []
    for machines, rate in paths:
        names = tuple(instance.machines[i] for i in machines)
        held = tuple(placement[i][1] - placement[i][0] for i in machines)
        if sum(held) != instance.layers:
            raise InputError(
                f"{target} cannot express this plan",
                why="with partial inference the intervals of a pipeline overlap",
                hint="serve export --to json",
            )
        found.append(Engine(names, held, tuple(degrees.get(n, 1) for n in names), rate))
    return found


def _alone(
    instance: Instance,
    paths: Sequence[tuple[tuple[int, ...], float]],
    placement: Mapping[int, tuple[int, int]],
    target: str,
) -> None:
    """Each machine must stand in one pipeline only."""
    seen: dict[int, int] = {}
    for at, (machines, _) in enumerate(paths):
        for i in machines:
            if seen.setdefault(i, at) != at:
                first, end = placement[i]
                raise InputError(
                    f"{target} cannot express this plan",
                    why=f"machine {instance.machines[i]} (layers {first}..{end - 1}) serves several"
                    f" of {len(paths)} pipelines; {target} runs one chain of stages in which every "
                    "stage is one machine or tensor-parallel group",
                    hint="serve export --to json has the routes for a scheduler of your own",
                )
