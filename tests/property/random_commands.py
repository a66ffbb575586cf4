"""Invented machines that are fed commands, as YAML, and what is compiled for them.

Each is written in one of the ways in which docs/commands.md lets it be said: lanes in rows or
columns, weights direct, preloaded, in two banks or swapped, strides fixed or set, addresses of rows
or bytes, sums that are told to begin or always add, stores that shift, scale or clip.
"""

from __future__ import annotations

import random
from collections import Counter

from csp_embed import ops
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.file import content
from csp_embed.errors import CheckError, CspEmbedError, Infeasible
from csp_embed.ir.operator import Operator
from csp_embed.machine.compilable import require
from csp_embed.machine.load import load_text
from csp_embed.ops.data import random_tensors


def trial(seed: int, said: Counter[str]) -> list[str]:
    """What is wrong with the machine of a seed, or with what is compiled for it."""
    try:
        isa = load_text(machine(seed), f"m{seed}.yaml", None)
        require(isa)
    except CspEmbedError as error:
        said[f"refused: {error.what}: {error.why}"[:110]] += 1
        return []
    said["accepted"] += 1
    found: list[str] = []
    for n, op in enumerate(operators(random.Random(seed))):
        try:
            kernel = compile_commands(op, isa, {})
        except Infeasible as error:
            said[f"no program: {error.why}"[:60]] += 1
            continue
        except (CspEmbedError, AssertionError, ArithmeticError, LookupError, ValueError,
                TypeError) as error:  # fmt: skip
            found.append(f"{op.text()}: {type(error).__name__} {error}")
            continue
        file = content(kernel, random_tensors(op, n))
        wrong = [
            *map(str, kernel.verify()),
            *file.problems(whole=False),
            *file.problems(whole=True),
        ]
        found += [f"{op.text()}: {w}" for w in wrong[:1]]
        try:
            proof = file.certify()
        except CheckError as error:
            said[f"not decided: {error.why}"[:60]] += 1
            continue
        said["certified" if proof.ok else "not certified"] += 1
        if not proof.ok and not wrong:
            found.append(f"{op.text()}: right and not certified: {proof.problems[0]}")
    return found


def operators(rng: random.Random) -> list[Operator]:
    """Small ones, ragged ones, with and without what may follow the sums."""

    def one(most: int) -> int:
        return rng.randint(1, most)

    m, n, k = one(40), one(20), one(40)
    ends = {"plain": {}, "ReLU": {"shift": 4, "clip": (0, 127)}, "clip": {"clip": (-128, 127)},
            "bias": {"shift": 3, "bias": True, "bias_range": 500, "clip": (0, 127)}}  # fmt: skip
    found = [ops.matmul(m=m, n=n, k=k, **e) for e in ends.values()]
    found.append(ops.conv2d(n=1, c=one(9), h=5, w=one(6) + 2, k=one(20), r=3, s=3, pad=1,
                            stride=rng.choice([1, 2]), **ends[rng.choice(list(ends))]))  # fmt: skip
    return found


def machine(seed: int) -> str:
    """The YAML text."""
    return Text(random.Random(seed * 7919 + 1)).whole()


