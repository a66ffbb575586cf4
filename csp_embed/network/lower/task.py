"""What an operator computes, before a recipe is chosen: its sums, its rule, what it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from csp_embed.network.lower.lowered import Array, Contraction
from csp_embed.network.lower.recipe import Recipe
from csp_embed.network.lower.thresholds import Rule
from csp_embed.network.quantised import graph as g


@dataclass(frozen=True, eq=False)
class Task:
    """contraction, rule: the sums and what becomes of them. reads, operand, arrange, fill: as in
    `Lowered`. proved: at which accumulators, in words. recipes: the exact ones and why others are
    not, where they are no function of one sum and so found elsewhere."""

    contraction: Contraction
    rule: Rule
    reads: tuple[str, ...]
    operand: Callable[[tuple[Array, ...], int], Array]
    arrange: Callable[[Array], Array]
    fill: int
    proved: str
    recipes: tuple[list[Recipe], list[str]] | None = None


def values_of(graph: g.Graph, name: str) -> g.Pair:
    """Least and largest stored value of a tensor: its maker's clamp, else its type's range; its
    zero point lies within."""
    # No operator makes it: an input, with its whole type.
    for op in graph.operators:
        clamp: g.Pair | None = getattr(op, "clamp", None)  # not every operator has an activation
        if op.output == name and clamp is not None:
            low, high = clamp
            zero = graph.tensors[name].zero
            return min(low, zero), max(high, zero)
    return graph.tensors[name].range


def nhwc(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """A shape with its channels last."""
    return (shape[0], *shape[2:], shape[1]) if layout == "NCHW" else shape


def to_nhwc(array: Array, layout: str) -> Array:
    """An array with its channels last: they share the lanes."""
    return np.moveaxis(array, 1, -1) if layout == "NCHW" else array
