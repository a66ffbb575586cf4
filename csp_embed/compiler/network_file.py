"""`csp_embed.build`: from a model file to a built network, as `csp-embed build` does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.compiler.network import Built
from csp_embed.compiler.network import build as build_graph
from csp_embed.compiler.request.arguments import machine_of
from csp_embed.compiler.request.options import Options
from csp_embed.machine.spec import Isa
from csp_embed.network.quantised.read import read_quantised


def build(
    model: str | Path,
    isa: Isa | str | Path = "vta",
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    inputs: Sequence[Mapping[str, Any]] | None = None,
    dims: Mapping[str, int] | None = None,
    options: Options | None = None,
) -> Built:
    """Builds a quantised network and runs it on the simulated machine.

    model: a .tflite or .onnx file. inputs: stored values by input name, one mapping a run; none:
    one run of random values. dims: extents of named dimensions (ONNX). The result's `programs()`
    are program files' content, `document()` is what `--json` prints.
    Raises: InputError, MissingLibrary, SpecError, as the command does.
    """
    graph = read_quantised(model, dims)
    # Random stored values reach every branch of rounding; they mean nothing.
    if inputs is None:
        rng = np.random.default_rng(0)
        inputs = [
            {
                # The whole range of the stored type, ends included.
                n: rng.integers(t.range[0], t.range[1] + 1, t.shape).astype(t.dtype)
                for n, t in ((n, graph.tensors[n]) for n in graph.inputs)
            }
        ]
    return build_graph(graph, machine_of(isa, config), inputs, options=options)
