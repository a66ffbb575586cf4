"""Profile files (csp-embed-profile/1): the time of each layer of one model on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from csp_embed.errors import InputError
from csp_embed.network.files.schema import Strict, parse, read_document

FORMAT = "csp-embed-profile/1"
Granularity = Literal["node", "fused", "block"]
Clock = Literal["wall", "cpu"]


class DeviceNote(Strict):
    """What was measured, and how. how: "measured", or "roofline" for a sample that is a model."""

    kind: str
    name: str = ""
    how: Literal["measured", "simulated", "roofline"]
    software: str = ""


class ModelNote(Strict):
    """sha256 of the model file that was measured."""

    name: str
    sha256: str = ""


class LayerTime(Strict):
    """ms: the layer's share of the whole model's time; null: the device lacks one of the operators.
    alone_ms: median of the runs of the layer as a model of its own, spread_ms: the distance between
    their quartiles; a device that was not profiled as a whole has one time, ms. by_batch: ms by
    batch size."""

    ms: float | None = Field(ge=0)
    alone_ms: float | None = Field(default=None, ge=0)
    op: str = ""
    spread_ms: float | None = Field(default=None, ge=0)
    by_batch: dict[int, float] = Field(default_factory=dict)


class Profile(Strict):
    """The whole file. whole_ms: the model in one piece: the sum of its layers and run_ms, what a
    model that does nothing takes. clock: wall or cpu time."""

    format: Literal["csp-embed-profile/1"]
    device: DeviceNote
    model: ModelNote
    granularity: Granularity
    threads: PositiveInt = 1
    runs: PositiveInt = 10
    warm_ups: int = Field(default=3, ge=0)
    weights: str = "as in the model"
    clock: Clock = "wall"
    whole_ms: float | None = Field(default=None, ge=0)
    run_ms: float = Field(default=0.0, ge=0)
    notes: str = ""
    layers: dict[str, LayerTime]


def read_profile(path: str | Path) -> Profile:
    """Raises: InputError naming file, line and item."""
    return parse(Profile, read_document(path)[0], path, FORMAT)


def layer_time(profile: Profile, layer: str, path: str | Path) -> LayerTime:
    """The time of one layer. Raises: InputError where the profile lacks it."""
    if layer not in profile.layers:
        raise InputError(
            f"the profile has no layer {layer!r}",
            # Names of layers depend on model and granularity.
            where=str(path),
            why=f"it was made for {profile.model.name} at granularity {profile.granularity}",
            hint="profile this model at this granularity: csp-embed profile MODEL -o FILE",
        )
    return profile.layers[layer]


def profile_document(profile: Profile) -> dict[str, Any]:
    """As written to a file; what is not known is left out, a null time stays."""
    document = profile.model_dump(exclude_none=True)
    # null says "no kernel", which is not the same as unknown.
    for name, time in profile.layers.items():
        document["layers"][name]["ms"] = time.ms
        if not time.by_batch:
            del document["layers"][name]["by_batch"]
    return document
