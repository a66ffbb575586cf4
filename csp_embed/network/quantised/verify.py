"""Whether a quantised graph is well formed: what every later stage relies on, checked once."""

from __future__ import annotations

import numpy as np

from csp_embed.errors import CheckError, InputError
from csp_embed.network.quantised import graph as g

INTEGER = ("int8", "uint8", "int16", "int32")


def verified(graph: g.Graph, hint: str) -> g.Graph:
    """The graph as an importer made it. Raises: InputError where the file contradicts itself."""
    try:
        verify(graph)
    except CheckError as error:
        why = ": ".join(t for t in (error.what, error.why) if t)
        raise InputError(
            "the model contradicts itself", where=graph.source, why=why, hint=hint
        ) from error
    return graph


def verify(graph: g.Graph) -> None:
    """Raises: CheckError naming the first operator that breaks a rule: names, order, shapes, types,
    the profile's kind of rescale, one multiplier per output channel."""
    if graph.profile not in g.PROFILES:
        raise CheckError(
            f"unknown profile {graph.profile!r}", hint="one of " + ", ".join(g.PROFILES)
        )
    # Constants and inputs are there before the first operator.
    known = {n for n, t in graph.tensors.items() if t.data is not None} | set(graph.inputs)
    # Every tensor, also those that no operator reads.
    for name, tensor in graph.tensors.items():
        _tensor(graph, name, tensor)
    names: set[str] = set()
    for op in graph.operators:
        missing = [n for n in op.inputs if n and n not in known]
        if missing:
            _refuse(graph, op, f"reads {missing[0]!r}, which nothing before it makes")
        # One maker: values are kept by name.
        if op.output in known:
            _refuse(graph, op, f"makes {op.output!r} a second time")
        if op.name in names:
            _refuse(graph, op, "its name is another operator's")
        names.add(op.name)
        known.add(op.output)
        _operator(graph, op)
    for name in graph.outputs:
        if name not in known:
            raise CheckError(
                f"output {name!r} is made by nothing",
                where=graph.source or graph.name,
                hint="write the model again with the tool that made it",
            )


def _refuse(graph: g.Graph, op: g.Operator, why: str) -> None:
    raise CheckError(
        f"{op.kind} {op.name!r} is not well formed",
        where=graph.source or graph.name,
        why=why,
        hint="write the model again with the tool that made it",
    )


def _tensor(graph: g.Graph, name: str, tensor: g.Tensor) -> None:
    where = graph.source or graph.name
    if tensor.name != name or tensor.dtype not in (*INTEGER, "int64"):
        raise CheckError(
            f"tensor {name!r}: name or type {tensor.dtype!r} is wrong",
            where=where,
            hint="write the model again with the tool that made it",
        )
    if any(extent < 1 for extent in tensor.shape):
        raise CheckError(
            f"tensor {name!r} has the shape {tensor.shape}",
            where=where,
            hint="give every tensor a fixed shape of at least 1 in each dimension",
        )
    # Data and declaration come from different places of a file.
    if tensor.data is not None and (
        tensor.data.shape != tensor.shape or tensor.data.dtype != np.dtype(tensor.dtype)
    ):
        raise CheckError(
            f"the data of {name!r} is not what its shape and type say",
            where=where,
            hint="write the model again with the tool that made it",
        )
    if len(tensor.zero_points) not in (0, 1, len(tensor.scales)):
        raise CheckError(
            f"tensor {name!r} has too many zero points",
            where=where,
            hint="write the model again with the tool that made it",
        )
    if not all(np.isfinite(s) and s > 0 for s in tensor.scales):
        raise CheckError(
            f"tensor {name!r} has a scale that is no positive number",
            where=where,
            hint="quantise the model again; a constant tensor may have given 0",
        )


