"""A kernel of C certified: its index maps for all inputs, its values by tests.

What is run for the sums is not the kernel's library, which hides them behind the epilogue, but one
that is written from the same embedding and the same tile with int32 results. That both have the
same loops and addresses is compared, as data.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from csp_embed.errors import CheckError
from csp_embed.ir.operator import Operator
from csp_embed.judge.certify.certificate import Certificate, Part
from csp_embed.judge.certify.library import sums_at_random, values_at_random
from csp_embed.judge.embedding import judge as embedding_judge
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source import audit
from csp_embed.targets.source.constants import constant_data
from csp_embed.targets.source.lower import SourceProgram, lower
from csp_embed.targets.source.nest import Address, Call, Keep, Loop, Node, Sum
from csp_embed.targets.source.toolchain.build import Native, build
from csp_embed.targets.source.written.emit import CFile, write, write_plain

if TYPE_CHECKING:
    from csp_embed.compiler.source.kernel import SourceKernel

ROUNDS = 8
ASSUMED = (
    "loops and addresses do not depend on data, as the printed C shows",
    "templates compute what the machine's spec says, and the C compiler what the text says, in the"
    " library of sums and in the kernel alike",
    "the pseudo-random numbers are as good as random ones",
    "what follows the sums (epilogue, packing to the result's type) was tested, not proved",
)
VERDICT = "index maps certified for all inputs, values tested"
# Instruction points that the judge of embeddings looks at one by one: some seconds.
ENUMERATED = 16_000_000


def certified_source(
    kernel: SourceKernel, *, rounds: int = ROUNDS, seed: int | None = None
) -> Certificate:
    """What can be said of the kernel's index maps for all inputs, and of its values.

    Raises: CheckError for an operator without products or with too long sums; MissingLibrary where
    this computer cannot build or run the kernel.
    """
    begun, op = time.monotonic(), kernel.operator
    if op.kind != "contract":
        raise CheckError(
            f"a {op.kind} is not certified", where=op.formula(), why="it has no sums of products",
            hint="kernel.check() compares the values of one input",
        )  # fmt: skip
    digest = hashlib.sha256(kernel.text.encode()).hexdigest()
    # By the text, so that two runs of one kernel choose the same points.
    base = int(digest[:16], 16) if seed is None else seed
    bare = bare_of(op)
    file, program = _library_of_sums(kernel, bare)
    parts: list[Part] = []
    # Plain loops have no embedding and no templates whose addresses could be judged.
    if kernel.program is not None and program is not None:
        parts += [_embedding(kernel), _addresses(kernel), _same_loops(kernel.program, program)]
    parts.append(_text(kernel))
    # Names of their own: a library that is loaded may not be written over.
    with tempfile.TemporaryDirectory(prefix="csp-embed-") as folder:
        path = Path(folder, "sums.so")
        build(file, kernel.isa, path, plain=program is None)
        library = Native.load(file, bare, kernel.isa, path)
    # Values are tried only where the maps hold: else the reason is known already.
    if all(p.ok for p in parts):
        parts.append(sums_at_random(bare, library.run, _products(kernel, op), rounds, base))
    if all(p.ok for p in parts):
        # The generator's spread follows the operator's shifts, so that clips are met and passed.
        parts.append(values_at_random(
            op, kernel.native.run,
            lambda n: {**random_tensors(op, base % (1 << 32) + n), **kernel.constants}, rounds,
        ))  # fmt: skip
    return Certificate(
        digest=digest, machine=f"{kernel.isa.name} {kernel.isa.config_name}".strip(),
        formula=op.text(), parts=tuple(parts), log2_error=min(p.log2_error for p in parts),
        seed=base, rounds=rounds, assumed=ASSUMED, seconds=round(time.monotonic() - begun, 3),
        verdict=VERDICT,
    )  # fmt: skip


def bare_of(op: Operator) -> Operator:
    """The contraction alone, into int32."""
    accesses = [op.out, op.lhs, *([] if op.rhs is None else [op.rhs])]
    # Only what the products touch: the epilogue's tensors are not the sums'.
    kept = {a.tensor for a in accesses}
    tensors = {n: t for n, t in op.tensors.items() if n in kept}
    tensors[op.out.tensor] = replace(tensors[op.out.tensor], dtype="int32")
    values = {n: v for n, v in op.values.items() if n in kept}
    return replace(op, epilogue=(), out_dtype="int32", tensors=tensors, values=values)


def _library_of_sums(kernel: SourceKernel, bare: Operator) -> tuple[CFile, SourceProgram | None]:
    """The kernel's loops without its epilogue, packed at run time and on one thread."""
    if kernel.program is None or kernel.embedding is None:
        return write_plain(bare, kernel.isa, "sums", kernel.why), None
    # The same layouts: addresses of sums and factors are what is compared.
    layouts = {r: x for r, x in kernel.embedding.layouts.items() if r in ("dst", "lhs", "rhs")}
    embedding = replace(kernel.embedding, operator=bare, layouts=layouts)
    program = lower(embedding, kernel.isa, kernel.program.tiling)
    return write(program, kernel.isa, "sums", {}), program


