"""Random operators for machines that run C, by seed: shapes that leave remainders everywhere, and
rows long enough for vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from csp_embed import ops
from csp_embed.ir.operator import Operator

KINDS = ("matmul", "batch", "dense", "conv1d", "conv2d", "wide", "grouped", "depthwise", "conv3d",
         "transposed", "max", "average", "elementwise", "formula")  # fmt: skip


def operator(seed: int) -> Operator:
    """The operator of a seed."""
    rng = np.random.default_rng(seed)

    def low(a: int, b: int) -> int:
        return int(rng.integers(a, b + 1))

    def epilogue() -> dict[str, Any]:
        return [
            {}, {"shift": low(0, 9)}, {"shift": 5, "bias": True, "clip": (-low(0, 99), 99)},
            {"shift": 2, "bias_before_shift": True},
        ][low(0, 3)]  # fmt: skip

    match KINDS[seed % len(KINDS)]:
        case "matmul":
            return ops.matmul(m=low(1, 70), n=low(1, 40), k=low(1, 90), **epilogue())
        case "batch":
            return ops.batch_matmul(batch=low(1, 3), m=low(1, 30), n=low(1, 20), k=low(1, 40))
        case "dense":
            return ops.dense(n=low(1, 3), c=low(1, 200), k=low(1, 70), **epilogue())
        case "conv1d":
            return ops.conv1d(n=low(1, 2), c=low(1, 12), w=low(12, 90), k=low(1, 40), r=low(1, 5),
                              stride=low(1, 3), dilation=low(1, 2), pad=low(0, 4),
                              **epilogue())  # fmt: skip
        case "conv2d":
            return ops.conv2d(n=low(1, 2), c=low(1, 20), h=low(5, 14), w=low(5, 30), k=low(1, 40),
                              r=low(1, 5), s=low(1, 5), stride=(low(1, 3), low(1, 3)),
                              dilation=1, pad=(low(0, 3), low(0, 3)),
                              layout=("NCHW", "NHWC")[low(0, 1)], **epilogue())  # fmt: skip
        case "wide":
            return ops.conv2d(n=1, c=low(1, 4), h=low(7, 20), w=low(30, 90), k=low(8, 40),
                              r=low(1, 5), s=low(1, 7), stride=low(1, 2), pad=low(0, 3),
                              **epilogue())  # fmt: skip
        case "grouped":
            groups = low(2, 4)
            return ops.conv2d(n=1, c=groups * low(1, 6), h=low(5, 12), w=low(5, 24),
                              k=groups * low(1, 10), r=low(1, 3), s=low(1, 3), groups=groups,
                              pad=low(0, 2), dilation=(low(1, 2), low(1, 2)),
                              **epilogue())  # fmt: skip
        case "depthwise":
            return ops.depthwise_conv2d(n=low(1, 2), c=low(1, 24), h=low(5, 14), w=low(5, 30),
                                        r=low(1, 5), s=low(1, 5), stride=low(1, 2), pad=low(0, 2),
                                        **epilogue())  # fmt: skip
        case "conv3d":
            return ops.conv3d(n=1, c=low(1, 5), d=low(3, 5), h=low(3, 7), w=low(3, 18),
                              k=low(1, 20), t=low(1, 3), r=low(1, 3), s=low(1, 3),
                              pad=low(0, 1), **epilogue())  # fmt: skip
        case "transposed":
            groups = low(1, 2)
            return ops.conv_transpose2d(n=1, c=groups * low(1, 5), h=low(2, 7), w=low(2, 18),
                                        k=groups * low(1, 12), r=low(2, 3), s=low(2, 3),
                                        stride=low(1, 2), dilation=low(1, 2), groups=groups,
                                        **epilogue())  # fmt: skip
        case "max":
            return ops.max_pool2d(n=low(1, 2), c=low(1, 9), h=low(5, 20), w=low(5, 40),
                                  r=low(2, 4), s=low(2, 4), stride=low(1, 3),
                                  pad=low(0, 1))  # fmt: skip
        case "average":
            return ops.avg_pool2d(n=1, c=low(1, 40), h=low(5, 16), w=low(5, 30), r=low(2, 4),
                                  s=low(2, 4), m=low(1, 60), shift=low(0, 8))  # fmt: skip
        case "elementwise":
            steps = [("add", low(-99, 99)), ("mul", low(-3, 3)), ("shr", low(-3, 3)),
                     ("max", -low(0, 50)), ("min", low(0, 100))]  # fmt: skip
            return ops.elementwise((low(1, 30), low(1, 90)), steps[: low(1, 5)])
        case _:
            text = ("y[i,j] += x[i,k]*w[j,k]; mul m[j]; add z[j,i]; shr 7",
                    "y[j,i] += x[k,i]*w[j,k]; shr 5; max -3",
                    "y[k,p] += x[c,50-p+r]*w[k,2-r,c]; shr 6; r < 3")[low(0, 2)]  # fmt: skip
            i, j, k = low(1, 40), low(1, 40), low(1, 40)
            if text.startswith("y[i"):
                shapes = {"x": (i, k), "w": (j, k), "m": (j,), "z": (j, i)}
            elif text.startswith("y[j"):
                shapes = {"x": (k, i), "w": (j, k)}
            else:
                shapes = {"x": (k, 55), "w": (j, 3, k), "y": (j, low(2, 48))}
            return ops.parse_formula(text, shapes)
