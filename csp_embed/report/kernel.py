"""A kernel's figures: a document for machines and a page of text for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from csp_embed import figures as meaning
from csp_embed.compiler.compiled import Compiled
from csp_embed.compiler.program.verify import Verdict
from csp_embed.ir.embedding import Embedding
from csp_embed.machine.costs import costs_of
from csp_embed.ops.bound import bound_cycles, input_bytes, useful_products

NOT_JUDGED = "not judged: nothing was checked or compared"


def figures(
    kernel: Compiled, bound: int | None = None, verdict: Verdict | None = None
) -> dict[str, Any]:
    """What `compile --json` prints. Units: cycles, bytes, seconds; docs/glossary.md defines them.

    verified: "none" (not judged), "checks" (values not compared) or "simulated" (compared);
    verified_words says what was compared with what.
    """
    # The bound costs a moment; whoever has it hands it in.
    if bound is None:
        bound = bound_cycles(kernel.operator, kernel.isa, costs_of(kernel.isa, kernel.memory))
    # Steps of the stream as it is, padding included.
    cycles, made = kernel.cycles, steps(kernel)
    # Reset and element-wise steps are no work of the contraction.
    whole = meaning.utilisation(made["contract"], cycles, step_cycles(kernel))
    lanes = lane_utilisation(kernel)
    return {
        "status": kernel.embedding.proof.get("status", "FEASIBLE"),
        "cycles": cycles,
        "bound_cycles": bound,
        "ratio": meaning.ratio_to_bound(cycles, bound),
        "utilisation": whole if cycles else None,
        "lane_utilisation": lanes,
        "useful_utilisation": meaning.useful_utilisation(whole, lanes) if cycles else None,
        "seconds": round(kernel.seconds, 3),
        "verified": "none" if verdict is None else verdict.verified,
        "verified_words": NOT_JUDGED if verdict is None else verdict.words,
        "operator": kernel.operator.name,
        "formula": kernel.operator.formula(),
        "embedding": kernel.embedding.formula(),
        "kind": kind_of(kernel.embedding),
        "layout": kernel.embedding.layout_mode,
        "instructions": instruction_counts(kernel),
        "steps": made,
        "bytes": packed_bytes(kernel),
        "host_bytes": host_bytes(kernel),
        "natural_input_bytes": input_bytes(kernel.operator),
        "tile": dict(kernel.schedule.tile),
        "by_identity": by_identity(kernel),
        "bias": bias(kernel),
    }


def bias(kernel: Compiled) -> str | None:
    """How a tensor of the epilogue is added, where no elementwise step does it."""
    if kernel.schedule.bias_lanes is not None:
        return "idle lanes of the contraction"
    trick = kernel.schedule.bias_trick
    return None if trick is None else "multiply-accumulate against a constant element"


def by_identity(kernel: Compiled) -> list[str]:
    """Tensors that a contraction with an identity matrix brings into the accumulators."""
    identity, layouts = kernel.schedule.identity, kernel.embedding.layouts
    return [] if identity is None else [layouts[name].tensor for name in identity.operands]


def kind_of(embedding: Embedding) -> str:
    """How people call the embedding."""
    return embedding.kind + (" commuted" if embedding.commuted else "")


def alternatives(kernel: Compiled) -> list[dict[str, Any]]:
    """The embeddings that were scheduled, best first: what `compile --explain` lists."""
    return [
        {"kind": kind_of(e), "scheduled_cycles": cycles, "embedding": e.formula()}
        for e, cycles in kernel.candidates
    ]


def step_cycles(kernel: Compiled) -> float:
    """Cycles of one contraction step; 1 where the machine states no costs."""
    return costs_of(kernel.isa, kernel.memory).step


def lane_utilisation(kernel: Compiled) -> float | None:
    """Of the stream's contraction steps."""
    contract = kernel.isa.of_kind("contract")
    # All dimensions of any operand: one step computes a product in each combination.
    dims = {d for o in contract.operands for d in o.dims}
    lanes = math.prod(kernel.isa.dims[d] for d in dims)
    # Products that the operator needs; what the stream does beyond is padding.
    useful = useful_products(kernel.operator)
    return meaning.lane_utilisation(useful, steps(kernel)["contract"], lanes)


def instruction_counts(kernel: Compiled) -> dict[str, int]:
    """Instructions by name."""
    code = kernel.lowered.stream.code
    return {
        # Instructions that do not occur are left out.
        i.name: int((code == n).sum())
        for n, i in enumerate(kernel.isa.instructions)
        if (code == n).any()
    }


def steps(kernel: Compiled) -> dict[str, int]:
    """Micro-op steps executed: multiply-accumulate, reset, elementwise."""
    counts = np.bincount(
        # Column 0 is the kind of an operation, 1 for compute; column 1 its template.
        kernel.schedule.ops[kernel.schedule.ops[:, 0] == 1, 1],
        minlength=len(kernel.schedule.templates),
    )
    out = {"contract": 0, "reset": 0, "map": 0}
    for t, n in zip(kernel.schedule.templates, counts.tolist(), strict=True):
        # A template without an operation multiplies and adds.
        out["reset" if t.reset else "map" if t.op else "contract"] += t.steps * n
    return out


