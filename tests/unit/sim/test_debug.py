"""First differences in logical coordinates, writers, dumps, and the two commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from csp_embed.cli import app, register_all
from csp_embed.errors import InputError, SimError
from csp_embed.ir.stream import Program
from csp_embed.machine.program_file import isa_of, read_program, write_program
from csp_embed.sim.debug import dump, find_element, first_difference
from csp_embed.sim.functional.run import run

GOLDEN = Path(__file__).parents[2] / "golden" / "reference"
register_all()


def _conv():
    """conv_1x1 (1x64x14x14 -> 64) with a meta that says where y lies: [k/16, p, q, k%16]."""
    program = read_program(GOLDEN / "conv_1x1.npz")
    (address, data), *_ = program.after
    digits = [
        {"axis": 0, "div": 1, "mod": 1, "stride_bytes": 12544},
        {"axis": 1, "div": 16, "mod": 4, "stride_bytes": 14 * 14 * 16},
        {"axis": 1, "div": 1, "mod": 16, "stride_bytes": 1},
        {"axis": 2, "div": 1, "mod": 14, "stride_bytes": 14 * 16},
        {"axis": 3, "div": 1, "mod": 14, "stride_bytes": 16},
    ]
    y = {"addr": address, "dtype": "int8", "shape": [1, 64, 14, 14], "digits": digits}
    meta = dict(program.meta) | {"tensors": {"y": y}}
    return Program(meta, program.insn, program.before, program.after, program.tensors), data


def _changed(index):
    """The program with one expected element of y increased, and that element's value."""
    program, data = _conv()
    n, k, p, q = index
    at = n * 12544 + k // 16 * 3136 + p * 224 + q * 16 + k % 16
    other = data.copy()
    other[at] += 1
    address = program.after[0][0]
    changed = Program(program.meta, program.insn, program.before, ((address, other),), {})
    return changed, address + at, int(data[at])


@pytest.mark.parametrize("index", [(0, 0, 0, 0), (0, 37, 5, 9), (0, 63, 13, 13)])
def test_first_difference_in_logical_coordinates(index):
    program, address, value = _changed(index)
    done = run(isa_of(program), program)
    assert done.values_equal is False
    found = first_difference(done)
    assert (found.tensor, found.index, found.address) == ("y", index, address)
    assert (found.got, found.expected, found.count) == (value, value + 1, 1)
    assert f"y[{','.join(map(str, index))}]" in found.text


def test_the_writer_is_the_last_store_of_that_byte():
    y = read_program(GOLDEN / "conv_1x1.npz").tensors["y"]
    index = tuple(int(i) for i in np.argwhere(y != 0)[len(np.argwhere(y != 0)) // 2])
    program, address, _ = _changed(index)
    done = run(isa_of(program), program)
    writer = first_difference(done).insn
    before = run(isa_of(program), program, break_at=writer)
    assert before.dram(address, 1)[0] == 0
    position = done.sequence.tolist().index(writer)
    after = run(isa_of(program), program, break_at=int(done.sequence[position + 1]))
    np.testing.assert_array_equal(after.dram(address, 1), done.dram(address, 1))
    assert done.dram(address, 1)[0] != 0


def test_bytes_in_no_tensor_have_no_index():
    program, _ = _conv()
    assert find_element(program.meta, program.after[0][0] - 1) is None
    assert find_element({"tensors": {"y": {"digits": 3}}}, 0) is None
    assert find_element({}, 0) is None


def test_dump_reads_every_memory():
    program, data = _conv()
    done = run(isa_of(program), program)
    name, values = dump(done, "acc[0:4]")
    assert name == "ACC"
    assert values.shape == (4, 1, 16)
    np.testing.assert_array_equal(dump(done, "out[1]")[1][0], values[1].astype(np.int8))
    assert dump(done, "wgt[0]")[1].shape == (1, 16, 16)
    assert dump(done, "UOP[0x0:0x3]")[1].shape == (3, 3)
    address = program.after[0][0]
    np.testing.assert_array_equal(dump(done, f"dram[{address}:{address + 32}]")[1], data[:32])


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("acc", "cannot read the range"),
        ("bcc[0:1]", "unknown memory"),
        ("acc[4:2]", "is no range of ACC"),
        ("acc[0:9999]", "is no range of ACC"),
        ("acc[x:y]", "has no numbers"),
    ],
)
def test_wrong_dumps_are_refused(what, text):
    program, _ = _conv()
    done = run(isa_of(program), program)
    with pytest.raises(InputError, match=text):
        dump(done, what)


def test_dumped_dram_must_be_in_the_image():
    program, _ = _conv()
    done = run(isa_of(program), program)
    with pytest.raises(SimError, match="outside the program's image"):
        dump(done, "dram[0:16]")


def _invoke(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result


def test_simulate_prints_one_json_document():
    result = _invoke("simulate", GOLDEN / "conv_1x1.npz", "--json", "--dump", "acc[0]")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["values_equal"] is True
    assert document["first_difference"] is None
    assert document["cycles"] > 1000
    assert len(document["dump"]["acc[0]"][0][0]) == 16


def test_simulate_tells_a_deadlock_and_the_sequential_values():
    result = _invoke("simulate", GOLDEN / "dense_4x128x64.npz", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 5
    assert document["deadlock"] == {"load": 4, "compute": 2, "store": 71}
    assert document["values_equal"] is True
    assert document["cycles"] is None
    relaxed = _invoke(
        "simulate", GOLDEN / "dense_4x128x64.npz", "--engine", "functional", "--ignore-tokens"
    )
    assert relaxed.exit_code == 0
    assert "values: equal" in relaxed.stdout


def test_simulate_names_the_first_difference(tmp_path):
    program, _, value = _changed((0, 37, 5, 9))
    write_program(tmp_path / "p.npz", program)
    result = _invoke("simulate", tmp_path / "p.npz", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 5
    assert document["values_equal"] is False
    assert document["first_difference"]["index"] == [0, 37, 5, 9]
    assert document["first_difference"]["got"] == value
    check = _invoke("check", tmp_path / "p.npz", "--json")
    found = json.loads(check.stdout)
    assert check.exit_code == 5
    assert found["ok"] is False
    assert [p["kind"] for p in found["problems"]] == ["values"]
    assert "y[0,37,5,9]" in found["problems"][0]["text"]
    assert _invoke("check", tmp_path / "p.npz", "--no-values").exit_code == 0


def test_simulate_stops_where_told():
    result = _invoke("simulate", GOLDEN / "conv_1x1.npz", "--break", 30, "--json")
    document = json.loads(result.stdout)
    assert document["stopped_before"] == 30
    assert document["values_equal"] is None
    text = _invoke("simulate", GOLDEN / "conv_1x1.npz", "--until-store").stdout
    assert "stopped after" in text


def test_simulate_writes_a_trace(tmp_path):
    result = _invoke("simulate", GOLDEN / "conv_1x1.npz", "--trace", tmp_path / "t.json")
    assert result.exit_code == 0
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_check_of_good_programs():
    result = _invoke("check", GOLDEN / "conv_1x1.npz", "--json")
    assert json.loads(result.stdout) == {"ok": True, "problems": [], "remarks": []}
    assert "ok, 100 instructions" in _invoke("check", GOLDEN / "conv_1x1.npz").stdout
