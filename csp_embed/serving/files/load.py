"""Files of either kind as instances: one for each batch that the file offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.network.files.schema import read_document
from csp_embed.serving.files import cluster
from csp_embed.serving.files.read import batches, instance_from
from csp_embed.serving.instance import Instance


@dataclass(frozen=True)
class Variant:
    """One choice of the batch (None where the file offers no choice)."""

    batch: int | None
    instance: Instance


def variants(source: Mapping[str, Any] | str | Path) -> list[Variant]:
    """All instances that a file or document states. Raises: InputError where there is none."""
    where = "instance" if isinstance(source, Mapping) else str(source)
    document = source if isinstance(source, Mapping) else read_document(source)[0]
    if isinstance(document, Mapping) and document.get("format") == cluster.FORMAT:
        document = cluster.document_of(cluster.read_cluster(document, where))
    offered = batches(document, where) if isinstance(document, Mapping) else ()
    if len(offered) < 2:
        return [Variant(None, instance_from(document, where))]
    return [Variant(b, instance_from(document, where, b)) for b in offered]


def variant_of(found: list[Variant], plan: Mapping[str, Any]) -> Variant:
    """The instance that a plan document was made for. Raises: InputError."""
    for variant in found:
        if variant.batch is None or variant.batch == plan.get("batch"):
            return variant
    raise InputError(
        f"the file offers no batch {plan.get('batch')!r}",
        hint="it offers " + ", ".join(str(v.batch) for v in found),
    )
