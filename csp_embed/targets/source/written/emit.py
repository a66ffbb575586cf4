"""Writes a program as one C11 text.

Takes: SourceProgram, the machine's templates, constants where they are known.  Leaves: C text that
includes what the spec names, and nothing else but the standard headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.targets.source.lower import SourceProgram
from csp_embed.targets.source.names import identifier
from csp_embed.targets.source.nest import Buffer, Node
from csp_embed.targets.source.output import RESULT
from csp_embed.targets.source.written.functions import (
    APART,
    Move,
    local,
    moves,
    named,
    parameter,
    used,
)
from csp_embed.targets.source.written.moves import helpers
from csp_embed.targets.source.written.packing import pack_lines
from csp_embed.targets.source.written.plain import plain_kernel
from csp_embed.targets.source.written.statements import CONSTRAINTS, statements
from csp_embed.targets.source.written.text import CEIL_DIV, CTYPES
from csp_embed.targets.source.written.threads import shared

Array = NDArray[Any]


# Seen with gcc 12 on 7 x 3 sums of 32 registers: 0.72 of the machine's limit without, 0.95 with.
ROLLED = """\
/* Sums stay in registers only where gcc copies no loop heads, unrolls no loop around steps, and
   does not rename the sums behind the last step. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize ("no-tree-ch")
#define ROLLED _Pragma("GCC unroll 1")
#define KEEP(sum) __asm__("" : "+{constraint}"(sum))
#else
#define ROLLED
#define KEEP(sum) (void)0
#endif"""


@dataclass(frozen=True)
class CFile:
    """text: the C file. name: its kernel function. arguments: tensors of the kernel in order, the
    result last; prepared: those of NAME_pack (empty: nothing is packed beforehand). packed, work:
    whether the kernel takes these buffers. threads: that a call uses where OpenMP is on."""

    text: str
    name: str
    arguments: tuple[str, ...]
    prepared: tuple[str, ...]
    packed: bool
    work: bool
    threads: int = 1


def write(
    program: SourceProgram, isa: Isa, name: str, data: Mapping[str, Array], threads: int = 1
) -> CFile:
    """data: packed buffers whose content is known ("rhs_" -> values); all of them or none."""
    op, machine = program.operator, isa.program
    assert machine is not None
    known = {b.name for b in program.buffers if b.role == "packed"}
    # Packed together, since one struct holds them.
    assert not data or set(data) == known, "packed buffers are known together"
    packed = [b for b in program.buffers if b.role == "packed"]
    work = [b for b in program.buffers if b.role == "work"]
    constants = [t for t in op.tensors if op.tensors[t].constant and t != op.out.tensor]
    arguments = [t for t in op.tensors if not op.tensors[t].constant and t != op.out.tensor]
    lines = [_head(program, isa, name, bool(data), threads), ""]
    lines += ["#include <stddef.h>", "#include <stdint.h>", "#include <string.h>"]
    # string.h stands above in any case.
    lines += [f"#include <{h}>" for h in machine.headers if h != "string.h"]
    lines += declared(isa)
    lines += ["", *_struct(f"{name}_packed_t", packed, machine.align)] if packed else []
    lines += ["", *_struct(f"{name}_work_t", work, machine.align)] if work else []
    moved = moves(program, name, work, threads)
    body = [*_pack_function(program, isa, name, packed, constants)] if packed and not data else []
    body += [""] * bool(body) + _kernel(program, isa, name, arguments, moved, bool(data), threads)
    # Functions that move data stand apart; see functions.py.
    apart = [line for m in moved for line in ("", *m.lines)]
    apart = [*APART.split("\n"), *apart, ""] if apart else []
    body = [*apart, *_rolled(isa).split("\n"), "", *body]
    # Fixed buffers only where something reads them: compilers warn of others.
    for unit, (value, count) in program.fixed.items():
        if any(unit in line for line in body):
            values = ", ".join([str(value)] * count)
            lines += ["", f"static const uint8_t {unit}[{count}] = {{{values}}};"]
    lines += helpers(body)
    if any("lanes_left(" in line for line in body):
        lines += ["", "/* How many lanes of a ragged end exist. */",
                  "static inline int lanes_left(ptrdiff_t n, int most) {",
                  "  return n < 0 ? 0 : n < most ? (int)n : most;", "}"]  # fmt: skip
    if any("ceil_div(" in line for line in body):
        lines += ["", *CEIL_DIV]
    if data:
        lines += ["", *_constants(f"{name}_packed_t", packed, data)]
    lines += ["", *body]
    for kind, there in (("work", work), ("packed", packed and not data)):
        if there:
            # Sizes are told by the library, since structs are aligned.
            head = f"size_t {name}_{kind}_bytes(void)"
            lines += ["", f"{head};", f"{head} {{ return sizeof({name}_{kind}_t); }}"]
    return CFile(
        text="\n".join(lines) + "\n",
        name=name,
        arguments=(*arguments, op.out.tensor),
        prepared=tuple(constants) if packed and not data else (),
        packed=bool(packed) and not data,
        work=bool(work),
        threads=threads,
    )


