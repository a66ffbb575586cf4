"""Routes for a scheduler of one's own: intervals, and the pipelines with their shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csp_embed.serving.export.engines import paths_of
from csp_embed.serving.instance import Instance


def document(instance: Instance, plan: Mapping[str, Any]) -> dict[str, Any]:
    """csp-embed-serving-routes/1: requests go to a pipeline in proportion to its tokens/s. decode:
    where generated tokens go, if elsewhere."""
    rows = []
    for prefill, decode, rate in paths_of(instance, plan):
        row: dict[str, Any] = {"machines": [instance.machines[i] for i in prefill]}
        # Left out where it says nothing: most plans do not split the phases.
        if tuple(decode) != tuple(prefill):
            row["decode"] = [instance.machines[i] for i in decode]
        rows.append({**row, "tokens_per_s": rate})
    return {
        "format": "csp-embed-serving-routes/1",
        "instance": instance.name,
        "layers": instance.layers,
        "placement": {m: list(i) for m, i in plan["placement"].items()},
        "pipelines": rows,
    }
