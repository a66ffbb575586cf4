"""Layers by id from the lists in `deepbench/`: shapes, epilogues and the reference's figures.

`deepbench/deepbench_inference.json`: the 187 layers of DeepBench inference;
`deepbench/networks.json`: layers of well-known networks. Both state their origin. A layer is a JSON
object with `id`, `op` and the extents that the operator's constructor takes; `EPILOGUES` has the
epilogues that both files state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError, OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ops.convolution import conv2d, depthwise_conv2d
from csp_embed.ops.linear import batch_matmul, matmul

FILES = ("deepbench_inference.json", "networks.json")
EXTENTS = {
    "conv2d": ("n", "c", "h", "w", "k", "r", "s", "stride", "pad", "dilation", "groups"),
    "depthwise_conv2d": ("n", "c", "h", "w", "r", "s", "multiplier", "stride", "pad", "dilation"),
    "matmul": ("m", "n", "k"),
    "batch_matmul": ("batch", "m", "n", "k"),
}
BUILD = {
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "matmul": matmul,
    "batch_matmul": batch_matmul,
}
# As stated in deepbench_inference.json: convolutions add a bias after the shift, products do not.
PLAIN = {"shift": 8, "clip": (0, 127)}
EPILOGUES: Mapping[str, Mapping[str, Any]] = {
    "conv2d": {**PLAIN, "bias": True, "bias_range": 32768},
    "depthwise_conv2d": {**PLAIN, "bias": True, "bias_range": 32768},
    "matmul": PLAIN,
    "batch_matmul": {**PLAIN, "constants": ()},  # attention: both operands are activations
}


def folder() -> Traversable:
    """`deepbench/` inside an installed wheel, or at the top of a checkout.

    Raises: InputError where the installation has neither.
    """
    package = files("csp_embed")
    for place in (package / "deepbench", Path(str(package)).parent / "deepbench"):
        if place.joinpath(FILES[0]).is_file():
            return place
    raise InputError(
        "the data folder 'deepbench' is missing from this installation",
        where=str(package),
        hint="reinstall csp-embed from a wheel or a checkout",
    )


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
        hint="ids run conv000 … conv102, gemm000 … gemm083; networks have names like "
        + load(FILES[1])[0]["id"],
    )


def build(found: Mapping[str, Any]) -> Operator:
    """The operator of a layer record; `notes["layer"]` is its id."""
    op = str(found["op"])
    extents = {key: found[key] for key in EXTENTS[op] if key in found}
    return BUILD[op](**extents, **EPILOGUES[op], notes={"layer": found["id"]})


def layer(id: str) -> Operator:
    """The operator of a layer with its epilogue.

    >>> layer("gemm000").text()
    'y[n,m] += x[n,k] * w[m,k]; shr 8; max 0; min 127'
    """
    return build(record(id))
