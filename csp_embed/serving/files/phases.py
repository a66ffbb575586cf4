"""Tables of prefill and decode, batches and memory in a layer-placement-1 document.

Optional beside, or in place of, `tokens_per_s_by_layers`:

    workload     prompt_tokens, output_tokens (of a request), batch (requests in a decode step, or
                 a list of which one is chosen), requests (whose caches a machine keeps; default:
                 the batch), split_phases (prefill and decode may use different machines)
    limits       first_token_s, token_s
    node_types   prefill_tokens_per_s_by_layers; decode_tokens_per_s_by_layers, a list or one for
                 each batch; decode_step_s_by_layers likewise (default: batch / rate); memory_bytes
    model        layer_weight_bytes, kv_bytes_per_token (of one layer)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from csp_embed.errors import InputError

PREFILL, DECODE = "prefill_tokens_per_s_by_layers", "decode_tokens_per_s_by_layers"
STEP, BOTH = "decode_step_s_by_layers", "tokens_per_s_by_layers"
WORKLOAD = {"prompt_tokens", "output_tokens", "batch", "requests", "split_phases"}
LIMITS = {"first_token_s", "token_s"}


# A protocol: read.py imports this file, so its class cannot be named here.
class Reader(Protocol):
    """What of read.py's reader is used here."""

    def refuse(self, what: str, item: str, why: str = "", hint: str = "") -> InputError: ...
    def number(self, value: Any, item: str) -> float: ...
    def optional(self, entry: Mapping[str, Any], key: str, item: str) -> float | None: ...
    def count(
        self, entry: Mapping[str, Any], key: str, item: str, default: int | None = None
    ) -> int: ...


@dataclass(frozen=True)
class Workload:
    """See the file's top. batch: the one of this instance."""

    prompt: float
    output: float
    batch: int
    batches: tuple[int, ...]
    requests: int
    split: bool
    first_s: float
    token_s: float


@dataclass(frozen=True)
class TypeRates:
    """Of one machine type, by layers held: both phases together, each alone, a decode step."""

    both: tuple[float, ...]
    prefill: tuple[float, ...]
    decode: tuple[float, ...]
    step: tuple[float, ...]


def read_workload(reader: Reader, document: Mapping[str, Any], batch: int | None) -> Workload:
    """batch: which of several; None = the first."""
    entry = _mapping(reader, document, "workload", WORKLOAD)
    limits = _mapping(reader, document, "limits", LIMITS)
    listed = entry.get("batch", 1)
    # A list is a choice of one; the tables of each batch stand in node_types.
    if isinstance(listed, list):
        if not listed:
            raise reader.refuse("no batch to choose from", "workload.batch")
        counts = [
            reader.count({"batch": b}, "batch", f"workload.batch[{at}]")
            for at, b in enumerate(listed)
        ]
        # A batch named twice is one choice.
        batches = tuple(dict.fromkeys(counts))
    else:
        batches = (reader.count({"batch": listed}, "batch", "workload.batch"),)
    chosen = batches[0] if batch is None else batch
    split = entry.get("split_phases", False)
    if not isinstance(split, bool):
        raise reader.refuse("split_phases must be true or false", "workload.split_phases")
    return Workload(
        prompt=reader.optional(entry, "prompt_tokens", "workload") or 750.0,
        # The mean lengths that the published placements plan with.
        output=reader.optional(entry, "output_tokens", "workload") or 240.0,
        batch=chosen,
        batches=batches,
        requests=reader.count(entry, "requests", "workload.requests", chosen),
        split=split,
        # No limit is inf, which every comparison passes.
        first_s=reader.optional(limits, "first_token_s", "limits") or math.inf,
        token_s=reader.optional(limits, "token_s", "limits") or math.inf,
    )


def _mapping(
    reader: Reader, document: Mapping[str, Any], key: str, known: set[str]
) -> Mapping[str, Any]:
    entry = document.get(key) or {}
    if not isinstance(entry, Mapping):
        raise reader.refuse(f"{key} is no mapping", key)
    # Unknown keys are refused here: a mistyped limit would silently be none.
    unknown = sorted(set(map(str, entry)) - known)
    if unknown:
        raise reader.refuse(
            f"unknown key {unknown[0]!r}", key, hint="known are " + ", ".join(sorted(known))
        )
    return entry


