"""Tensor operators: one formula notation for users and for the built-in operators.

`syntax` reads the text, `extents` finds the axes' extents, `formula` builds the `Operator`; `linear`,
`convolution`, … write formulas. `reference` computes with NumPy, `data` draws tensors, `bound` counts cycles
that no schedule can beat. Nothing here knows a machine.
"""

from csp_embed.ops.convolution import conv1d, conv2d, conv3d, depthwise_conv2d
from csp_embed.ops.formula import parse_formula
from csp_embed.ops.linear import batch_matmul, dense, matmul

__all__ = [
    "batch_matmul",
    "conv1d",
    "conv2d",
    "conv3d",
    "dense",
    "depthwise_conv2d",
    "matmul",
    "parse_formula",
]
