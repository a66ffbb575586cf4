"""One row per operator and shape; generic tests run every row on several machines.

A row has an exact fit or needs padding somewhere; add two rows with a new operator.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from csp_embed import ops
from csp_embed.ir.operator import Operator
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa

CONFIGS = Path(__file__).parent / "data" / "configs"
EPILOGUE = {"shift": 4, "bias": True, "bias_range": 5000, "clip": (0, 127)}

CASES: dict[str, Callable[[], Operator]] = {
    "matmul exact": lambda: ops.matmul(m=32, n=4, k=48, shift=5),
    "matmul ragged": lambda: ops.matmul(m=35, n=7, k=21, **EPILOGUE),
    "matmul one": lambda: ops.matmul(m=1, n=1, k=1),
    "batch matmul": lambda: ops.batch_matmul(batch=3, m=10, n=5, k=17, shift=4),
    "dense": lambda: ops.dense(n=1, c=33, k=20, bias_before_shift=True, shift=3),
    "conv1d dilated": lambda: ops.conv1d(n=2, c=5, w=23, k=9, r=3, dilation=2, **EPILOGUE),
    "conv2d same": lambda: ops.conv2d(n=1, c=16, h=7, w=7, k=16, r=3, s=3, pad=1, **EPILOGUE),
    "conv2d stem": lambda: ops.conv2d(n=1, c=3, h=13, w=11, k=17, r=5, s=5, stride=2, pad=2,
                                      **EPILOGUE),
    "conv2d padding only": lambda: ops.conv2d(n=2, c=20, h=3, w=3, k=8, r=1, s=1, stride=2, pad=3,
                                              **EPILOGUE),
    "conv2d without epilogue": lambda: ops.conv2d(n=1, c=4, h=5, w=5, k=5, r=1, s=1, pad=1),
    "conv2d grouped": lambda: ops.conv2d(n=1, c=12, h=6, w=6, k=15, r=3, s=3, groups=3, pad=1,
                                         **EPILOGUE),
    "conv2d channels last": lambda: ops.conv2d(n=1, c=10, h=8, w=6, k=12, r=2, s=3,
                                               layout="NHWC", **EPILOGUE),
    "depthwise": lambda: ops.depthwise_conv2d(n=1, c=19, h=9, w=9, r=3, s=3, pad=1, **EPILOGUE),
    "depthwise strided": lambda: ops.depthwise_conv2d(n=1, c=6, h=9, w=10, r=3, s=3, stride=2,
                                                      shift=3),
    "conv3d": lambda: ops.conv3d(n=1, c=3, d=4, h=5, w=6, k=9, t=2, r=3, s=2, pad=1, shift=4),
    "transposed": lambda: ops.conv_transpose2d(n=1, c=6, h=4, w=5, k=7, r=3, s=3, stride=2,
                                               shift=3),
    "max pool": lambda: ops.max_pool2d(n=1, c=18, h=9, w=9, r=3, s=3, stride=2, pad=1),
    "average pool": lambda: ops.avg_pool2d(n=1, c=10, h=8, w=8, r=2, s=2, m=200, shift=9),
    "elementwise": lambda: ops.elementwise((9, 20), [("add", "z"), ("shr", 3), ("clip", -5, 99)]),
    "elementwise copy": lambda: ops.elementwise((33,), []),
    "transposed add": lambda: ops.parse_formula(
        "y[i,j] = a[j,i] + b[i]", {"a": (7, 9), "b": (9,)}
    ),
    "formula": lambda: ops.parse_formula(
        "y[k,p] += x[c,p+r] * w[k,c,2-r]; add b[p]; shr 4; r < 3", {"x": (5, 30), "w": (18, 5, 3)}
    ),
}  # fmt: skip

MACHINES: dict[str, Callable[[], Isa]] = {
    "vta": lambda: load_isa("vta"),
    "vta small": lambda: load_isa("vta", CONFIGS / "1x4x4_small.json"),
    "vta batch": lambda: load_isa("vta", CONFIGS / "2x16x16.json"),
    "toy dot": lambda: load_isa("toy_dot"),
    "toy outer": lambda: load_isa("toy_outer"),
}

# Rows for machines that read a stream alone: what they are about, other targets do not have.
STREAM_CASES: dict[str, Callable[[], Operator]] = CASES | {
    # A multiplier wider than int8: products of each digit, with a shift to the left between.
    "average pool in digits": lambda: ops.avg_pool2d(
        n=1, c=10, h=9, w=7, r=5, s=3, stride=(2, 1), m=-1337, shift=14
    ),
    # 27 products leave lanes of two steps idle, and the bias is small enough for them.
    "idle lanes": lambda: ops.conv2d(
        n=1, c=3, h=7, w=6, k=5, r=3, s=3, shift=8, bias=True, bias_range=90, clip=(-9, 99)
    ),
    # Both operands are narrower than the sums, and come in by an identity.
    "narrow sum": lambda: ops.elementwise(
        (5, 20), [("add", "z"), ("max", -7)], pad=1, dtypes={"x": "int8", "z": "int8"}
    ),
}
