"""What `simulate` prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from csp_embed.narrow import is_object

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from csp_embed.ir.stream import Program
    from csp_embed.sim.functional.run import Run


def summary_lines(done: Run) -> list[str]:
    """Counters, warnings, and whether the values are right."""
    from csp_embed.machine.words.listing import line
    from csp_embed.sim.debug import first_difference

    c = done.counters
    # Instructions that occur.
    by_name = ", ".join(f"{n} {name}" for name, n in c["by_name"].items() if n)
    lines = [f"{c['instructions']} instructions: {by_name}; {c['macs']} MACs"]
    # By memory: which traffic is what people look for.
    for verb in ("loads", "stores"):
        moved = ", ".join(f"{m} {v['bytes']}" for m, v in c[verb].items())
        if moved:
            lines.append(f"{verb} in bytes: {moved}")
    lines += [f"warning: {text}" for text in done.warnings]
    if done.stopped:
        # The next one in the order of the run, not in the file.
        following = int(done.sequence[len(done.executed)])
        text = " ".join(line(done.isa, done.stream, following).split())
        lines.append(f"stopped after {c['instructions']} instructions, before {text}")
    elif done.values_equal is None:
        lines.append("values: not compared, the file expects none")
    elif done.values_equal:
        total = sum(len(data) for _, data in done.outputs)
        lines.append(f"values: equal, {total} bytes; expected by {expected_from(done.program)}")
    else:
        difference = first_difference(done)
        assert difference is not None
        lines.append(f"values: DIFFERENT; {difference.text}")
    return lines


def expected_from(program: Program) -> str:
    """Where the bytes that a program expects come from, in words."""
    said = program.meta.get("after")
    # Our own files say where their bytes come from.
    source = said.get("from") if is_object(said) else None
    if source:
        return str(source)
    return "the file, which does not say from where" if program.after else "nothing"


def dump_lines(what: str, name: str, values: NDArray[Any]) -> list[str]:
    """A memory range as one line per element, DRAM as rows of 16 bytes."""
    lines = [f"{what}:"]
    # DRAM has no elements: rows of 16 bytes, as hex dumps have them.
    if name == "DRAM":
        rows = [values[k : k + 16] for k in range(0, len(values), 16)]
        return lines + [f"  +{16 * k:#06x}  {row.tobytes().hex(' ')}" for k, row in enumerate(rows)]
    # Numbered from where the dump begins.
    first = int(what[what.index("[") + 1 :].split(":")[0].strip(" ]"), 0)
    # All numbers equally wide.
    width = max((len(str(v)) for v in (values.min(), values.max())), default=1)
    for k, element in enumerate(values):
        # Elements of several dimensions as rows.
        rows = np.atleast_2d(element.reshape(-1, element.shape[-1]) if element.ndim else element)
        for r, row in enumerate(rows):
            head = f"{first + k:>6}" if r == 0 else " " * 6
            lines.append(f"{head}  " + " ".join(f"{int(v):>{width}}" for v in row))
    return lines
