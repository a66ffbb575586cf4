"""Sizes and rates with units, as people write them: 80 GB, 1.25 GB/s, 10 Gbit/s.

Numbers without a unit are bytes, or bytes per second. "gbps" is refused: it means bits to most
people and bytes to some published cluster files, a factor of 8 apart.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PositiveFloat

_PREFIX = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
           "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}  # fmt: skip
_FORM = re.compile(
    r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([kMGT]i?)?(B|byte|bytes|bit|bits)(/s)?\s*$"
)


def _read(value: Any, rate: bool) -> Any:
    """A text with a unit as bytes (per second); anything else is left to pydantic."""
    if not isinstance(value, str):
        return value
    # A number in quotes is a number.
    try:
        return float(value)
    except ValueError:
        pass
    wanted = "10 Gbit/s or 1.25 GB/s" if rate else "80 GB or 80e9"
    # Before the pattern: "Gbps" would else be "no rate", which does not say why.
    if re.search(r"bps", value, re.IGNORECASE):
        raise ValueError(f"{value!r} may mean bits or bytes; write {wanted}")
    found = _FORM.match(value)
    # A rate needs "/s" and a size must not have it.
    if found is None or bool(found[4]) != rate:
        raise ValueError(f"{value!r} is no {'rate' if rate else 'size'}; write {wanted}")
    bits = found[3].startswith("bit")
    return float(found[1]) * _PREFIX[found[2] or ""] / (8 if bits else 1)


Bytes = Annotated[PositiveFloat, BeforeValidator(lambda v: _read(v, False))]
BytesPerS = Annotated[PositiveFloat, BeforeValidator(lambda v: _read(v, True))]
