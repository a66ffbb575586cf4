"""Numba's decorators with types: a compiled function keeps the signature of what was written.

Numba ships no types, so `from numba import njit` makes every compiled function, and all that it
returns, unknown to a type checker. Here it is Numba's own object when the program runs.

Numba keeps compiled code by the file that a function stands in. What the function calls is compiled
into it and may stand in other files, whose changes Numba does not see: old values would be computed
in silence, and a file that moved ends in ModuleNotFoundError. `reached` is what else the kept code
depends on; it is part of the stamp under which the code is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_PACKAGE = __name__.partition(".")[0] + "."

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
    from numba import njit as compiled
    from numba import vectorize
    from numba.core.caching import IndexDataCacheFile
    from numba.extending import intrinsic

    class _Index(IndexDataCacheFile):
        """What is kept of one function; nothing where its types have moved."""

        def _load_index(self):
            # Types of arguments stand in the index beside the stamp: reading them imports modules
            # that may be gone, before the stamp can tell that they are old.
            try:
                return super()._load_index()
            except (ImportError, AttributeError):
                return {}

    def njit(**options):
        def decorate(function):
            dispatcher = compiled(**options)(function)
            if options.get("cache"):
                kept = dispatcher._cache._cache_file
                kept.__class__ = _Index
                kept._source_stamp = (kept._source_stamp, reached(function))
            return dispatcher

        return decorate

    def plain(function):
        return function.py_func


def reached(function: Callable[..., Any]) -> str:
    """Digest of what code kept for `function` depends on beside its own file: the files of this
    package whose compiled functions it may call, by way of others too, and numbers and texts that
    their modules hold, since these are compiled in."""
    digest = hashlib.sha256()
    for name, names in sorted(_modules(function.__globals__).items()):
        values = [
            (k, v)
            for k, v in names.items()
            # A module's own `__file__` would tie the code to the folder that it was made in.
            if isinstance(v, int | float | str) and not k.startswith("__")
        ]
        digest.update(f"{name} {_content(names['__file__'])} {sorted(values)}".encode())
    return digest.hexdigest()


def _modules(names: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The module with these globals and all whose compiled functions it can name, by name."""
    found: dict[str, dict[str, Any]] = {}
    left = [names]
    while left:
        here = left.pop()
        if here["__name__"] in found:
            continue
        found[here["__name__"]] = here
        for value in list(here.values()):
            if isinstance(value, ModuleType):
                then = vars(value)
            else:
                # Numba's dispatchers and intrinsics; both keep what was written.
                written = getattr(value, "py_func", None) or getattr(value, "_defn", None)
                then = getattr(written, "__globals__", None)
            if then is not None and str(then.get("__name__")).startswith(_PACKAGE):
                left.append(then)
    return found


@cache
def _content(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


__all__ = ["intrinsic", "njit", "plain", "reached", "vectorize"]
