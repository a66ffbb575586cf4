"""Launch lines for vLLM: pipeline partition, degrees, and which machine runs which stage.

Read beside vLLM 0.19.1 as its wheel has it (envs.py, distributed/utils.py, config/parallel.py,
v1/executor/) and beside what is documented (docs.vllm.ai: configuration/env_vars, and
projects/ascend/…/feature_guide/pipeline_parallel, which starts two nodes with these options):
VLLM_PP_LAYER_PARTITION has one number for each stage and adds up to the layers of
the model; one engine has one tensor-parallel degree; with `--distributed-executor-backend mp` and
`--nnodes`, node r runs the ranks r d … r d + d - 1, which is stage r where every node has one group
of d GPUs; all but node 0 run `--headless`. (With Ray, ranks go by the number of workers and the
address of a node, so a plan's order of machines could not be asked for.)

Not verified, since nothing is run on GPUs here: that two nodes may share a server
(CUDA_VISIBLE_DEVICES), and that links and firewalls let them find each other.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from csp_embed.errors import InputError
from csp_embed.serving.export.engines import Engine


def lines(found: Sequence[Engine], model: str, port: int = 8000, master: int = 29501) -> str:
    """A shell script that is run on every machine with its name. Raises: InputError for degrees
    that differ within an engine."""
    # By server: it may stand in several engines.
    blocks: dict[str, list[str]] = {}
    notes = ["#!/bin/sh", "# Run on every machine as: sh THIS_FILE MACHINE"]
    for at, engine in enumerate(found):
        degrees = sorted({s.degree for s in engine.stages})
        if len(degrees) > 1:
            raise InputError(
                "vLLM cannot express this plan",
                why=f"stages of one engine have tensor-parallel degrees {degrees}; "
                "--tensor-parallel-size is one number for all of them",
                hint="give all groups one degree, or serve export --to json",
            )
        stages = ", ".join(f"{s.machine}: {s.layers}" for s in engine.stages)
        notes.append(f"# engine {at}: {engine.rate:.6g} tokens/s; layers by stage: {stages}")
        # Ports and masters differ by engine, so that several can share a server.
        for name, command in _commands(engine, degrees[0], model, port + at, master + at):
            blocks.setdefault(name, []).append(command)
    if len(found) > 1:
        notes.append("# Send requests to the engines in proportion to their tokens/s.")
    out = [*notes, 'case "$1" in']
    # One script for all machines: it is copied about as one file.
    for name, commands in blocks.items():
        out.append(f"{shlex.quote(name)})")
        out += [command + " &" for command in commands]
        out.append("wait ;;")
    out.append('*) echo "no such machine: $1" >&2; exit 2 ;;')
    return "\n".join([*out, "esac"]) + "\n"


def _commands(
    engine: Engine, degree: int, model: str, port: int, master: int
) -> list[tuple[str, str]]:
    """(machine, what to start there)."""
    stages = engine.stages
    partition = ",".join(str(s.layers) for s in stages)
    base = (
        f"vllm serve {shlex.quote(model)} --tensor-parallel-size {degree} "
        f"--pipeline-parallel-size {len(stages)} --distributed-executor-backend mp"
    )
    # In the environment: vLLM has no option for it.
    env = f"VLLM_PP_LAYER_PARTITION={partition} "
    if len({s.server for s in stages}) == 1:  # one process: its GPUs in the order of the stages
        gpus = [g for s in stages for g in s.gpus]
        return [(stages[0].server, f"{_visible(gpus)}{env}{base} --port {port}")]
    rows = []
    for r, stage in enumerate(stages):
        node = (
            f"--nnodes {len(stages)} --node-rank {r} "
            f"--master-addr {shlex.quote(stages[0].server)} --master-port {master}"
        )
        # Only the first node answers requests.
        last = f"--port {port}" if r == 0 else "--headless"
        rows.append((stage.server, f"{_visible(stage.gpus)}{env}{base} {node} {last}"))
    return rows


def _visible(gpus: Sequence[int]) -> str:
    # Without GPU numbers the machine's only GPU is meant.
    return f"CUDA_VISIBLE_DEVICES={','.join(map(str, gpus))} " if gpus else ""
