"""Judges a certificate: no solver, and no code of the search.

Takes: the certificate as read from JSON.  Leaves: `Judgement`: problems, each naming the rule or
the claim that fails, and remarks on what cannot be judged without searching.

The embedding is rebuilt from the stated digits, counters, coordinates and layouts, judged by rules
1 to 8 (judge.py), and its analytic cost is counted anew (certificate_count.py). That a bound is the
best possible cannot be re-proved without a search; that it contradicts nothing can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.ir.embedding import Coordinate, Counter, Digit, Embedding, Fused, Layout
from csp_embed.ir.operator import Access, Operator
from csp_embed.ir.stream import Program
from csp_embed.judge.embedding.certificate_count import count
from csp_embed.judge.embedding.judge import accesses, judge
from csp_embed.machine.contracts import contracted
from csp_embed.machine.interface import default_memory, parse_memory
from csp_embed.machine.program_file import isa_of
from csp_embed.machine.spec import Isa
from csp_embed.narrow import is_object
from csp_embed.ops.document import from_document

FORMAT = "csp-embed-certificate/1"
STATUSES = ("optimal", "feasible", "infeasible", "unknown")
# Costs are sums of small multiples of 1/8192 cycle: doubles hold them exactly up to 2**40 cycles.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Judgement:
    """problems: empty where the certificate holds. remarks: what was not or cannot be judged."""

    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    status: str = ""


def check_certificate(document: Any, meta: Mapping[str, Any] | None = None) -> Judgement:
    """Judges a certificate. meta: of the program file it came in, which must speak of the same
    operator and machine.

    Raises: InputError, where it is no certificate or a part is missing or of a wrong type.
    """
    if not is_object(document) or document.get("format") != FORMAT:
        found = document.get("format") if is_object(document) else type(document).__name__
        raise InputError(
            "this is no certificate", why=f"its format is {found!r}, not {FORMAT!r}",
            hint="csp-embed compile … --certificate FILE writes one",
        )  # fmt: skip
    status = document.get("status")
    if status not in STATUSES:
        return Judgement((f"status {status!r} is none of {', '.join(STATUSES)}",), ())
    try:
        op, isa = operator_of(document["operator"]), _machine(document["machine"])
        problems = _same_program(document, meta)
        if status in ("infeasible", "unknown"):
            return _without_solution(document, op, problems)
        problems += _solved(document, op, isa)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            "the certificate is incomplete or damaged", why=f"{type(error).__name__}: {error}",
            hint="write it again with csp-embed compile … --certificate FILE",
        ) from error  # fmt: skip
    remark = (
        "that the bound is the best possible rests on the solver's proof; it contradicts nothing"
    )
    return Judgement(tuple(problems), (remark,), status)


def operator_of(document: Mapping[str, Any]) -> Operator:
    """The operator that a certificate or a program describes."""
    # Arrays of the operator itself (averaging weights) move no lane: their shape is enough.
    blank = {n: np.zeros(document["shapes"][n], np.int8) for n in document["values"]}
    return from_document(document, blank)


def _machine(document: Mapping[str, Any]) -> Isa:
    return isa_of(Program(document, np.zeros((0, 2), np.uint64), (), (), {}))


def _same_program(document: Mapping[str, Any], meta: Mapping[str, Any] | None) -> list[str]:
    if meta is None:
        return []
    out: list[str] = []
    told, have = meta.get("operator", {}), document["operator"]
    for key in ("formula", "extents", "shapes"):
        if told.get(key) != have[key]:
            out.append(f"operator: the program's {key} is {told.get(key)}, not {have[key]}")
    for key in ("isa", "config"):
        if meta.get(key) != document["machine"].get(key):
            out.append(f"machine: the program's {key} is another one")
    if "formula" in document and meta.get("embedding") != document["formula"]:
        out.append("embedding: the program was made from another one")
    return out


def _without_solution(document: Mapping[str, Any], op: Operator, problems: list[str]) -> Judgement:
    if "embedding" in document:
        problems.append(f"status {document['status']}, yet it carries an embedding")
    if document["status"] == "infeasible" and not (document["conflict"] or document["why"]):
        problems.append("status infeasible, without the families in conflict")
    text = "that no embedding exists rests on the search; it cannot be judged without one"
    return Judgement(tuple(problems), (f"{op.name}: {text}",), document["status"])


def _solved(document: Mapping[str, Any], op: Operator, isa: Isa) -> list[str]:
    # A layout of the wrong tensor would make every later rule compare the wrong things.
    strangers = _strangers(document["embedding"], op)
    if strangers:
        return strangers
    embedding = rebuild(document["embedding"], op, isa)
    isa = contracted(isa, embedding.instruction)
    problems = _memories(embedding, isa)
    if _parts(embedding.formula()) != _parts(document["formula"]):
        problems.append("formula: the text is not that of the solution")
    if embedding.layout_mode != document["layout"]:
        problems.append(f"layout: {embedding.layout_mode} in the solution, not as stated")
    # All rules at once, by the judge that compilation uses too: the certificate adds nothing to it.
    problems += [str(b) for b in judge(embedding, isa).breaches]
    if problems:
        return problems  # costs of a wrong embedding mean nothing
    # A certificate that names no memory is about the first interface of the spec.
    memory = str(document.get("memory") or (default_memory(isa) if isa.costs else ""))
    counted = count(embedding, isa, memory)
    for name, value in counted.items():
        # Only what is counted here is compared; figures that this judge does not know are not
        # believed, they are not read.
        stated = document["figures"].get(name)
        if stated is None or not _close(float(stated), value):
            problems.append(f"figure {name}: {stated} is stated, {value:g} is counted")
    return problems + _claims(document, counted["objective"], memory)


def _strangers(solution: Mapping[str, Any], op: Operator) -> list[str]:
    """Layouts that are not those of the operator's operands, as commuted says."""
    # Commuted embeddings swap what lhs and rhs serve, and nothing else: one function decides for
    # both.
    served = served_by(op, _flag(solution["commuted"]))
    given = {role: fields["tensor"] for role, fields in solution["layouts"].items()}
    if set(given) != set(served):
        return [f"rule 1 (same kind): layouts of {sorted(given)}, operands are {sorted(served)}"]
    return [
        f"rule 2 (operands agree): {role} holds {given[role]}, its points need {access.tensor}"
        for role, access in served.items()
        if given[role] != access.tensor
    ]


