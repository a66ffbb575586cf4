"""Plan files: csp-embed-serving/1."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.files import atomic
from csp_embed.network.files.schema import read_document
from csp_embed.serving.files.form import SERVING
from csp_embed.serving.instance import Instance

FORMAT = "csp-embed-serving/1"


@dataclass(frozen=True)
class ServingPlan:
    """placement: machine id -> (first layer, last layer), both included. value, bound: tokens/s
    (None: no plan). status: OPTIMAL, FEASIBLE, UNKNOWN. certificate: what proves the bound.
    seconds: of the search. method: which search found the plan. interrupted: Ctrl-C or SIGTERM.
    batch: the one chosen of several. more: what an objective adds."""

    instance: str
    placement: Mapping[str, tuple[int, int]]
    value: float | None
    bound: float | None
    certificate: Mapping[str, Any]
    status: str
    method: str = ""
    seconds: float = 0.0
    interrupted: bool = False
    batch: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        value = "no plan" if self.value is None else f"{self.value:g} tokens/s"
        bound = "none" if self.bound is None else f"{self.bound:g}"
        return (
            f"<ServingPlan {self.status} of {self.instance}: {value}, bound {bound}, "
            f"{len(self.placement)} machines, by {self.method or 'none'}>"
        )

    @property
    def gap(self) -> float | None:
        """(bound - value) / value."""
        # No plan, no gap; a value of 0 has none either.
        if not self.value or self.bound is None:
            return None
        # Both are rounded on their own: the gap is not told as negative.
        return max(0.0, self.bound / self.value - 1)

    def document(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "format": FORMAT,
            "instance": self.instance,
            "status": self.status,
            "value": self.value,
            "bound": self.bound,
            "method": self.method,
            # Both ends included, as people count layers.
            "placement": {name: list(interval) for name, interval in self.placement.items()},
            "certificate": dict(self.certificate),
            # Left out where there was no choice.
            **({} if self.batch is None else {"batch": self.batch}),
            **self.more,
            "seconds": self.seconds,
        }


def write_plan(plan: ServingPlan, path: str | Path) -> None:
    """Writes the plan, whole or not at all."""
    # Atomic: a plan that is cut off would be read as another plan.
    with atomic(path) as file:
        json.dump(plan.document(), file, indent=1)
        file.write("\n")


def read_plan(path: str | Path) -> dict[str, Any]:
    """A plan document. Raises: InputError where it is none."""
    document, _ = read_document(path, SERVING)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(
            f"not a {FORMAT} file",
            where=str(path),
            hint="`csp-embed serve plan INSTANCE -o plan.json` writes one",
        )
    return document


def named(
    instance: Instance, placement: Mapping[int, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """[first, end) by position as (first, last) by name."""
    return {instance.machines[i]: (a, b - 1) for i, (a, b) in placement.items()}


def rounded_up(value: Fraction) -> float:
    """The least float that is not below an exact value: a rounded bound must stay a bound."""
    near = float(value)
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)


def prices_document(instance: Instance, prices: Any) -> dict[str, Any]:
    """A bound's certificate (relaxation.Prices) in the form that check_prices.py reads."""
    names = instance.machines
    document: dict[str, Any] = {
        "rule": "prices",
        "groups": [
            {
                "type": instance.types[int(instance.kind[members[0]])].name,
                "machines": [names[i] for i in members],
                # As a text: a fraction that JSON's numbers would round.
                "price": str(price),
            }
            for members, price in prices.groups
        ],
    }
    if prices.devices:
        document["devices"] = [
            {"devices": list(names), "price": str(price)} for names, price in prices.devices
        ]
    # A multiplier of 0 says nothing, and the judge need not check its machines.
    if prices.alternation:
        document["alternation"] = {
            "multiplier": str(prices.alternation),
            "unlinked": [names[i] for i in prices.unlinked],
        }
    if prices.side_by_side:
        document["side_by_side"] = str(prices.side_by_side)
    return document
