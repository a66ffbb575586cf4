"""The last stage: what a machine executes. A target is a way to drive machines, never a machine's
name.

    stream/  instruction words, micro-ops and DRAM images for machines that read a stream
    commands/ commands that the host writes out one by one, for machines with state
    source/  C text around templates for machines whose loops run in a CPU
"""

from __future__ import annotations

from csp_embed.machine.spec import Isa


def target_of(isa: Isa) -> str:
    """ "stream", "commands" or "source", by who runs the loops: the machine's instructions, the
    host that writes them out, or C."""
    # Commands first: such a machine may be described beside no program at all.
    if isa.commands is not None:
        return "commands"
    return "stream" if isa.program is None else "source"
