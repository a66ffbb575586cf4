"""A network's program file on random inputs, and its stated graph computed, without the judge.

Takes: the statement as JSON and arrays.  Leaves: DRAM with other inputs, and what the reference
interpreter makes of the stated graph on them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.reference import run as reference
from csp_embed.sim.functional import run as functional


def stated(program):
    return program.meta["network"]["statement"]


def graph_of(program) -> g.Graph:
    """The stated graph; what the host writes are its inputs."""
    s, arrays = stated(program), program.tensors
    tensors = {}
    for name, t in s["tensors"].items():
        data = arrays[t["data"]].reshape(t["shape"]) if "data" in t else None
        zero = tuple(t["zero"])
        tensors[name] = g.Tensor(name, tuple(t["shape"]), t["dtype"], (1.0,), zero, None, data)
    operators = tuple(_operator(o) for o in s["operators"])
    return g.Graph("stated", s["profile"], tensors, operators, tuple(written(program)), ())


def _operator(document):
    values = {k: _tuples(v) for k, v in document.items() if k != "kind"}
    rescale = values.get("rescale")
    if isinstance(rescale, dict):
        values["rescale"] = _rule(rescale)
    return getattr(g, document["kind"])(**values)


def _rule(document):
    parts = {k: _tuples(v) for k, v in document.items() if k != "rule"}
    for key in ("first", "second", "result"):
        if isinstance(parts.get(key), dict):
            parts[key] = g.FixedPoint(**{k: _tuples(v) for k, v in parts[key].items()})
    return getattr(g, document["rule"])(**parts)


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def written(program) -> list[str]:
    """Tensors that the host writes, each once."""
    s = stated(program)
    made = {o["output"] for o in s["operators"]}
    names = [n for n in s["places"] if n not in made]
    return list(dict.fromkeys([*names, *(n for p in s["packed"] for n in p["tensors"])]))


def random_inputs(program, seed: int):
    """Within the ranges that the file states."""
    s, rng = stated(program), np.random.default_rng(seed)
    found = {}
    for name in written(program):
        low, high = s["tensors"][name]["range"]
        found[name] = rng.integers(low, high + 1, s["tensors"][name]["shape"]).astype(np.int8)
    return found


def with_inputs(program, inputs):
    """The program with these values where its statement says that the host writes them."""
    s = stated(program)
    put = []
    for name in s["places"]:
        if name in inputs:
            put.append((places(program, name).reshape(-1), inputs[name].reshape(-1)))
    for p in s["packed"]:
        table = program.tensors[p["table"]].astype(np.int64)
        at = np.flatnonzero(table >= 0)
        owner, number = table[at] >> 32, table[at] & ((1 << 32) - 1)
        flat = [inputs[n].reshape(-1) for n in p["tensors"]]
        values = np.array([flat[o][n] for o, n in zip(owner, number, strict=True)])
        put.append((p["addr"] + at, values))
    before = []
    for address, data in program.before:
        data = data.copy()
        for place, values in put:
            inside = (place >= address) & (place < address + len(data))
            data[place[inside] - address] = values[inside].view(np.uint8)
        before.append((address, data))
    return replace(program, before=tuple(before), after=())


def places(program, name):
    """Byte of every element of a tensor."""
    s = stated(program)
    p, shape = s["places"][name], s["tensors"][name]["shape"]
    if "table" in p:
        return program.tensors[p["table"]].reshape(shape)
    out = np.full(shape, p["addr"], np.int64)
    for axis, line in enumerate(p["offset_bytes"]):
        out += np.reshape(line, [-1 if a == axis else 1 for a in range(len(shape))])
    return out


def kept(program) -> list[str]:
    """Tensors of layers whose bytes no later layer's tensor takes: others are gone at the end."""
    s = stated(program)
    made = {o["name"]: o["output"] for o in s["operators"]}
    order = [made[layer["name"]] for layer in s["layers"]]
    bytes_of = {n: set(places(program, n).reshape(-1).tolist()) for n in order}
    return [
        n for k, n in enumerate(order)
        if not any(bytes_of[n] & bytes_of[later] for later in order[k + 1 :])
    ]  # fmt: skip


def stored(isa, program, names):
    """What the simulated machine leaves of these tensors."""
    ran = functional.run(isa, program)
    out = {}
    for name in names:
        place = places(program, name)
        low, high = int(place.min()), int(place.max())
        out[name] = ran.dram(low, high - low + 1)[place - low].view(np.int8)
    return out


def difference(isa, program, statement_of, seeds) -> str:
    """Where the machine leaves another tensor than the graph that `statement_of` states, or ""."""
    graph, names = graph_of(statement_of), kept(statement_of)
    for seed in seeds:
        inputs = random_inputs(statement_of, seed)
        wanted = reference.run(graph, inputs)
        found = stored(isa, with_inputs(program, inputs), names)
        for name in names:
            wrong = int((found[name] != wanted[name].reshape(found[name].shape)).sum())
            if wrong:
                return f"{wrong} of {math.prod(found[name].shape)} elements of {name}, seed {seed}"
    return ""