def _operator(graph: g.Graph, op: g.Operator) -> None:
    # Zeros would be divided by in shapes.
    steps = [getattr(op, name, (1, 1)) for name in ("stride", "window", "dilation")]
    if any(n < 1 for pair in steps for n in pair) or getattr(op, "groups", 1) < 1:
        _refuse(graph, op, f"stride, window or dilation is not positive: {steps}")
    # "" stands for an operand that is left out.
    shapes = [graph.tensors[n].shape if n else () for n in op.inputs]
    out = graph.tensors[op.output]
    if not _ranks_fit(op, shapes):
        _refuse(graph, op, f"its operands have the shapes {shapes}")
    clamp = getattr(op, "clamp", None)
    # Within the type: a clamp beyond it would wrap where it is stored.
    if clamp is not None and not out.range[0] <= clamp[0] <= clamp[1] <= out.range[1]:
        _refuse(graph, op, f"clamps to {clamp}, the type holds {out.range}")
    rescale = getattr(op, "rescale", None)
    fixed = isinstance(rescale, g.FixedPoint | g.AddFixed)
    # A profile has one arithmetic: mixing them would be no runtime's answer.
    if rescale is not None and fixed != (graph.profile == "tflm"):
        _refuse(graph, op, f"its rescale is not that of profile {graph.profile}")
    parts = [rescale] if isinstance(rescale, g.FixedPoint) else []
    if isinstance(rescale, g.AddFixed):
        parts = [rescale.first, rescale.second, rescale.result]
    # Shifts beyond these leave int32 in every rule.
    if any(not -31 <= s <= 30 for part in parts for s in part.shift):
        _refuse(graph, op, f"its multiplier is beyond 2^30: {rescale}")
    if isinstance(op, g.Conv | g.FullyConnected):
        # The multipliers must be as many as the output's channels, or one.
        _channels(graph, op, shapes)
    # Shapes are recomputed from the operands: importers took them from the file.
    wanted = _out_shape(op, shapes)
    if wanted is not None and wanted != out.shape:
        _refuse(graph, op, f"its output is {out.shape}, its operands make {wanted}")
    if isinstance(op, g.Reshape) and graph.tensors[op.inputs[0]].elements != out.elements:
        _refuse(graph, op, "the number of elements changes")
    if isinstance(op, g.Lookup | g.Move):
        _table(graph, op)
    moved = (
        g.Reshape
        | g.Slice
        | g.Transpose
        | g.Concat
        | g.Pad
        | g.Clamp
        | g.MaxPool
        | g.Move
        | g.Spread
    )
    if isinstance(op, moved):
        # They move or compare stored values: another scale would change what those mean.
        for name in op.inputs[:1] if isinstance(op, g.Move) else op.inputs:
            t = graph.tensors[name]
            if (t.dtype, t.scales, t.zero_points) != (out.dtype, out.scales, out.zero_points):
                _refuse(graph, op, f"type or scale of {name!r} is not the output's")


def _table(graph: g.Graph, op: g.Lookup | g.Move) -> None:
    """The constant beside x has one entry per stored value or element."""
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    data = graph.tensors[op.inputs[1]].data
    if data is None:
        _refuse(graph, op, "its second operand is no constant")
        return
    if isinstance(op, g.Move):
        # All places inside, or a reader would move garbage.
        if data.shape != y.shape or data.min() < 0 or data.max() >= x.elements:
            _refuse(graph, op, f"places {data.shape} for {y.shape} of {x.elements} elements")
        return
    if len(x.shape) <= op.axis and len(data) > 1:
        _refuse(graph, op, f"axis {op.axis} of a tensor {x.shape}")
    channels = x.shape[op.axis] if len(data) > 1 else 1
    if data.shape != (channels, x.range[1] - x.range[0] + 1) or y.shape != x.shape:
        _refuse(graph, op, f"a table {data.shape} for {x.dtype} {x.shape}")
    # What a table gives is stored as it is, without a clamp.
    if data.min() < y.range[0] or data.max() > y.range[1]:
        _refuse(graph, op, "its table leaves the type of the result")


