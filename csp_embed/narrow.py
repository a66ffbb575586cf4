"""`isinstance` for values that came from outside: what it lets through holds values of any type.

A checker takes `isinstance(value, list)` for a list of unknown things, and then all that is made of
it is unknown. These say that the members are still to be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from numpy.typing import NDArray


def is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """A list or a tuple."""
    return isinstance(value, list | tuple)


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    """A mapping, as JSON and YAML have them with keys of text."""
    return isinstance(value, Mapping)


def is_array(value: object) -> TypeGuard[NDArray[Any]]:
    """A NumPy array."""
    import numpy as np  # heavy, and not all that read documents need it

    return isinstance(value, np.ndarray)
