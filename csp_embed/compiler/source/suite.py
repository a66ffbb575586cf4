"""What `csp-embed isa check` does for a machine that runs C: template against meaning.

Takes: an Isa with templates.  Leaves: outcomes. Each template runs between the machine's own
copies, once as compiled C and once by its meaning, on random values; then small operators are
compiled and compared with NumPy. Without a compiler or CPU for it the meanings alone are run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import ops
from csp_embed.compiler.outcome import Outcome
from csp_embed.compiler.source import reach
from csp_embed.compiler.source.chain import compile_source
from csp_embed.errors import CspEmbedError, InputError, MissingLibrary
from csp_embed.machine.contracts import views
from csp_embed.machine.spec import Isa
from csp_embed.machine.templates.spec import Template
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source.interpret import walk
from csp_embed.targets.source.nest import Address, Block, Call, Node, Sum
from csp_embed.targets.source.toolchain import emulate
from csp_embed.targets.source.toolchain.build import c_compiler, require_native
from csp_embed.targets.source.written.emit import probe_text

Array = NDArray[Any]
ROUNDS = 16
_Run = Callable[[emulate.Program, Isa, bytes], bytes]
_FACTORS = ("in_lhs_", "in_rhs_")
BEHIND = 64  # values behind a store that it may not touch


def run(isa: Isa, seed: int = 0) -> list[Outcome]:
    """All checks, in a fixed order."""
    assert isa.program is not None
    missing = unavailable(isa)
    fault = "" if missing else runner_fault(isa)
    if missing:
        text = f"template against meaning was not run: {missing}"
        found = [Outcome("templates", "cannot", text, isa.where("code"))]
    elif fault:
        # One fault, not one for each template; the meanings can still be tried.
        found = [Outcome("runner", "wrong", fault, isa.where("runner"))]
    else:
        found = [_in_view(isa, t, seed) for t in isa.program.templates]
    # What a wrong template does to a process of ours is not for us to find out.
    if any(o.kind == "wrong" for o in found):
        missing = missing or "a template is wrong"
    return [*found, *_operators(isa, missing, seed)]


def runner_fault(isa: Isa) -> str:
    """Why the machine's emulator runs not even a program that copies its input to its output, or
    the machine's bytes are in another order; "" where all is well, or it is not needed."""
    if engine_of(isa) != "emulated":
        return ""
    sent, low_first = bytes(range(16)), bytes((4, 3, 2, 1))
    order = (
        "{ const unsigned n = 0x01020304u;"
        " for (int k = 0; k < 4; k++) byte_order[k] = ((const unsigned char *)&n)[k]; }"
    )
    areas = {"area": 16, "byte_order": 4}
    program = emulate.Program("#include <stddef.h>", areas, ["area"], [order], list(areas))
    try:
        came = emulate.built(program, isa).run(sent)
    except InputError as error:
        return f"a program without templates does not run: {error.why}"
    if came == sent + low_first:
        return ""
    # Packing and results would be taken apart wrongly, template by template.
    if came == sent + low_first[::-1]:
        return (
            "a big-endian machine: only little-endian ones are handled (docs/machines.md, Runner)"
        )
    return "a program that copies its input to its output gives other bytes"


def contraction_fault(isa: Isa) -> str:
    """What is wrong with the machine's first contraction as its emulator runs it; "" if nothing.

    Emulators know instructions that they do not compute: doctors ask."""
    assert isa.program is not None
    fault = runner_fault(isa)
    if fault:
        return fault
    outcome = _in_view(isa, isa.program.contracts()[0], 0)
    return "" if outcome.kind == "equal" else f"{outcome.name}: {outcome.text}"


def _in_view(isa: Isa, template: Template, seed: int) -> Outcome:
    """The template beside the contraction whose memories it moves."""
    # Only the view whose contraction has these memories can show what the template does.
    own = {s.memory for s in template.slots if s.kind == "register"}
    for view in views(isa):
        assert view.program is not None
        contract = view.program.contracts()[0]
        around = {s.memory for s in contract.slots}
        # Results may lie in another memory than the sums, and belong to the contraction.
        around.add(view.program.results(contract.slot("dst").memory))
        if own <= around and any(t.name == template.name for t in view.program.templates):
            return _template(view, template, seed)
    where = isa.where(f"instructions.{template.name}")
    text = f"it was not run: no contraction has all of {', '.join(sorted(own))}"
    return Outcome(f"template {template.name}", "cannot", text, where)