def declared(isa: Isa) -> list[str]:
    """What the spec puts before every function."""
    assert isa.program is not None
    text = isa.program.declarations.rstrip()
    return ["", *text.split("\n")] if text else []


def _defined(head: str, isa: Isa) -> list[str]:
    """Declaration and opening line of a function that holds templates: attributes that change how
    a body runs, not how it is called, stand before the definition alone."""
    assert isa.program is not None
    attributes = isa.program.attributes.strip()
    return [f"{head};", f"{attributes} {head} {{".lstrip()]


def _head(program: SourceProgram, isa: Isa, name: str, known: bool, threads: int) -> str:
    """The comment above everything: what, how called, who owns what."""
    op, machine = program.operator, isa.program
    assert machine is not None
    shapes = [
        f"   {t.dtype} {t.name}[{']['.join(map(str, t.shape))}]"
        + ("  constant" if t.constant else "")
        for t in op.tensors.values()
    ]
    constants = (
        "Constants are part of this file, packed."
        # Who calls must know whether packing is theirs.
        if known
        else f"Call {name}_pack once; the packed constants may be shared by threads."
    )
    shared = [
        f"   Add -fopenmp, and a call uses {threads} threads; without it, it uses one. */"
    ] if threads > 1 else []  # fmt: skip
    return "\n".join(
        [
            f"/* {op.name} for {isa.name}, written by csp_embed.",
            "",
            f"   {op.text()}",
            *shapes,
            "",
            # A formula may contain what ends a comment.
            f"   embedding  {program.embedding.formula()}".replace("*/", "* /"),
            "",
            "   All tensors are row-major and belong to the caller; they must not overlap. Structs",
            f"   lie at addresses that {machine.align} divides. The work struct is written in every"
            " run: one for",
            f"   each call at a time. {constants}",
            "   Sums wrap around at 32 bits; the result keeps the low bits of what is stored.",
            f"   Compile with: cc -O3 -std=c11 {' '.join(machine.flags)}" + " */" * (not shared),
            *shared,
        ]
    )