def _products(kernel: SourceKernel, op: Operator) -> int:
    """Products that the kernel makes for one element at most, those of padding included."""
    if kernel.embedding is None:
        return math.prod(op.axes[a] for a in op.reduced_axes)
    loops = math.prod(c.extent for c in kernel.embedding.counters if c.reduced)
    contract = kernel.isa.of_kind("contract")
    kept = contract.operands[0].dims
    # Lanes that are summed, padding among them.
    dims = {d for o in contract.operands for d in o.dims} - set(kept)
    return loops * math.prod(kernel.isa.dims[d] for d in dims)


def _embedding(kernel: SourceKernel) -> Part:
    assert kernel.embedding is not None
    found = embedding_judge.judge(kernel.embedding, kernel.isa, limit=ENUMERATED)
    how = (
        f"all {found.steps:,} steps were looked at"
        if found.exact
        else f"that every point is met once by an argument over coordinates, what lanes hold on"
        f" {found.steps:,} sampled steps"
    )
    return Part("embedding", tuple(map(str, found.breaches)), how)


def _text(kernel: SourceKernel) -> Part:
    """Whether the C text is what embedding and tile give: else the loops that were compared are
    those of another kernel."""
    name, threads = kernel.file.name, kernel.file.threads
    # Written again from the parts that were judged; equal text is equal loops.
    if kernel.program is None:
        again = write_plain(kernel.operator, kernel.isa, name, kernel.why, threads)
    else:
        # Constants whose values are known stand in the text; others are packed at run time.
        data = {}
        if any(b.role == "packed" for b in kernel.program.buffers) and not kernel.file.packed:
            known = {**kernel.operator.values, **kernel.constants}
            data = constant_data(kernel.program, kernel.isa, known)
        again = write(kernel.program, kernel.isa, name, data, threads)
    same = again.text == kernel.text
    return Part(
        "text", () if same else ("it is not what the embedding and the tile give",),
        "the C file is what the embedding and the tile give, byte for byte",
    )  # fmt: skip


def _addresses(kernel: SourceKernel) -> Part:
    assert kernel.program is not None
    problems = tuple(audit.breaches(kernel.program, kernel.isa))
    return Part("addresses", problems, "no template leaves its buffer, by intervals over the loops")


def _same_loops(one: SourceProgram, other: SourceProgram) -> Part:
    """Whether both programs move and multiply the same elements in the same loops."""
    # Accesses in program order: names, loops and addresses must be the same.
    first, second = (list(_accesses(p.run, p, ())) for p in (one, other))
    problems = [] if first == second else ["the library of sums has other loops than the kernel"]
    # What is packed before the run is part of the addresses' meaning.
    if one.prepare != other.prepare or dict(one.streams) != dict(other.streams):
        problems.append("operands are packed in another way in the library of sums")
    return Part(
        "loops", tuple(problems),
        f"{len(first):,} accesses to operands and result are those of the library of sums",
    )  # fmt: skip


Access = tuple[tuple[tuple[str, int], ...], str, Sum]


def _accesses(
    nodes: tuple[Node, ...], program: SourceProgram, loops: tuple[tuple[str, int], ...]
) -> Iterator[Access]:
    """(loops around it, buffer, address) of all that touches an operand or the result."""
    # The epilogue's tensors are the kernel's alone; everything else must be the same.
    own = {p.buffer for r, p in program.places.items() if r not in ("dst", "lhs", "rhs")}
    for node in nodes:
        if isinstance(node, Call):
            for value in node.operands.values():
                if isinstance(value, Address) and value.buffer not in own:
                    yield loops, value.buffer, value.at
        # Keep is a hint to the C compiler and touches nothing.
        elif not isinstance(node, Keep):
            around = (*loops, (node.var, node.count)) if isinstance(node, Loop) else loops
            yield from _accesses(node.body, program, around)
