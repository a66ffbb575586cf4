"""Two parts of a plan put in each other's place: a run must notice (`--swap`).

Takes: files of the parts.  Leaves: files in which a computes what b should, under b's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csp_embed.errors import CheckError, InputError
from csp_embed.network.onnx.net import import_onnx
from csp_embed.run.device_parts import Part


def swapped(
    files: Mapping[int, Path], parts: Sequence[Part], swap: tuple[int, int], folder: Path
) -> dict[int, Path]:
    """Part a computes what b should and the other way round, under each other's tensor names."""
    onnx = import_onnx()
    a, b = swap
    if a == b or not all(0 <= i < len(parts) for i in swap):
        raise InputError(
            f"--swap {a} {b}: parts are numbered 0 to {len(parts) - 1}",
            hint="name two different parts",
        )
    if parts[a].replica != parts[b].replica:
        raise InputError(
            f"--swap {a} {b}: those parts are of different replicas",
            hint="name two parts of one replica",
        )
    # Loaded as models: names are exchanged, the files stay as they are.
    models = {i: onnx.load(str(files[i])) for i in swap}
    new = dict(files)
    for mine, theirs in ((a, b), (b, a)):
        want, have = models[mine].graph, onnx.ModelProto()
        have.CopyFrom(models[theirs])
        for side in ("input", "output"):
            left, right = getattr(want, side), getattr(have.graph, side)
            # Swapping needs the same kinds of tensors, or nothing would run at all.
            if [_type(v) for v in left] != [_type(v) for v in right]:
                raise CheckError(
                    f"parts {a} and {b} cannot stand for each other",
                    why=f"their {side}s differ in number, type or shape",
                    hint="swap two parts with the same inputs and outputs",
                )
        names = {
            r.name: w.name
            for side in ("input", "output")
            for w, r in zip(getattr(want, side), getattr(have.graph, side), strict=True)
        }
        _rename(have.graph, names)
        path = folder / f"swapped{mine}.onnx"
        onnx.save(have, str(path))
        new[mine] = path
    return new


def _type(value: Any) -> tuple[int, tuple[int, ...]]:
    kind = value.type.tensor_type
    return kind.elem_type, tuple(d.dim_value for d in kind.shape.dim)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Renames tensors; inner ones that clash with a new name step aside."""
    taken = set(names.values()) - set(names)
    full = dict(names)
    # An inner tensor of that name would be two tensors.
    for node in graph.node:
        for name in (*node.input, *node.output):
            if name in taken:
                full[name] = f"{name}__inner"
    for node in graph.node:
        for side in (node.input, node.output):
            for at, name in enumerate(side):
                side[at] = full.get(name, name)
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = full.get(value.name, value.name)