def header(file: CFile, op: Operator, isa: Isa) -> str:
    """The `.h` beside a C file: its functions, and of each argument type, shape and alignment."""
    assert isa.program is not None
    guard = f"{file.name.upper()}_H"
    lines = [f"/* {op.name}, written by csp_embed for {isa.name}: {op.text()}", ""]
    # Each tensor once: it may be packed and read.
    for t in dict.fromkeys((*file.prepared, *file.arguments)):
        declared, out = op.tensors[t], t == op.out.tensor
        dtype = op.out_dtype if out else declared.dtype
        shape = "".join(f"[{n}]" for n in declared.shape)
        size = int(np.dtype(dtype).itemsize)
        role = "the result" if out else "read"
        lines.append(
            f"   {identifier(t)}: {CTYPES[dtype]}{shape}, {role}, row-major without gaps, at an"
            f" address that {size} divides"
        )
    for kind, there in (("packed", file.packed), ("work", file.work)):
        if there:
            lines.append(
                f"   {kind}: {file.name}_{kind}_bytes() bytes at an address that"
                f" {isa.program.align} divides"
            )
    lines += ["   No two of them overlap. */", f"#ifndef {guard}", f"#define {guard}", "",
              "#include <stddef.h>", "#include <stdint.h>", "",
              # C++ has no `restrict`.
              "#ifdef __cplusplus", '#define restrict', 'extern "C" {', "#endif", ""]  # fmt: skip
    kinds = [k for k, there in (("packed", file.packed), ("work", file.work)) if there]
    lines += [f"typedef struct {file.name}_{k} {file.name}_{k}_t;" for k in kinds]
    prototypes = [
        line for line in file.text.split("\n")
        if line.endswith(");") and line.startswith((f"void {file.name}", f"size_t {file.name}_"))
    ]  # fmt: skip
    lines += [*[""] * bool(kinds), *prototypes, "", "#ifdef __cplusplus", "}", "#undef restrict",
              "#endif", "#endif", ""]  # fmt: skip
    return "\n".join(lines)


def write_plain(op: Operator, isa: Isa, name: str, why: str, threads: int = 1) -> CFile:
    """The operator as plain loops. why: the reason that the file states."""
    lines, arguments = plain_kernel(op, name, threads)
    if any("ceil_div(" in line for line in lines):
        lines = [*CEIL_DIV, "", *lines]
    shapes = [f"   {t.dtype} {t.name}[{']['.join(map(str, t.shape))}]" for t in op.tensors.values()]
    head = [f"/* {op.name}, written by csp_embed for {isa.name}.", "", f"   {op.text()}", *shapes,
            "", "   Plain loops: no instruction of the machine was chosen,", f"   since {why}.",
            "   All tensors are row-major and belong to the caller; they must not overlap.",
            "   Compile with: cc -O3 -std=c11 */", "", "#include <stddef.h>", "#include <stdint.h>",
            ""]  # fmt: skip
    text = "\n".join([*head, *lines]) + "\n"
    return CFile(text, name, arguments, (), packed=False, work=False, threads=threads)


def _rolled(isa: Isa) -> str:
    """`ROLLED` with the constraint of the machine's sums."""
    assert isa.program is not None
    contract = isa.program.find("contract")
    assert contract is not None
    ctype = isa.program.ctypes[contract.slot("dst").memory]
    # Of no use for a type that is not known: then nothing is kept (`_nodes`).
    constraint = CONSTRAINTS.get(ctype, "r")
    return ROLLED.replace("{constraint}", constraint)


def _struct(name: str, buffers: list[Buffer], align: int) -> list[str]:
    members = [f"  _Alignas({align}) {CTYPES[b.dtype]} {b.name}[{b.elements}];" for b in buffers]
    return [f"typedef struct {name.removesuffix('_t')} {{", *members, f"}} {name};"]


def _constants(ctype: str, packed: list[Buffer], data: Mapping[str, Array]) -> list[str]:
    lines = [f"static const {ctype} packed_data = {{"]
    for b in packed:
        lines += [f"  .{b.name} = {{", *literals(data[b.name], "    "), "  },"]
    return [*lines, "};"]


def probe_text(isa: Isa, nodes: tuple[Node, ...], buffers: Mapping[str, tuple[str, int]]) -> str:
    """A function `probe` that runs nests on buffers (name -> type and values), in their order."""
    assert isa.program is not None
    parameters = ", ".join(f"{CTYPES[t]} *restrict {name}" for name, (t, _) in buffers.items())
    head = ["#include <stddef.h>", "#include <stdint.h>"]
    head += ["#include <string.h>", *(f"#include <{h}>" for h in isa.program.headers)]
    head += declared(isa)
    head += _defined(f"void probe({parameters})", isa)
    return "\n".join([*head, *statements(nodes, isa, "  "), "}", ""])


