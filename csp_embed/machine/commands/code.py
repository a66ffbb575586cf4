"""The meaning of a command as a function: point by point, or all points of its loops at once.

Takes: the text in Python's syntax, names of memories and state.  Leaves: `point(m, fields)`, which
runs the statements as they stand, and `whole(m, fields)`, which does each statement for all points
of the loops around it with NumPy arrays. `m` holds memories, state and HOST (interpreter).
`whole` is None where points depend on each other; where that rests on addresses (two statements on
one row), `apart(m, fields)` says whether they differ. `isa check` compares both on random contents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from csp_embed.machine.commands.code_lines import Names, NotWhole, Writer, independent
from csp_embed.machine.commands.functions import FUNCTIONS
from csp_embed.machine.reading.meaning import parse

Run = Callable[[Any, dict[str, int]], None]


@dataclass(frozen=True)
class Code:
    """See the module's text."""

    point: Run
    whole: Run | None
    apart: Callable[[Any, dict[str, int]], bool]

    def run(self, m: Any, fields: dict[str, int], *, whole: bool) -> None:
        """All points at once where it is asked for and gives the same."""
        # Points that meet in one place are walked: there their order decides what is left.
        if whole and self.whole is not None and self.apart(m, fields):
            self.whole(m, fields)
        else:
            self.point(m, fields)


def code_of(text: str, names: Names) -> Code:
    """Raises: MeaningError for a statement or a name that a meaning has not."""
    body = parse(text)
    point = _function(Writer(names, whole=False).block(body))
    try:
        # Statements follow each other in both forms; only points within one may depend on each
        # other.
        for s in body:
            independent(s)
        whole = _function(Writer(names, whole=True).block(body))
        guard = Writer(names, whole=True, guard=True).block(body)
        # Most meanings have nothing to ask.
        asks = any("m.apart(" in x for x in guard)
        apart = _function([*guard, "return True"]) if asks else _always
    # Not a refusal: the machine is right, only its interpretation is slow.
    except NotWhole:
        return Code(point, None, _never)
    return Code(point, whole, apart)


def _never(m: Any, fields: dict[str, int]) -> bool:
    return False


def _always(m: Any, fields: dict[str, int]) -> bool:
    return True


def _function(lines: list[str]) -> Any:
    text = "\n".join(["def command(m, f):", *(f"    {x}" for x in lines or ["pass"])])
    scope: dict[str, Any] = {**FUNCTIONS, "spread": _spread, "keep": _keep, "truth": _truth}
    # The text was built from checked syntax alone, so `exec` runs nothing that a spec could smuggle
    # in.
    exec(text, scope)
    return scope["command"]


def _spread(count: Any, *others: Any) -> tuple[Any, ...]:
    """A new innermost axis of `count` values, and the others with that axis."""
    # Outer variables are arrays already, with an axis for each loop around them.
    depth = max([o.ndim for o in others], default=0)
    return (_line(int(count), depth), *[o[..., None] for o in others])


# Commands ask for few lengths again and again; making lines was a good part of their time.
@lru_cache(maxsize=256)
def _line(count: int, depth: int) -> np.ndarray[Any, Any]:
    """0 .. count-1 behind `depth` axes of one."""
    line = np.arange(count).reshape((1,) * depth + (-1,))
    # The cached array is shared by all callers.
    line.flags.writeable = False
    return line


def _truth(test: Any) -> Any:
    return np.asarray(test) != 0


def _keep(test: Any, *others: Any) -> tuple[Any, ...]:
    """The points where the test holds, of every array, in order."""
    # Most guards leave nothing out: the arrays then keep their axes, and are not copied.
    if test.all():
        return others
    whole = np.broadcast_arrays(test, *others)
    return tuple(w[whole[0]] for w in whole[1:])
