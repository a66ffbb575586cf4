"""A kernel's statements shared among threads, by OpenMP.

OpenMP rather than a pool of our own: the text stays a sequential C program for whoever compiles it
without -fopenmp, nothing has to be created, passed on or joined by the caller, and kernels of one
process share the threads of its runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

# Statements of a function's body are indented by two.
_LOOP = "  for (ptrdiff_t "


def shared(lines: Sequence[str], threads: int, *, wait: bool = True) -> list[str]:
    """The statements (indented by two) with the directives that share them. threads: 1 leaves them
    as they are. wait: whether the next statement reads what each has written."""
    if threads == 1:
        return list(lines)
    out: list[str] = []
    # Each statement at the first level is shared as a whole.
    for statement in _statements(lines):
        first = statement[0]
        if first.startswith(_LOOP):
            # Two nested loops as one: more pieces for more threads.
            both = " collapse(2)" if _perfect(statement) else ""
            out.append(f"#pragma omp for schedule(dynamic){both}{'' if wait else ' nowait'}")
        # What is no loop is done by one thread; declarations by all.
        elif not first.lstrip().startswith(("static const", "/*")):
            out.append("#pragma omp single" + ("" if wait else " nowait"))
        out += statement
    return out


def _statements(lines: Sequence[str]) -> list[list[str]]:
    """Lines up to the one that closes what the first opened."""
    out: list[list[str]] = []
    inside = False
    for line in lines:
        if inside:
            out[-1].append(line)
            inside = not line.startswith("  }")
            continue
        out.append([line])
        inside = line.rstrip().endswith("{")
    return out


def _perfect(statement: Sequence[str]) -> bool:
    """Whether the loop's body is one loop, so that both are shared as one."""
    # Nothing may stand between the two heads, or behind the inner loop.
    inner = [n for n, line in enumerate(statement) if line.startswith("    ") and line[4] != " "]
    opens = len(statement) > 2 and statement[1].startswith("  " + _LOOP)
    return opens and inner == [1, len(statement) - 2]
