"""Files that every compilation may write, whatever its machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csp_embed.errors import CspEmbedError
from csp_embed.files import atomic

if TYPE_CHECKING:
    from csp_embed.embed.explain.reasons import Explanation
    from csp_embed.ir.operator import Operator
    from csp_embed.machine.spec import Isa


def write_dot(path: Path, op: Operator) -> None:
    """The dataflow as Graphviz."""
    # Here, not above: only who asks for it loads the dataflow.
    from csp_embed.ir.dfg import dataflow

    with atomic(path) as file:
        file.write(dataflow(op).dot())


def write_certificate(path: Path, document: dict[str, Any]) -> None:
    """A certificate as JSON."""
    # Whole or not at all.
    with atomic(path) as file:
        json.dump(document, file, indent=1)


def write_refusal(
    path: Path,
    op: Operator,
    isa: Isa,
    layout: str,
    pins: tuple[str, ...],
    error: CspEmbedError,
    found: Explanation | None,
) -> None:
    """The certificate of a problem without an answer. found: why nothing fits; None where that was
    not decided."""
    # The same form as a certificate of an answer: one judge reads both.
    from csp_embed.embed.certificate.make import refusal

    document = refusal(
        # "unknown": a limit proves nothing.
        op, isa, layout, status="unknown" if found is None else "infeasible",
        why=error.why or error.what, search={"pins": list(pins)},
        conflict=() if found is None else found.conflict,
        relaxations=() if found is None else found.relaxations,
    )  # fmt: skip
    write_certificate(path, document)
