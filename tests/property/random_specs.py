"""Random variations of the shipped machines, and the verdict on each: right, refused, or a fault.

A variation is made on the parsed YAML, one to three changes of the kinds that people make when they
describe their own machine: shared memories, other types, missing loads, narrow fields, queues in
another order. Names are kept where a meaning needs them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from csp_embed import ops
from csp_embed.compiler import machine_suite
from csp_embed.compiler.driver import Options, compile
from csp_embed.compiler.program.verify import judge
from csp_embed.errors import CspEmbedError, Infeasible, InputError
from csp_embed.machine.compilable import require
from csp_embed.machine.costs import costs_of
from csp_embed.machine.interface import interfaces
from csp_embed.machine.load import load_isa
from csp_embed.machine.resources import folder
from csp_embed.machine.selfcheck import check as self_check
from csp_embed.machine.spec import Isa

Spec = dict[str, Any]
_VTA = {
    "LOG_INP_WIDTH": 3, "LOG_WGT_WIDTH": 3, "LOG_ACC_WIDTH": 5, "LOG_BATCH": 0, "LOG_BLOCK": 2,
    "LOG_UOP_BUFF_SIZE": 8, "LOG_INP_BUFF_SIZE": 8, "LOG_WGT_BUFF_SIZE": 9, "LOG_ACC_BUFF_SIZE": 10,
}  # fmt: skip
BASES = ("vta", "toy_dot", "toy_outer")


def base(name: str) -> Spec:
    """A shipped machine in its smallest configuration, which stands in the file itself."""
    text = (folder("isa_specs") / f"{name}.yaml").read_text(encoding="utf-8")
    spec: Spec = yaml.safe_load(text)
    named = spec["configuration"]["named"]
    small = _VTA if name == "vta" else named["tiny"]
    spec["configuration"]["named"] = {"small": dict(small)}
    spec["configuration"]["default"] = "small"
    return spec


def write(spec: Spec, path: Path) -> None:
    """The spec as YAML; JSON is YAML too, one key a line, so that lines tell items apart."""
    path.write_text(json.dumps(spec, indent=1), encoding="utf-8")


# --- changes ---------------------------------------------------------------------------------


def _instruction(spec: Spec, kind: str) -> dict[str, Any]:
    return next(i for i in spec["instructions"].values() if i["kind"] == kind)


def _data(spec: Spec) -> list[str]:
    return [n for n, m in spec["memories"].items() if "lanes" in m]


def _operands(spec: Spec) -> list[str]:
    """dst, lhs, rhs memories as the meaning names them."""
    text = _instruction(spec, "contract")["meaning"]
    core = text.strip().splitlines()[-1]
    return re.findall(r"(\w+)\[\w+\]", core)[:3]


def _fields(spec: Spec) -> list[dict[str, Any]]:
    groups = [f for g in spec["field_groups"].values() for f in g]
    own = [f for i in spec["instructions"].values() for f in i["fields"] if "name" in f]
    return groups + own + spec["uop"]["fields"]


def share_operands(spec: Spec, rng: random.Random) -> None:
    dst, lhs, rhs = _operands(spec)
    keep, drop = rng.choice([(lhs, rhs), (rhs, lhs), (dst, lhs), (dst, rhs)])
    contract = _instruction(spec, "contract")
    lanes = ", ".join(spec["memories"][keep]["lanes"])
    found = rf"{drop}\[(\w+)\](\[[\w, ]*\])?"
    new = rf"{keep}[\1]" + (f"[{lanes}]" if lanes else "")
    contract["meaning"] = re.sub(found, new, contract["meaning"])


def transpose(spec: Spec, rng: random.Random) -> None:
    name = rng.choice(_data(spec))
    lanes = spec["memories"][name]["lanes"]
    old, new = ", ".join(lanes), ", ".join(lanes[::-1])
    for other in spec["memories"].values():
        if other.get("lanes") == lanes and (other is spec["memories"][name] or rng.random() < 0.9):
            other["lanes"] = lanes[::-1]
    for instruction in spec["instructions"].values():
        if "meaning" in instruction:
            instruction["meaning"] = re.sub(
                rf"(\w+\[\w+\])\[{old}\]", rf"\1[{new}]", instruction["meaning"]
            )


def retype(spec: Spec, rng: random.Random) -> None:
    memory = spec["memories"][rng.choice(_data(spec))]
    memory["type"] = rng.choice(["int8", "int16", "int32", "uint8"])


def dram_type(spec: Spec, rng: random.Random) -> None:
    memory = spec["memories"][rng.choice(_data(spec))]
    memory["dram_type"] = rng.choice(["int8", "int16", "int32"])


def queues_of_memories(spec: Spec, rng: random.Random) -> None:
    memory = spec["memories"][rng.choice(list(spec["memories"]))]
    key = rng.choice(["load_queue", "store_queue"])
    if key in memory and rng.random() < 0.5:
        del memory[key]
    else:
        memory[key] = rng.choice(spec["queues"])


def store_accumulators(spec: Spec, rng: random.Random) -> None:
    dst = _operands(spec)[0]
    for name in [n for n, m in spec["memories"].items() if m.get("shadow_of") == dst]:
        queue = spec["memories"].pop(name)["store_queue"]
        spec["memories"][dst]["store_queue"] = queue


def no_reset(spec: Spec, rng: random.Random) -> None:
    contract = _instruction(spec, "contract")
    rows = contract["meaning"].splitlines()
    at = next(n for n, row in enumerate(rows) if row.strip().startswith("if "))
    indent = rows[at][: len(rows[at]) - len(rows[at].lstrip())]
    contract["meaning"] = "\n".join([*rows[:at], indent + rows[at + 3].strip()]) + "\n"


def depth(spec: Spec, rng: random.Random) -> None:
    name = rng.choice(list(spec["memories"]))
    value = rng.choice([1, 2, 4, 8, 64, 256, 3])
    key = rng.choice(["depth", "depth", "portable_depth"])
    spec["memories"][name][key] = value
    for other in spec["memories"].values():
        if name in (other.get("shadow_of"), other.get("alias_of")):
            other[key] = value


def width(spec: Spec, rng: random.Random) -> None:
    rng.choice(_fields(spec))["width"] = rng.choice([1, 2, 3, 4, 6, 8, 10, 12])


def signed(spec: Spec, rng: random.Random) -> None:
    field = rng.choice(_fields(spec))
    field["signed"] = not field.get("signed", False)


def move(spec: Spec, rng: random.Random) -> None:
    field = rng.choice(_fields(spec))
    field["bit"] = rng.randrange(0, 128)


def dims(spec: Spec, rng: random.Random) -> None:
    spec["dims"][rng.choice(list(spec["dims"]))] = rng.choice([1, 2, 4, 3, 4096])


def order_of_queues(spec: Spec, rng: random.Random) -> None:
    rng.shuffle(spec["queues"])
    if rng.random() < 0.3:
        instruction = _instruction(spec, rng.choice(["contract", "map", "finish"]))
        instruction["queue"] = rng.choice(spec["queues"])


def no_tokens(spec: Spec, rng: random.Random) -> None:
    if "tokens" in spec["field_groups"]:
        tokens = spec["field_groups"]["tokens"]
        if rng.random() < 0.5:
            del tokens[rng.randrange(len(tokens))]
        else:
            instruction = rng.choice(list(spec["instructions"].values()))
            instruction["fields"] = [f for f in instruction["fields"] if f.get("group") != "tokens"]


def opcodes(spec: Spec, rng: random.Random) -> None:
    rng.choice(list(spec["instructions"].values()))["opcode"] = rng.randrange(0, 8)


def operations(spec: Spec, rng: random.Random) -> None:
    table = _instruction(spec, "map")["ops"]
    name = rng.choice(list(table))
    match rng.randrange(4):
        case 0:
            del table[name]
        case 1:
            table[name]["function"] = rng.choice(["min", "max", "add", "shr", "mul"])
        case 2:
            table[name]["portable"] = False
        case _:
            table[name]["code"] = rng.randrange(0, 8)


def limits(spec: Spec, rng: random.Random) -> None:
    key, values = rng.choice([
        ("max_tokens", [0, 1, 2]), ("map_hazard", [0, 1, 8, 40]), ("page_bytes", [0, 1, 64, 100]),
        ("dram_bits", [4, 13, 16, 40]), ("stale_shadow", [True, False]),
        ("imm_src_is_dst", [True, False]), ("nonzero_counts", [True, False]),
    ])  # fmt: skip
    spec["limits"][key] = rng.choice(values)


def costs(spec: Spec, rng: random.Random) -> None:
    if rng.random() < 0.3:
        del spec["costs"]
        return
    section = rng.choice(list(spec["costs"]))
    if rng.random() < 0.5:
        del spec["costs"][section]
    else:
        key = rng.choice(list(spec["costs"][section]))
        spec["costs"][section][key] = rng.choice([0, 1, -1, 3, 0.5])


_EDITS: tuple[tuple[str, str], ...] = (
    (r"\+= (\w+\[\w+\](?:\[[\w, ]*\])?) \* (.*)$", r"+= \2 * \1"),
    (r"\+= (\w+\[\w+\](?:\[[\w, ]*\])?) \* (.*)$", r"+= \1 * \1"),
    (r"\+= (.*)$", r"-= \1"),
    (r"\+= (.*)$", r"+= \1 + 1"),
    (r"\+= (.*)$", r"+= 2 * \1"),
    (r"(\w+) if (\w+) else", r"\2 if \1 else"),
    (r"\((\w+\[\w+\](?:\[[\w, ]*\])?), (.*)\)$", r"(\2, \1)"),
    (r"\+ x \* (\w+)", r"+ y * \1"),
    (r"\+ y \* (\w+) \+ x \* (\w+)", r"+ y * \2 + x * \1"),
    (r"range\((\w+), (\w+)\)", r"range(\2, \1)"),
    (r"range\((\w+)\)", r"range(\1 + 1)"),
    (r"\[n\]\.(\w+)", r"[x].\1"),
    (r" = 0$", " = 1"),
)


def meaning(spec: Spec, rng: random.Random) -> None:
    instruction = _instruction(spec, rng.choice(["load", "store", "contract", "map"]))
    old, new = rng.choice(_EDITS)
    text = instruction["meaning"]
    count = rng.choice([0, 1])
    instruction["meaning"] = re.sub(old, new, text, count=count, flags=re.MULTILINE)


def names_in_meaning(spec: Spec, rng: random.Random) -> None:
    """One name of a meaning becomes another of the same meaning."""
    instruction = _instruction(spec, rng.choice(["contract", "map"]))
    words = sorted(set(re.findall(r"[a-z_]\w*", instruction["meaning"])))
    a, b = rng.sample([w for w in words if w not in ("for", "in", "range", "if", "else")], 2)
    places = list(re.finditer(rf"\b{a}\b", instruction["meaning"]))
    at = rng.choice(places)
    text = instruction["meaning"]
    instruction["meaning"] = text[: at.start()] + b + text[at.end() :]


def ids(spec: Spec, rng: random.Random) -> None:
    spec["memories"][rng.choice(list(spec["memories"]))]["id"] = rng.randrange(0, 10)


def portable(spec: Spec, rng: random.Random) -> None:
    spec["memories"][rng.choice(list(spec["memories"]))]["portable"] = False


def rename_field(spec: Spec, rng: random.Random) -> None:
    field = rng.choice([f for f in _fields(spec) if f not in spec["uop"]["fields"]])
    old, new = field["name"], rng.choice(["b", "i", "o", "x", "y", "n", "opcode", "imm"])
    for f in _fields(spec):
        if f["name"] == old and f not in spec["uop"]["fields"]:
            f["name"] = new
    for instruction in spec["instructions"].values():
        if "meaning" in instruction:
            instruction["meaning"] = re.sub(rf"(?<!\.)\b{old}\b", new, instruction["meaning"])


def extra_dimension(spec: Spec, rng: random.Random) -> None:
    """An operand gets one dimension more."""
    name = rng.choice(_operands(spec))
    spec["dims"].setdefault("k", rng.choice([2, 3]))
    new = rng.choice([d for d in ("b", "o", "i", "k") if d not in spec["memories"][name]["lanes"]])
    spec["dims"].setdefault(new, 2)
    old = ", ".join(spec["memories"][name]["lanes"])
    for other in spec["memories"].values():
        if other is spec["memories"][name] or name in (
            other.get("shadow_of"), other.get("alias_of")
        ):  # fmt: skip
            other["lanes"] = [*other["lanes"], new]
    for instruction in spec["instructions"].values():
        if "meaning" in instruction:
            pattern = rf"({name}\[\w+\])(\[{old}\])?" if old else rf"({name}\[\w+\])"
            lanes = f"{old}, {new}" if old else new
            instruction["meaning"] = re.sub(pattern, rf"\1[{lanes}]", instruction["meaning"])


def drop_key(spec: Spec, rng: random.Random) -> None:
    """Some key of some mapping disappears."""
    tables = [spec, *spec["memories"].values(), *spec["instructions"].values(), spec["uop"],
              spec["opcode"], spec["configuration"], *_fields(spec)]  # fmt: skip
    table = rng.choice(tables)
    if table:
        del table[rng.choice(list(table))]


CHANGES: tuple[Callable[[Spec, random.Random], None], ...] = (
    share_operands, transpose, retype, dram_type, queues_of_memories, store_accumulators, no_reset,
    depth, width, width, signed, move, dims, order_of_queues, no_tokens, opcodes, operations,
    limits, costs, meaning, names_in_meaning, ids, portable, rename_field, extra_dimension,
    drop_key,
)  # fmt: skip


def mutant(seed: int) -> tuple[str, Spec]:
    """(description, spec): one to three changes of a shipped machine, the same for equal seeds."""
    rng = random.Random(seed)
    name = rng.choice(BASES)
    spec = base(name)
    told = []
    # The first change walks through all kinds, so that few seeds meet every kind.
    picked = [CHANGES[seed % len(CHANGES)]]
    picked += rng.sample(CHANGES, rng.choice([0, 0, 1, 2]))
    for change in picked:
        try:
            change(spec, rng)
        except (KeyError, IndexError, StopIteration, ValueError):
            continue  # an earlier change took away what this one works on
        told.append(change.__name__)
    return f"{name}: {', '.join(told)}", spec


# --- verdict ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """kind: "right" (all that was compiled is equal), "refused", or "fault"."""

    kind: str
    text: str


def verdict(path: Path) -> Verdict:
    """What the product says of a spec, and whether that is true.

    A traceback is not caught: it is a fault of its own.
    """
    try:
        isa = load_isa(path)
        require(isa)
        for memory in interfaces(isa) or ("",):
            costs_of(isa, memory)  # before any search, so it may refuse what loading accepts
        bad = [f for f in self_check(isa) if not f.ok]
        if bad:
            return Verdict("fault", f"self check only: {bad[0].name}")
        outcomes = machine_suite.run(isa)
    except CspEmbedError as error:
        return _refused(error, path)
    wrong = [o for o in outcomes if o.kind == "wrong"]
    if wrong:
        return Verdict("fault", f"check only: {wrong[0].name}: {wrong[0].text}")
    notes = [o.name for o in outcomes if o.kind == "cannot"]
    for name, op, options in operators(isa):
        try:
            kernel = compile(op, isa, options=options)
            tensors = machine_suite.random_tensors(op, 1)
            found = judge(kernel, tensors)
        except (Infeasible, InputError) as error:
            notes.append(f"{name} {error.what}")
            continue
        except CspEmbedError as error:
            return Verdict("fault", f"{name}: {error}")
        if found.problems or found.verified != "simulated":
            first = found.problems[0] if found.problems else found.difference
            return Verdict("fault", f"{name}: {first}")
    return Verdict("right", f"cannot: {'; '.join(notes)}" if notes else "all")


def _refused(error: CspEmbedError, path: Path) -> Verdict:
    file, _, number = error.where.rpartition(":")
    if file != str(path) or not number.isdigit():
        return Verdict("fault", f"no file:line: {error}")
    if not error.why or not error.hint:
        return Verdict("fault", f"no reason or remedy: {error}")
    return Verdict("refused", " | ".join(str(error).splitlines()))


def operators(isa: Isa) -> Iterator[tuple[str, Any, Options]]:
    """Other shapes than those of `isa check`, with the machine's costs and the usual search."""
    quick = Options(top=2, schedules=3, refine=6)
    sizes = {d: min(n, 64) for d, n in isa.dims.items()}
    o, i = sizes["o"], sizes["i"]
    yield "matmul", ops.matmul(m=3 * o + 2, n=5, k=4 * i + 3, shift=4, bias=True,
                               bias_range=900, clip=(0, 127)), quick  # fmt: skip
    yield "large matmul", ops.matmul(m=9 * o, n=21, k=9 * i + 1, shift=6), quick
    yield "conv2d", ops.conv2d(n=1, c=5, h=7, w=6, k=6, r=3, s=3, pad=1, stride=2,
                               bias=True), quick  # fmt: skip
    yield "depthwise", ops.depthwise_conv2d(n=1, c=5, h=5, w=5, r=3, s=3, pad=1, shift=3), quick
    yield "pool", ops.max_pool2d(n=1, c=5, h=7, w=7, r=3, s=3, stride=2, pad=1), quick
    yield "elementwise", ops.elementwise((7, 30), [("add", "z"), ("shr", 2), ("max", -9)]), quick
