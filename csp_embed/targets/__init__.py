"""The last stage: what a machine executes. A target is a way to drive machines, never a machine's
name.

    stream/  instruction words, micro-ops and DRAM images for machines that read a stream
    source/  C text around templates for machines whose loops run in a CPU
"""

from __future__ import annotations

from csp_embed.errors import InputError
from csp_embed.machine.spec import Isa


def target_of(isa: Isa) -> str:
    """ "stream" or "source", by who runs the loops."""
    return "stream" if isa.program is None else "source"


def require_stream(isa: Isa, what: str) -> Isa:
    """`isa`, where it reads a stream. what: the command that has no meaning otherwise.

    Raises: InputError.
    """
    if target_of(isa) != "stream":
        raise InputError(
            f"{what} takes no machine that runs C",
            where=isa.name,
            why="it compares schedules in cycles of a stream, and C has none that are predicted",
            hint=f"csp-embed compile matmul --m 64 --n 32 --k 128 --isa {isa.name}",
        )
    return isa
