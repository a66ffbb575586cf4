"""Which methods run in which order, and the numbers that they run with: a data file, typed.

Takes: `portfolio.json` beside this file, which `scripts/tune` scores.  Leaves: `PORTFOLIO`, frozen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

FILE = Path(__file__).with_suffix(".json")
STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, config=STRICT)
class Step:
    """One method in an order.

    do: the method's name in `methods.table`. when: which of the method's conditions decides (each
    method says which it knows; "" is its usual one). share: of what is left of a wall-clock limit.
    rounds: at effort 1. tasks: up to which the method is worth it."""

    do: str
    when: str = ""
    share: float = 1.0
    rounds: int = 0
    tasks: int = 0


@dataclass(frozen=True)
class Portfolio:
    """orders: the steps of each method that a user may ask for, by objective."""

    orders: Mapping[str, Mapping[str, tuple[Step, ...]]]


def read() -> Portfolio:
    """The file. Raises: pydantic's ValidationError where it is malformed (our bug)."""
    return TypeAdapter(Portfolio).validate_python(json.loads(FILE.read_text()))


PORTFOLIO = read()
METHODS = tuple(PORTFOLIO.orders["latency"])  # names that a user may ask for
