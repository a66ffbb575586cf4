"""Odd operators of every constructor: what nobody would write, but somebody's exporter does.

Strides beyond the filter, filters that reach beyond the image, dilation larger than the image,
padding that holds whole windows, axes of one element, channels one above a block, groups of few.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from csp_embed import ops
from csp_embed.errors import CspEmbedError
from csp_embed.ir.operator import Operator

EPILOGUES: tuple[dict[str, Any], ...] = (
    {}, {"shift": 5}, {"shift": 4, "clip": (-3, 9)}, {"bias": True},
    *({"shift": 6, "bias": True, "bias_range": most, "clip": (0, 127)}
      for most in (1, 90, 4000, 32768)),
)  # fmt: skip


def odd_operator(rng: random.Random) -> Operator:
    """One that the constructors accept."""
    while True:
        try:
            return rng.choice(_KINDS)(rng)
        except CspEmbedError:
            # Many of these do not fit (a filter larger than the padded image): drawn again.
            continue


def _conv2d(rng: random.Random) -> Operator:
    pick = rng.choice
    g = pick((1, 1, 1, 1, 2, 3, 5))
    h, w = pick((1, 1, 2, 3, 5, 7, 11, 13, 17, 30)), pick((1, 1, 2, 3, 5, 7, 11, 19, 33, 101))
    r, s = pick((1, 1, 2, 3, 5, 7)), pick((1, 1, 2, 3, 4, 5, 9, 20))
    dilation = (pick((1, 1, 1, 2, 3, h + 2)), pick((1, 1, 2, w + 1)))
    return ops.conv2d(
        n=pick((1, 1, 2, 3, 17)), c=g * pick((1, 1, 2, 3, 5, 16, 17, 33)), h=h, w=w,
        k=g * pick((1, 1, 2, 3, 7, 16, 19, 35)), r=r, s=s, groups=g, dilation=dilation,
        stride=(pick((1, 1, 2, 3, 5)), pick((1, 1, 2, 3, 4, 7))),
        # Up to windows that hold padding alone.
        pad=(pick((0, 1, 2, r, dilation[0] * (r - 1), h + 3)),
             pick((0, 1, 2, s, dilation[1] * (s - 1), w + 2))),
        **pick(EPILOGUES),
    )  # fmt: skip


def _conv1d(rng: random.Random) -> Operator:
    pick = rng.choice
    r, d = pick((1, 2, 3, 7, 21, 101)), pick((1, 1, 2, 50))
    return ops.conv1d(
        n=rng.randint(1, 3), c=pick((1, 3, 17, 64)), w=pick((1, 2, 9, 50, 150)),
        k=pick((1, 5, 16, 33)), r=r, pad=pick((0, r // 2, d * (r - 1), r)), dilation=d,
        stride=pick((1, 2, 5)), **pick(EPILOGUES),
    )  # fmt: skip


def _conv3d(rng: random.Random) -> Operator:
    pick = rng.choice
    return ops.conv3d(
        n=1, c=pick((1, 3, 17)), d=pick((1, 2, 5)), h=pick((1, 3, 6)), w=pick((1, 4, 9)),
        k=pick((1, 4, 17)), t=pick((1, 2, 3)), r=pick((1, 2, 3)), s=pick((1, 3)),
        pad=pick((0, 1, 2)), stride=pick((1, 2)), **pick(EPILOGUES),
    )  # fmt: skip


def _matmul(rng: random.Random) -> Operator:
    pick = rng.choice
    return ops.matmul(m=pick((1, 2, 15, 17, 35, 257)), n=pick((1, 2, 31, 700)),
                      k=pick((1, 2, 15, 17, 300)), **pick(EPILOGUES))  # fmt: skip


def _depthwise(rng: random.Random) -> Operator:
    pick = rng.choice
    return ops.depthwise_conv2d(
        n=pick((1, 2)), c=pick((1, 3, 17, 40)), h=pick((1, 4, 9, 20)), w=pick((1, 5, 9, 31)),
        r=pick((1, 2, 3, 5)), s=pick((1, 3, 5)), stride=(pick((1, 2, 3)), pick((1, 2))),
        pad=pick((0, 1, 2, 4)), **pick(EPILOGUES),
    )  # fmt: skip


def _transposed(rng: random.Random) -> Operator:
    pick = rng.choice
    g = pick((1, 1, 2, 3))
    return ops.conv_transpose2d(
        n=1, c=g * pick((1, 3, 16)), h=pick((1, 2, 3, 7)), w=pick((1, 2, 4, 9)),
        k=g * pick((1, 3, 17)), r=pick((1, 2, 3, 4, 5)), s=pick((1, 2, 3)), groups=g,
        stride=(pick((1, 2, 3, 5)), pick((1, 2, 3))), pad=(pick((0, 1, 2)), pick((0, 1))),
        dilation=pick((1, 1, 2)), **pick(EPILOGUES),
    )  # fmt: skip


def _pool(rng: random.Random) -> Operator:
    pick = rng.choice
    r, s = pick((1, 2, 3, 5)), pick((1, 2, 3))
    stride, pad = (pick((1, 2, 3)), pick((1, 2, 4))), pick((0, 1))
    c, h, w = pick((1, 3, 17, 40)), pick((1, 3, 9, 14)), pick((2, 5, 9, 30))
    if rng.random() < 0.5:
        return ops.max_pool2d(n=pick((1, 2)), c=c, h=h, w=w, r=r, s=s, stride=stride, pad=pad)
    return ops.avg_pool2d(n=1, c=c, h=h, w=w, r=r, s=s, m=pick((5, 84, 200, -3, 900)),
                          shift=pick((3, 9, 12)), stride=stride, pad=pad)  # fmt: skip


def _elementwise(rng: random.Random) -> Operator:
    pick = rng.choice
    shape = tuple(pick((1, 2, 3, 9, 17, 20)) for _ in range(rng.randint(1, 3)))
    steps: list[Any] = pick((
        [("add", "z"), ("shr", 3), ("clip", -5, 99)], [("max", 0)], [("add", "z")],
        [("shr", -2), ("min", 7)], [],
    ))  # fmt: skip
    pad = pick((0, 0, 1)) if len(shape) > 1 else 0
    return ops.elementwise(shape, steps, **({"pad": pad} if pad else {}))


_KINDS: tuple[Callable[[random.Random], Operator], ...] = (
    *((_conv2d,) * 7), *((_transposed,) * 2), *((_pool,) * 2),
    _conv1d, _conv3d, _matmul, _depthwise, _elementwise,
)  # fmt: skip
