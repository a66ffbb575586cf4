"""One layer of a sweep on a machine whose loops run in a CPU: compiled, compared, timed.

The record has no cycles: `seconds_run` is measured on this computer, and stands beside the bare
loop of the machine's own steps in the same turns (`limit_gmacs`, `share_of_limit`).
"""

from __future__ import annotations

from typing import Any

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.source.chain import compile_source, work_of
from csp_embed.compiler.source.kernel import judged
from csp_embed.compiler.source.measure import Call, middle, prepared, turns
from csp_embed.errors import CheckError, MissingLibrary
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source.toolchain.limit import bare_loop

ROUNDS = 5


def measure_source(op: Operator, isa: Isa, layout: str) -> dict[str, Any]:
    """Units: seconds; giga-products a second. verified: "run" or "interpreted" (compared with
    NumPy), "checks" (nothing here can run it), "unequal"."""
    kernel = compile_source(op, isa, {}, options=Options(layout=layout))
    embedding = kernel.embedding
    out: dict[str, Any] = {
        "machine": isa.name, "memory": "host", "macs": work_of(op), "kernel": kernel.ways(),
        "embedding": "" if embedding is None else embedding.formula(),
        # No embedding: the kind says so where others have theirs.
        "kind": "plain loops" if embedding is None else
        embedding.kind + (" commuted" if embedding.commuted else ""),
        "layout": layout, "seconds": round(kernel.seconds, 3), "cycles": None,
        "predicted_cycles": kernel.cycles,
        "lane_utilisation": None if embedding is None else embedding.cost["utilisation"],
    }  # fmt: skip
    problems = [str(p) for p in kernel.verify()[:5]]
    engine, why = kernel.engine()
    tensors = random_tensors(op, 0)
    # What cannot run here is still compiled and judged.
    if not engine:
        return out | {"problems": problems, "verified": "checks", "verified_words": why}
    try:
        words = judged(kernel, tensors, engine)
    except CheckError as error:
        return out | {"problems": problems, "verified": "unequal", "verified_words": error.why}
    verified = "run" if engine == "native" else engine
    out |= {"problems": problems, "verified": verified, "verified_words": words}
    # An emulator's time says nothing about a CPU.
    if engine != "native":
        return out
    try:
        loop, products = _limit(isa)
    except MissingLibrary as error:
        (ours,) = turns([prepared(kernel, tensors)], ROUNDS)
        seconds, spread = middle(ours)
        return out | {
            "seconds_run": seconds, "spread": round(spread, 4),
            "gmacs": out["macs"] / seconds / 1e9, "limit_words": error.why,
        }  # fmt: skip
    # In turns with the bare loop, so that a busy moment hits both.
    ours, limit = turns([prepared(kernel, tensors), loop], ROUNDS)
    seconds, spread = middle(ours)
    top = products / middle(limit)[0]
    rate = out["macs"] / seconds
    return out | {
        "seconds_run": seconds, "spread": round(spread, 4), "gmacs": rate / 1e9,
        "limit_gmacs": top / 1e9, "share_of_limit": rate / top,
    }  # fmt: skip


# By content: a machine of one's own may have the name of another.
_LIMITS: dict[tuple[str, str, str], tuple[Call, int]] = {}


def _limit(isa: Isa) -> tuple[Call, int]:
    """Built once in each process. Raises: MissingLibrary."""
    key = isa.name, isa.config_name, isa.spec_text
    if key not in _LIMITS:
        _LIMITS[key] = bare_loop(isa)
    return _LIMITS[key]