def literals(values: Array, indent: str) -> list[str]:
    """An array's values as lines of C."""
    # -2^31 as a literal is the negative of a number that int cannot hold.
    texts = ["INT32_MIN" if v == -(2**31) else str(v) for v in values.reshape(-1).tolist()]
    return [indent + ",".join(texts[n : n + 24]) + "," for n in range(0, len(texts), 24)]


def _pack_function(
    program: SourceProgram, isa: Isa, name: str, packed: list[Buffer], constants: list[str]
) -> list[str]:
    op = program.operator
    # Constants in the operator's order, as the header says.
    parameters = [parameter(op, t, "const ") for t in constants]
    head = f"void {name}_pack({', '.join([*parameters, f'{name}_packed_t *packed'])})"
    lines = _defined(head, isa)
    lines += [local(b, "packed", "") for b in packed]
    for role, p in program.places.items():
        if role != "dst" and op.tensors[p.layout.tensor].constant:
            lines += pack_lines(p, identifier(p.layout.tensor), "  ")
    lines += statements(program.prepare, isa, "  ")
    # Unused parameters are warnings.
    # A constant that nothing but the formula reads is an argument all the same.
    used = {p.layout.tensor for p in program.places.values()}
    lines += [f"  (void){identifier(t)};" for t in constants if t not in used]
    return [*lines, "}"]


def _kernel(
    program: SourceProgram,
    isa: Isa,
    name: str,
    arguments: list[str],
    moved: list[Move],
    known: bool,
    threads: int,
) -> list[str]:
    op = program.operator
    packed = [b for b in program.buffers if b.role == "packed"]
    work = [b for b in program.buffers if b.role == "work"]
    parameters = [parameter(op, t, "const ") for t in arguments]
    if packed and not known:
        parameters.append(f"const {name}_packed_t *packed")
    if work:
        parameters.append(f"{name}_work_t *work")
    parameters.append(parameter(op, op.out.tensor, ""))
    head = f"void {name}({', '.join(parameters)})"
    lines = _defined(head, isa)
    # Known constants lie in the file: the struct is a static one.
    lines += [local(b, "(&packed_data)" if known else "packed", "const ") for b in packed]
    phases = _phases(program, isa, moved, threads)
    lines += [local(b, "work", "") for b in used(work, phases)]
    # Registers are called result_0 and so on.
    if named(RESULT, phases):
        out = identifier(op.out.tensor)
        lines.append(f"  {CTYPES[op.out_dtype]} *restrict {RESULT} = {out};")
    # One region for all phases: threads are started once.
    lines += [f"#pragma omp parallel num_threads({threads})", "  {"] * (threads > 1)
    lines += phases
    return [*lines, *["  }"] * (threads > 1), "}"]


def _phases(program: SourceProgram, isa: Isa, moved: list[Move], threads: int) -> list[str]:
    """Packing, sums, unpacking."""
    lines = [f"  {m.call}" for m in moved if m.role != "dst"]
    # `early`: corrections that depend on operands of this run.
    early = program.run[: len(program.run) - len(program.main)]
    if early:
        lines.append("  /* What an unsigned factor adds to each sum, taken away again. */")
        lines += shared(statements(early, isa, "  "), threads)
    lines.append("  /* Sums, and what follows them. */")
    # Tiles write results of their own: none waits for another.
    lines += shared(statements(program.main, isa, "  "), threads, wait=False)
    unpacked = [f"  {m.call}" for m in moved if m.role == "dst"]
    # Unpacking reads what other threads have stored.
    return lines + ["#pragma omp barrier"] * (threads > 1 and bool(unpacked)) + unpacked
