"""One layer of a sweep on a machine that is fed commands: compiled, run by the meanings, compared.

Cycles are the estimate by which schedules are ranked, from the spec's `costs`; nothing is timed.
The bound is by the same costs: each product once in full tiles, each byte of the natural tensors
once, whichever takes longer.
"""

from __future__ import annotations

import math
import time
from typing import Any

from csp_embed import figures
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.file import content
from csp_embed.compiler.commands.kernel import CommandKernel
from csp_embed.compiler.request.options import Options
from csp_embed.errors import CheckError, CspEmbedError
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.ops.bound import input_bytes, natural, useful_products
from csp_embed.ops.data import random_tensors


def measure_commands(
    op: Operator, isa: Isa, *, layout: str, strict: bool, simulate_macs: int, certify: bool
) -> dict[str, Any]:
    """A record with the fields of the other machines that have cycles. verified: "interpreted"
    (run by the spec's meanings and compared with NumPy), "checks" (too large for that), "unequal".
    """
    kernel = compile_commands(op, isa, {}, options=Options(layout=layout))
    p, e = kernel.lowered, kernel.embedding
    macs = natural(op)["macs"]
    bound = _bound(op, isa)
    peak = math.prod(isa.dims[d] for d in _lanes(isa))
    out: dict[str, Any] = {
        "machine": isa.name, "memory": "host", "macs": macs, "operator": op.name,
        "formula": op.formula(), "embedding": e.formula(),
        "kind": e.kind + (" commuted" if e.commuted else ""), "layout": layout,
        "seconds": round(kernel.seconds, 3), "cycles": round(p.cycles), "bound_cycles": bound,
        "ratio": figures.ratio_to_bound(round(p.cycles), bound),
        "utilisation": macs / (p.cycles * peak / isa.commands.costs["step"])
        if isa.commands is not None and p.cycles else None,
        "lane_utilisation": e.cost["utilisation"], "commands": len(p.words),
        "instructions": dict(p.counts), "steps": {"contract": p.steps},
        "bytes_moved": {"loaded": p.loaded, "stored": p.stored},
        "host_bytes": sum(r.size for n, r in p.regions.items() if n != "dst"),
        "natural_input_bytes": input_bytes(op), "natural_bytes": natural(op)["read_bytes"],
        "peak_macs": peak, "queues": {},
    }  # fmt: skip
    out |= _judged(kernel, op, macs <= simulate_macs)
    if certify:
        out |= _certified(kernel)
        out["problems"] += out.pop("refused", [])
    # The strict layout is the price of not repacking: both figures stand side by side.
    if strict and layout == "relaxed":
        try:
            other = compile_commands(op, isa, {}, options=Options(layout="strict"))
            out["strict_cycles"] = round(other.lowered.cycles)
        except CspEmbedError as error:
            out["strict_cycles"], out["strict_why"] = None, error.what
    return out


def _judged(kernel: CommandKernel, op: Operator, run: bool) -> dict[str, Any]:
    problems = [str(x) for x in kernel.verify()[:5]]
    file = content(kernel, random_tensors(op, 0)) if run else None
    if file is None:
        return {"problems": problems, "verified": "checks", "verified_words": "values not compared"}
    wrong = file.problems()
    verified = "unequal" if wrong else "interpreted"
    words = wrong[0] if wrong else "run by the spec's meanings, equal to NumPy"
    return {"problems": [*problems, *wrong[:5]], "verified": verified, "verified_words": words}


def _certified(kernel: CommandKernel) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        found = kernel.certify()
    except CheckError as error:  # not decided: no fault of the stream
        return {"certified": False, "certify_seconds": round(time.perf_counter() - begun, 3),
                "log2_error": 0.0, "refused": [error.why]}  # fmt: skip
    return {"certified": found.ok, "certify_seconds": found.seconds,
            "log2_error": found.log2_error, "refused": list(found.problems[:5])}  # fmt: skip


def _lanes(isa: Isa) -> set[str]:
    """Dimensions of one step's products."""
    return {d for o in isa.of_kind("contract").operands for d in o.dims}


def _bound(op: Operator, isa: Isa) -> int:
    assert isa.commands is not None
    costs, figures_ = isa.commands.costs, natural(op)
    lanes = math.prod(isa.dims[d] for d in _lanes(isa))
    useful = useful_products(op) or figures_["macs"]
    moved = figures_["read_bytes"] + figures_["write_bytes"]
    compute = costs["step"] * -(-useful // lanes)
    return math.ceil(max(compute, moved / costs["bytes_per_cycle"]))
