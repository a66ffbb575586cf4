"""A kernel's program certified for all inputs: it states its claims, the judge does the rest."""

from __future__ import annotations

from csp_embed.compiler.compiled import Compiled
from csp_embed.compiler.program.claims import claims
from csp_embed.compiler.program.content import bare
from csp_embed.judge.certify.certificate import Certificate
from csp_embed.judge.certify.claims import read_claims
from csp_embed.judge.certify.run import certify


def certified(kernel: Compiled, *, rounds: int = 1, seed: int | None = None) -> Certificate:
    """What can be proved of the kernel's stream; no operands are needed."""
    where = read_claims(claims(kernel), kernel.operator)
    return certify(
        kernel.isa, bare(kernel), kernel.operator, where, rounds=rounds, seed=seed, example=False
    )