def _ranks_fit(op: g.Operator, shapes: list[tuple[int, ...]]) -> bool:
    """Whether the operands are as many, with as many axes, as the kind of operator asks for."""
    ranks = [len(s) for s in shapes]
    if isinstance(op, g.Conv):
        return ranks[:2] == [4, 4] and len(ranks) == 3
    if isinstance(op, g.FullyConnected):
        return len(ranks) == 3 and ranks[0] >= 1 and ranks[1] == 2
    if isinstance(op, g.Concat):
        return bool(ranks) and len(set(ranks)) == 1 and 0 <= op.axis < ranks[0]
    if isinstance(op, g.Add | g.Lookup | g.Move | g.Multiply):
        return len(ranks) == 2
    if isinstance(op, g.Spread):
        return ranks == [4]
    if isinstance(op, g.Outside):
        return bool(ranks)
    if isinstance(op, g.Pool):
        return ranks == [4]
    if isinstance(op, g.Pad):
        return ranks == [len(op.pads)]
    if isinstance(op, g.Transpose):
        return len(ranks) == 1 and sorted(op.order) == list(range(ranks[0]))
    return len(ranks) == 1 and (not isinstance(op, g.Slice) or ranks == [len(op.starts)])


def _channels(graph: g.Graph, op: g.Conv | g.FullyConnected, shapes: list[tuple[int, ...]]) -> None:
    x, w, b = shapes
    rescale = op.rescale
    count = len(rescale.multiplier if isinstance(rescale, g.FixedPoint) else rescale.scale)
    channels = x[1] if isinstance(op, g.Conv) and op.layout == "NCHW" else x[-1]
    groups = op.groups if isinstance(op, g.Conv) else 1
    if channels != w[-1] * groups or w[0] % groups:
        _refuse(graph, op, f"{channels} channels, weights {w}, {groups} groups")
    if b not in ((), (w[0],)) or count not in (1, w[0]):
        _refuse(graph, op, f"bias {b} or {count} multipliers for {w[0]} output channels")


def _out_shape(op: g.Operator, shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that an operator makes of its operands; None where any will do."""
    x = shapes[0]
    if isinstance(op, g.Conv):
        return _window_shape(op, x, shapes[1][1:3], op.dilation, shapes[1][0])
    if isinstance(op, g.Pool):
        channels = x[1] if op.layout == "NCHW" else x[3]
        return _window_shape(op, x, op.window, (1, 1), channels)
    if isinstance(op, g.FullyConnected):
        return (*x[:-1], shapes[1][0])
    if isinstance(op, g.Pad):
        return tuple(lo + n + hi for n, (lo, hi) in zip(x, op.pads, strict=True))
    if isinstance(op, g.Slice):
        return tuple(map(len, map(range, op.starts, op.stops, op.steps)))
    if isinstance(op, g.Transpose):
        return tuple(x[i] for i in op.order)
    if isinstance(op, g.Spread):
        # Between n values stand n - 1 gaps.
        sizes = ((n - 1) * d + 1 for n, d in zip(x[1:3], op.stride, strict=True))
        return (x[0], *sizes, x[3])
    if isinstance(op, g.Multiply):
        return tuple(max(pair) for pair in zip(*shapes, strict=True))
    if isinstance(op, g.Concat):
        total = sum(s[op.axis] for s in shapes)
        return tuple(total if i == op.axis else n for i, n in enumerate(x))
    if isinstance(op, g.Add):
        # No shape has -1: the difference is told as one of shapes.
        return x if x == shapes[1] else (-1,)
    return None if isinstance(op, g.Reshape | g.Mean | g.Move | g.Outside) else x


def _window_shape(
    op: g.Conv | g.Pool, x: tuple[int, ...], window: tuple[int, ...], dilation: g.Pair, c: int
) -> tuple[int, ...]:
    first = 2 if op.layout == "NCHW" else 1
    rows, columns = (
        # Floor: windows that do not fit whole are left out.
        (x[first + i] + sum(op.pads[i]) - dilation[i] * (window[i] - 1) - 1) // op.stride[i] + 1
        for i in range(2)
    )
    return (x[0], c, rows, columns) if first == 2 else (x[0], rows, columns, c)
