"""Which shapes depend on values: by the operators' definitions, not by trying."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

from csp_embed.network.onnx.net import node_reads

# Every input.
_ALL = range(99)
# Inputs whose values decide the shape of the results. Source: the operator definitions of ONNX.
_DECIDES: dict[str, Iterable[int]] = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Tile": (1, 2), "Pad": (1, 3),
    "Range": _ALL, "ConstantOfShape": (0,), "NonZero": (0,), "Unique": (0,), "Compress": (1,),
    "NonMaxSuppression": _ALL, "If": (0,), "Resize": (1, 2, 3), "Upsample": (1,), "TopK": (1,),
    "OneHot": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Split": (1,), "SplitToSequence": (1,),
    "AffineGrid": (1,), "HannWindow": (0,), "HammingWindow": (0,), "BlackmanWindow": (0,),
    "DFT": (1, 2), "STFT": (1, 3), "MaxUnpool": (2,), "Col2Im": (1, 2), "CenterCropPad": (1,),
    "MelWeightMatrix": _ALL, "ImageDecoder": (0,), "StringSplit": (0,), "SequenceAt": (1,),
    "BeamSearch": _ALL, "GreedySearch": _ALL, "Sampling": _ALL, "CropAndResize": (3,),
}  # fmt: skip


def depends_on_values(graph: Any, constants: Set[str], missing: Iterable[str]) -> set[str]:
    """Those of the `missing` tensors (that onnx's inference leaves open) whose shape depends on
    the values of the graph's inputs, directly or through a tensor that does.

    Loops are left out: what they carry seldom changes its shape, and trying shows it; what they
    collect does where the count is not constant.
    """
    open_ones = set(missing)
    found: set[str] = set()
    for node in graph.node:
        made = open_ones.intersection(node.output)
        if not made:
            continue
        # Axes of a reduction are values since opset 13 or 18.
        places = _DECIDES.get(node.op_type, (1,) if node.op_type.startswith("Reduce") else ())
        decided = {node.input[i] for i in places if i < len(node.input) and node.input[i]}
        if node.op_type == "Loop" and not node.domain and node.input[0] not in constants:
            # Outputs behind the carried values are collected: as long as the loop ran.
            carried = len(node.input) - 2
            found |= made.intersection(node.output[carried:])
        if not decided <= constants or not found.isdisjoint(node_reads(node)):
            found |= made
    return found