def unavailable(isa: Isa) -> str:
    """Why this computer cannot run the machine, itself or by its emulator; "" where it can."""
    # Native or emulated: either runs the text.
    if engine_of(isa):
        return ""
    try:
        c_compiler()
        require_native(isa)
        return ""
    except MissingLibrary as error:
        why = f"{error.what}: {error.why}"
    try:
        emulate.commands(isa)
    except MissingLibrary as error:
        assert isa.program is not None
        why += f"; {error.what}: {error.why}" * bool(isa.program.runner.emulator)
    return why


def engine_of(isa: Isa) -> str:
    """ "native", "emulated" or "": the first that this computer can run."""
    try:
        c_compiler()
        require_native(isa)
    except MissingLibrary:
        try:
            emulate.commands(isa)
        except MissingLibrary:
            return ""
        return "emulated"
    return "native"


def _template(isa: Isa, template: Template, seed: int) -> Outcome:
    name, where = f"template {template.name}", isa.where(f"instructions.{template.name}")
    nest, buffers = _probe(isa, template)
    rng = np.random.default_rng(seed)
    given = [
        {k: _random(rng, k, dtype, n) for k, (dtype, n) in buffers.items()} for _ in range(ROUNDS)
    ]
    engine = engine_of(isa)
    try:
        # A text that the compiler refuses is the spec's mistake, with the template's line.
        text = probe_text(isa, nest, buffers)
        ran = _ran(text, isa, given, reach.natively if engine == "native" else _emulated)
        # Compilers fold a load into what uses it, which may need no alignment: not so here.
        if engine == "native" and template.kind in ("copy_in", "copy_out"):
            _ran(text, isa, given[:1], partial(reach.natively, flags=reach.FLAGS))
    except InputError as error:
        return Outcome(name, "wrong", error.why, error.where or where)
    except reach.Died as died:
        calls = [c for block in nest if isinstance(block, Block) for c in block.body]
        others = {c.template for c in calls if isinstance(c, Call)}
        beside = ", ".join(sorted(others - {template.name}))
        return Outcome(name, "wrong", f"it or what was run with it ({beside}) {died}", where)
    for before, after in zip(given, ran, strict=True):
        meant = {k: v.copy() for k, v in before.items()}
        # The same nest by the meanings: inputs, template and outputs alike.
        walk(nest, isa, meant)
        for key in after:
            if not np.array_equal(after[key], meant[key]):
                at = int(np.argmax(after[key] != meant[key]))
                text = f"lane {at} is {after[key][at]}, its meaning gives {meant[key][at]}"
                return Outcome(name, "wrong", text, where)
    # Values cannot show a load that is too wide; a forbidden page can.
    if template.kind == "copy_in" and engine == "native" and reach.reads_beyond(
        text, isa, buffers, _read_by(template, nest)
    ):  # fmt: skip
        return Outcome(name, "wrong", "it reads more than its lanes, and faults at the end of a"
                       " tensor", where)  # fmt: skip
    return Outcome(name, "equal", f"{ROUNDS} rounds of random values, {engine}", where)


def _read_by(template: Template, nest: Sequence[Node]) -> set[str]:
    """Buffers that the nest's calls of the template address."""
    calls = [c for block in nest if isinstance(block, Block) for c in block.body]
    return {
        value.buffer
        for c in calls
        if isinstance(c, Call) and c.template == template.name
        for value in c.operands.values()
        if isinstance(value, Address)
    }


def _ran(text: str, isa: Isa, given: list[dict[str, Array]], run: _Run) -> list[dict[str, Array]]:
    """The buffers after each round of `probe`, which is a program of its own. Raises: reach.Died,
    InputError."""
    # Factors are packed, so their addresses are whole values apart; sums and results lie in users'
    # tensors, at any element.
    skip = {k: 0 if k in _FACTORS else v.itemsize for k, v in given[0].items()}
    names = {k: f"area_{n}" for n, k in enumerate(given[0])}
    areas = {names[k]: skip[k] + v.nbytes for k, v in given[0].items()}
    call = f"probe({', '.join(f'(void *)({names[k]} + {n})' for k, n in skip.items())});"
    program = emulate.Program(text, areas, list(areas), [call], list(areas), len(given))
    # All rounds in one run of the emulator: starting it takes longest.
    sent = b"".join(bytes(skip[k]) + v.tobytes() for values in given for k, v in values.items())
    came = run(program, isa, sent)
    out: list[dict[str, Array]] = []
    at = 0
    for values in given:
        out.append({})
        for key, v in values.items():
            out[-1][key] = np.frombuffer(came[at + skip[key] :], v.dtype, v.size)
            at += skip[key] + v.nbytes
    return out


