"""Which stored element each index of each tensor is, through everything that only moves elements.

An element has a number over all tensors that a layer stores or the host writes. A constant v of
int8 stands as -129 - v, so that an array of 256 constants behind the elements is indexed alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.judge.certify.network.rules import Undecided
from csp_embed.judge.certify.network.statement import Operator, Statement

Ints = NDArray[np.int64]
CONSTANTS = np.arange(127, -129, -1, dtype=np.int64)
"""The value at each place behind the elements: index -129 - v, counted from the end, holds v."""


def constant(value: int) -> int:
    """The number that stands for a constant."""
    if not -128 <= value <= 127:
        raise Undecided(f"a border of {value}, which is no int8")
    return -129 - value


class Elements:
    """first: number of each tensor's first element. total: of all. ids: by tensor, in its shape;
    only of tensors that consist of stored elements and constants."""

    def __init__(self, s: Statement) -> None:
        stored = {o.output for o in s.operators if o.name in {la.name for la in s.layers}}
        # What the host writes for one layer is numbered too, though it lies in no
        # tensor's own place.
        given = [*s.places, *(n for p in s.packed for n in p.tensors)]
        self.first: dict[str, int] = {}
        self.total = 0
        for name in dict.fromkeys((*given, *sorted(stored))):
            self.first[name] = self.total
            self.total += s.tensors[name].elements
        # What no layer stores comes from the host, whose computing is outside the proof.
        self.written = frozenset(n for n in self.first if n not in stored)
        self.ids: dict[str, Ints] = {
            n: np.arange(at, at + s.tensors[n].elements).reshape(s.tensors[n].shape)
            for n, at in self.first.items()
        }
        # In the order of the graph: what moves twice finds its numbers.
        for op in s.operators:
            if op.output not in self.ids and all(n in self.ids for n in _moved_inputs(s, op)):
                self.ids[op.output] = _moved(s, op, self.ids)


def _moved_inputs(s: Statement, op: Operator) -> tuple[str, ...]:
    return op.inputs[:1] if op.kind == "Move" else op.inputs


def _moved(s: Statement, op: Operator, ids: Mapping[str, Ints]) -> Ints:
    """What an operator that computes nothing makes of its elements, by docs/networks.md."""
    v: Mapping[str, Any] = op.values
    shape = s.tensors[op.output].shape
    x = ids[op.inputs[0]]
    if op.kind == "Reshape":
        out = x.reshape(shape)
    elif op.kind == "Transpose":
        out = x.transpose([int(a) for a in v["order"]])
    elif op.kind == "Slice":
        cuts = zip(v["starts"], v["stops"], v["steps"], strict=True)
        out = x[tuple(slice(int(a), int(b), int(c)) for a, b, c in cuts)]
    elif op.kind == "Pad":
        sides = [(int(a), int(b)) for a, b in v["pads"]]
        out = np.pad(x, sides, constant_values=constant(int(v["value"])))
    elif op.kind == "Spread":
        out = np.full(shape, constant(int(v["value"])), np.int64)
        out[:, :: int(v["stride"][0]), :: int(v["stride"][1])] = x
    elif op.kind == "Move":
        # Any other movement is a table of positions, which is a constant of the graph.
        places = s.tensors[op.inputs[1]].data
        assert places is not None
        out = x.reshape(-1)[places.astype(np.int64)].reshape(shape)
    elif op.kind == "Concat":
        out = np.concatenate([ids[n] for n in op.inputs], axis=int(v["axis"]))
    else:
        raise Undecided(f"{op.name}: {op.kind} moves nothing that this judge knows")
    # The statement is a claim as well: a wrong shape would shift every later window.
    if out.shape != shape:
        raise ValueError(f"{op.output} is {list(out.shape)}, stated as {list(shape)}")
    return np.ascontiguousarray(out)
