"""Launch lines for llama.cpp: RPC servers and the tensor split.

Read beside the sources that llama-cpp-python 0.3.36 carries (src/llama-model.cpp, common/arg.cpp,
tools/rpc): `-ts` is by proportion over the layers and the output layer, which counts as one more
on the last device; layer i goes to the first device whose share, added up, exceeds i / (layers +
1). With the numbers of layers themselves, and one more on the last, every cut falls exactly where
the plan has it. RPC devices come before local ones, in the order of `--rpc`; local GPUs get
nothing, since the split does not name them. `-ngl` counts the output layer too.

The split gives every GPU whole layers: tensor-parallel groups are not expressible.

Not verified: speeds (RPC adds copies that the plan does not know), and names of GPUs (CUDA0, …).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from csp_embed.errors import InputError
from csp_embed.serving.export.engines import Engine


def split(layers: Sequence[int]) -> tuple[int, ...]:
    """What `-ts` must say so that stage i holds layers[i]."""
    # The output layer counts as one more on the last device (see above).
    return (*layers[:-1], layers[-1] + 1)


def lines(found: Sequence[Engine], model: str, port: int = 8080, rpc_port: int = 50052) -> str:
    """A shell script: what to start on each machine, then a server for each pipeline. Raises:
    InputError for tensor-parallel groups."""
    out = ["#!/bin/sh", "# ggml-rpc-server was called rpc-server in older builds."]
    for at, engine in enumerate(found):
        out += ["", f"# engine {at}: {engine.rate:.6g} tokens/s"]
        hosts = []
        for stage in engine.stages:
            # `-ts` divides layers, not matrices.
            if stage.degree > 1:
                raise InputError(
                    "llama.cpp cannot express this plan",
                    why=f"{stage.machine} is a tensor-parallel group of {stage.degree} GPUs; the "
                    "tensor split by layers gives every GPU whole layers",
                    hint="tensor_parallel: [1], or serve export --to vllm or json",
                )
            # A port for each GPU of a server, or two servers on it would meet.
            own = rpc_port + (stage.gpus[0] if stage.gpus else 0)
            device = f" -d CUDA{stage.gpus[0]}" if stage.gpus else ""
            out.append(
                f"# on {stage.server} ({stage.layers} layers): ggml-rpc-server -H 0.0.0.0 -p {own}"
                f"{device}"
            )
            hosts.append(f"{stage.server}:{own}")
        share = ",".join(map(str, split([s.layers for s in engine.stages])))
        total = sum(s.layers for s in engine.stages)
        # One port for each pipeline: all may run on the same head machine.
        out.append(
            f"llama-server -m {shlex.quote(model)} --port {port + at} "
            f"--rpc {shlex.quote(','.join(hosts))} -ngl {total + 1} -sm layer -ts {share}"
            + (" &" if len(found) > 1 else "")
        )
    # Several servers are started in the background; the script waits for them.
    if len(found) > 1:
        out += ["", "# Send requests to the servers in proportion to their tokens/s.", "wait"]
    return "\n".join(out) + "\n"
