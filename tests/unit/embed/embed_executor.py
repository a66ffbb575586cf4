"""Runs an embedding with NumPy, element by element: what the instruction would compute.

Nothing here knows how an embedding was found: it packs, loops over the counters, multiplies whole
elements as the instruction's operands say, and unpacks.
"""

from __future__ import annotations

import itertools

import numpy as np

from csp_embed.embed.algebra.packing import pack, unpack


def element(layout, values):
    """Grid index that a step meets, or None outside the grid."""
    index = list(layout.origin)
    for counter, step in layout.step.items():
        index = [i + s * values[counter] for i, s in zip(index, step, strict=True)]
    inside = all(0 <= i < n for i, n in zip(index, layout.grid, strict=True))
    return tuple(index) if inside else None


def run(embedding, isa, tensors):
    """The accumulator as the operator's output tensor (int32, wrapped), before the epilogue."""
    op = embedding.operator
    instruction = isa.instruction(embedding.instruction)
    dims = {o.role: o.dims for o in instruction.operands}
    layouts = embedding.layouts
    packed = {
        role: pack(layouts[role], embedding, isa, tensors[layouts[role].tensor]).astype(np.int64)
        for role in ("lhs", "rhs")
        if role in layouts
    }
    dst = layouts["dst"]
    start = {"max": -128, "min": 127}.get(op.kind, 0)
    acc = np.full((*dst.grid, *isa.lane_shape(dst.memory)), start, dtype=np.int64)
    letters = {d: chr(ord("a") + n) for n, d in enumerate(isa.dims)}
    spec = {role: "".join(letters[d] for d in v) for role, v in dims.items()}
    names = [c.name for c in embedding.counters]
    steps = 0
    for value in itertools.product(*(range(c.extent) for c in embedding.counters)):
        values = dict(zip(names, value, strict=True))
        where = {role: element(layouts[role], values) for role in packed}
        home = element(dst, values)
        assert home is not None
        if any(w is None for w in where.values()):
            continue
        steps += 1
        lhs = packed["lhs"][where["lhs"]]
        if op.kind == "contract":
            rhs = packed["rhs"][where["rhs"]]
            acc[home] += np.einsum(f"{spec['lhs']},{spec['rhs']}->{spec['dst']}", lhs, rhs)
        elif op.kind == "map":
            acc[home] = lhs
        else:
            acc[home] = (np.maximum if op.kind == "max" else np.minimum)(acc[home], lhs)
    assert steps == embedding.cost["steps"]
    return unpack(dst, embedding, isa, acc.astype(np.int32))


def brute(op, tensors):
    """The accumulator by definition: one loop over all points."""
    start = {"max": -128, "min": 127}.get(op.kind, 0)
    out = np.full(op.tensors[op.out.tensor].shape, start, dtype=np.int64)
    for value in itertools.product(*(range(n) for n in op.axes.values())):
        point = dict(zip(op.axes, value, strict=True))
        home = at(op.out, point)
        if not all(0 <= i < n for i, n in zip(home, out.shape, strict=True)):
            continue  # such a point does not exist (phases of a transposed filter)
        read = fetch(op, op.lhs, point, tensors)
        if op.kind == "contract":
            other = fetch(op, op.rhs, point, tensors)
            out[home] += 0 if read is None or other is None else int(read) * int(other)
        elif read is not None:
            fold = {"max": max, "min": min, "map": lambda _, b: b}[op.kind]
            out[home] = fold(int(out[home]), int(read))
    return out.astype(np.int32)


def at(access, point):
    return tuple(ix.const + sum(c * point[a] for a, c in ix.terms) for ix in access.index)


def fetch(op, access, point, tensors):
    index = at(access, point)
    shape = op.tensors[access.tensor].shape
    inside = all(0 <= i < n for i, n in zip(index, shape, strict=True))
    return tensors[access.tensor][index] if inside else None


def draw(op, seed=0):
    """Random tensors of the operator's shapes and types (int32 ones within int8)."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(-128, 128, t.shape).astype(t.dtype)
        for name, t in op.tensors.items()
        if name != op.out.tensor
    }