def _emulated(program: emulate.Program, isa: Isa, sent: bytes) -> bytes:
    return emulate.built(program, isa).run(sent)


def _random(rng: np.random.Generator, name: str, dtype: str, count: int) -> Array:
    info = np.iinfo(dtype)
    if name == "amount_":  # of shifts, which machines define below the width
        return rng.integers(0, 32, count).astype(dtype)
    values = rng.integers(info.min, info.max, count, endpoint=True)
    # A sum that saturates differs from one that wraps at the ends of the range alone.
    ends = rng.choice([info.min, info.max], count)
    return np.where(rng.integers(0, 4, count) == 0, ends, values).astype(dtype)


def _probe(isa: Isa, t: Template) -> tuple[tuple[Node, ...], dict[str, tuple[str, int]]]:
    """(nest that copies operands in, runs the template and copies sums out; its buffers)."""
    program = isa.program
    assert program is not None
    # Any contraction of this view: it is there to make copies visible.
    contract = program.find("contract")
    assert contract is not None
    sums = contract.slot("dst").memory
    results = program.results(sums)
    lanes = _lanes(isa, results)
    buffers: dict[str, tuple[str, int]] = {}
    registers: list[tuple[str, str]] = []
    before: list[Node] = []

    def loaded(memory: str, register: str, buffer: str) -> None:
        registers.append((memory, register))
        dtype = isa.memory(memory).dtype
        # Into a register through the machine's own copy, as kernels do.
        get = program.find("copy_in", dst=memory, address=dtype)
        assert get is not None
        buffers[buffer] = (dtype, _lanes(isa, memory))
        before.append(Call(get.name, {get.roles["dst"]: register,
                                      get.roles["address"]: Address(buffer, Sum())}))  # fmt: skip

    operands: dict[str, Any] = {}
    after: list[Node] = []

    more: list[str] = []

    def begin_sums(memory: str, register: str = "dst_0") -> None:
        # Sums that cannot be loaded begin at 0.
        if program.find("copy_in", dst=memory, address="int32") is not None:
            loaded(memory, register, f"in_{register}")
            return
        reset = program.find("reset", dst=memory)
        assert reset is not None
        registers.append((memory, register))
        before.append(Call(reset.name, {reset.roles["dst"]: register}))

    # A copy in is tried by what the contraction makes of it.
    shown = "dst_0"
    # These show themselves in sums only: factors cannot be stored.
    if t.kind in ("contract", "copy_in", "convert") or (
        t.kind == "reset" and t.slot("dst").memory != results
    ):
        begin_sums(sums)
        for role in ("lhs", "rhs"):
            loaded(contract.slot(role).memory, f"{role}_0", f"in_{role}_")
        operands = {contract.roles[r]: f"{r}_0" for r in ("dst", "lhs", "rhs")}
        if t.kind == "copy_in" and t.slot("dst").memory == results != sums:
            loaded(results, "shown_0", "in_shown_")
            shown = "shown_0"
        else:
            after.append(Call(contract.name, operands))
            if t.kind == "contract":  # its factors stay, and so does every other sum
                begin_sums(sums, "second_0")
                again = operands | {contract.roles["dst"]: "second_0"}
                after.append(Call(contract.name, again))
                more.append("second_0")
        if t.kind == "reset":
            after.append(Call(t.name, {t.roles["dst"]: "dst_0"}))
    elif t.kind == "copy_out":
        loaded(results, "dst_0", "in_dst_")
        address = t.slot("address").dtype
        # Every count of lanes, none and all included.
        for n in range(lanes + 1):
            # What stands behind it must stay.
            buffers[f"out_{n}_"] = (address, lanes + BEHIND)
            at = Address(f"out_{n}_", Sum())
            after.append(Call(t.name, {t.roles["dst"]: "dst_0", t.roles["count"]: n,
                                       t.roles["address"]: at}))  # fmt: skip
    else:
        loaded(results, "dst_0", "in_dst_")
        operands = {t.roles["dst"]: "dst_0"}
        # Amounts beyond the width mean different things on different machines.
        if t.kind == "map":
            shift = t.function in ("shr", "shl")
            loaded(results, "other_0", "amount_" if shift else "in_other_")
            operands[t.roles["other"]] = "other_0"
            more.append("other_0")
        if t.kind == "fill":
            # A number with all kinds of bits.
            operands[t.roles["value"]] = -123456789
        after.append(Call(t.name, operands))
    convert = program.find("convert", dst=results, source=sums)
    if results != sums and (sums, "dst_0") in registers:
        assert convert is not None
        # Sums that cannot be stored are seen through their conversion.
        if shown == "dst_0":
            shown = "shown_0"
            registers.append((results, shown))
            after.append(Call(convert.name, {convert.roles["dst"]: shown,
                                             convert.roles["source"]: "dst_0"}))  # fmt: skip
    put = program.find("copy_out", dst=results, address="int32")
    assert put is not None
    buffers["result_"] = ("int32", lanes)
    after.append(Call(put.name, {put.roles["dst"]: shown, put.roles["count"]: lanes,
                                 put.roles["address"]: Address("result_", Sum())}))  # fmt: skip
    # Registers that the template must not have changed.
    for n, register in enumerate(more):
        kept = register
        if (sums, register) in registers and results != sums:
            assert convert is not None
            kept = f"kept_{n}"
            registers.append((results, kept))
            after.append(Call(convert.name, {convert.roles["dst"]: kept,
                                             convert.roles["source"]: register}))  # fmt: skip
        buffers[f"more_{n}_"] = ("int32", lanes)
        at = Address(f"more_{n}_", Sum())
        after.append(Call(put.name, {put.roles["dst"]: kept, put.roles["count"]: lanes,
                                     put.roles["address"]: at}))  # fmt: skip
    return (Block(tuple(registers), (*before, *after)),), buffers


