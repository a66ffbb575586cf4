"""Elementwise programs on the accumulator: a chain of steps on one int32 tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ops.convolution import pads
from csp_embed.ops.formula import integer, parse_formula, positive_shape

# As many dimensions as any tensor here; letters read as loop counters.
AXES = "ijklmnop"
# name -> numbers of arguments
STEPS = {
    "add": 1,
    "mul": 1,
    "max": 1,
    "min": 1,
    "shr": 1,
    "shl": 1,
    "relu": 0,
    "clip": 2,
    "bias": 1,
}


def elementwise(
    shape: Sequence[int], steps: Iterable[Sequence[Any] | str], *, pad: Any = 0, **options: Any
) -> Operator:
    """y = the steps applied to x, one after the other, in wrap-around int32; then the low 8 bits.

    shape: of x (int32) and y (int8). steps: ("add", 17), ("add", "z") with another int32 tensor of
        x's shape, ("bias", "b") with one int32 number per entry of the last dimension, ("shr", 3),
        ("shl", 1), ("mul", 3), ("max", 0), ("min", "z"), "relu", ("clip", 0, 127).
    pad: zeros around x before the steps, as in `pads` of ops/convolution.py: all begins, then all
        ends, or (begin, end) pairs as in numpy.pad; y, and z, are larger by them.
    options: constants, bias_range (for bias steps), dtypes, name, notes, as in `parse_formula`.
    Raises: OperatorError for an unknown step or a wrong number of arguments.

    >>> elementwise((4, 16), [("add", "z"), ("bias", "b"), ("shr", 2), "relu"]).text()
    'y[i,j] = x[i,j]; add z[i,j]; add b[j]; shr 2; max 0'
    """
    sizes = positive_shape("x", shape)
    if not 1 <= len(sizes) <= len(AXES):
        raise OperatorError(
            f"x has {len(sizes)} dimensions; 1 to {len(AXES)} are possible",
            hint="merge dimensions: no step looks across them",
        )
    axes = AXES[: len(sizes)]
    index = f"[{','.join(axes)}]"
    bound = options.pop("bias_range", None)
    within = "" if bound is None else f" within {integer(bound, 'bias_range')}"
    # The host's padding: zeros before the steps.
    sides = pads(pad, len(sizes))
    grown = tuple(n + lo + hi for n, (lo, hi) in zip(sizes, sides, strict=True))
    # Reads outside are 0; only the begin shifts the index.
    reads = [f"{a}-{lo}" if lo else a for a, (lo, _) in zip(axes, sides, strict=True)]
    parts = [f"y{index} = x[{','.join(reads)}]"]
    for step in steps:
        name, *args = [step] if isinstance(step, str) else list(step)
        if name not in STEPS:
            raise OperatorError(f"unknown step {name!r}", hint=f"one of {', '.join(STEPS)}")
        if len(args) != STEPS[name]:
            raise OperatorError(
                f"step {name} takes {STEPS[name]} arguments, got {len(args)}",
                hint=f"docs/formulas.md lists the steps; {name} takes {STEPS[name]}",
            )
        # Along the last dimension, as in every framework.
        if name == "bias":
            parts.append(f"add {args[0]}[{axes[-1]}]{within}")
            continue
        words = [a + index if isinstance(a, str) else str(integer(a, name)) for a in args]
        parts.append(" ".join([str(name), *words]))
    shapes = {"x": sizes, "y": grown}
    # Stated: padding at the end cannot be read off the shapes.
    extents = dict(zip(axes, grown, strict=True))
    options = {"name": "elementwise", "extents": extents, **options}
    return parse_formula("; ".join(parts), shapes, **options)
