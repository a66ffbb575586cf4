"""compile, isa check and isa doctor for a machine that runs C, on the command line."""

import numpy as np
import pytest
from command_line import run

MATMUL = ("compile", "matmul", "--m", "9", "--n", "3", "--k", "6", "--isa", "x86_avx512_vnni")


def test_compile_writes_a_file_that_checks_itself(capsys, tmp_path):
    path = tmp_path / "k.c"
    done = run(capsys, *MATMUL, "--shift", "3", "-o", str(path), "--selftest", "--json")
    assert done.code == 0, done.err
    told = done.document
    assert told["values_equal"] is True
    assert sorted(told["written"]) == [str(path), str(tmp_path / "k.h")]
    assert "int main(void)" in path.read_text()


def test_the_meanings_can_be_asked_for(capsys):
    done = run(capsys, *MATMUL, "--engine", "interpreted", "--json")
    assert done.document["engine"] == "interpreted"


def test_data_become_constants_of_the_file(capsys, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.integers(-9, 9, (3, 6), np.int8),
             w=rng.integers(-9, 9, (9, 6), np.int8))  # fmt: skip
    done = run(capsys, *MATMUL, "--data", str(tmp_path / "d.npz"), "-o", str(tmp_path / "k.c"))
    assert done.code == 0, done.err
    assert "packed_data" in (tmp_path / "k.c").read_text()


REFUSED = {
    "a stream's option": (
        ("--memory", "de10"),
        "--memory has no effect with --isa x86_avx512_vnni",
    ),
    "another suffix": (("-o", "k.txt"), "does not end in .c or .so or .npz"),
    "a name that C lacks": (("-o", "p q.c"), "is no name of a C function"),
    "a self test of nothing": (("--selftest",), "--selftest needs a C file"),
    "an unknown engine": (("--engine", "fast"), "no engine 'fast'"),
    "a configuration": (("--vta-config", "1x8x8"), "this machine has one size"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_effect_is_refused(capsys, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more, says = REFUSED[name]
    done = run(capsys, *MATMUL, *more)
    assert done.code == 2
    assert says in done.err
    assert not list(tmp_path.iterdir())


def test_the_doctor_knows_every_machine(capsys):
    done = run(capsys, "isa", "doctor", "--json")
    told = done.document
    assert {"vta", "toy_dot", "x86_avx512_vnni", "x86_avx_vnni"} <= set(told)
    # What is fed commands has no engine but its meanings, and nothing to install for another.
    assert told.pop("gemmini") == {"engines": ["interpreted"], "missing": []}
    runs = {"functional", "native", "emulated"}
    assert all(m["engines"] and (m["missing"] == []) == bool(runs & set(m["engines"]))
               for m in told.values())  # fmt: skip
