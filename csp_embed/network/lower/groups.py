"""A grouped convolution with fewer, larger groups: what lies outside a group has factors of 0.

Groups of a few channels do not fill the lanes, and channels that share a vector with those of
another group cannot be read alone. Joined groups can, at the price of products with 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csp_embed.network.quantised import graph as g

LANES = 16  # of a usual machine; on others a multiple or a part of it


def with_joined_groups(graph: g.Graph, op: g.Operator) -> tuple[g.Graph, g.Operator] | None:
    """(graph, operator) with groups joined to whole vectors; None where it has no small groups."""
    if not isinstance(op, g.Conv) or op.groups == 1:
        return None
    w = graph.tensors[op.inputs[1]]
    if w.data is None:
        return None
    k, r, s, per = w.shape
    # Whole vectors on both sides: inputs of a group, and outputs of a group, fill lanes.
    wide = [
        m for m in range(2, op.groups + 1)
        if op.groups % m == 0 and per * m % LANES == 0 and k // op.groups * m % LANES == 0
    ]  # fmt: skip
    # Nothing fits: one group of all is still a convolution that the machine has.
    count = wide[0] if wide else op.groups
    each = k // op.groups
    # Stored zeros: the zero point stands for 0, so that products outside a group vanish.
    zeros = np.reshape(w.zero_points or (0,), (-1, 1, 1, 1))
    data = np.broadcast_to(zeros, (k, r, s, per * count)).astype(w.data.dtype)
    for n in range(op.groups):
        # Group n takes its own place among the `count` that were joined.
        at = n % count * per
        data[n * each : (n + 1) * each, :, :, at : at + per] = w.data[n * each : (n + 1) * each]
    name = f"{w.name} in {op.groups // count} groups"
    tensors = {**graph.tensors, name: replace(w, name=name, shape=data.shape, data=data)}
    made = replace(op, inputs=(op.inputs[0], name, *op.inputs[2:]), groups=op.groups // count)
    operators = tuple(made if o is op else o for o in graph.operators)
    return replace(graph, tensors=tensors, operators=operators), made
