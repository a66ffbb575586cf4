"""Routes for a scheduler of one's own: intervals, and the pipelines with their shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csp_embed.serving.flow import max_flow
from csp_embed.serving.instance import Instance
from csp_embed.serving.simulate import pipelines


def document(instance: Instance, plan: Mapping[str, Any]) -> dict[str, Any]:
    """csp-embed-serving-routes/1: requests go to a pipeline in proportion to its tokens/s."""
    position = {name: i for i, name in enumerate(instance.machines)}
    placement = {position[m]: (a, b + 1) for m, (a, b) in plan["placement"].items()}
    paths = pipelines(max_flow(instance, placement))
    return {
        "format": "csp-embed-serving-routes/1",
        "instance": instance.name,
        "layers": instance.layers,
        "placement": {m: list(i) for m, i in plan["placement"].items()},
        "pipelines": [
            {"machines": [instance.machines[i] for i in machines], "tokens_per_s": rate}
            for machines, rate in paths
        ],
    }