def rates_of(
    reader: Reader, entry: Mapping[str, Any], item: str, work: Workload
) -> tuple[TypeRates, int]:
    """(tables of one type as stated, the most layers that the file allows)."""
    both, prefill, decode = entry.get(BOTH), entry.get(PREFILL), entry.get(DECODE)
    # One phase alone cannot be turned into tokens/s of requests.
    if (prefill is None) != (decode is None):
        missing = PREFILL if prefill is None else DECODE
        raise reader.refuse(f"{missing} is missing: the two phases need a table each", item)
    if both is not None and prefill is not None:
        raise reader.refuse(
            f"{BOTH} and tables by phase are both there", item, hint="remove one of the two"
        )
    if both is None and prefill is None:
        raise reader.refuse(
            f"type {item.rpartition('.')[2]} has no throughput table",
            item,
            why="tokens_per_s_by_layers is missing",
            hint="add the table (index 0 = one layer), or state the cluster as YAML with "
            "GPU names: docs/serving.md",
        )
    if both is not None:
        rates = _table(reader, both, f"{item}.{BOTH}")
        # One table for both: a step is then one token of each request.
        found = TypeRates(rates, rates, rates, tuple(_over(1.0, r) for r in rates))
    else:
        p = _table(reader, prefill, f"{item}.{PREFILL}")
        d = _by_batch(reader, decode, f"{item}.{DECODE}", work)
        # What has a rate in one phase only cannot serve.
        length = min(len(p), len(d))
        p, d = p[:length], d[:length]
        if entry.get(STEP) is not None:
            steps = _by_batch(reader, entry[STEP], f"{item}.{STEP}", work)[:length]
            if len(steps) < length:
                raise reader.refuse("fewer steps than rates", f"{item}.{STEP}")
        else:
            # A step passes one token of each of the batch's requests.
            steps = tuple(_over(float(work.batch), r) for r in d)
        found = TypeRates(
            tuple(together(a, b, work.prompt, work.output) for a, b in zip(p, d, strict=True)),
            p, d, steps,
        )  # fmt: skip
    most = reader.count(entry, "max_layers", f"{item}.max_layers", len(found.both))
    if most > len(found.both):
        raise reader.refuse(
            f"type {item.rpartition('.')[2]} holds up to {most} layers but its table ends at "
            f"{len(found.both)}",
            f"{item}.max_layers",
            hint="lower max_layers, or add the missing entries",
        )
    return found, most


def together(prefill: float, decode: float, prompt: float, output: float) -> float:
    """Tokens/s of a machine that passes both phases of its requests."""
    # A rate of 0 in either phase: the machine never ends a request.
    if prefill <= 0 or decode <= 0:
        return 0.0
    # Time of a request, prompt and output one after the other, turned round.
    return (prompt + output) / (prompt / prefill + output / decode)


def in_memory(
    reader: Reader, entry: Mapping[str, Any], model: Mapping[str, Any], item: str, work: Workload
) -> int | None:
    """Layers whose weights and caches fit into memory_bytes; None where the file says no memory."""
    memory = reader.optional(entry, "memory_bytes", item)
    if memory is None:
        return None
    weights = reader.optional(model, "layer_weight_bytes", "model")
    if weights is None:
        raise reader.refuse(
            "memory_bytes says nothing without the bytes of a layer",
            item,
            hint="add model.layer_weight_bytes (and kv_bytes_per_token), or remove memory_bytes",
        )
    cache = reader.optional(model, "kv_bytes_per_token", "model") or 0.0
    # Per layer: its weights, and the caches of all requests that are kept.
    return int(memory // (weights + work.requests * (work.prompt + work.output) * cache))


def _by_batch(reader: Reader, value: Any, where: str, work: Workload) -> tuple[float, ...]:
    """A table, or the one of this batch."""
    if not isinstance(value, Mapping):
        return _table(reader, value, where)
    # JSON has texts as keys, YAML numbers.
    tables = {str(batch): table for batch, table in value.items()}
    if str(work.batch) not in tables:
        raise reader.refuse(
            f"no table for batch {work.batch}",
            where,
            hint="workload.batch may be " + ", ".join(tables),
        )
    return _table(reader, tables[str(work.batch)], f"{where}.{work.batch}")


def _table(reader: Reader, value: Any, item: str) -> tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise reader.refuse("expected a list of tokens/s", item)
    return tuple(reader.number(v, f"{item}[{k}]") for k, v in enumerate(value))


def _over(amount: float, rate: float) -> float:
    # A rate of 0 takes for ever.
    return amount / rate if rate > 0 else math.inf
