"""The last stage: what a machine executes. A target is a way to drive machines, never a machine's
name.

    stream/  instruction words, micro-ops and DRAM images for machines that read a stream
    source/  C text around templates for machines whose loops run in a CPU
"""

from __future__ import annotations

from csp_embed.machine.spec import Isa


def target_of(isa: Isa) -> str:
    """ "stream" or "source", by who runs the loops."""
    return "stream" if isa.program is None else "source"
