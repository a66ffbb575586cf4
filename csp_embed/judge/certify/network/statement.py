"""What a network's program file states: graph, rounds of each layer, where tensors lie.

docs/program-file.md has the form. Arrays stand in the file under names of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.narrow import is_object

Ints = NDArray[np.int64]
Steps = tuple[tuple[str, int | str], ...]
"""(function, immediate) or (function, name): "b" biases, "s" shifts, "d" and "e" limits."""
FUNCTIONS = ("add", "shr", "max", "min")
BASE = 32  # bits of an element's number, in tables of packed operands


@dataclass(frozen=True, eq=False)
class Tensor:
    """zero: one zero point, or one per channel. reach: least and largest stored value that the
    file states. data: of a constant, else None."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    zero: tuple[int, ...]
    reach: tuple[int, int]
    data: NDArray[Any] | None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def zero_point(self) -> int:
        """Of an activation."""
        return self.zero[0] if self.zero else 0


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator of the graph; `values` has its attributes by name (docs/networks.md)."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    values: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Layer:
    """Instructions begin .. end-1 of the stream, and how they are said to compute the operator.

    weights: of each round [channels, products]; bias: of each round [channels]; shift: of each
    round [channels] or None; limit and ceiling: what `max d` and `min e` read, likewise. between:
    the steps after each round but the last; after: behind that. copies: so many rounds after the
    first make no products: each adds what was kept last. kept: (round, steps) pairs: the sums are
    kept as they are after so many steps of that round. fill: what x holds where no element lies.
    axis: along which the channels lie in y."""

    name: str
    begin: int
    end: int
    copies: int
    kept: tuple[tuple[int, int], ...]
    fill: int
    axis: int
    between: tuple[Steps, ...]
    after: Steps
    weights: tuple[Ints, ...]
    bias: tuple[Ints, ...]
    shift: tuple[Ints | None, ...]
    limit: tuple[Ints | None, ...]
    ceiling: tuple[Ints | None, ...]

    @property
    def lanes(self) -> Mapping[str, tuple[Ints | None, ...]]:
        """By the function that reads them: numbers of channels, of each round."""
        return {"shr": self.shift, "max": self.limit, "min": self.ceiling}


@dataclass(frozen=True, eq=False)
class Packed:
    """Bytes from addr on that the host writes for one layer: table[n] is an element of `tensors`
    (tensor k from k << 32 on), or -1 for a constant of the file."""

    addr: int
    tensors: tuple[str, ...]
    table: Ints


@dataclass(frozen=True, eq=False)
class Statement:
    """places: byte address of every element of tensors that a layer stores or the host writes.
    outputs: tensors that the host reads at the end."""

    name: str
    tensors: Mapping[str, Tensor]
    operators: tuple[Operator, ...]
    layers: tuple[Layer, ...]
    places: Mapping[str, Ints]
    packed: tuple[Packed, ...]
    outputs: tuple[str, ...]


class Follower(Protocol):
    """Goes through the rounds of a layer, in whatever sums are to it."""

    def contract(self, n: int) -> None:
        """Adds the products of round n."""

    def run(self, steps: Steps, n: int) -> None:
        """Steps of round n on what was summed."""

    def copy(self) -> None:
        """Keeps what there is."""

    def add_copy(self) -> None:
        """Adds what was kept."""


def follow(layer: Layer, to: Follower) -> None:
    """All rounds of a layer in their order."""
    for n, steps in steps_of(layer):
        if 0 < n <= layer.copies:
            to.add_copy()
        else:
            to.contract(n)
        own = 0
        for until in (until for at, until in layer.kept if at == n):
            to.run(steps[own:until], n)
            to.copy()
            own = until
        to.run(steps[own:], n)


def steps_of(layer: Layer) -> Iterator[tuple[int, Steps]]:
    """(round, its steps), in order."""
    yield from enumerate((*layer.between, layer.after))


def is_network(meta: Mapping[str, Any]) -> bool:
    """Whether a program file is that of a network."""
    return is_object(meta.get("network"))


def read_statement(
    meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], where: str
) -> Statement:
    """Raises: InputError for a statement that is missing or cannot be understood."""
    network: Any = meta["network"]
    document = network.get("statement")
    if not is_object(document):
        raise InputError(
            "the file does not state its network", where=where, why="meta.network has no statement",
            hint="build it again with csp-embed build MODEL -o FILE",
        )  # fmt: skip
    try:
        return _statement(network, document, arrays)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise InputError(
            "the network's statement cannot be understood", where=f"{where}: meta.network",
            why=f"{type(error).__name__}: {error}", hint="docs/program-file.md has the form",
        ) from error  # fmt: skip


