"""Dataflow of instructions: points and lanes; agreement with the interpreter on every machine."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from csp_embed.errors import SpecError
from csp_embed.machine.expand import expand
from csp_embed.machine.load import builtin_names, config_names, load_isa
from csp_embed.machine.selfcheck import check

MACHINES = [(spec, config) for spec in builtin_names() for config in config_names(spec)]


def test_gemm_points_and_lanes() -> None:
    isa = load_isa("vta", "2x16x16")
    graph = expand(isa, "GEMM").expand()
    found = set(zip(graph.write, graph.reads["lhs"], graph.reads["rhs"], strict=True))
    expected = {
        (b * 16 + o, b * 16 + i, o * 16 + i)
        for b, o, i in itertools.product(range(2), range(16), range(16))
    }
    assert found == expected
    assert len(graph.points) == 512


def test_toy_dataflows() -> None:
    dot = expand(load_isa("toy_dot"), "DOT").expand()
    assert dot.write.tolist() == [0] * 8
    assert dot.reads["lhs"].tolist() == dot.reads["rhs"].tolist() == list(range(8))
    outer = expand(load_isa("toy_outer"), "OUTER").expand()
    assert outer.write.tolist() == list(range(32))
    assert outer.reads["lhs"].tolist() == [b for b in range(4) for _ in range(8)]
    assert outer.reads["rhs"].tolist() == list(range(8)) * 4


def test_map_forms() -> None:
    isa = load_isa()
    flow = expand(isa, "ALU", "SHR")
    assert (flow.function, [r.role for r in flow.reads]) == ("shr", ["dst", "lhs"])
    assert [r.role for r in expand(isa, "ALU", "MAX", immediate=True).reads] == ["dst"]
    assert expand(isa, "ALU", "MAX").function == "max2"


@pytest.mark.parametrize(
    ("name", "op"), [("LOAD", None), ("SAXPY", None), ("ALU", None), ("ALU", "DIV")]
)
def test_what_has_no_points_is_refused(name: str, op: str | None) -> None:
    with pytest.raises(SpecError, match="has no"):
        expand(load_isa(), name, op)


@pytest.mark.parametrize(("spec", "config"), MACHINES)
def test_every_machine_agrees_with_itself(spec: str, config: str) -> None:
    findings = check(load_isa(spec, config))
    assert [f for f in findings if not f.ok] == []
    assert len(findings) >= 10


def test_the_self_check_sees_a_wrong_operand_and_a_wrong_function() -> None:
    isa = load_isa("vta", "1x4x4_small")
    gemm, alu = isa.instruction("GEMM"), isa.instruction("ALU")
    swapped = replace(gemm, meaning=gemm.meaning.replace("* WGT[wgt][o, i]", "* WGT[wgt][i, o]"))
    ops = tuple(replace(o, function="max") if o.name == "MIN" else o for o in alu.ops)
    wrong = replace(alu, meaning=alu.meaning.replace("else ACC[src]", "else ACC[dst]"))
    for broken, names in (
        (swapped, ["meaning of vta.GEMM"]),
        (wrong, [f"meaning of vta.ALU.{o.name}" for o in ops]),
    ):
        instructions = tuple(broken if i.name == broken.name else i for i in isa.instructions)
        findings = check(replace(isa, instructions=instructions))
        assert [f.name for f in findings if not f.ok] == names