def packed_bytes(kernel: Compiled) -> dict[str, int]:
    """Bytes in DRAM per packed tensor, micro-ops and instructions."""
    out: dict[str, int] = {}
    for region, size in zip(kernel.schedule.regions, kernel.lowered.size_bytes, strict=True):
        # Constant elements of the schedule have no layout of their own.
        layout = kernel.embedding.layouts.get(region.operand)
        if size:
            out[layout.tensor if layout else "constant"] = size
    micro_op = kernel.isa.memory(kernel.isa.uop_memory).elem_bytes
    out["micro-ops"] = micro_op * len(kernel.lowered.uop_words)
    out["instructions"] = 16 * len(kernel.lowered.stream)
    return out


def host_bytes(kernel: Compiled) -> int:
    """Bytes that the host packs at run time: the activations' packed sizes."""
    tensors = kernel.operator.tensors
    # What the host packs at run time: constants are packed once, results not at all.
    return sum(
        size
        for region, size in zip(kernel.schedule.regions, kernel.lowered.size_bytes, strict=True)
        if region.operand in kernel.embedding.layouts
        and region.operand != "dst"
        and not tensors[kernel.embedding.layouts[region.operand].tensor].constant
    )


def render(
    kernel: Compiled,
    bound: int | None = None,
    verdict: Verdict | None = None,
    *,
    explain: bool = False,
) -> str:
    """The report as text."""
    f = figures(kernel, bound, verdict)
    op = kernel.operator
    counts = ", ".join(f"{n} {name}" for name, n in f["instructions"].items())
    sizes = ", ".join(f"{name} {size:,}" for name, size in f["bytes"].items())
    lines = [
        f"{op.name}  {op.formula()}",
        f"  extents      {' '.join(f'{a}={n}' for a, n in op.axes.items())}",
        f"  then         {'; '.join(map(str, op.epilogue)) or 'nothing'}; int8",
        f"  machine      {kernel.isa.name} {kernel.isa.config_name}, memory {kernel.memory}",
        f"  embedding    {f['kind']}: {f['embedding']}",
        f"  layout       {f['layout']}; packed bytes: {sizes}",
        f"  host work    {f['host_bytes']:,} bytes of activations packed per run, from"
        f" {f['natural_input_bytes']:,} as given",
        f"  tile         {' '.join(f'{k}={v}' for k, v in f['tile'].items())}",
        f"  instructions {sum(f['instructions'].values())}: {counts}",
        "  steps        " + ", ".join(f"{n:,} {k}" for k, n in f["steps"].items() if n),
    ]
    if f["bias"]:
        lines.append(f"  bias         added by {f['bias']}")
    if f["by_identity"]:
        lines.append(
            f"  by identity  {', '.join(f['by_identity'])}: brought into the accumulators by a"
            " contraction"
        )
    # Without costs of the machine only the bound is known.
    if f["cycles"]:
        lines.append(
            f"  cycles       {f['cycles']:,} predicted, {f['bound_cycles']:,} bound of the plain"
            f" form ({f['ratio']:.3f}), utilisation {f['utilisation']:.1%}{_useful(f)}"
        )
    else:
        lines.append(f"  cycles       at least {f['bound_cycles']:,}")
    lines.append(f"  proof        {proved(kernel.embedding.proof)}; {f['seconds']:.2f} s")
    lines.append(f"  verified     {f['verified_words']}")
    if explain:
        lines += ["  alternatives that were scheduled:"]
        for a in alternatives(kernel):
            lines.append(f"    {a['scheduled_cycles']:>14,.0f}  {a['kind']:<18} {a['embedding']}")
    return "\n".join(lines)


def _useful(f: Mapping[str, Any]) -> str:
    """The part of the utilisation that is no padding, where it is known."""
    useful = f["useful_utilisation"]
    return "" if useful is None else f" ({useful:.1%} without padding)"


def proved(proof: Mapping[str, Any]) -> str:
    """What the search proved of an embedding: which one has the least analytic cost, not that it
    takes the fewest cycles."""
    # Under pins the least is of what keeps them; `least` is there where another embedding won.
    least = proof.get("least", proof)
    value, bound = least.get("objective_cycles", 0.0), least.get("bound_cycles", 0.0)
    status = least.get("status", "FEASIBLE")
    kept = " that keeps the pins" if proof.get("pins") else ""
    known = f"{status}: no embedding{kept} has an analytic cost below {value:,.0f} cycles"
    if status != "OPTIMAL":
        known = f"{status}: the least analytic cost{kept} is {bound:,.0f} to {value:,.0f} cycles"
    # Rank 0 has the least analytic cost; a later one won by its schedule.
    rank = proof.get("rank", 0)
    if not rank:
        return f"{known}, the cost of this one"
    own = proof.get("objective_cycles", 0.0)
    return f"{known}; number {rank + 1} by it ({own:,.0f}) won by predicted cycles"