def served_by(op: Operator, commuted: bool) -> dict[str, Access]:
    """Operand -> the operator's access that it serves."""
    blank = Embedding(op, "", "", commuted, (), (), (), {}, "")
    return accesses(blank)


def _memories(embedding: Embedding, isa: Isa) -> list[str]:
    """Operands lie where the instruction reads them; of an elementwise one, in the accumulator."""
    found = [i for i in isa.instructions if i.name == embedding.instruction]
    # By role: two operands of one instruction may lie in one memory.
    memory = {o.role: o.memory for i in found for o in i.operands}
    out: list[str] = []
    for role, layout in embedding.layouts.items():
        contract = bool(found) and found[0].kind == "contract"
        # An elementwise instruction reads and writes accumulators only, whatever its operands are
        # called.
        wanted = memory.get(role if contract and role in memory else "dst")
        order = layout.order
        if order is not None and sorted(order) != list(range(len(layout.grid))):
            out.append(f"rule 9 (layout): the order of {role} in DRAM is no permutation")
        if layout.memory != wanted:
            out.append(f"rule 1 (same kind): {role} lies in {layout.memory}, not in {wanted}")
    return out


def _claims(document: Mapping[str, Any], counted: float, memory: str) -> list[str]:
    out: list[str] = []
    value, bound = float(document["objective"]["value"]), float(document["objective"]["bound"])
    if not _close(value, counted):
        out.append(f"objective: {value} is stated, {counted:g} is counted")
    # A bound above the value would be a bound on nothing; rounding alone is forgiven.
    if bound > value * (1 + _TOLERANCE):
        out.append(f"bound: {bound} is above the objective {value}")
    if document["status"] == "optimal" and not _close(bound, value):
        out.append(f"status optimal, yet the bound {bound} is below the objective {value}")
    gap = document["objective"]["gap"]
    if value and not math.isclose(gap, max(0.0, (value - bound) / value), abs_tol=1e-9):
        out.append(f"gap: {gap} is stated, objective and bound say otherwise")
    # Parsed, not compared as text: "de10" and "de10,latency=0" are one interface.
    told = str(document["scheduled"]["memory"])
    if told and parse_memory(told) != parse_memory(memory):
        out.append(f"memory: scheduled behind {told}, while the objective is about {memory}")
    cycles = document["scheduled"]["cycles"]
    if cycles is not None and cycles < 0:
        out.append(f"scheduled: {cycles} cycles")
    return out


