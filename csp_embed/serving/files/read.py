"""Reads layer-placement-1 files, and refuses what contradicts itself.

Links are checked as arrays: 1,000 machines have a million of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.nearest import nearest
from csp_embed.network.files.schema import read_document
from csp_embed.serving.files.form import SERVING
from csp_embed.serving.files.phases import (
    TypeRates,
    Workload,
    in_memory,
    rates_of,
    read_workload,
)
from csp_embed.serving.instance import Floats, Instance, MachineType, Phases

FORMAT = "layer-placement-1"
FIELDS = ("both", "prefill", "decode", "step")
# Other keys are let be (published files carry notes), unless they look like one of these.
KNOWN = {
    "": ("format", "name", "model", "node_types", "nodes", "links", "coordinator",
         "partial_inference", "workload", "limits"),
    "model": ("layers", "activation_bytes_per_token", "token_bytes", "layer_weight_bytes",
              "kv_bytes_per_token"),
    "node_types": ("max_layers", "tokens_per_s_by_layers", "prefill_tokens_per_s_by_layers",
                   "decode_tokens_per_s_by_layers", "decode_step_s_by_layers", "memory_bytes"),
    "nodes": ("id", "type", "price_per_hour", "devices", "tensor_parallel", "server", "first_gpu"),
    "links": ("from", "to", "tokens_per_s", "bytes_per_s", "latency_s"),
}  # fmt: skip
AGREE = 1e-6  # how far two statements of one link may differ, relative


def read_instance(path: str | Path) -> Instance:
    """The instance in a JSON or YAML file. Raises: InputError naming file and item."""
    document, _ = read_document(path, SERVING)
    return instance_from(document, str(path))


def instance_from(document: Any, where: str = "instance", batch: int | None = None) -> Instance:
    """An already read document; of several batches, `batch`. Raises: InputError naming `where` and
    the item."""
    reader = _Reader(where)
    if not isinstance(document, Mapping):
        raise InputError(
            "expected a mapping of keys to values",
            where=where,
            hint="docs/serving.md shows the form",
        )
    # The format's name is its version: other versions are other names.
    if document.get("format") != FORMAT:
        raise InputError(
            f"not a {FORMAT} file",
            where=where,
            why=f"format is {document.get('format')!r}",
            hint=f'write "format": "{FORMAT}"; docs/serving.md shows a whole file',
        )
    return reader.instance(document, batch)


def batches(document: Mapping[str, Any], where: str = "instance") -> tuple[int, ...]:
    """The batches that the document offers, of which one is chosen."""
    return read_workload(_Reader(where), document, None).batches


class _Reader:
    def __init__(self, where: str) -> None:
        self.where = where

    def refuse(self, what: str, item: str, why: str = "", hint: str = "") -> InputError:
        return InputError(what, where=f"{self.where}  {item}", why=why, hint=hint)

    def no_misspelt(self, keys: Iterable[Any], of: str, item: str) -> None:
        """Refuses a key that no-one reads and that looks like one that is read."""
        for key in keys:
            if key in KNOWN[of]:
                continue
            # Published files carry notes of their own; only near misses are errors.
            near = nearest(str(key), KNOWN[of], cutoff=0.85)
            if near:
                raise self.refuse(
                    f"unknown key {key!r}", f"{item}.{key}".lstrip("."), hint=f"{near[0]}?"
                )

    def instance(self, document: Mapping[str, Any], batch: int | None) -> Instance:
        model = self.mapping(document, "model")
        # Misspelt keys first: what follows would call the right one missing.
        self.no_misspelt(document, "", "")
        self.no_misspelt(model, "model", "model")
        layers = self.count(model, "layers", "model.layers")
        work = read_workload(self, document, batch)
        types, names, tables = self.types(document, model, layers, work)
        nodes = self.sequence(document, "nodes")
        if not nodes:
            raise self.refuse("there are no machines", "nodes")
        self.no_misspelt(_keys(nodes), "nodes", "nodes")
        # A dict's keys keep the file's order: positions are those of `nodes`.
        position: dict[str, int] = {}
        kind = np.zeros(len(nodes), np.int64)
        for at, node in enumerate(nodes):
            item = f"nodes[{at}]"
            if not isinstance(node, Mapping) or "id" not in node or "type" not in node:
                raise self.refuse("a machine needs id and type", item)
            key = str(node["id"])
            if key in position:
                raise self.refuse(f"machine {key} is there twice", item)
            if node["type"] not in names:
                raise self.refuse(
                    f"machine {key} is of unknown type {node['type']!r}",
                    item,
                    hint="node_types are " + ", ".join(names),
                )
            position[key], kind[at] = at, names[node["type"]]
        activation = self.optional(model, "activation_bytes_per_token", "model")
        token = self.optional(model, "token_bytes", "model")
        coordinator = self.mapping(document, "coordinator")
        n = len(nodes)
        # 0 is "no link": arrays need no mask.
        link, start, end = np.zeros((n, n)), np.zeros(n), np.zeros(n)
        links = self.sequence(document, "links")
        self.no_misspelt(_keys(links), "links", "links")
        rates = self.rates(links, "links", activation, "model.activation_bytes_per_token")
        a = self.ends(links, "from", "links", position)
        b = self.ends(links, "to", "links", position)
        # One number for each ordered pair: repeats are then found by sorting.
        self.no_repeats(a * n + b, "links", a == b)
        link[a, b] = rates
        # The coordinator's links count in numbers of tokens, not in activations.
        for key, side, target in (("to_nodes", "to", start), ("from_nodes", "from", end)):
            rows = self.sequence(coordinator, key, f"coordinator.{key}")
            rates = self.rates(rows, f"coordinator.{key}", token, "model.token_bytes")
            at = self.ends(rows, side, f"coordinator.{key}", position)
            self.no_repeats(at, f"coordinator.{key}")
            target[at] = rates
        partial = document.get("partial_inference", False)
        if not isinstance(partial, bool):
            raise self.refuse("partial_inference must be true or false", "partial_inference")
        return Instance(
            phases=self.phases(model, activation, work, tables),
            price=self.prices(nodes),
            name=str(document.get("name", Path(self.where).stem)),
            layers=layers,
            types=tuple(types),
            machines=tuple(position),
            kind=kind,
            link=link,
            start=start,
            end=end,
            partial=partial,
            batch=work.batch,
            devices=self.devices(nodes, tuple(position)),
            document=document,
        )

    def devices(
        self, nodes: Sequence[Mapping[str, Any]], names: Sequence[str]
    ) -> tuple[tuple[str, ...], ...] | None:
        """What each machine occupies; one that says nothing is a device of its own."""
        found = []
        for at, (node, name) in enumerate(zip(nodes, names, strict=True)):
            # A machine that names no devices is one.
            listed = node.get("devices", [name])
            if (
                not isinstance(listed, list)
                or not listed
                or len(set(map(str, listed))) < len(listed)
            ):
                raise self.refuse("devices is no list of different names", f"nodes[{at}].devices")
            found.append(tuple(map(str, listed)))
        shared = [d for devices in found for d in devices]
        # Without any shared device the plain planner serves.
        return tuple(found) if len(set(shared)) < len(shared) else None

    def phases(
        self,
        model: Mapping[str, Any],
        activation: float | None,
        work: Workload,
        tables: Sequence[TypeRates],
    ) -> Phases:
        cache = self.optional(model, "kv_bytes_per_token", "model")
        # Caches that move need a weight in the links' units.
        if work.split and (cache is None or activation is None):
            raise self.refuse(
                "split_phases: what moves between machines is not known",
                "model",
                hint="add kv_bytes_per_token (of one layer) and activation_bytes_per_token",
            )
        return Phases(
            prompt=work.prompt,
            output=work.output,
            prefill=tuple(t.prefill for t in tables),
            decode=tuple(t.decode for t in tables),
            step=tuple(t.step for t in tables),
            # In activations, because links count these.
            cache=None if cache is None or activation is None else cache / activation,
            split=work.split,
            first_s=work.first_s,
            token_s=work.token_s,
        )

    def prices(self, nodes: Sequence[Any]) -> Floats | None:
        """price_per_hour of each machine: all or none."""
        values = self.column(nodes, "price_per_hour", "nodes")
        if np.isnan(values).all():
            return None
        # Prices of all or of none: a machine without one would be free.
        if np.isnan(values).any():
            at = int(np.flatnonzero(np.isnan(values))[0])
            raise self.refuse("others have a price_per_hour, this one has none", f"nodes[{at}]")
        return values

    def types(
        self, document: Mapping[str, Any], model: Mapping[str, Any], layers: int, work: Workload
    ) -> tuple[list[MachineType], dict[str, int], list[TypeRates]]:
        entries = self.mapping(document, "node_types")
        types: list[MachineType] = []
        tables: list[TypeRates] = []
        names: dict[str, int] = {}
        for name, entry in entries.items():
            item = f"node_types.{name}"
            if not isinstance(entry, Mapping):
                raise self.refuse("expected a mapping", item)
            self.no_misspelt(entry, "node_types", item)
            rates, most = rates_of(self, entry, item, work)
            fits = in_memory(self, entry, model, item, work)
            # What the file says, what the model has, and what memory holds: the least.
            most = min(most, layers) if fits is None else min(most, layers, fits)
            # An interval cannot reach past the model's end: longer ones do not exist.
            # Where not one layer fits, the machine can still be named but carries nothing.
            names[name] = len(types)
            table = rates.both[:most] or (0.0,)
            types.append(MachineType(name, table, str(entry.get("origin", "table"))))
            tables.append(TypeRates(*(getattr(rates, f)[:most] or (0.0,) for f in FIELDS)))
        return types, names, tables

    def rates(self, rows: Sequence[Any], item: str, size: float | None, size_name: str) -> Floats:
        """Tokens/s of each link, from tokens_per_s or bytes_per_s; both must agree."""
        tokens = self.column(rows, "tokens_per_s", item)
        data = self.column(rows, "bytes_per_s", item)
        if size is not None:
            both = ~np.isnan(tokens) & ~np.isnan(data)
            # Relative, since rates differ by many powers of ten.
            wrong = both & (np.abs(tokens * size - data) > AGREE * np.maximum(data, 1e-300))
            if wrong.any():
                at = int(np.flatnonzero(wrong)[0])
                self.contradiction(f"{item}[{at}]", tokens[at], data[at], size, size_name)
            tokens = np.where(np.isnan(tokens), data / size, tokens)
        missing = np.isnan(tokens)
        if missing.any():
            at = int(np.flatnonzero(missing)[0])
            raise self.refuse(
                "a link needs tokens_per_s, or bytes_per_s",
                f"{item}[{at}]",
                why="" if size is not None else f"{size_name} is missing, bytes do not say tokens",
            )
        return tokens

    def contradiction(
        self, item: str, tokens: float, data: float, size: float, size_name: str
    ) -> None:
        factor = tokens * size / data if data else math.inf
        why = f"{tokens:g} tokens/s times {size_name} {size:g} is {tokens * size:g} bytes/s"
        # The usual mistake is bits for bytes, so it is named.
        for times, words in ((8, "bytes_per_s is 8 times too small"), (1 / 8, "too large")):
            if abs(factor - times) < 1e-3 * times:
                why += f"; the factor is {times:g}: bits were taken for bytes ({words})"
        raise self.refuse(
            f"tokens_per_s and bytes_per_s contradict each other ({data:g} bytes/s)",
            item,
            why=why,
            hint="remove one of the two, or correct it: the format counts bytes, not bits",
        )

    def column(self, rows: Sequence[Any], key: str, item: str) -> Floats:
        """One number per row, NaN where absent. A null, a text, NaN or a negative is refused."""
        values = np.full(len(rows), np.nan)
        for at, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise self.refuse("expected a mapping", f"{item}[{at}]")
            value = row.get(key)
            if value is not None:
                # The common case first: this loop runs a million times.
                if type(value) is float and 0.0 <= value < math.inf:
                    values[at] = value
                else:
                    values[at] = self.number(value, f"{item}[{at}].{key}")
        return values

    def ends(
        self, rows: Sequence[Any], key: str, item: str, position: Mapping[str, int]
    ) -> np.ndarray:
        try:
            return np.array([position[str(row[key])] for row in rows], np.int64)
        except (KeyError, TypeError):
            # Only on failure: which row was wrong; the common case stays one pass.
            known = [isinstance(r, Mapping) and str(r.get(key)) in position for r in rows]
            raise self.refuse(
                f"{key}: no such machine",
                f"{item}[{known.index(False)}]",
                hint="links name machines by their id in nodes",
            ) from None

    def no_repeats(self, keys: np.ndarray, item: str, loops: np.ndarray | None = None) -> None:
        # A machine hands nothing over to itself.
        if loops is not None and loops.any():
            raise self.refuse(
                "a link from a machine to itself", f"{item}[{int(np.flatnonzero(loops)[0])}]"
            )
        _, first = np.unique(keys, return_index=True)
        if len(first) < len(keys):
            at = int(np.setdiff1d(np.arange(len(keys)), first)[0])
            raise self.refuse("this link is there twice", f"{item}[{at}]")

    def mapping(self, document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = document.get(key)
        if not isinstance(value, Mapping):
            raise self.refuse(f"{key} is missing or no mapping", key)
        return value

    def sequence(self, document: Mapping[str, Any], key: str, item: str = "") -> Sequence[Any]:
        value = document.get(key)
        if not isinstance(value, list):
            raise self.refuse(f"{key} is missing or no list", item or key)
        return value

    def number(self, value: Any, item: str) -> float:
        # True and False are integers to Python.
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(f"{value!r} is not a number", item)
        if not math.isfinite(value) or value < 0:
            raise self.refuse(f"{value} is not a finite number of at least 0", item)
        return float(value)

    def optional(self, entry: Mapping[str, Any], key: str, item: str) -> float | None:
        value = entry.get(key)
        if value is None:
            return None
        number = self.number(value, f"{item}.{key}")
        # What is optional divides something: 0 is refused, leaving it out is not.
        if number == 0:
            raise self.refuse(f"{key} must be above 0", f"{item}.{key}")
        return number

    def count(
        self, entry: Mapping[str, Any], key: str, item: str, default: int | None = None
    ) -> int:
        value = entry.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(f"{key} is {value!r}, not a whole number of at least 1", item)
        return value


def _keys(rows: Sequence[Any]) -> set[Any]:
    return {key for row in rows if isinstance(row, Mapping) for key in row}
