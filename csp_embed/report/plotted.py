"""Matplotlib as the pictures use it: its own types leave keyword arguments open."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Sheet(Protocol):
    """`matplotlib.figure.Figure`."""

    def add_axes(self, rect: tuple[float, float, float, float]) -> Axes:
        """rect: left, bottom, width and height, as shares of the figure."""
        ...

    def savefig(
        self, fname: IO[Any], *, format: str, metadata: Mapping[str, str | None] | None,
        dpi: float | str = "figure",
    ) -> None:  # fmt: skip
        """Writes the picture. dpi: pixels an inch; "figure": as the figure has them."""
        ...


class Written(Protocol):
    """`matplotlib.axes.Axes`, where words are put."""

    def text(self, x: float, y: float, s: str, **style: float | str | bool) -> object:
        """x, y: in the units of the axes."""
        ...


class Settings(Protocol):
    """The module itself."""

    def rc_context(self, rc: Mapping[str, str]) -> AbstractContextManager[None]:
        """Settings that hold inside the `with` block."""
        ...
