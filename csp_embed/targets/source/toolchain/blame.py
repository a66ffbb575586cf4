"""Which template a C compiler means when it refuses a kernel, so that its line can be told."""

from __future__ import annotations

import re
import string

from csp_embed.errors import InputError
from csp_embed.machine.spec import Isa


def refused(compiler: str, said: str, text: str, isa: Isa) -> InputError:
    """The refusal. said: what the compiler printed; text: what it was given."""
    lines = said.splitlines()
    # The first error: later ones follow from it.
    first = next((line for line in lines if "error" in line), (lines or ["no message"])[0])
    name = _template(first, text, isa)
    # The template's own line; its name where the spec gives no line.
    items = [f"instructions.{name}.template", f"instructions.{name}"] if name else []
    return InputError(
        f"{compiler} does not compile {f'the template of {name}' if name else 'the kernel'}",
        where=isa.where(*items, "code", "instructions"),
        # The folder is gone by now.
        why=re.sub(r"\S*/(kernel\.c:)", r"\1", first),
        hint="mend the template or the declarations; the compiler may lack what `flags` ask for",
    )


def _template(message: str, text: str, isa: Isa) -> str:
    """The template whose text stands in the line that a message names; "" where none does."""
    found = re.search(r"\.c:(\d+)", message)
    lines = text.splitlines()
    if found is None or not 0 < int(found[1]) <= len(lines) or isa.program is None:
        return ""
    # Compilers count lines from 1.
    line = lines[int(found[1]) - 1]
    best = (0, "")
    for t in isa.program.templates:
        for row in t.text.splitlines():
            # Operands are replaced in the kernel; what stands between them is the template's own.
            pieces = [p for p, *_ in string.Formatter().parse(row) if p.strip()]
            if pieces and all(p.strip() in line for p in pieces):
                # The longest text that fits: short ones stand in many lines.
                best = max(best, (sum(map(len, pieces)), t.name))
    return best[1]
