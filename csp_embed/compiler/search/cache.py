"""Finished searches on disk, by content: which embedding and which schedule decisions won.

A hit skips the schedule search; the embedding is solved again (that is quick) and the stream is
rebuilt from the decisions, so that a file can at worst be useless, never wrong. Files appear whole
or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from csp_embed import __version__
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.search.measuring import Meter
from csp_embed.errors import InputError
from csp_embed.files import atomic
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.narrow import is_list
from csp_embed.schedule.choose import Found, rebuild
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Problem


def key(op: Operator, isa: Isa, options: Options, ranges: Mapping[int, int]) -> str:
    """Digest of all that a search depends on, this package's version included."""
    # The folder does not change the result; `reuse` is told by its formula.
    plain = {k: str(v) for k, v in vars(options).items() if k not in ("cache", "reuse")}
    plain["reuse"] = options.reuse.formula() if options.reuse else ""
    # The machine by its facts: its own text leaves out depths and costs, and sizes of one's own are
    # all called "custom".
    machine = isa.facts()
    text = json.dumps(
        [
            __version__, op.text(), dict(op.axes), {n: t.shape for n, t in op.tensors.items()},
            {n: [t.dtype, t.constant] for n, t in op.tensors.items()}, machine, plain,
            sorted(ranges.items()),
        ],
        sort_keys=True, default=str,
    )  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()


def load(folder: Path, name: str) -> tuple[str, Config] | None:
    """(formula of the embedding, decisions), or None where the folder has no such file or a broken
    one.
    """
    try:
        data = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        # JSON has lists where Config has tuples.
        config: dict[str, Any] = {
            f.name: tuple(v) if is_list(v := data["config"][f.name]) else v for f in fields(Config)
        }
        return str(data["embedding"]), Config(**config)
    # A broken file is no file: the search is done again.
    except (OSError, ValueError, KeyError, TypeError):
        return None


def recall(
    folder: Path | None,
    name: str,
    embeddings: Sequence[Embedding],
    problems: Sequence[Problem],
    meter: Meter,
    ranges: Mapping[int, int],
) -> list[Found]:
    """The winner of an earlier equal search, rebuilt and measured; empty where there is none."""
    known = None if folder is None else load(folder, name)
    if known is None:
        return []
    for n, (embedding, problem) in enumerate(zip(embeddings, problems, strict=True)):
        # By its formula: the same problem gives the same embeddings, in whatever order.
        if embedding.formula() == known[0]:
            found = rebuild(n, problem, known[1], meter, meter.costs, ranges)
            # Decisions that no longer build are as good as none.
            return [] if found is None else [found]
    return []


def save(folder: Path, name: str, embedding: str, config: Config) -> None:
    """Raises: InputError where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make {folder}",
            why=error.strerror or str(error),
            hint="give another folder with --cache",
        ) from error
    with atomic(folder / f"{name}.json") as file:
        json.dump({"embedding": embedding, "config": asdict(config)}, file)
