"""What each layer takes inside the whole model: onnxruntime's own profiler, read by layers.

onnxruntime rewrites a model before it runs it: it folds, fuses, and keeps tensors in a blocked
layout of its own. What is left of the nodes keeps traces of the original: a tensor's name as an
output or in the node's name, and the operator. Nodes without a trace (changes of layout) belong to
the layer that reads their result, else to the one that makes it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.network.onnx.layers import ELEMENTWISE, Layer
from csp_embed.network.onnx.net import Net, import_onnx
from csp_embed.network.onnx.runtime import open_session, run_session
from csp_embed.network.onnx.submodels import whole

_EVENT = "_kernel_time"


def kernel_ms(
    net: Net,
    constants: Mapping[str, Any],
    parts: Sequence[Layer],
    feeds: Mapping[str, Any],
    *,
    threads: int = 1,
    runs: int = 10,
    warm_ups: int = 3,
) -> dict[str, float]:
    """Wall-clock ms by layer name: sums over the kernels that compute it, 0 where onnxruntime fused
    it into another layer.

    The profiler knows no other clock: the lower quartile of the runs leaves out most of what other
    programs took.
    """
    # Both files are onnxruntime's: the trace, and the model as it was rewritten.
    with tempfile.TemporaryDirectory(prefix="csp-embed-profile-") as folder:
        rewritten = Path(folder) / "rewritten.onnx"
        session = open_session(
            whole(net, constants), net.path, threads, trace=Path(folder) / "t", rewritten=rewritten
        )
        # Warm-ups are in the trace too; they are cut off by their count.
        for _ in range(warm_ups + runs):
            run_session(session, None, dict(feeds), net.path)
        events = json.loads(Path(session.end_profiling()).read_text())
        nodes = list(import_onnx().load(str(rewritten), load_external_data=False).graph.node)
    samples: dict[str, list[float]] = {}
    for event in events:
        # Kernel events alone: a node has others for allocation.
        if event.get("cat") == "Node" and event["name"].endswith(_EVENT):
            # us to ms.
            samples.setdefault(event["name"].removesuffix(_EVENT), []).append(event["dur"] / 1e3)
    times = dict.fromkeys((part.name for part in parts), 0.0)
    for node, owner in zip(nodes, owners(net, parts, nodes), strict=True):
        if owner is not None and node.name in samples:
            # A loop's body has several events a run; a node outside has one.
            each = len(samples[node.name]) // (warm_ups + runs) or 1
            kept = samples[node.name][warm_ups * each :]
            if kept:  # fewer: a branch that was not taken each time
                # The lower quartile of one kernel, times its events in a run.
                times[owner] += each * float(np.percentile(kept, 25))
    return times


def owners(net: Net, parts: Sequence[Layer], nodes: Sequence[Any]) -> list[str | None]:
    """For each node of the rewritten model the layer that it computes; None: no trace at all."""
    layer_of = {index: part.name for part in parts for index in part.nodes}
    maker = {o: i for i, n in enumerate(net.nodes) for o in n.output if o}
    named = {n.name: i for i, n in enumerate(net.nodes)}
    found = [_trace(net, node, maker, named) for node in nodes]
    own = [None if index is None else layer_of[index] for index in found]
    makes = {o: at for at, node in enumerate(nodes) for o in node.output if o}
    for at in reversed(range(len(nodes))):  # a reader is known before what it reads
        # A change of layout belongs to the reader: it is made for it.
        if own[at] is None:
            outputs = set(nodes[at].output)
            readers = (own[i] for i in range(at + 1, len(nodes)) if outputs & set(nodes[i].input))
            own[at] = next((name for name in readers if name is not None), None)
    for at, node in enumerate(nodes):
        if own[at] is None:
            before = (own[makes[n]] for n in node.input if n in makes)
            own[at] = next((name for name in before if name is not None), None)
    return own


def _trace(net: Net, node: Any, maker: Mapping[str, int], named: Mapping[str, int]) -> int | None:
    """Index of the original node that a rewritten one stands for."""
    last = next((maker[o] for o in node.output if o in maker), None)
    if node.name in named:
        last = named[node.name]
    if last is None:
        # r8_bn_nchwc: the longest leading piece that names a tensor or a node.
        pieces = node.name.split("_")
        # Shorter and shorter, as suffixes are added at the end.
        for size in range(len(pieces), 0, -1):
            text = "_".join(pieces[:size])
            last = maker.get(text, named.get(text))
            if last is not None:
                break
    # Reorder nodes carry the name of what they reorder.
    if last is None or node.op_type.startswith("Reorder"):
        return last
    # A fused node may carry the name of its last operator: go back to the one that names the work,
    # over what can be fused into it (a lone BatchNormalization becomes a convolution too).
    kind = node.op_type.removeprefix("Fused")
    index: int | None = last
    while index is not None:
        if net.nodes[index].op_type == kind:
            return index
        # Only what a runtime fuses is walked back over.
        if net.nodes[index].op_type not in ELEMENTWISE:
            break
        reads = [maker[n] for n in net.reads(net.nodes[index]) if n in maker]
        index = reads[0] if len(reads) == 1 else None
    return last
