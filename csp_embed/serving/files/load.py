"""Files of either kind: one instance, or a cluster with one instance for each choice of degrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.network.files.schema import read_document
from csp_embed.serving.files import cluster
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.instance import Instance


@dataclass(frozen=True)
class Variant:
    """One choice of tensor-parallel degrees by server entry ({} for layer-placement-1)."""

    degrees: Mapping[str, int]
    instance: Instance


def variants(source: Mapping[str, Any] | str | Path) -> list[Variant]:
    """All instances that a file or document states. Raises: InputError where there is none."""
    where = "instance" if isinstance(source, Mapping) else str(source)
    document = source if isinstance(source, Mapping) else read_document(source)[0]
    if not isinstance(document, Mapping) or document.get("format") != cluster.FORMAT:
        return [Variant({}, instance_from(document, where))]
    entry = cluster.read_cluster(document, where)
    found, refused = [], []
    for degrees in cluster.degree_choices(entry):
        try:
            built = cluster.document_of(entry, degrees)
        except InputError as error:  # nothing fits with these degrees; others may
            refused.append(error)
            continue
        found.append(Variant(degrees, instance_from(built, where)))
    if not found:
        raise refused[0]
    return found


def variant_of(found: list[Variant], plan: Mapping[str, Any]) -> Variant:
    """The instance that a plan document was made for. Raises: InputError."""
    degrees = plan.get("degrees") or {}
    for variant in found:
        if dict(variant.degrees) == degrees:
            return variant
    raise InputError(
        f"the file offers no degrees {degrees}", hint=f"it offers {[v.degrees for v in found]}"
    )