def _statement(
    network: Mapping[str, Any], document: Any, arrays: Mapping[str, NDArray[Any]]
) -> Statement:
    tensors = {n: _tensor(n, t, arrays) for n, t in document["tensors"].items()}
    operators = tuple(
        Operator(str(o["kind"]), str(o["name"]), tuple(o["inputs"]), str(o["output"]), o)
        for o in document["operators"]
    )
    layers = tuple(_layer(entry, arrays) for entry in document["layers"])
    places = {n: _places(p, tensors[n], arrays) for n, p in document["places"].items()}
    packed = tuple(
        Packed(int(p["addr"]), tuple(p["tensors"]), arrays[p["table"]].astype(np.int64))
        for p in document["packed"]
    )
    # Checked here, so that later indexing cannot read another tensor's numbers.
    for p in packed:
        sizes = [tensors[n].elements for n in p.tensors]
        owner, number = np.divmod(p.table[p.table >= 0], 1 << BASE)
        if p.table.ndim != 1 or (owner >= len(sizes)).any():
            raise ValueError("a packed operand names a tensor that it does not have")
        if (number >= np.array(sizes)[owner]).any():
            raise ValueError("a packed operand names elements that its tensors do not have")
    known = {o.name for o in operators}
    # By name a layer finds the operator that it is compared with.
    missing = [layer.name for layer in layers if layer.name not in known]
    if missing or len({layer.name for layer in layers}) != len(layers):
        raise ValueError(f"layers {missing} are no operators, or one is there twice")
    return Statement(
        str(network["name"]), tensors, operators, layers, places, packed,
        tuple(n for n in network["outputs"] if n in tensors),
    )  # fmt: skip


def _tensor(name: str, t: Any, arrays: Mapping[str, NDArray[Any]]) -> Tensor:
    shape = tuple(int(n) for n in t["shape"])
    dtype = str(np.dtype(t["dtype"]))
    data = arrays[t["data"]].reshape(shape) if "data" in t else None
    low, high = t.get("range", (-128, 127))
    # Ranges are what the intervals of later layers begin with.
    if data is None and (dtype != "int8" or not -128 <= low <= high <= 127):
        raise ValueError(f"{name} is {dtype} within {low} .. {high}: activations are int8")
    return Tensor(name, shape, dtype, tuple(int(z) for z in t["zero"]), (int(low), int(high)), data)


def _layer(entry: Any, arrays: Mapping[str, NDArray[Any]]) -> Layer:
    bias = tuple(arrays[n].astype(np.int64).reshape(-1) for n in entry["bias"])
    channels = len(bias[0])
    weights = tuple(arrays[n].astype(np.int64).reshape(channels, -1) for n in entry["weights"])
    shift, limit, ceiling = (
        tuple(None if n is None else arrays[n].astype(np.int64).reshape(-1) for n in names)
        for names in (entry["shift"], entry["limit"], entry["ceiling"])
    )
    between = tuple(_steps(s) for s in entry["between"])
    rounds = len(between) + 1
    if {len(weights), len(bias), len(shift), len(limit), len(ceiling)} != {rounds}:
        raise ValueError(f"{entry['name']} has constants of another number of rounds")
    lanes = (s for s in (*shift, *limit, *ceiling) if s is not None)
    if any(len(s) != channels for s in (*bias, *lanes)):
        raise ValueError(f"{entry['name']} has constants of another number of channels")
    copies = int(entry["copies"])
    if not 0 <= copies < rounds:
        raise ValueError(f"{entry['name']} takes a copy of its sums in {copies} of {rounds} rounds")
    kept = tuple((int(n), int(until)) for n, until in entry["kept"])
    # In order, so that whoever follows them passes each; the first copy needs one before it.
    if list(kept) != sorted(set(kept)) or (copies and (not kept or kept[0][0] > 0)):
        raise ValueError(
            f"{entry['name']} adds sums that were not kept, or keeps them out of order"
        )
    if any(not 0 <= n < rounds - 1 or not 0 <= until <= len(between[n]) for n, until in kept):
        raise ValueError(f"{entry['name']} keeps sums behind steps that it does not have")
    return Layer(
        str(entry["name"]), int(entry["begin"]), int(entry["end"]), copies, kept,
        int(entry["fill"]), int(entry["axis"]), between, _steps(entry["after"]), weights, bias,
        shift, limit, ceiling,
    )  # fmt: skip


def _steps(entries: Sequence[Any]) -> Steps:
    out: list[tuple[str, int | str]] = []
    for function, amount in entries:
        # Other pairs of function and tensor have no meaning in docs/program-file.md.
        known = {"add": ("b",), "shr": ("s",), "max": ("d",), "min": ("e",)}.get(function, ())
        if function not in FUNCTIONS or (isinstance(amount, str) and amount not in known):
            raise ValueError(f"the step {function} {amount} is not known")
        if function == "add" and not isinstance(amount, str):
            raise ValueError("an addition of an immediate")
        out.append((function, amount if isinstance(amount, str) else int(amount)))
    return tuple(out)


def _places(p: Any, t: Tensor, arrays: Mapping[str, NDArray[Any]]) -> Ints:
    if "table" in p:
        return arrays[p["table"]].astype(np.int64).reshape(t.shape)
    place = np.full((1,) * len(t.shape), int(p["addr"]), np.int64)
    for axis, line in enumerate(p["offset_bytes"]):
        place = place + np.array(line, np.int64).reshape(
            [-1 if a == axis else 1 for a in range(len(t.shape))]
        )
    return np.ascontiguousarray(np.broadcast_to(place, t.shape))
