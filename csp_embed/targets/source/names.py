"""C identifiers for names that people chose."""

from __future__ import annotations

import re

# Names that a tensor may have and a C text may not use again.
_TAKEN = frozenset(
    word
    for line in (
        "auto break case char const continue default do double else enum extern float for goto",
        "if inline int long register restrict return short signed sizeof static struct switch",
        "typedef union unsigned void volatile while main memcpy memset asm unix linux packed work",
        "index low high y0 y1 yn j0 j1 jn exp log sin cos v sum",
    )
    for word in line.split()
)


def identifier(name: str) -> str:
    """`name` where C may use it, else a readable variant. What the emitter makes up has a `_`
    inside, which these never have unless they begin with `t_`."""
    if re.fullmatch(r"[a-zA-Z][a-zA-Z0-9]*", name) and name not in _TAKEN:
        return name
    return "t_" + _ascii(name)


def variable(name: str, number: int) -> str:
    """A loop variable for a counter such as `c*r*s` or `p.o^`."""
    return f"{_ascii(name).strip('_')}_{number}"


def _ascii(name: str) -> str:
    """Formulas have ASCII names; counters are made of them with `*`, `.` and `^` between."""
    return re.sub(r"\W", "_", name)
