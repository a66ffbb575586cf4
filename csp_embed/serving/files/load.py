"""Files of either kind as instances: one for each batch that the file offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.ir.network import Platform
from csp_embed.network.files.schema import read_document
from csp_embed.serving.files import cluster
from csp_embed.serving.files.form import SERVING
from csp_embed.serving.files.platform import named_platform
from csp_embed.serving.files.read import batches, instance_from
from csp_embed.serving.instance import Instance


@dataclass(frozen=True)
class Variant:
    """One choice of the batch (None where the file offers no choice)."""

    batch: int | None
    instance: Instance


def variants(source: Mapping[str, Any] | str | Path, platform: str | None = None) -> list[Variant]:
    """All instances that a file or document states.

    platform: a platform file (or the name of one that ships) in place of what the cluster file says
    of servers, network or platform. Raises: InputError where there is no instance."""
    where = "instance" if isinstance(source, Mapping) else str(source)
    document = source if isinstance(source, Mapping) else read_document(source, SERVING)[0]
    # A cluster file becomes a document first, so that there is one reader of instances.
    if isinstance(document, Mapping) and document.get("format") == cluster.FORMAT:
        document = cluster.document_of(*_cluster(document, where, platform))
    elif platform is not None:
        raise InputError(
            "a platform goes with a csp-embed-cluster/1 file, which says model and workload",
            where=where,
            hint="leave out --platform, or give a cluster file",
        )
    offered = batches(document, where) if isinstance(document, Mapping) else ()
    # A single batch is no choice: plans of it name none.
    if len(offered) < 2:
        return [Variant(None, instance_from(document, where))]
    return [Variant(b, instance_from(document, where, b)) for b in offered]


def _cluster(
    document: Mapping[str, Any], where: str, name: str | None
) -> tuple[cluster.ClusterEntry, Platform | None]:
    """The cluster, and its platform; a relative path in the file is relative to the file."""
    if name is not None:
        # A platform given on the command line takes the place of all that the file says of
        # machines.
        rest = {k: v for k, v in document.items() if k not in ("servers", "network", "platform")}
        entry = cluster.read_cluster({**rest, "platform": name}, where)
        return entry, named_platform(name)
    entry = cluster.read_cluster(document, where)
    if entry.platform is None:
        return entry, None
    beside = Path(where).parent / entry.platform
    # A name that is no file beside it is one of the platforms that ship.
    return entry, named_platform(str(beside) if beside.is_file() else entry.platform)


def variant_of(found: list[Variant], plan: Mapping[str, Any]) -> Variant:
    """The instance that a plan document was made for. Raises: InputError."""
    for variant in found:
        # Plans of a file without a choice of batches have none either.
        if variant.batch is None or variant.batch == plan.get("batch"):
            return variant
    raise InputError(
        f"the file offers no batch {plan.get('batch')!r}",
        hint="it offers " + ", ".join(str(v.batch) for v in found),
    )
