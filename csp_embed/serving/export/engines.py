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
from csp_embed.serving.simulate import Way, pipelines, ways

ROUTES = "serve export --to json has the routes for a scheduler of your own"


@dataclass(frozen=True)
class Stage:
    """layers: held; degree: of tensor parallelism; server: on which it stands; gpus: which of its
    GPUs, where it has several."""

    machine: str
    layers: int
    degree: int
    server: str
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """One pipeline that shares no machine with another. rate: tokens/s that the plan sends through
    it."""

    stages: tuple[Stage, ...]
    rate: float


def paths_of(instance: Instance, plan: Mapping[str, Any]) -> list[Way]:
    """The plan's routes, tokens/s of each; of a plan without routes, the paths of its flow."""
    routes = ways(instance, plan)
    # Plans without routes are decomposed: any paths that add up to the flow will do.
    if routes is not None:
        assert instance.phases is not None
        return [(a, b, rate * instance.phases.tokens) for a, b, rate in routes]
    position = {name: i for i, name in enumerate(instance.machines)}
    placement = {position[m]: (a, b + 1) for m, (a, b) in plan["placement"].items()}
    return [(path, path, rate) for path, rate in pipelines(max_flow(instance, placement))]


def engines(instance: Instance, plan: Mapping[str, Any], target: str) -> list[Engine]:
    """The plan as engines of `target`. Raises: InputError saying what cannot be expressed."""
    position = {name: i for i, name in enumerate(instance.machines)}
    placement = {position[m]: (a, b + 1) for m, (a, b) in plan["placement"].items()}
    nodes = {str(n["id"]): n for n in instance.document.get("nodes", ())}
    paths = paths_of(instance, plan)
    if not paths:
        raise InputError(
            "the plan carries nothing, so there is nothing to start",
            hint="csp-embed serve plan says why nothing flows",
        )
    _alone(instance, paths, placement, target)
    found = []
    for machines, _, rate in paths:
        stages = []
        for i in machines:
            name, (first, end) = instance.machines[i], placement[i]
            node = nodes.get(name, {})
            # Machines of a document without GPUs are one GPU each, without a number.
            degree, gpu = int(node.get("tensor_parallel", 1)), node.get("first_gpu")
            gpus = () if gpu is None else tuple(range(gpu, gpu + degree))
            stages.append(Stage(name, end - first, degree, str(node.get("server", name)), gpus))
        # One chain cannot compute only a part of what a stage holds.
        if sum(s.layers for s in stages) != instance.layers:
            raise InputError(
                f"{target} cannot express this plan",
                why="with partial inference the intervals of a pipeline overlap",
                hint=ROUTES,
            )
        found.append(Engine(tuple(stages), rate))
    return found


def _alone(
    instance: Instance,
    paths: Sequence[Way],
    placement: Mapping[int, tuple[int, int]],
    target: str,
) -> None:
    """Each machine must stand in one pipeline only, and serve both phases."""
    seen: dict[int, int] = {}
    for at, (prefill, decode, _) in enumerate(paths):
        # A running program keeps a request's caches where its prompt went.
        if tuple(prefill) != tuple(decode):
            raise InputError(
                f"{target} cannot express this plan",
                why="prefill and decode of a request run on different machines, and caches move "
                "between pipelines that are cut differently",
                hint=ROUTES,
            )
        # Shared machines need a scheduler between programs; neither target has one.
        for i in prefill:
            if seen.setdefault(i, at) != at:
                first, end = placement[i]
                raise InputError(
                    f"{target} cannot express this plan",
                    why=f"machine {instance.machines[i]} (layers {first}..{end - 1}) serves several"
                    f" of {len(paths)} pipelines; {target} runs one chain of stages in which every "
                    "stage is one machine or tensor-parallel group",
                    hint=ROUTES,
                )
