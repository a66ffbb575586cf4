"""Fixed extents for the dynamic dimensions of a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csp_embed.errors import InputError
from csp_embed.network.onnx.reading.normalise import read_names


def bind_dims(
    graph: Any, dims: Mapping[str, int], path: str, feeds: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Sets the open dimensions of the graph's inputs in place; returns the extents by name. Inputs
    that nobody reads are removed: their extents, or even what they are, do not matter.

    dims: extents by dimension name (`batch`), or by input and axis (`x:0`) where it has no name.
    feeds: arrays whose shapes give the rest. Raises: InputError for dimensions that stay open
    (naming the option that binds each), for names that no input has, for inputs that are not
    tensors, and for one name with two extents.
    """
    for name, extent in dims.items():
        if extent <= 0:
            raise InputError(
                f"dimension {name}={extent} must be positive", where=path, hint=f"--dim {name}=1"
            )
    still_open: dict[str, str] = {}  # what --dim calls it -> where it is
    known: dict[str, None] = {}
    # Extents found for one input hold for others of that name.
    bound = dict(dims)
    read = read_names(graph)
    for value in graph.input:
        # An unread input may even be no tensor; its names still count as known, so that --dim is no
        # error.
        if value.name not in read and value.type.HasField("tensor_type"):
            params = [d.dim_param for d in value.type.tensor_type.shape.dim]
            known |= dict.fromkeys(name for name in params if name)
            known |= {f"{value.name}:{place}": None for place in range(len(params))}
    kept = [value for value in graph.input if value.name in read]
    del graph.input[:]
    graph.input.extend(kept)
    values = [(v, _shape(v, path, feeds)) for v in graph.input]
    for value, shape in values:
        given = _given_shape(feeds, value.name, len(shape.dim))
        for place, dim in enumerate(shape.dim):
            # By place for dimensions without a name.
            spot = f"{value.name}:{place}"
            # A negative dim_value is how some exporters write an open dimension.
            fixed = dim.HasField("dim_value") and dim.dim_value >= 0
            name = "" if fixed else dim.dim_param
            # A named dimension is addressed by name only: one extent for all its places.
            known |= dict.fromkeys([name] if name else [] if fixed else [spot])
            extent = bound.get(name, bound.get(spot)) if name else bound.get(spot)
            if extent is None and given is not None and not fixed:
                extent = given[place]
                if name:
                    bound[name] = extent
            if extent is not None:
                # The file's word goes before the user's; a wrong --dim is told instead of ignored.
                if fixed and dim.dim_value != extent:
                    raise InputError(
                        f"--dim {spot}={extent}: that axis is fixed at {dim.dim_value}",
                        where=path,
                        hint="leave that --dim out",
                    )
                known[spot] = None
                dim.dim_value = extent
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
    # A misspelt name would leave the dimension at what the file says.
    for name in dims:
        if name not in known:
            raise InputError(
                f"--dim {name}: no input of the model has that dimension",
                where=path,
                hint="dynamic dimensions: " + (", ".join(known) or "none"),
            )
    return bound


def _given_shape(feeds: Mapping[str, Any] | None, name: str, rank: int) -> tuple[int, ...] | None:
    """The shape of an input's given value; None without one, or where its rank is another."""
    if feeds is None or name not in feeds or len(feeds[name].shape) != rank:
        return None
    return tuple(feeds[name].shape)


def _shape(value: Any, path: str, feeds: Mapping[str, Any] | None) -> Any:
    """The declared shape of an input; a given value says it where the file does not."""
    if not value.type.HasField("tensor_type"):
        raise InputError(
            f"graph input {value.name!r} is not a tensor",
            where=path,
            why="sequences, maps and optionals have no fixed size",
            hint="export the model with tensors as inputs",
        )
    if not value.type.tensor_type.HasField("shape"):
        if feeds is None or value.name not in feeds:
            raise InputError(
                f"graph input {value.name!r} has no shape",
                where=path,
                hint=f"--inputs FILE.npz with a value for {value.name}",
            )
        for extent in feeds[value.name].shape:
            value.type.tensor_type.shape.dim.add().dim_value = extent
        # A scalar has a shape, too: an empty one that is set.
        value.type.tensor_type.shape.SetInParent()
    return value.type.tensor_type.shape