class Text:
    """One machine, choice by choice."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        pick = rng.choice
        self.dims = {d: pick([1, 2, 3, 4, 8, 12]) for d in "boi"}
        self.state: dict[str, str] = {}
        self.commands: list[str] = []
        self.codes = 0

    def add(
        self, name: str, fields: dict[str, int], body: str, most: dict[str, int] | None = None
    ) -> None:
        """A command; fields: name -> bits, laid out one after the other over words of 32 bits."""
        self.codes += 1
        word, at = 0, 0
        told: list[str] = []
        for field, bits in fields.items():
            if at + bits > 32:
                word, at = word + 1, 0
            limit = f" <= {most[field]}" if most and field in most else ""
            told.append(f'{field}: "w{word}[{at}:{at + bits}]{limit}"')
            at += bits
        lines = "".join(f"\n      {x}" for x in body.splitlines())
        self.commands.append(
            f"  {name}:\n    code: {{op: {self.codes}}}\n    fields: {{{', '.join(told)}}}\n"
            f"    meaning: |{lines}"
        )

    def copy(
        self, memory: str, rows: int, lanes: int, dtype: str, *, out: str = "", add: bool = False,
        repeat: bool = False, name: str = "", extra: dict[str, int] | None = None,
    ) -> None:  # fmt: skip
        """A copy in of whole rows, or out through `out`."""
        pick, size = self.rng.choice, 4 if dtype == "int32" else 1
        name = name or f"GET_{memory}"
        fields, most, lines = {"h": 24, "l": 16}, {}, []
        if memory == "C":  # state: there is one tile, and no address
            del fields["l"]
        unit = pick([1, 1, 1, 4, 8, 64])
        how = pick(["state", "field", "fixed", "own"])
        if repeat:
            stride = "0"
        elif how == "fixed":
            stride = str(lanes * size + pick([0, 0, size, 16 * size]))
        elif how == "field":
            fields["stride"], stride = 16, "stride"
        else:
            stride = f"{name.lower()}_pitch"
            self.state[stride] = "{}"
            if how == "own":
                fields["p"] = 16
                lines.append(f"{stride} = p")
            else:
                self.add(f"SET_{name}", {"p": 16}, f"{stride} = p")
        count = pick(["field", str(rows)])
        if count == "field":
            fields["n"], most["n"] = 8, pick([rows, rows, 4 * rows])
            count = "n"
        wide = pick(["all", "field"])
        if wide == "field":
            fields["m"], most["m"] = 8, lanes
        base = pick(["l + r", "l + r", f"l // {lanes} + r"]) if lanes > 1 else "l + r"
        if unit > 1 and not stride.isdigit():
            stride = f"{unit} * {stride}"
        first = f"{unit} * h" if unit > 1 else "h"
        host = f"HOST.{dtype}[{first} + {size} * c]" if repeat else (
            f"HOST.{dtype}[{first} + {stride} * r + {size} * c]")  # fmt: skip
        here = "C[r, c]" if memory == "C" else f"{memory}[{base}][c]"
        work = f"{host} = {out.replace('ACC', here)}" if out else (
            f"{here} {'+=' if add else '='} {host}")  # fmt: skip
        across = "m" if wide == "field" else lanes
        lines += [f"for r in range({count}):", f"  for c in range({across}):", f"    {work}"]
        self.add(name, {**fields, **(extra or {})}, "\n".join(lines), most)

    def whole(self) -> str:
        pick = self.rng.choice
        b, o, i = (self.dims[d] for d in "boi")
        # Where lanes of an operand lie: (rows, lanes, reference from a first row).
        x = pick([(b, i, "X[x + b][i]"), (1, b * i, f"X[x][{i} * b + i]"), (i, b, "X[x + i][b]")])
        w = pick([(i, o, "W[w + i][o]"), (o, i, "W[w + o][i]"), (1, i * o, f"W[w][{o} * i + o]")])
        s = pick([(b, o, "S[s + b][o]"), (1, b * o, f"S[s][{o} * b + o]"), (o, b, "S[s + o][b]")])
        # Sums in rows, or in state: stored from there, or drained to rows first.
        place = pick(["rows", "rows", "state", "drained"])
        if place != "rows":
            s = (b, o, "C[b, o]")
            self.state["C"] = "{dims: [b, o], type: int32}"
        held = pick(["no", "no", "held", "next", "banks"])
        begins = pick(["keep", "zero", "state", "never"])
        copies = pick(["full", "repeat", "adds", "none"])
        cleared = pick([True, False])
        if begins == "never" and not cleared:
            copies = pick(["full", "repeat"])
        if cleared:
            at = "C[r, c]" if place != "rows" else "S[s + r][c]"
            self.add("CLEAR", {} if place != "rows" else {"s": 12},
                     f"for r in range({s[0]}):\n  for c in range({s[1]}):\n    {at} = 0"
                     )  # fmt: skip
        step_fields = {"x": 12, "s": 12} if place == "rows" else {"x": 12}
        weight, lines = w[2], []
        # Bounds of a step: all lanes, or as many as a field, an own number of state or one that two
        # loops share says; `short`: lanes beyond a field's number are loaded as 0.
        cuts = [pick(["all", "all", "field", "guard", "state", "shared"]) for _ in "boi"]
        short = pick([True, False])
        if held != "no":
            load = "for i in range({1}):\n  for o in range({2}):\n    {0}[i, o] = " + w[2]
            extra = {"wi": 6, "wo": 6} if short else {}
            load += " if i < wi and o < wo else 0" if short else ""
            load = load.replace("{1}", str(i)).replace("{2}", str(o))
            names = {"held": ["P"], "next": ["N"], "banks": ["P0", "P1"]}[held]
            for name in names:
                self.state[name] = "{dims: [i, o], type: int8}"
                self.add(f"HOLD_{name}", {"w": 12, **extra}, load.replace("{0}", name))
            if held == "next":
                self.state["P"] = "{dims: [i, o], type: int8}"
                lines += [
                    f"for i in range({i}):",
                    f"  for o in range({o}):",
                    "    P[i, o] = N[i, o]",
                ]
        else:
            step_fields["w"] = 12
        if begins in ("keep", "zero"):
            step_fields["f"] = 1
        if begins == "state":
            self.state["fresh"] = "{}"
            self.add("MODE", {"f": 1}, "fresh = f")
        test = {"keep": "not f", "zero": "f", "state": "fresh"}.get(begins)
        for bank in ("P0", "P1") if held == "banks" else ("P",):
            weight = w[2] if held == "no" else f"{bank}[i, o]"
            bounds, guards = {}, []
            for d, cut in zip("boi", cuts, strict=True):
                bounds[d] = str(self.dims[d])
                name = {"field": f"n{d}", "state": f"m{d}", "shared": "both"}.get(cut)
                if cut == "guard":
                    guards.append(f"{d} < n{d}")
                    step_fields[f"n{d}"] = 6
                elif name is not None and not (cut == "shared" and d == "i"):
                    # One field for two loops: only where both have as many lanes.
                    if cut == "shared" and self.dims["b"] != self.dims["o"]:
                        continue
                    bounds[d] = name
                    if cut == "state" and name not in self.state:
                        self.state[name] = "{}"
                        self.add(f"SIZE_{d}", {"p": 6}, f"{name} = p")
                    elif cut != "state":
                        step_fields[name] = 6
            body = [*lines, f"for b in range({bounds['b']}):", f"  for o in range({bounds['o']}):"]
            body += [f"    if {test}:", f"      {s[2]} = 0"] if test else []
            body += [f"    for i in range({bounds['i']}):"]
            body += [f"      if {' and '.join(guards)}:"] if guards else []
            body += [f"      {'  ' if guards else ''}{s[2]} += {x[2]} * {weight}"]
            body += ["del N"] if held == "next" and pick([True, False]) else []
            name = "STEP" + (bank[1:] if held == "banks" else "")
            self.add(name, step_fields, "\n".join(body))
        self.copy("X", x[0], x[1], "int8")
        self.copy("W", w[0], w[1], "int8")
        sums = "C" if place != "rows" else "S"
        stored = "C" if place == "state" else "S"
        if place == "drained":
            self.add("DRAIN", {"s": 12}, f"for r in range({b}):\n  for c in range({o}):\n"
                     "    S[s + r][c] = C[r, c]")  # fmt: skip
        if copies != "none":
            self.copy(sums, s[0], s[1], "int32", repeat=copies == "repeat")
        if copies == "adds":
            self.copy(sums, s[0], s[1], "int32", add=True, name="ADD_S")
        stores = pick([["full"], ["full", "narrow"], ["narrow"]])
        if "full" in stores:
            self.copy(stored, s[0], s[1], "int32", out="ACC", name="PUT_FULL")
        if "narrow" in stores:
            low, shift = "0 if low else -128", {"sh": 5, "low": 1}
            way, extra = pick([
                (f"clip(ACC >> sh, {low}, 127)", shift),
                (f"min(max((ACC + (1 << sh >> 1)) >> sh, {low}), 127)", shift),
                (f"clip(rint(float32(ACC) * as_float32(q)), {low}, 127)", {"low": 1, "q": 32}),
            ])  # fmt: skip
            self.copy(stored, s[0], s[1], "int8", out=way, name="PUT", extra=extra)
        if pick([True, False]):
            self.add("FENCE", {}, "pass")
        rows = [("X", x, "int8", 64), ("W", w, "int8", 64), ("S", s, "int32", 40)]
        memories = "".join(
            f"  {n}: {{kind: rows, rows: {max(k, 4 * m[0])}, lanes: {m[1]}, type: {t}}}\n"
            for n, m, t, k in rows
        )
        self.rng.shuffle(self.commands)
        state = "".join(f"\n  {k}: {v}" for k, v in self.state.items())
        return (
            "format: csp-embed-isa/2\nname: invented\ncontrol: stream\norder: program\n"
            f"dims: {{b: {b}, o: {o}, i: {i}}}\nwords: {{op: 8, w0: 32, w1: 32, w2: 32, w3: 32}}\n"
            f"memories:\n  HOST: {{kind: host, align: {pick([1, 8, 64])}, bytes: 2 ** 24}}\n"
            + memories
            + (f"state:{state}\n" if state else "")
            + "instructions:\n"
            + "\n".join(self.commands)
            + "\n"
        )
