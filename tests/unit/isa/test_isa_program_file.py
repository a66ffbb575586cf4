"""Program files: round trip, equal bytes, and every kind of damage refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.errors import InputError
from csp_embed.ir.stream import Program
from csp_embed.machine.load import load_isa
from csp_embed.machine.program_file import FORMAT, isa_meta, isa_of, read_program, write_program
from csp_embed.machine.resources import folder

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "reference").glob("*.npz"))
SMALL = next(p for p in GOLDEN if p.stem == "dense_1x16x16")


def same(first: Program, second: Program) -> bool:
    return (
        dict(first.meta) == dict(second.meta)
        and first.insn.tobytes() == second.insn.tobytes()
        and [(a, d.tobytes()) for a, d in first.before]
        == [(a, d.tobytes()) for a, d in second.before]
        and [(a, d.tobytes()) for a, d in first.after]
        == [(a, d.tobytes()) for a, d in second.after]
        and first.tensors.keys() == second.tensors.keys()
        and all(np.array_equal(first.tensors[n], second.tensors[n]) for n in first.tensors)
    )


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_recorded_programs_read_and_come_back(path: Path, tmp_path: Path) -> None:
    program = read_program(path)
    with np.load(path) as raw:
        assert program.insn.tobytes() == raw["insn"].tobytes()
        assert b"".join(d.tobytes() for _, d in program.before) == raw["before_data"].tobytes()
        assert [a for a, _ in program.after] == raw["after_addr"].tolist()
    write_program(tmp_path / "copy.npz", program)
    assert same(program, read_program(tmp_path / "copy.npz"))
    assert isa_of(program).config_name == "1x16x16"


def test_numpy_reads_what_we_write(tmp_path: Path) -> None:
    program = read_program(SMALL)
    write_program(tmp_path / "copy.npz", program)
    with np.load(tmp_path / "copy.npz") as mine, np.load(SMALL) as theirs:
        assert set(mine.files) == set(theirs.files)
        for name in set(mine.files) - {"meta"}:
            assert mine[name].dtype == theirs[name].dtype
            assert np.array_equal(mine[name], theirs[name])
        assert json.loads(str(mine["meta"])) == json.loads(str(theirs["meta"]))


def test_bytes_are_a_function_of_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = read_program(SMALL)
    shuffled = Program(
        dict(reversed(program.meta.items())), program.insn, program.before, program.after,
        dict(reversed(program.tensors.items())),
    )  # fmt: skip
    write_program(tmp_path / "a.npz", program)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    write_program(tmp_path / "b.npz", shuffled)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_odd_arrays_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    wide = rng.integers(-99, 99, (6, 8), dtype=np.int32)
    tensors = {"t": wide.T, "s": wide[::2, ::3], "z": np.zeros((0, 3), np.int8), "k": np.int32(7)}
    part = wide[:, :3].astype(np.int8)
    before = ((64, part.view(np.uint8)), (4096, wide.T.copy().view(np.uint8)))
    program = Program({"format": FORMAT}, np.zeros((0, 2), np.uint64), before, (), tensors)
    write_program(tmp_path / "p.npz", program)
    back = read_program(tmp_path / "p.npz")
    for name, tensor in tensors.items():
        assert np.array_equal(back.tensors[name], tensor)
    assert back.before[0][1].tobytes() == part.tobytes()
    assert back.before[1][1].tobytes() == wide.T.tobytes()
    assert back.after == ()


@pytest.mark.parametrize("spec", ["vta", "toy_dot", "toy_outer"])
def test_a_program_knows_its_machine(spec: str) -> None:
    isa = load_isa(spec)
    program = Program(isa_meta(isa), np.zeros((0, 2), np.uint64), (), (), {})
    assert isa_of(program) == isa


def test_a_program_carries_a_spec_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (folder("isa_specs") / "toy_outer.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("name: toy_outer", "name: mine"))
    isa = load_isa(path, "tiny")
    program = Program(
        json.loads(json.dumps(isa_meta(isa))), np.zeros((0, 2), np.uint64), (), (), {}
    )
    path.unlink()
    assert isa_of(program) == isa


@pytest.mark.parametrize(
    ("meta", "says"),
    [({}, "does not name its machine"), ({"config": {}, "isa": "../vta"}, "unknown machine")],
)
def test_a_program_without_machine_is_refused(meta: dict, says: str) -> None:
    with pytest.raises(InputError) as error:
        isa_of(Program(meta, np.zeros((0, 2), np.uint64), (), (), {}))
    assert says in error.value.what


def arrays() -> dict[str, np.ndarray]:
    with np.load(SMALL) as raw:
        return {name: raw[name] for name in raw.files}


BAD = [
    ({"insn": None}, "lacks the arrays insn"),
    ({"after_len": None, "meta": None}, "lacks the arrays meta, after_len"),
    ({"insn": np.zeros((4, 2), np.int64)}, "insn is int64[4, 2]"),
    ({"insn": np.zeros(4, np.uint64)}, "insn is uint64[4]"),
    ({"before_addr": np.zeros(3, np.int64)}, "before_addr is int64[3]"),
    ({"before_len": np.zeros(3, np.uint64)}, "before_len is uint64[3]"),
    ({"after_data": np.zeros(16, np.int8)}, "after_data is int8[16]"),
    ({"after_data": np.zeros(15, np.uint8)}, "after ranges do not add up"),
    ({"after_addr": np.zeros(2, np.uint64)}, "after ranges do not add up"),
    ({"after_addr": np.array([2**32], np.uint64)}, "leaves the 32-bit address space"),
    ({"after_addr": np.array([2**32 - 8], np.uint64)}, "leaves the 32-bit address space"),
    ({"after_addr": np.array([2**64 - 8], np.uint64)}, "leaves the 32-bit address space"),
    ({"before_addr": np.array([4096, 4097, 65536], np.uint64)}, "before ranges 0 and 1 overlap"),
    ({"meta": np.array("{")}, "meta is not JSON"),
    ({"meta": np.array("[1]")}, "meta is a JSON list"),
    ({"meta": np.array(["{}"])}, "meta is <U2[1]"),
    ({"meta": np.zeros(3)}, "meta is float64[3]"),
    ({"meta": np.array('{"format": "csp-embed-program/9"}')}, "'csp-embed-program/9' is not known"),
    ({"x": np.array("text")}, "tensor x is <U4"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "says"), BAD)
def test_wrong_content_is_named(tmp_path: Path, change: dict, says: str) -> None:
    content = {k: v for k, v in (arrays() | change).items() if v is not None}
    path = tmp_path / "bad.npz"
    np.savez(path, **content)
    with pytest.raises(InputError) as error:
        read_program(path)
    assert says in error.value.what
    assert error.value.where == str(path)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **(arrays() | {"x": np.array([print], dtype=object)}))
    with pytest.raises(InputError, match="not a whole program file"):
        read_program(path)
    path.write_bytes(pickle.dumps({"insn": 1}))
    with pytest.raises(InputError, match="not a whole program file"):
        read_program(path)


def test_foreign_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_program(tmp_path / "none.npz")
    with pytest.raises(InputError, match="cannot read"):
        read_program(tmp_path)
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="not a whole program file"):
        read_program(tmp_path / "foreign.zip")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="lacks the arrays"):
        read_program(tmp_path / "other.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="not a whole program file"):
        read_program(tmp_path / "one.npy")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_read_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere: refused. A flipped byte: refused, or it is no content (a date, a flag)."""
    raw = bytearray(SMALL.read_bytes())
    path = tmp_path_factory.mktemp("damage") / "bad.npz"
    at = data.draw(st.integers(0, len(raw) - 1))
    path.write_bytes(raw[:at])
    with pytest.raises(InputError):
        read_program(path)
    raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        found = read_program(path)
    except InputError:
        return
    assert found.insn.tobytes() == read_program(SMALL).insn.tobytes()


def test_nothing_is_left_behind_where_writing_fails(tmp_path: Path) -> None:
    program = read_program(SMALL)
    with pytest.raises(InputError, match="cannot write"):
        write_program(tmp_path / "no" / "p.npz", program)
    bad = Program({"x": object()}, program.insn, program.before, program.after, program.tensors)
    with pytest.raises(TypeError):
        write_program(tmp_path / "p.npz", bad)
    (tmp_path / "p.npz").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write_program(tmp_path / "p.npz", program)
    assert [p.name for p in tmp_path.iterdir()] == ["p.npz"]


def test_an_old_file_survives_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    shutil.copyfile(SMALL, path)
    program = read_program(path)
    broken = Program(
        program.meta, program.insn, program.before, program.after, {"meta": program.insn}
    )
    with pytest.raises(AssertionError):
        write_program(path, broken)
    assert path.read_bytes() == SMALL.read_bytes()
