"""Certifies a program: for every input, each stored byte of the result is the formula's.

Four parts (docs/certify.md): order (`judge/stream`), sums (`walk` against `formula`), epilogue
(`forms`, `epilogue`), frame (here). Imports no builder and takes nothing from one but the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.judge.certify.certificate import ASSUMED, Certificate, Part
from csp_embed.judge.certify.claims import Claim
from csp_embed.judge.certify.compare import Comparison, Findings, tensor_range
from csp_embed.judge.certify.dram import Result, result_of
from csp_embed.judge.certify.example import example_problems
from csp_embed.judge.certify.field import P
from csp_embed.judge.certify.formula import Symbols
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.certify.stream import Stream, run_stream
from csp_embed.judge.stream.judge import judge
from csp_embed.judge.stream.table import make_table
from csp_embed.judge.stream.tokens import find_order
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import decode

Tell = Callable[[str, int, int], None]


def digest_of(program: Program) -> str:
    """SHA-256 of all that is judged: instructions, DRAM before and after, and what it claims."""
    found = hashlib.sha256()
    found.update(np.ascontiguousarray(program.insn).tobytes())
    for ranges in (program.before, program.after):
        for address, data in ranges:
            # Lengths too: else bytes could move from one range to its neighbour unseen.
            found.update(f"{address} {len(data)};".encode())
            found.update(np.ascontiguousarray(data).data)
    found.update(json.dumps(program.meta.get("claims"), sort_keys=True).encode())
    if "network" in program.meta:
        # What a network's program claims stands in arrays, too.
        found.update(json.dumps(program.meta["network"], sort_keys=True).encode())
        for name in sorted(program.tensors):
            found.update(name.encode())
            found.update(np.ascontiguousarray(program.tensors[name]).tobytes())
    return found.hexdigest()


def certify(
    isa: Isa,
    program: Program,
    op: Operator,
    claims: Sequence[Claim],
    *,
    seed: int | None = None,
    rounds: int = 1,
    example: bool = True,
    tell: Tell | None = None,
) -> Certificate:
    """What was proved of `program`; `.ok` where all of it was.

    claims: where the tensors lie. seed: of the random numbers; by default they follow from the
    program's digest. rounds: independent repetitions, each multiplies the error's probability.
    example: whether the file's own data are compared with the claims and the formula.
    Raises: CheckError where this judge cannot decide; InputError for claims that fit nothing.
    """
    begin = time.monotonic()
    digest = digest_of(program)
    # From the file itself: everybody who checks it gets the same points, and the same certificate.
    base = int(digest[:16], 16) if seed is None else seed
    parts = [order_part(isa, program, tell)]
    bound = 0.0
    # Where some order is wrong, a walk in one order proves nothing: there is no second part.
    if parts[0].ok:
        result = result_of(isa, program, op, claims)
        parts += _for_all_inputs(isa, program, op, claims, result, (base, rounds), tell)
        # Only the part on sums can err; the others are certain and have 0.
        bound = min(p.log2_error for p in parts)
    # Last, and only for a program that is right: its problem would be the data, not the program.
    if example and all(p.ok for p in parts):
        parts.append(Part("example", *example_problems(program, op, claims)))
    return Certificate(
        digest=digest, machine=f"{isa.name} {isa.config_name}", formula=op.text(),
        parts=tuple(parts), log2_error=bound, seed=base, rounds=rounds,
        assumed=ASSUMED, seconds=round(time.monotonic() - begin, 3),
    )  # fmt: skip


def order_part(isa: Isa, program: Program, tell: Tell | None) -> Part:
    """Part 1: every order that tokens allow is equivalent, and the stream ends."""
    problems, remarks = judge(isa, program, progress=tell)
    return Part(
        "order",
        tuple(f"{p.kind}: {p.text}" for p in problems),
        f"{len(program.insn):,} instructions: no deadlock, at most {isa.limits.max_tokens} tokens"
        " wait, tokens order every pair of conflicting accesses"
        + "".join(f"; {r}" for r in remarks),
    )


def _for_all_inputs(
    isa: Isa, program: Program, op: Operator, claims: Sequence[Claim], result: Result,
    randomness: tuple[int, int], tell: Tell | None,
) -> list[Part]:  # fmt: skip
    """Parts 2 to 4, once for every set of lanes that the result's elements use."""
    base, rounds = randomness
    short = next((c for c in claims if not c.holds(*tensor_range(op, c.tensor))), None)
    if short is not None:
        low, high = tensor_range(op, short.tensor)
        return [
            Part("frame", (f"the parts of {short.tensor} do not hold all of {low}..{high}",), "")
        ]
    machine = Machine.of(isa)
    table = make_table(isa, decode(isa, program.insn))
    order = find_order(isa, table)
    weights = {c.tensor: (c.weights, c.scale) for c in claims}
    found = Findings()
    degree = 0
    for k in range(rounds):
        symbols = Symbols(op, weights, [base, k])
        degree = symbols.degree
        stream = Stream(machine, program, claims, table, order, symbols)
        comparison = Comparison(op, result, symbols, found)
        # Another set of lanes needs other weights, and the image of DRAM is made with weights: so
        # the stream is walked once for each.
        for number, (box, pad, places) in enumerate(result.boxes(machine)):
            lanes = machine.weights(box, [base, k, number])
            ran = run_stream(stream, result, lanes, tell)
            problems = (ran.problem,) if ran.problem else comparison.stored(ran)
            # What breaks the frame breaks it for every box and round.
            if problems:
                return [Part("frame", problems, "")]
            comparison.compare(machine, ran, pad, places, lanes)
    # The union bound over comparisons, then independent rounds.
    error = rounds * math.log2(min(1.0, degree * found.tests / P))
    sums = (
        f"equal as polynomials of degree {degree} at {rounds} random points modulo 2^61 - 1,"
        f" at most {found.tests} comparisons for an element"
    )
    how = [f"{n:,} stored elements {method}" for method, n in sorted(found.methods.items())]
    return [
        Part("frame", (), result.said),
        Part("sums", tuple(found.wrong_sums), sums, error),
        Part("epilogue", tuple(found.wrong_steps), "; ".join(how)),
    ]
