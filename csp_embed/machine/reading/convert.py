"""Files of `csp-embed-isa/1` as files of `csp-embed-isa/2` with `control: instruction`.

Takes: the text of a file.  Leaves: the new text: the same machine, comments and order kept.
Format 2 says who runs the loops and what keeps order; the sections of such a machine are the same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from csp_embed.errors import SpecError
from csp_embed.machine.load import FORMAT, SOURCE_FORMAT, load_text
from csp_embed.machine.spec import Isa

# The line alone is changed: a YAML writer would lose comments, order and quotes.
_LINE = re.compile(r"^format:[ \t]*(\S+)(.*)$", re.MULTILINE)


def converted(text: str, file: str, folder: Path) -> str:
    """The text in format 2. file, folder: as `load_text` takes them.

    Raises: SpecError where the text is no file of format 1, or the new one would be another
    machine.
    """
    found = _LINE.search(text)
    # Quotes belong to YAML, not to the name.
    if found is None or found[1].strip("'\"") != FORMAT:
        raise SpecError(
            f"{file} is not of {FORMAT}",
            where=file,
            why="only that format is converted",
            hint="csp-embed isa show tells what it is, if it can be read",
        )
    head = f"format: {SOURCE_FORMAT}{found[2]}\ncontrol: instruction\norder: tokens"
    new = text[: found.start()] + head + text[found.end() :]
    # Both texts are loaded: the proof that nothing but the format has changed.
    if _bare(load_text(text, file, folder)) != _bare(load_text(new, file, folder)):
        raise SpecError(f"{file} would be another machine in {SOURCE_FORMAT}", where=file,
                        hint="this is our mistake: please report it")  # fmt: skip
    return new


def _bare(isa: Isa) -> Isa:
    """Without its text, which differs by intent."""
    return replace(isa, spec_text="")
