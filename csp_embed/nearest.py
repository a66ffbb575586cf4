"""What a person probably meant by a name that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Known names like this one, the likest first; capital letters make no difference.

    cutoff: least likeness, of 1.

    >>> nearest("VTAA", ["vta", "gemmini"])
    ['vta']
    """
    # Names that differ in capitals alone are one here: each stands for all of them.
    lower = {k.lower(): k for k in known}
    return [lower[n] for n in get_close_matches(name.lower(), lower, count, cutoff)]


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint: the likest known name, or `otherwise` where none is like it.

    >>> did_you_mean("x86_avx512_vni", ["x86_avx2", "x86_avx512_vnni"])
    "did you mean 'x86_avx512_vnni'?"
    """
    near = nearest(name, known)
    return f"did you mean {near[0]!r}?" if near else otherwise
