"""Tensor operators: one formula notation for users and for the built-in operators.

`syntax` reads the text, `extents` finds the axes' extents, `formula` builds the `Operator`;
`linear`, `convolution`, `transposed`, `pooling` and `pointwise` write formulas. `reference`
computes with NumPy, `data` draws tensors, `bound` counts cycles that no schedule can beat,
`deepbench` finds layers by id. Nothing here knows a machine by name.
"""

from csp_embed.ops.convolution import conv1d, conv2d, conv3d, depthwise_conv2d
from csp_embed.ops.formula import parse_formula
from csp_embed.ops.linear import batch_matmul, dense, matmul
from csp_embed.ops.pointwise import elementwise
from csp_embed.ops.pooling import avg_pool2d, max_pool2d
from csp_embed.ops.transposed import conv_transpose2d

__all__ = [
    "avg_pool2d",
    "batch_matmul",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose2d",
    "dense",
    "depthwise_conv2d",
    "elementwise",
    "matmul",
    "max_pool2d",
    "parse_formula",
]
