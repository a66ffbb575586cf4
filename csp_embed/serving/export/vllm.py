"""Launch lines for vLLM: pipeline partition and degrees.

Source: vLLM's documentation of distributed serving (`--pipeline-parallel-size`,
`--tensor-parallel-size`, `--distributed-executor-backend ray`) and of its environment variables
(`VLLM_PP_LAYER_PARTITION`: layers of each stage, separated by commas, as many as stages). One
engine has one tensor-parallel degree.
"""

from __future__ import annotations

import shlex

from csp_embed.errors import InputError
from csp_embed.serving.export.engines import Engine


def lines(found: list[Engine], model: str, port: int = 8000) -> str:
    """A shell script with one engine for each pipeline. Raises: InputError for mixed degrees."""
    out = ["#!/bin/sh"]
    for at, engine in enumerate(found):
        degrees = sorted(set(engine.degree))
        if len(degrees) > 1:
            raise InputError(
                "vLLM cannot express this plan",
                why=f"stages of one engine have tensor-parallel degrees {degrees}; "
                "--tensor-parallel-size is one number for all of them",
                hint="give all groups one degree, or serve export --to json",
            )
        stages = ", ".join(f"{m}: {n}" for m, n in zip(engine.machines, engine.layers, strict=True))
        out += [
            "",
            f"# engine {at}: {engine.rate:.6g} tokens/s; layers by stage: {stages}",
            "# Ray must list the machines in this order: stage 0 runs on the first.",
            f"export VLLM_PP_LAYER_PARTITION={','.join(map(str, engine.layers))}",
            f"vllm serve {shlex.quote(model)} --port {port + at} "
            f"--pipeline-parallel-size {len(engine.layers)} "
            f"--tensor-parallel-size {degrees[0]} --distributed-executor-backend ray"
            + (" &" if len(found) > 1 else ""),
        ]
    if len(found) > 1:
        out += ["", "# Send requests to the engines in proportion to their tokens/s.", "wait"]
    return "\n".join(out) + "\n"
