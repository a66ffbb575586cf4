"""Numba's decorators with types: a compiled function keeps the signature of what was written.

Numba ships no types, so `from numba import njit` makes every compiled function, and all that it
returns, unknown to a type checker. Here it is Numba's own object when the program runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:

    def njit(
        *,
        cache: bool = False,
        nogil: bool = False,
        inline: str = "never",
        error_model: str = "python",
        no_cpython_wrapper: bool = False,
        no_cfunc_wrapper: bool = False,
    ) -> Callable[[F], F]:
        """Compiles in nopython mode; the options are Numba's."""
        ...

    def plain(function: F) -> F:
        """The function as it was written, interpreted."""
        ...

    def vectorize(signatures: list[str], *, cache: bool = False) -> Callable[[F], F]:
        """A ufunc of the function; its signatures are Numba's text."""
        ...

    def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
        """An operation written in LLVM; called without the typing context it is declared with."""
        ...

else:
    from numba import njit, vectorize
    from numba.extending import intrinsic

    def plain(function):
        return function.py_func


__all__ = ["intrinsic", "njit", "plain", "vectorize"]
