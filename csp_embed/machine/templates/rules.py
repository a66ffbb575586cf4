"""What the C target needs of a machine: a contraction, and templates that move its operands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from csp_embed.errors import SpecError
from csp_embed.machine.contracts import views
from csp_embed.machine.refused import refused
from csp_embed.machine.spec import Isa
from csp_embed.machine.templates.spec import SourceMachine, Template


def source_refusals(isa: Isa) -> Iterator[SpecError]:
    """Everything that keeps C from being written for this machine."""
    program = isa.program
    assert program is not None
    if not program.contracts():
        yield refused(
            isa, "no contraction", "the search covers an operator by one",
            "add a template whose meaning is D[d][..] += L[l][..] * R[r][..]", "instructions",
        )  # fmt: skip
    # One view a contraction: memories and maps differ between them.
    for view in views(isa):
        assert view.program is not None
        for contract in view.program.contracts():
            yield from _of_contract(view, view.program, contract)


def _of_contract(isa: Isa, program: SourceMachine, contract: Template) -> Iterator[SpecError]:
    at = f"instructions.{contract.name}"
    dst, lhs, rhs = (isa.memory(contract.slot(r).memory) for r in ("dst", "lhs", "rhs"))
    # Wider or narrower sums are not the operator's numbers; conversion after them is fine.
    if dst.dtype != "int32":
        yield refused(isa, f"sums of {dst.dtype}", "operators are sums in int32",
                     f"give {dst.name} `type: int32`", at)  # fmt: skip
    for m in (lhs, rhs):
        if m.dtype not in ("int8", "uint8"):
            yield refused(isa, f"factors of {m.dtype}", "operands are int8, shifted where unsigned",
                         f"give {m.name} `type: int8` or uint8", at)  # fmt: skip
    # See docs/machines.md: value + 128 is corrected by the other factor's sum, which must be
    # signed.
    if (lhs.dtype, rhs.dtype) == ("uint8", "uint8"):
        yield refused(
            isa,
            "two unsigned factors",
            "the correction of one offset is the other factor alone",
            "use a step with a signed factor",
            at,
        )
    shared = [d for d in lhs.lanes if d in rhs.lanes]
    if any(d not in (*dst.lanes, *shared) for d in (*lhs.lanes, *rhs.lanes)):
        yield refused(isa, "a dimension of one factor alone is summed",
                     "the correction of an offset would count it again",
                     "let both factors have it, or the result", at)  # fmt: skip
    if any(d not in (*lhs.lanes, *rhs.lanes) for d in dst.lanes):
        yield refused(isa, "a dimension of the sums alone", "its lanes would hold the same sum",
                     "leave it out of the sums", at)  # fmt: skip
    results = program.results(dst.name)
    # Everything that lowering may ask for; what is missing is told here, with the file's line.
    needed: list[tuple[str, Mapping[str, str]]] = [
        ("copy_in", {"dst": m.name, "address": m.dtype}) for m in (lhs, rhs)
    ]
    # Both: int8 results of layers, int32 sums that go to another kernel.
    needed += [("copy_out", {"dst": results, "address": t}) for t in ("int8", "int32")]
    # Sums begin at 0, or at a bias that is filled in.
    needed += [("reset", {"dst": dst.name}), ("fill", {"dst": results})]
    # Biases lie in memory as int32, also where the sums cannot load them.
    needed.append(("copy_in", {"dst": results, "address": "int32"}))
    if "uint8" in (lhs.dtype, rhs.dtype):
        # See targets/source/correct.py.
        needed.append(("map", {"dst": results, "other": results, "function": "mul"}))
        # Without a load of sums the correction is added behind the contraction.
        if program.find("copy_in", dst=dst.name, address="int32") is None:
            needed.append(("map", {"dst": results, "other": results, "function": "add"}))
    for kind, wanted in needed:
        if program.find(kind, **wanted) is None:
            what = " ".join(dict.fromkeys(wanted.values()))
            hint = "add a template; docs/machines.md lists what a machine needs"
            yield refused(isa, f"no {kind} of {what}", "a kernel needs it", hint, "instructions")
    yield from _registers(isa, program, contract)


def _registers(isa: Isa, program: SourceMachine, contract: Template) -> Iterator[SpecError]:
    """One step's operands fit their files."""
    need: dict[str, int] = {}
    # The least that any loop needs; how many more fit is the search's question.
    for role in ("dst", "lhs", "rhs"):
        memory = contract.slot(role).memory
        file = program.file_of[memory]
        need[file] = need.get(file, 0) + program.takes.get(memory, 1)
    for file, count in need.items():
        if count > program.files[file].count:
            yield refused(
                isa, f"a step takes {count} registers of {file}",
                f"the file has {program.files[file].count}",
                "raise its `count`, or lower what the memories' values take (`takes`)",
                f"registers.{file}", f"instructions.{contract.name}",
            )  # fmt: skip
