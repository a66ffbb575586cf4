"""Fixed extents for the dynamic dimensions of a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csp_embed.errors import InputError


def bind_dims(graph: Any, dims: Mapping[str, int], path: str) -> None:
    """Sets the open dimensions of the graph's inputs in place.

    dims: extents by dimension name (`batch`), or by input and axis (`x:0`) where it has no name.
    Raises: InputError for dimensions that stay open (naming the option that binds each), for names
    that no input has, and for inputs that are not tensors.
    """
    for name, extent in dims.items():
        if extent <= 0:
            raise InputError(f"dimension {name}={extent} must be positive", where=path)
    still_open: dict[str, str] = {}  # what --dim calls it -> where it is
    known: dict[str, None] = {}
    for value in graph.input:
        for place, dim in enumerate(_shape(value, path).dim):
            spot = f"{value.name}:{place}"
            fixed = dim.HasField("dim_value") and dim.dim_value >= 0
            name = "" if fixed else dim.dim_param
            known |= dict.fromkeys([name] if name else [] if fixed else [spot])
            given = dims.get(name, dims.get(spot)) if name else dims.get(spot)
            if given is not None:
                if fixed and dim.dim_value != given:
                    raise InputError(
                        f"--dim {spot}={given}: that axis is fixed at {dim.dim_value}", where=path
                    )
                known[spot] = None
                dim.dim_value = given
            elif not fixed:
                label = f"{value.name} axis {place} ({name or 'unnamed'})"
                still_open.setdefault(name or spot, label)
    if still_open:
        raise InputError(
            "the model has dynamic shapes: " + "; ".join(list(still_open.values())[:5]),
            where=path,
            why="costs and transfers need fixed sizes",
            hint=" ".join(f"--dim {name}=EXTENT" for name in list(still_open)[:5]),
        )
    for name in dims:
        if name not in known:
            raise InputError(
                f"--dim {name}: no input of the model has that dimension",
                where=path,
                hint="dynamic dimensions: " + (", ".join(known) or "none"),
            )
    # Shapes written beside inner tensors may still be symbolic: let inference redo those.
    forget_open_shapes(graph)
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            for dim in value.type.tensor_type.shape.dim:
                if dim.HasField("dim_param"):
                    dim.Clear()


def forget_open_shapes(graph: Any) -> None:
    """Removes what is written beside inner tensors unless it is a fixed shape."""
    kept = [v for v in graph.value_info if _is_fixed(v)]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _is_fixed(value: Any) -> bool:
    kind = value.type.tensor_type
    fixed = value.type.HasField("tensor_type") and kind.HasField("shape")
    return fixed and all(d.HasField("dim_value") and d.dim_value >= 0 for d in kind.shape.dim)


def _shape(value: Any, path: str) -> Any:
    if not value.type.HasField("tensor_type"):
        raise InputError(
            f"graph input {value.name!r} is not a tensor",
            where=path,
            why="sequences, maps and optionals have no fixed size",
        )
    if not value.type.tensor_type.HasField("shape"):
        raise InputError(f"graph input {value.name!r} has no shape", where=path)
    return value.type.tensor_type.shape
