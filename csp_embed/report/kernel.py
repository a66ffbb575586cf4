"""A kernel's figures: a document for machines and a page of text for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from csp_embed.isa.costs import costs_of
from csp_embed.kernel import Kernel
from csp_embed.ops.bound import bound_cycles, natural


def figures(kernel: Kernel, bound: int | None = None, verified: str = "none") -> dict[str, Any]:
    """What `compile --json` prints. Units: cycles, bytes, seconds."""
    if bound is None:
        bound = bound_cycles(kernel.operator, kernel.isa, costs_of(kernel.isa, kernel.memory))
    per_step = math.prod(kernel.isa.dims.values())
    macs = natural(kernel.operator)["macs"]
    cycles = kernel.cycles
    return {
        "status": kernel.embedding.proof.get("status", "FEASIBLE"),
        "cycles": cycles,
        "bound_cycles": bound,
        "ratio": cycles / bound if cycles else None,
        "utilisation": macs / (per_step * cycles) if cycles else None,
        "seconds": round(kernel.seconds, 3),
        "verified": verified,
        "operator": kernel.operator.name,
        "formula": kernel.operator.formula(),
        "embedding": kernel.embedding.formula(),
        "kind": kernel.embedding.kind + (" commuted" if kernel.embedding.commuted else ""),
        "layout": kernel.embedding.layout_mode,
        "lane_utilisation": kernel.embedding.cost.get("utilisation"),
        "instructions": instruction_counts(kernel),
        "steps": steps(kernel),
        "bytes": packed_bytes(kernel),
        "host_bytes": host_bytes(kernel),
        "tile": dict(kernel.schedule.tile),
        "bias": None if kernel.schedule.bias_trick is None else "multiply-accumulate",
    }


def instruction_counts(kernel: Kernel) -> dict[str, int]:
    """Instructions by name."""
    code = kernel.lowered.stream.code
    return {
        i.name: int((code == n).sum())
        for n, i in enumerate(kernel.isa.instructions)
        if (code == n).any()
    }


def steps(kernel: Kernel) -> dict[str, int]:
    """Micro-op steps executed: multiply-accumulate, reset, elementwise."""
    counts = np.bincount(
        kernel.schedule.ops[kernel.schedule.ops[:, 0] == 1, 1],
        minlength=len(kernel.schedule.templates),
    )
    out = {"contract": 0, "reset": 0, "map": 0}
    for t, n in zip(kernel.schedule.templates, counts.tolist(), strict=True):
        out["reset" if t.reset else "map" if t.op else "contract"] += t.steps * n
    return out


def packed_bytes(kernel: Kernel) -> dict[str, int]:
    """Bytes in DRAM per packed tensor, micro-ops and instructions."""
    out = {}
    for region, size in zip(kernel.schedule.regions, kernel.lowered.size_bytes, strict=True):
        layout = kernel.embedding.layouts.get(region.operand)
        if size:
            out[layout.tensor if layout else "constant"] = size
    out["micro-ops"] = 4 * len(kernel.lowered.uop_words)
    out["instructions"] = 16 * len(kernel.lowered.stream)
    return out


def host_bytes(kernel: Kernel) -> int:
    """Bytes that the host packs at run time: the activations' packed sizes."""
    tensors = kernel.operator.tensors
    return sum(
        size
        for region, size in zip(kernel.schedule.regions, kernel.lowered.size_bytes, strict=True)
        if region.operand in kernel.embedding.layouts
        and region.operand != "dst"
        and not tensors[kernel.embedding.layouts[region.operand].tensor].constant
    )


def render(
    kernel: Kernel, bound: int | None = None, verified: str = "none", *, explain: bool = False
) -> str:
    """The report as text."""
    f = figures(kernel, bound, verified)
    op = kernel.operator
    natural_bytes = natural(op)
    counts = ", ".join(f"{n} {name}" for name, n in f["instructions"].items())
    sizes = ", ".join(f"{name} {size:,}" for name, size in f["bytes"].items())
    lines = [
        f"{op.name}  {op.formula()}",
        f"  extents      {' '.join(f'{a}={n}' for a, n in op.axes.items())}",
        f"  then         {'; '.join(map(str, op.epilogue)) or 'nothing'}; int8",
        f"  machine      {kernel.isa.name} {kernel.isa.config_name}, memory {kernel.memory}",
        f"  embedding    {f['kind']}: {f['embedding']}",
        f"  layout       {f['layout']}; packed bytes: {sizes}",
        f"  host work    {f['host_bytes']:,} bytes packed per run"
        f" (natural input {natural_bytes['read_bytes']:,})",
        f"  tile         {' '.join(f'{k}={v}' for k, v in f['tile'].items())}",
        f"  instructions {sum(f['instructions'].values())}: {counts}",
        "  steps        " + ", ".join(f"{n:,} {k}" for k, n in f["steps"].items() if n),
    ]
    if f["bias"]:
        lines.append("  bias         added by multiply-accumulate against a constant element")
    if f["cycles"]:
        lines.append(
            f"  cycles       {f['cycles']:,} predicted, {f['bound_cycles']:,} bound of the plain"
            " form"
            f" ({f['ratio']:.3f}), utilisation {f['utilisation']:.1%}"
        )
    else:
        lines.append(f"  cycles       at least {f['bound_cycles']:,}")
    lines.append(f"  proof        {proved(kernel.embedding.proof)}; {f['seconds']:.2f} s")
    lines.append(f"  verified     {_verified(verified)}")
    if explain:
        lines += ["  alternatives that were scheduled:"]
        for e, cycles in kernel.candidates:
            name = e.kind + (" commuted" if e.commuted else "")
            lines.append(f"    {cycles:>14,.0f}  {name:<18} {e.formula()}")
    return "\n".join(lines)


def proved(proof: Mapping[str, Any]) -> str:
    """What the search proved of an embedding: which one has the least analytic cost, not that it
    takes the fewest cycles."""
    least = proof.get("least", proof)
    value, bound = least.get("objective_cycles", 0.0), least.get("bound_cycles", 0.0)
    status = least.get("status", "FEASIBLE")
    kept = " that keeps the pins" if proof.get("pins") else ""
    known = f"{status}: no embedding{kept} has an analytic cost below {value:,.0f} cycles"
    if status != "OPTIMAL":
        known = f"{status}: the least analytic cost{kept} is {bound:,.0f} to {value:,.0f} cycles"
    rank = proof.get("rank", 0)
    if not rank:
        return f"{known}, the cost of this one"
    own = proof.get("objective_cycles", 0.0)
    return f"{known}; number {rank + 1} by it ({own:,.0f}) won by predicted cycles"


def _verified(verified: str) -> str:
    return {
        "simulated": "checks passed; simulated bit-equal to NumPy on this data",
        "checks": "checks passed; not simulated (a large layer; --verify does it)",
        "unequal": "NOT EQUAL to NumPy",
    }.get(verified, "not verified")
