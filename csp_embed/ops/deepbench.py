"""Layers by id from the lists in `deepbench/`: shapes, epilogues and the reference's figures.

`deepbench/deepbench_inference.json`: the 187 layers of DeepBench inference;
`deepbench/networks.json`: layers of well-known networks. Both state their origin. A layer is a JSON
object with `id`, `op` and the extents that the operator's constructor takes; `EPILOGUES` has the
epilogues that both files state. `layer_list` reads a list of the user's own.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from csp_embed import ops
from csp_embed.errors import InputError, OperatorError
from csp_embed.ir.operator import Operator

FILES = ("deepbench_inference.json", "networks.json")
# As stated in deepbench_inference.json: convolutions add a bias after the shift, products do not.
PLAIN = {"shift": 8, "clip": (0, 127)}
EPILOGUES: Mapping[str, Mapping[str, Any]] = {
    "conv2d": {**PLAIN, "bias": True, "bias_range": 32768},
    "depthwise_conv2d": {**PLAIN, "bias": True, "bias_range": 32768},
    "matmul": PLAIN,
    "batch_matmul": {**PLAIN, "constants": ()},  # attention: both operands are activations
    # Own lists may also name these.
    "conv1d": {**PLAIN, "bias": True, "bias_range": 32768},
    "conv3d": {**PLAIN, "bias": True, "bias_range": 32768},
    "conv_transpose2d": {**PLAIN, "bias": True, "bias_range": 32768},
    "dense": PLAIN,
    "max_pool2d": {},
    "avg_pool2d": {},
}
# What an entry of a list may say besides its operator's own arguments.
ABOUT = (
    "id", "op", "class", "count", "network", "macs", "sets", "bound_cycles", "reference",
    "reference_note",
)  # fmt: skip
EPILOGUE = ("shift", "bias", "bias_before_shift", "bias_range", "clip", "layout")


def folder() -> Traversable:
    """`deepbench/` inside an installed wheel, or at the top of a checkout.

    Raises: InputError where the installation has neither.
    """
    package = files("csp_embed")
    # First inside: an installed wheel must not pick up a folder that lies beside it.
    for place in (package / "deepbench", Path(str(package)).parent / "deepbench"):
        if place.joinpath(FILES[0]).is_file():
            return place
    raise InputError(
        "the data folder 'deepbench' is missing from this installation",
        where=str(package),
        hint="reinstall csp-embed from a wheel or a checkout",
    )


# Read once: sweeps ask for hundreds of layers.
@cache
def load(file: str) -> tuple[Mapping[str, Any], ...]:
    """The layers of one of `FILES`, in its order."""
    with folder().joinpath(file).open("r", encoding="utf-8") as stream:
        return tuple(json.load(stream)["layers"])


def layers(selection: str = "all") -> list[Mapping[str, Any]]:
    """Layer records of "conv" (103), "gemm" (84), "all" (187, DeepBench) or "networks".

    Raises: OperatorError for another selection.
    """
    if selection == "networks":
        return list(load(FILES[1]))
    kinds = {"conv": ("conv2d",), "gemm": ("matmul",), "all": ("conv2d", "matmul")}
    if selection not in kinds:
        raise OperatorError(
            f"unknown selection {selection!r}", hint="one of conv, gemm, all, networks"
        )
    # By operator: the list has no other classes.
    return [record for record in load(FILES[0]) if record["op"] in kinds[selection]]


def record(id: str) -> Mapping[str, Any]:
    """The record of a layer by id. Raises: OperatorError where no list has it."""
    for file in FILES:
        for found in load(file):
            if found["id"] == id:
                return found
    raise OperatorError(
        f"there is no layer {id!r}",
        where="deepbench/",
        why="ids run conv000 … conv102, gemm000 … gemm083; networks have names like "
        + load(FILES[1])[0]["id"],
        hint="csp-embed compile deepbench:conv000",
    )


def arguments(op: str) -> dict[str, bool]:
    """Names of the constructor's own arguments, and whether each is required."""
    parameters = inspect.signature(getattr(ops, op)).parameters.values()
    # From the signature: a new argument of an operator is one of lists at once.
    return {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}


def build(found: Mapping[str, Any]) -> Operator:
    """The operator of a layer record; `notes["layer"]` is its id.

    An epilogue that the record states stands in place of its part of the usual one. Raises:
    OperatorError where the extents make no operator.
    """
    op = str(found["op"])
    known = (*arguments(op), *EPILOGUE)
    given = {key: found[key] for key in known if key in found}
    # A copy: the usual epilogue is shared by all layers.
    epilogue = dict(EPILOGUES[op])
    # Two biases would be refused; the record's form stands for the usual one.
    if given.get("bias_before_shift"):
        epilogue.pop("bias", None)
    return getattr(ops, op)(**(epilogue | given), notes={"layer": found["id"]})


def layer(id: str) -> Operator:
    """The operator of a layer with its epilogue.

    >>> layer("gemm000").text()
    'y[n,m] += x[n,k] * w[m,k]; shr 8; max 0; min 127'
    """
    return build(record(id))
