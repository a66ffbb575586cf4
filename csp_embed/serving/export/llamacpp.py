"""Launch lines for llama.cpp: RPC servers and the tensor split.

Source: llama.cpp's README of its RPC backend (`rpc-server`, `--rpc host:port,…`) and of its server
(`-ngl`, `-sm layer`, `-ts N0,N1,…`). The split is by proportion over layers + 1: the output layer
counts as one more, on the last device. With the numbers of layers themselves, and one more on the
last, every cut falls exactly where the plan has it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from csp_embed.serving.export.engines import Engine


def split(layers: Sequence[int]) -> tuple[int, ...]:
    """What `-ts` must say so that stage i holds layers[i]."""
    return (*layers[:-1], layers[-1] + 1)


def lines(found: list[Engine], model: str, port: int = 8080, rpc_port: int = 50052) -> str:
    """A shell script: what to start on each machine, then a server for each pipeline."""
    out = ["#!/bin/sh"]
    for at, engine in enumerate(found):
        out += ["", f"# engine {at}: {engine.rate:.6g} tokens/s"]
        for name, held in zip(engine.machines, engine.layers, strict=True):
            out.append(f"# on {name} ({held} layers): rpc-server -H 0.0.0.0 -p {rpc_port}")
        share = ",".join(map(str, split(engine.layers)))
        hosts = ",".join(f"{name}:{rpc_port}" for name in engine.machines)
        out.append(
            f"llama-server -m {shlex.quote(model)} --port {port + at} --rpc {shlex.quote(hosts)} "
            f"-ngl {sum(engine.layers) + 1} -sm layer -ts {share}"
            + (" &" if len(found) > 1 else "")
        )
        if any(d > 1 for d in engine.degree):
            out.append("# Machines with several GPUs: one rpc-server offers all of them;")
            out.append("# divide their number in -ts among them.")
    if len(found) > 1:
        out += ["", "# Send requests to the servers in proportion to their tokens/s.", "wait"]
    return "\n".join(out) + "\n"
