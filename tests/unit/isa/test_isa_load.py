"""Loading machines: sizes by hand from docs/vta.md, configurations, toy machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from csp_embed.errors import SpecError
from csp_embed.machine.load import builtin_names, config_names, load_isa, stream_names

CONFIGS = Path(__file__).parents[2] / "data" / "configs"
# config -> (b, k), depths of UOP WGT INP ACC, worked out by hand from the LOG_* keys.
SIZES = {
    "1x16x16": ((1, 16), (8192, 1024, 2048, 2048)),
    "1x16x16_half": ((1, 16), (4096, 512, 1024, 1024)),
    "1x32x32": ((1, 32), (8192, 256, 1024, 1024)),
    "2x16x16": ((2, 16), (8192, 1024, 1024, 1024)),
    "1x8x8": ((1, 8), (8192, 1024, 2048, 2048)),
    "1x4x4_small": ((1, 4), (64, 32, 64, 64)),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("form", ["name", "file", "dict"])
def test_sizes_of_every_configuration(name: str, form: str) -> None:
    path = CONFIGS / f"{name}.json"
    config = {"name": name, "file": path, "dict": json.loads(path.read_text())}[form]
    isa = load_isa("vta", config)
    (b, k), depths = SIZES[name]
    assert isa.config_name == name
    assert dict(isa.dims) == {"b": b, "o": k, "i": k}
    assert tuple(isa.memory(m).depth for m in ("UOP", "WGT", "INP", "ACC")) == depths
    assert isa.memory("UOP").portable_depth == min(depths[0], 2048)
    assert isa.memory("OUT").depth == depths[3]
    sizes = {m.name: m.elem_bytes for m in isa.memories}
    assert sizes == {
        "UOP": 4, "WGT": k * k, "INP": b * k, "ACC": 4 * b * k, "OUT": b * k, "ACC_8BIT": b * k
    }  # fmt: skip


def test_every_shared_configuration_is_tested_and_shipped() -> None:
    assert {p.stem for p in CONFIGS.glob("*.json")} == set(SIZES) == set(config_names("vta"))


def test_default_fields_stand_where_the_facts_say() -> None:
    isa = load_isa()
    gemm = {f.name: (f.lo, f.width) for f in isa.instruction("GEMM").fields if not f.unused}
    assert gemm == {
        "opcode": (0, 3), "pop_prev": (3, 1), "pop_next": (4, 1), "push_prev": (5, 1),
        "push_next": (6, 1), "reset": (7, 1), "uop_bgn": (8, 13), "uop_end": (21, 14),
        "iter_out": (35, 14), "iter_in": (49, 14), "dst_factor_out": (64, 11),
        "dst_factor_in": (75, 11), "src_factor_out": (86, 11), "src_factor_in": (97, 11),
        "wgt_factor_out": (108, 10), "wgt_factor_in": (118, 10),
    }  # fmt: skip
    assert [(f.name, f.lo, f.width) for f in isa.uop_fields] == [
        ("dst", 0, 11), ("src", 11, 11), ("wgt", 22, 10)
    ]  # fmt: skip
    alu = isa.instruction("ALU")
    assert (alu.field("imm").lo, alu.field("imm").min, alu.field("imm").max) == (112, -32768, 32767)


@pytest.mark.parametrize("name", SIZES)
def test_widths_follow_the_depths(name: str) -> None:
    isa = load_isa("vta", name)
    u, w, i, a = (d.bit_length() - 1 for d in SIZES[name][1])
    widths = {f.name: f.width for f in isa.instruction("GEMM").fields}
    assert [widths[n] for n in ("uop_bgn", "uop_end", "iter_out", "iter_in")] == [u, u + 1, 14, 14]
    factors = ("dst_factor_out", "dst_factor_in", "src_factor_out", "src_factor_in",
               "wgt_factor_out", "wgt_factor_in")  # fmt: skip
    assert [widths[n] for n in factors] == [a, a, i, i, w, w]
    alu = {f.name: f.width for f in isa.instruction("ALU").fields}
    assert [alu[n] for n in factors[:4]] == [a, a, a, a]
    assert [f.width for f in isa.uop_fields] == [a, max(a, i), w]


def test_operands_and_roles() -> None:
    isa = load_isa()
    gemm = isa.of_kind("contract")
    found = [(o.role, o.memory, o.dims, o.uop_field, o.factor_in) for o in gemm.operands]
    assert found == [
        ("dst", "ACC", ("b", "o"), "dst", "dst_factor_in"),
        ("lhs", "INP", ("b", "i"), "src", "src_factor_in"),
        ("rhs", "WGT", ("o", "i"), "wgt", "wgt_factor_in"),
    ]
    assert gemm.statement == "ACC[dst][b, o] += INP[src][b, i] * WGT[wgt][o, i]"
    assert isa.of_kind("map").roles["op"] == "alu_opcode"
    assert "x_pad_0" in isa.of_kind("load").roles
    assert "x_pad_0" not in isa.of_kind("store").roles
    assert isa.memory("OUT").shadow_of == "ACC"
    assert isa.memory("ACC_8BIT").alias_of == "ACC"


# Each breaks one rule of docs/vta.md; the text is what the message must say.
ILLEGAL = [
    ({"LOG_UOP_BUFF_SIZE": 16}, "u <= 13"),
    ({"LOG_ACC_BUFF_SIZE": 18}, "4 * a + 20 <= 64"),
    ({"LOG_INP_BUFF_SIZE": 16}, "a + max(a, i) + w <= 32"),
    ({"LOG_WGT_BUFF_SIZE": 20}, "a + max(a, i) + w <= 32"),
    ({"LOG_INP_BUFF_SIZE": 18, "LOG_ACC_BUFF_SIZE": 16}, "a + max(a, i) + w <= 32"),
    ({"LOG_UOP_BUFF_SIZE": 2}, "u >= 1"),
    ({"LOG_BLOCK": 9}, "w >= 1"),
    ({"LOG_INP_WIDTH": 4}, "this machine allows 3"),
    ({"LOG_ACC_WIDTH": 4}, "this machine allows 5"),
    ({"LOG_BATCH": -1}, "this machine allows 0 to 10"),
    ({"LOG_BATCH": 0.5}, "a whole number is expected"),
    ({"LOG_BATCH": True}, "a whole number is expected"),
    ({"LOG_BATCH": "0"}, "a whole number is expected"),
    ({"LOG_OUT_BUFF_SIZE": 16}, "makes it 15"),
]


@pytest.mark.parametrize(("change", "says"), ILLEGAL)
def test_illegal_configurations_are_refused_with_the_rule(change: dict, says: str) -> None:
    base = json.loads((CONFIGS / "1x16x16.json").read_text())
    with pytest.raises(SpecError) as error:
        load_isa("vta", base | change)
    assert says in str(error.value)


def test_a_broken_rule_shows_its_numbers() -> None:
    base = json.loads((CONFIGS / "1x16x16.json").read_text())
    with pytest.raises(SpecError) as error:
        load_isa("vta", base | {"LOG_ACC_BUFF_SIZE": 18})
    assert "a = 12" in error.value.why
    assert error.value.where.startswith("isa_specs/vta.yaml:")


def test_missing_keys_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"LOG_BATCH": 0, "LOG_INP_WIDTH": 3, "LOG_WGT_WIDTH": 3, "LOG_ACC_WIDTH": 5}')
    with pytest.raises(SpecError) as error:
        load_isa("vta", path)
    for key in ("LOG_BLOCK", "LOG_UOP_BUFF_SIZE", "LOG_INP_BUFF_SIZE", "LOG_WGT_BUFF_SIZE"):
        assert key in error.value.what
    assert error.value.where == str(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "JSON object"),
        ('{"LOG_BATCH": 0, "LOG_BATCH": 1}', "stands twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_configuration_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        load_isa("vta", path)
    assert says in error.value.what
    assert str(path) in error.value.where


def test_missing_and_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no instruction set 'nonesuch'"):
        load_isa("nonesuch")
    with pytest.raises(SpecError, match="cannot read"):
        load_isa(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot read"):
        load_isa("vta", tmp_path / "none.json")
    with pytest.raises(SpecError, match="no configuration '3x3'"):
        load_isa("vta", "3x3")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(SpecError, match="cannot read"):
        load_isa(tmp_path / "latin.yaml")


def test_keys_that_size_nothing_are_kept() -> None:
    base = json.loads((CONFIGS / "1x16x16.json").read_text())
    assert load_isa("vta", base | {"BOARD": "mine"}).config["BOARD"] == "mine"


def test_toy_machines_differ_from_vta_in_every_respect() -> None:
    vta, dot, outer = (load_isa(name) for name in ("vta", "toy_dot", "toy_outer"))
    assert stream_names() == ["toy_dot", "toy_outer", "vta"]
    assert set(builtin_names()) - set(stream_names()) == {
        "arm_i8mm", "arm_sdot", "arm_sme", "gemmini", "hexagon_hvx", "power10_mma", "riscv_v",
        "riscv_zvqdotq",
        "x86_amx", "x86_avx2", "x86_avx512_vnni", "x86_avx_vnni",
    }  # fmt: skip
    assert dict(dot.dims) == {"b": 1, "o": 1, "i": 8}
    assert dict(outer.dims) == {"b": 4, "o": 8, "i": 1}
    assert all("i" not in m.lanes for m in outer.memories)
    assert all(m.lanes in ((), ("i",)) for m in dot.memories)
    assert outer.queues == ("main",)
    assert not any(
        role in i.roles for i in outer.instructions for role in ("pop_prev", "push_next")
    )
    for toy in (dot, outer):
        assert not {m.name for m in toy.memories} & {m.name for m in vta.memories}
        assert not {i.name for i in toy.instructions} & {i.name for i in vta.instructions}
        assert toy.instructions[1].field("opcode") != vta.instructions[1].field("opcode")
        assert len({i.kind for i in toy.instructions}) == 5