def _parts(formula: str) -> list[str]:
    """Its terms without their order: JSON objects are unordered."""
    return sorted(re.split(r"[\s+;|=]+", str(formula).replace("-", "+-")))


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def rebuild(solution: Mapping[str, Any], op: Operator, isa: Isa) -> Embedding:
    """The embedding that a certificate states."""
    # Field by field with checked types: a certificate is a file from outside, and
    # `Embedding(**fields)` would take whatever stands there.
    embedding = Embedding(
        operator=op,
        isa_name=isa.name,
        instruction=str(solution["instruction"]),
        commuted=_flag(solution["commuted"]),
        digits=tuple(
            Digit(str(d["name"]), str(d["dim"]), _int(d["extent"]), _int(d["radix"]))
            for d in solution["digits"]
        ),
        counters=tuple(
            Counter(str(c["name"]), _int(c["extent"]), _flag(c["reduced"]))
            for c in solution["counters"]
        ),
        coordinates=tuple(
            Coordinate(
                tuple(map(str, c["axes"])), _int(c["extent"]), _int(c["const"]),
                _ints(c["digits"]), _ints(c["counters"]),
            )
            for c in solution["coordinates"]
        ),
        layouts={},
        kind=str(solution["kind"]),
        layout_mode=str(solution["layout_mode"]),
        equal=_pairs(solution["equal"]),
    )  # fmt: skip
    served = served_by(op, embedding.commuted)
    layouts = {role: _layout(fields, served[role]) for role, fields in solution["layouts"].items()}
    return replace(embedding, layouts=layouts)


def _layout(f: Mapping[str, Any], access: Access) -> Layout:
    return Layout(
        operand=str(f["operand"]),
        tensor=str(f["tensor"]),
        memory=str(f["memory"]),
        access=access,
        grid=_tuple(f["grid"]),
        grid_names=tuple(map(str, f["grid_names"])),
        origin=_tuple(f["origin"]),
        step={str(c): _tuple(v) for c, v in f["step"].items()},
        const=_tuple(f["const"]),
        grid_coef=tuple(_tuple(v) for v in f["grid_coef"]),
        digit_coef=tuple(_ints(v) for v in f["digit_coef"]),
        fused=tuple(
            Fused(
                tuple(map(str, u["axes"])), _tuple(u["extents"]), _int(u["const"]),
                _tuple(u["grid_coef"]), _ints(u["digit_coef"]),
                {str(a): _tuple(v) for a, v in u["axis_coef"].items()},
            )
            for u in f["fused"]
        ),
        equal=_pairs(f["equal"]),
        duplicates=_flag(f["duplicates"]),
        order=None if f["order"] is None else _tuple(f["order"]),
    )  # fmt: skip


def _int(value: Any) -> int:
    # bool is an int to Python. Sums of products with loop counts must stay inside int64, where
    # NumPy would wrap around silently.
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 40:
        raise TypeError(f"{value!r} is no integer of sensible size")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _tuple(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(_int(v) for v in values)


def _ints(values: Mapping[str, Any]) -> dict[str, int]:
    return {str(k): _int(v) for k, v in values.items()}


def _pairs(values: Sequence[Sequence[Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(a), str(b)) for a, b in values)
