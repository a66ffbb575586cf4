"""Encoder and decoder: recorded programs, random values, an independent bit picker, error texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.errors import EncodeError
from csp_embed.ir.stream import Stream
from csp_embed.machine.load import config_names, load_isa, stream_names
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.machine.spec import Field, Isa
from csp_embed.machine.words import bits

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "reference").glob("*.npz"))
MACHINES = [(spec, config) for spec in stream_names() for config in config_names(spec)]
ISAS = {(spec, config): load_isa(spec, config) for spec, config in MACHINES}


def pick(word: int, field: Field) -> int:
    """Independent of the encoder: bit by bit from a 128-bit Python number."""
    text = format(word, "0128b")[::-1]
    value = int(text[field.lo : field.lo + field.width][::-1], 2)
    return (
        value - (1 << field.width)
        if field.signed and text[field.lo + field.width - 1] == "1"
        else value
    )


def whole(words: np.ndarray) -> list[int]:
    return [int(low) | int(high) << 64 for low, high in words]


def test_all_nine_recorded_programs_are_here() -> None:
    assert len(GOLDEN) == 9


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_recorded_programs_come_back_byte_for_byte(path: Path) -> None:
    program = read_program(path)
    isa = isa_of(program)
    stream = bits.decode(isa, program.insn)
    assert (stream.code >= 0).all()
    assert bits.encode(isa, stream).tobytes() == program.insn.tobytes()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_recorded_fields_agree_with_bits_picked_one_by_one(path: Path) -> None:
    program = read_program(path)
    isa = isa_of(program)
    stream = bits.decode(isa, program.insn)
    for n, word in enumerate(whole(program.insn)):
        for field in isa.instructions[int(stream.code[n])].fields:
            column = stream.fields.get(field.name)
            assert pick(word, field) == (0 if column is None else column[n])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_recorded_micro_ops_come_back(path: Path) -> None:
    """Every micro-op that a recorded LOAD UOP fetches."""
    program = read_program(path)
    isa = isa_of(program)
    stream = bits.decode(isa, program.insn)
    load = [i.name for i in isa.instructions].index("LOAD")
    rows = np.flatnonzero(
        (stream.code == load) & (stream.fields["memory"] == 0) & (stream.fields["x_size"] > 0)
    )
    seen = 0
    for n in rows:
        first, count = (int(stream.fields[f][n]) for f in ("dram_base", "x_size"))
        for base, data in program.before:
            if base <= 4 * first and 4 * (first + count) <= base + len(data):
                packed = data[4 * first - base : 4 * (first + count) - base].view("<u4")
                fields = bits.decode_uops(isa, packed)
                assert all((fields[f] < isa.memory("ACC").depth).all() for f in ("dst", "src"))
                assert bits.encode_uops(isa, fields).tobytes() == packed.tobytes()
                seen += count
    assert seen == program.meta["stats"]["uop_bytes"] // 4


def random_stream(data: st.DataObject, isa: Isa) -> Stream:
    codes = data.draw(st.lists(st.integers(0, len(isa.instructions) - 1), max_size=6))
    names = {f.name for i in isa.instructions for f in i.fields if f.name != "opcode"}
    fields = {name: np.zeros(len(codes), np.int64) for name in sorted(names)}
    for n, code in enumerate(codes):
        for field in isa.instructions[code].fields:
            if field.name != "opcode":
                extreme = st.sampled_from([field.min, field.max])
                value = data.draw(st.one_of(extreme, st.integers(field.min, field.max)))
                fields[field.name][n] = value
    return Stream(np.array(codes, np.int64), fields)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_instructions_come_back(machine: tuple[str, str], data: st.DataObject) -> None:
    isa = ISAS[machine]
    stream = random_stream(data, isa)
    words = bits.encode(isa, stream)
    for n, word in enumerate(whole(words)):
        instruction = isa.instructions[int(stream.code[n])]
        for field in instruction.fields:
            wanted = instruction.opcode if field.name == "opcode" else stream.fields[field.name][n]
            assert pick(word, field) == wanted
    back = bits.decode(isa, words)
    assert back.code.tolist() == stream.code.tolist()
    for name, column in stream.fields.items():
        found = back.fields.get(name, np.zeros_like(column))
        assert found.tolist() == column.tolist()


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_words_decode_and_known_ones_come_back(
    machine: tuple[str, str], data: st.DataObject
) -> None:
    isa = ISAS[machine]
    raw = data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=12))
    words = np.array(raw[: len(raw) // 2 * 2], np.uint64).reshape(-1, 2)
    stream = bits.decode(isa, words)
    opcodes = {i.opcode: n for n, i in enumerate(isa.instructions)}
    field = isa.instructions[0].field("opcode")
    assert stream.code.tolist() == [opcodes.get(pick(w, field), -1) for w in whole(words)]
    known = stream.code >= 0
    columns = {name: c[known] for name, c in stream.fields.items()}
    assert (bits.encode(isa, Stream(stream.code[known], columns)) == words[known]).all()


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_micro_ops_come_back(machine: tuple[str, str], data: st.DataObject) -> None:
    isa = ISAS[machine]
    n = data.draw(st.integers(0, 5))
    fields = {
        f.name: np.array(
            data.draw(st.lists(st.integers(0, f.max), min_size=n, max_size=n)), np.int64
        )
        for f in isa.uop_fields
    }
    packed = bits.encode_uops(isa, fields)
    assert packed.dtype == np.uint32
    for k, word in enumerate(packed):
        assert [pick(int(word), f) for f in isa.uop_fields] == [
            fields[f.name][k] for f in isa.uop_fields
        ]
    back = bits.decode_uops(isa, packed)
    assert {name: c.tolist() for name, c in back.items()} == {
        n: c.tolist() for n, c in fields.items()
    }


def one(isa: Isa, name: str, **fields: int) -> Stream:
    index = [i.name for i in isa.instructions].index(name)
    columns = {k: np.array([0, v]) for k, v in fields.items()}
    return Stream(np.array([index, index]), columns)


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        (
            "GEMM",
            {"uop_bgn": 8192},
            ["instruction 1 (GEMM)", "uop_bgn = 8192", "13 bits hold 0..8191"],
        ),
        ("GEMM", {"reset": -1}, ["reset = -1", "1 bits hold 0..1"]),
        ("ALU", {"imm": 32768}, ["imm = 32768", "16 bits hold -32768..32767"]),
        ("ALU", {"imm": -32769}, ["imm = -32769"]),
        ("STORE", {"x_pad_0": 1}, ["instruction 1 (STORE)", "STORE has no field 'x_pad_0'"]),
        ("LOAD", {"colour": 0}, ["no instruction of vta has a field 'colour'"]),
    ],
)
def test_misfits_are_named(name: str, fields: dict[str, int], says: list[str]) -> None:
    isa = load_isa()
    with pytest.raises(EncodeError) as error:
        bits.encode(isa, one(isa, name, **fields))
    for part in says:
        assert part in str(error.value)


def test_other_refusals() -> None:
    isa = load_isa()
    with pytest.raises(EncodeError, match="instruction 1 is unknown"):
        bits.encode(isa, Stream(np.array([0, -1]), {}))
    with pytest.raises(EncodeError, match="column 'imm' is float64"):
        bits.encode(isa, Stream(np.array([4]), {"imm": np.array([1.0])}))
    with pytest.raises(EncodeError, match="column 'imm'"):
        bits.encode(isa, Stream(np.array([4]), {"imm": np.array([1, 2])}))
    with pytest.raises(EncodeError, match="dram_base = 18446744073709551615"):
        bits.encode(isa, Stream(np.array([0]), {"dram_base": np.array([2**64 - 1], np.uint64)}))
    with pytest.raises(EncodeError, match="micro-op 2: wgt = 1024 does not fit"):
        bits.encode_uops(isa, {"dst": [0, 1, 2], "wgt": [0, 1023, 1024]})
    with pytest.raises(EncodeError, match="no field 'bias'"):
        bits.encode_uops(isa, {"bias": [0]})
    with pytest.raises(EncodeError, match="differ in length") as error:
        bits.encode_uops(isa, {"dst": [0, 1, 2], "src": [0, 1]})
    assert "dst: 3, src: 2" in error.value.why
    with pytest.raises(EncodeError, match="shape"):
        bits.decode(isa, np.zeros(4, np.uint64))


def test_a_number_stands_for_every_micro_op() -> None:
    isa = load_isa()
    packed = bits.encode_uops(isa, {"dst": np.arange(3), "src": 5})
    assert packed.tolist() == [5 << 11, 5 << 11 | 1, 5 << 11 | 2]
    assert bits.encode_uops(isa, {"dst": []}).tolist() == []
