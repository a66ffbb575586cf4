"""Sections of a spec that both formats have."""

from __future__ import annotations

from collections.abc import Mapping

from csp_embed.machine.reading.tree import NAMES, Item, is_name

# Lanes of one element beyond this would not be expanded point by point.
MAX_LANES = 1 << 16


def read_dims(item: Item, names: Mapping[str, int]) -> dict[str, int]:
    """Lanes by dimension; b, o and i are always there. Raises: SpecError."""
    # Three names are always there, so that nothing downstream asks whether a machine has batches.
    dims = {"b": 1, "o": 1, "i": 1}
    for key, value in item.entries().items():
        if not is_name(key):
            raise value.error(f"'{key}' is not a name", NAMES)
        dims[key] = value.integer(names)
        if dims[key] < 1:
            raise value.error(f"dimension '{key}' is {dims[key]}", "at least 1 is needed")
        if dims[key] > MAX_LANES:
            raise value.error(
                f"dimension '{key}' has {dims[key]} lanes", f"at most {MAX_LANES} are handled"
            )
    return dims