def _lanes(isa: Isa, memory: str) -> int:
    return int(np.prod(isa.lane_shape(memory), dtype=np.int64))


def _operators(isa: Isa, missing: str, seed: int) -> Iterator[Outcome]:
    """Small operators, a few lanes more than one step has."""
    # One block more than a step has, so that padding occurs, whatever its dimensions are called.
    assert isa.program is not None
    contract = isa.program.contracts()[0]
    of = {r: set(isa.memory(contract.slot(r).memory).lanes) for r in ("dst", "lhs", "rhs")}
    columns, terms = of["dst"] & of["rhs"] - of["lhs"], of["lhs"] & of["rhs"] - of["dst"]
    o, i = (math.prod(isa.dims[d] for d in some) for some in (columns, terms))
    o, i = o + 1, 2 * i + 1
    trials = {
        "matmul": ops.matmul(m=o, n=3, k=i),
        "matmul, shift, bias, clip": ops.matmul(m=o, n=2, k=i, shift=5, bias=True, clip=(-90, 101)),
        "convolution with padding": ops.conv2d(n=1, c=i, h=2, w=3, k=min(o, 9), r=2, s=2, pad=1,
                                               shift=3),
        "depthwise convolution": ops.depthwise_conv2d(n=1, c=3, h=3, w=5, r=2, s=2, shift=2),
    }  # fmt: skip
    where = isa.where("instructions")
    for name, op in trials.items():
        try:
            kernel = compile_source(op, isa, {})
            tensors = random_tensors(op, seed)
            if kernel.program is None:
                yield Outcome(name, "cannot", f"plain loops: {kernel.why}", where)
                continue
            # By the meanings always: they run on any computer.
            differences = [("interpreted", kernel.difference(tensors, kernel.interpret(**tensors)))]
            if not missing:
                engine = engine_of(isa)
                ran = kernel.by(engine, tensors)
                differences.append((engine, kernel.difference(tensors, ran)))
        except CspEmbedError as error:
            yield Outcome(name, "wrong", f"{error.what}: {error.why}", error.where or where)
            continue
        wrong = [f"{engine}: {text}" for engine, text in differences if text]
        how = " and ".join(engine for engine, _ in differences)
        kind, text = ("wrong", "; ".join(wrong)) if wrong else ("equal", f"{how} equal NumPy's")
        yield Outcome(name, kind, text, where)
