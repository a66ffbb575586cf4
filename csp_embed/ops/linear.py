"""Matrix products: matmul, batch_matmul, dense."""

from __future__ import annotations

from typing import Any

from csp_embed.ir.operator import Operator
from csp_embed.ops.formula import parse_formula, positive


def matmul(*, m: int, n: int, k: int, **epilogue: Any) -> Operator:
    """y[n,m] += x[n,k] * w[m,k].

    Shapes: x int8 [n, k], w int8 [m, k], b int32 [m], y int8 [n, m].
    epilogue: shift, bias, bias_before_shift, clip, bias_range, as in `parse_formula`.
    Raises: OperatorError where an extent is no positive integer.

    >>> matmul(m=4, n=2, k=8, shift=3, clip=(0, 127)).text()
    'y[n,m] += x[n,k] * w[m,k]; shr 3; max 0; min 127'
    """
    m, n, k = positive(m, "m"), positive(n, "n"), positive(k, "k")
    shapes = {"x": (n, k), "w": (m, k), "y": (n, m)}
    return parse_formula("y[n,m] += x[n,k] * w[m,k]", shapes, name="matmul", **epilogue)


def dense(*, n: int, c: int, k: int, **epilogue: Any) -> Operator:
    """A fully connected layer, y[n,k] += x[n,c] * w[k,c].

    Shapes: x int8 [n, c], w int8 [k, c], b int32 [k], y int8 [n, k].
    """
    n, c, k = positive(n, "n"), positive(c, "c"), positive(k, "k")
    shapes = {"x": (n, c), "w": (k, c), "y": (n, k)}
    return parse_formula("y[n,k] += x[n,c] * w[k,c]", shapes, name="dense", **epilogue)


def batch_matmul(*, batch: int, m: int, n: int, k: int, **epilogue: Any) -> Operator:
    """One matmul per batch entry, y[z,n,m] += x[z,n,k] * w[z,m,k].

    Shapes: x int8 [batch, n, k], w int8 [batch, m, k], b int32 [m], y int8 [batch, n, m].
    w is a constant unless `constants=()` says that both operands are activations (attention).
    """
    batch, m = positive(batch, "batch"), positive(m, "m")
    n, k = positive(n, "n"), positive(k, "k")
    shapes = {"x": (batch, n, k), "w": (batch, m, k), "y": (batch, n, m)}
    text = "y[z,n,m] += x[z,n,k] * w[z,m,k]"
    return parse_formula(text, shapes, name="batch_matmul", **epilogue)
