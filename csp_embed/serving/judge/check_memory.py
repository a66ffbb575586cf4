"""Verifies that weights and caches fit: k (w + n (p + o) c) bytes for k layers of w bytes each and
the caches of n requests, where the document states the memory of a type."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from csp_embed.serving.instance import Instance


def memory_faults(
    instance: Instance, placement: Mapping[int, tuple[int, int]]
) -> list[tuple[str, str, str]]:
    """(kind, where, text) of each machine that holds too much. placement: first and last layer."""
    # Instances that are made in memory state no sizes.
    document, phases = instance.document, instance.phases
    if phases is None:
        return []
    model, work = document.get("model", {}), document.get("workload") or {}
    layer = Fraction(model.get("layer_weight_bytes") or 0)
    cached = Fraction(model.get("kv_bytes_per_token") or 0)
    # Whose caches are kept: as stated, else those of one batch.
    requests = work.get("requests", instance.batch)
    each = layer + requests * (Fraction(phases.prompt) + Fraction(phases.output)) * cached
    faults = []
    for i, (first, last) in placement.items():
        kind = instance.types[int(instance.kind[i])].name
        memory = document.get("node_types", {}).get(kind, {}).get("memory_bytes")
        needed = (last - first + 1) * each
        if memory is not None and needed > Fraction(memory):
            text = f"{float(needed):.6g} bytes of weights and caches in {memory:.6g}"
            faults.append(("memory", f"placement.{instance.machines[i]}", text))
    return faults
