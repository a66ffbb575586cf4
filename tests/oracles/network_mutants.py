"""One thing changed in a network's right program: its stream, its DRAM, or what it states."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import numpy as np

from csp_embed.ir.stream import Program
from csp_embed.machine.spec import Isa
from tests.oracles.formula_mutants import FORMULA_KINDS
from tests.oracles.mutants import KINDS, Subject, mutant

STATED = ("meaning", "rounds", "places")
NETWORK_KINDS = (*(k for k in KINDS if k not in ("claim", *FORMULA_KINDS)), *STATED)


def network_mutant(isa: Isa, program: Program, kind: str, seed: int) -> tuple[Program, str] | None:
    """(changed program, what was changed); None where there is nothing of this kind."""
    if kind not in STATED:
        found = mutant(Subject(isa, program, None, []), kind, seed)  # type: ignore[arg-type]
        return None if found is None else (found.subject.program, found.what)
    rng = random.Random(f"{kind} {seed}")
    meta = copy.deepcopy(dict(program.meta))
    document = meta["network"]["statement"]
    arrays = dict(program.tensors)
    if kind == "places":
        entry = rng.choice([*document["places"].values(), *document["packed"]])
        key = "table" if "table" in entry and rng.random() < 0.7 else "addr"
        if key == "table":
            what = _array(arrays, entry, key, rng)
        else:
            entry["addr"] = entry.get("addr", 0) + rng.choice([1, -1, 16, -16])
            what = "an address"
        return replace(program, meta=meta, tensors=arrays), what
    if kind == "rounds":
        layer = rng.choice(document["layers"])
        part = rng.choice(["bias", "weights", "shift", "after", "between"])
        if part in ("after", "between"):
            steps = [s for r in layer["between"] for s in r] if part == "between" else layer[part]
            steps = [s for s in steps if isinstance(s[1], int)]
            if not steps:
                return None
            step = rng.choice(steps)
            step[1] += rng.choice([1, -1])
            return replace(program, meta=meta), f"{layer['name']}: {step}"
        turn = rng.randrange(len(layer[part]))
        if layer[part][turn] is None:
            return None
        what = _array(arrays, layer[part], turn, rng)
        return replace(program, meta=meta, tensors=arrays), f"{layer['name']}: {part}, {what}"
    slots: list[tuple[Any, Any, str]] = []
    for op in document["operators"]:
        for key in ("clamp", "stride", "dilation", "pads", "rescale", "order", "window", "axis"):
            slots += _numbers(op, key, f"{op['name']}: {key}")
    constants = [(n, t) for n, t in document["tensors"].items() if "data" in t]
    where = rng.randrange(len(slots) + 4 * len(constants))
    if where < len(slots):
        holder, key, what = slots[where]
        holder[key] += rng.choice([1, -1]) if isinstance(holder[key], int) else holder[key] * 2**-12
    else:
        name, t = rng.choice(constants)
        what = f"{name}: {_array(arrays, t, 'data', rng)}"
    return replace(program, meta=meta, tensors=arrays), what


def _numbers(holder: Any, key: Any, what: str) -> list[tuple[Any, Any, str]]:
    value = holder.get(key) if isinstance(holder, dict) else holder[key]
    if isinstance(value, dict):
        return [x for k in value for x in _numbers(value, k, f"{what} {k}")]
    if isinstance(value, list):
        return [x for k in range(len(value)) for x in _numbers(value, k, what)]
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    return [(holder, key, f"{what} {value}")] if whole else []


def _array(arrays: dict[str, Any], holder: Any, key: Any, rng: random.Random) -> str:
    """One element of an array changed, under a name of its own: others may share the array."""
    old = arrays[holder[key]]
    new = old.copy()
    at = rng.randrange(len(new))
    by = rng.choice([1, -1, 2])
    new[at] = (int(new[at]) + by + 128) % 256 - 128 if new.dtype == np.int8 else new[at] + by
    holder[key] = "changed"
    arrays["changed"] = new
    return f"{old[at]} -> {new[at]} at {at}"
