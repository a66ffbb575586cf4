"""What the C target needs of a machine: one contraction, and templates that move its operands."""

from __future__ import annotations

from collections.abc import Iterator

from csp_embed.errors import SpecError
from csp_embed.machine.spec import Isa


def source_refusals(isa: Isa) -> Iterator[SpecError]:
    """Everything that keeps C from being written for this machine."""
    program = isa.program
    assert program is not None
    contracts = [t for t in program.templates if t.kind == "contract"]
    if len(contracts) != 1:
        yield _error(
            isa, f"{len(contracts)} contractions", "the search covers an operator by one of them",
            "keep one template whose meaning is D[d][..] += L[l][..] * R[r][..]", "instructions",
        )  # fmt: skip
        return
    (contract,) = contracts
    at = f"instructions.{contract.name}"
    dst, lhs, rhs = (isa.memory(contract.slot(r).memory) for r in ("dst", "lhs", "rhs"))
    if dst.dtype != "int32":
        yield _error(isa, f"sums of {dst.dtype}", "operators are sums in int32",
                     f"give {dst.name} `type: int32`", at)  # fmt: skip
    for m in (lhs, rhs):
        if m.dtype not in ("int8", "uint8"):
            yield _error(isa, f"factors of {m.dtype}", "operands are int8, shifted where unsigned",
                         f"give {m.name} `type: int8` or uint8", at)  # fmt: skip
    if (lhs.dtype, rhs.dtype) == ("uint8", "uint8"):
        yield _error(isa, "two unsigned factors", "the correction of one offset is the other factor"
                     " alone", "use a step with a signed factor", at)  # fmt: skip
    shared = [d for d in lhs.lanes if d in rhs.lanes]
    if any(d not in (*dst.lanes, *shared) for d in (*lhs.lanes, *rhs.lanes)):
        yield _error(isa, "a dimension of one factor alone is summed",
                     "the correction of an offset would count it again",
                     "let both factors have it, or the result", at)  # fmt: skip
    needed = [("copy_in", {"dst": m.name, "address": m.dtype}) for m in (lhs, rhs, dst)]
    needed += [("copy_out", {"dst": dst.name, "address": t}) for t in ("int8", "int32")]
    needed += [("reset", {"dst": dst.name}), ("fill", {"dst": dst.name})]
    if "uint8" in (lhs.dtype, rhs.dtype):
        needed.append(
            ("map", {"dst": dst.name, "function": "mul"})
        )  # see targets/source/correct.py
    for kind, wanted in needed:
        if program.find(kind, **wanted) is None:
            what = " ".join(wanted.values())
            hint = "add a template; isa_specs/x86_avx512_vnni.yaml has all"
            yield _error(isa, f"no {kind} of {what}", "a kernel needs it", hint, "instructions")


def _error(isa: Isa, what: str, why: str, hint: str, item: str) -> SpecError:
    return SpecError(
        f"{isa.name} cannot be compiled for: {what}", where=isa.where(item), why=why, hint=hint
    )
