"""What a kernel is judged by comes from elsewhere: NumPy for the values, not the simulator.

The builders and the simulator are broken on purpose here, one at a time: each fault must end in
exit code 5 and leave no file.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES, MACHINES
from command_line import run

import csp_embed as ce
from csp_embed import cli
from csp_embed.compiler import kernel as kernels
from csp_embed.compiler.driver import Options
from csp_embed.compiler.kernel import Kernel
from csp_embed.compiler.program import verify as judging
from csp_embed.errors import CheckError
from csp_embed.ir.stream import Program
from csp_embed.judge.formula import formula_problems
from csp_embed.machine.program_file import read_program, write_program
from csp_embed.ops.data import random_tensors
from csp_embed.sim.functional import run as functional

cli.register_all()  # Before anything is broken: commands keep the simulator that they import.
Capture = pytest.CaptureFixture[str]
QUICK = Options(schedules=2, refine=2, top=2)
MATMUL = ["compile", "matmul", "--m", 3, "--n", 4, "--k", 5, "--shift", 2]


def small() -> Kernel:
    return ce.compile(ce.matmul(m=3, n=4, k=5, shift=2), options=QUICK)


def fetch(program: Program, name: str) -> Any:
    """The tensor out of `after`, byte by byte, as docs/program-file.md says."""
    place = program.meta["tensors"][name]
    memory = {a + i: int(b) for a, data in program.after for i, b in enumerate(data)}
    out = np.zeros(place["shape"], np.int8)
    for index in itertools.product(*map(range, place["shape"])):
        at = place["addr"] + sum(
            d["stride_bytes"] * ((index[d["axis"]] // d["div"]) % d["mod"]) for d in place["digits"]
        )
        out[index] = np.uint8(memory[at]).astype(np.int8)
    return out


def test_expected_bytes_need_no_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = small()
    tensors = random_tensors(kernel.operator, 4)

    def never(*args: Any, **more: Any) -> None:
        raise AssertionError("the simulator ran")

    monkeypatch.setattr(functional, "run", never)
    program = kernel.program(tensors)
    x, w = tensors["x"].astype(int), tensors["w"].astype(int)
    assert np.array_equal(fetch(program, "y"), ((x @ w.T) >> 2).astype(np.int8))


def test_pad_lanes_are_left_out_and_said() -> None:
    """12 of 16 bytes stand for elements; what the machine puts into the others is not known."""
    program = small().program(random_tensors(small().operator, 0))
    assert program.meta["after"]["bytes"] == sum(len(d) for _, d in program.after) == 12
    assert program.meta["after"]["bytes_left_out"] == 4
    # A store writes whole elements, so the pad bytes must exist before it.
    low = min(a for a, _ in program.after) // 16 * 16
    assert any(a <= low and low + 16 <= a + len(d) for a, d in program.before)


@pytest.mark.parametrize("machine", ["vta", "toy outer", "toy dot"])
@pytest.mark.parametrize("case", ["matmul ragged", "conv2d stem", "depthwise"])
def test_all_elements_are_expected_once(case: str, machine: str) -> None:
    op = CASES[case]()
    program = ce.compile(op, MACHINES[machine](), options=QUICK).program(random_tensors(op, 1))
    size = np.dtype(program.meta["tensors"]["y"]["dtype"]).itemsize
    assert sum(len(d) for _, d in program.after) == size * np.prod(op.tensors["y"].shape)
    assert functional.run(MACHINES[machine](), program).values_equal


def broken_run(isa: Any, program: Program, **more: Any) -> functional.Run:
    """A simulator that gets the last byte wrong."""
    done = RUN(isa, program, **more)
    outputs = [(a, d.copy()) for a, d in done.outputs]
    outputs[-1][1][-1] ^= 1
    equal = all(np.array_equal(d, e) for (_, d), (_, e) in zip(outputs, program.after, strict=True))
    return replace(done, outputs=tuple(outputs), values_equal=equal)


RUN = functional.run
WORDS = Kernel.words.func  # type: ignore[attr-defined]


def without_a_product(self: Kernel) -> Any:
    """The stream with its last contraction turned into a reset: values change, no rule breaks."""
    lowered = self.lowered.stream
    gemm = next(n for n, i in enumerate(self.isa.instructions) if i.kind == "contract")
    reset = dict(lowered.fields)
    name = next(n for n in reset if n.startswith("reset"))
    reset[name] = np.where(lowered.code == gemm, 1, reset[name])
    from csp_embed.machine.words.bits import encode

    return encode(self.isa, replace(lowered, fields=reset))


def other_weights(self: Kernel, tensors: Any) -> Any:
    """The packing of a builder that mixes up one weight."""
    changed = dict(tensors)
    changed["w"] = tensors["w"].copy()
    changed["w"].flat[0] ^= 64
    return IMAGES(self, changed)


IMAGES = Kernel.images


def without_finish(self: Kernel) -> Any:
    """A stream that a check refuses."""
    return WORDS(self)[:-1]


FAULTS = {
    "simulator": (functional, "run", broken_run),
    "stream": (Kernel, "words", property(without_a_product)),
    "packing": (Kernel, "images", other_weights),
    "checks": (Kernel, "words", property(without_finish)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_5_and_leaves_nothing(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    files = ["-o", tmp_path / "p.npz", "--report", tmp_path / "p.html",
             "--certificate", tmp_path / "c.json"]  # fmt: skip
    got = run(capsys, *MATMUL, *files, "--json")
    assert got.code == 5, got.out
    assert got.document["error"] == "check"
    assert list(tmp_path.iterdir()) == []
    word = "refuse" if fault == "checks" else "differs from NumPy"
    assert word in got.document["what"]
    assert "y[" in got.document["why"] or fault == "checks"


def test_save_judges_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = small()
    kernel.save(tmp_path / "good.npz")
    monkeypatch.setattr(Kernel, "words", property(without_a_product))
    with pytest.raises(CheckError, match="differs from NumPy"):
        small().save(tmp_path / "bad.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["good.npz"]


def test_a_large_layer_expects_numpys_bytes_unsimulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Above the limit of simulation: the file still holds what the formula says, and says that
    nothing was compared."""
    from csp_embed.commands.compiling import job

    monkeypatch.setattr(job, "SIMULATED_MACS", 10)
    path = tmp_path / "p.npz"
    got = run(capsys, *MATMUL, "-o", path, "--json").document
    assert got["verified"] == "checks"
    assert "values were NOT compared" in got["verified_words"]
    program = read_program(path)
    x, w = program.tensors["x"].astype(int), program.tensors["w"].astype(int)
    assert np.array_equal(fetch(program, "y"), ((x @ w.T) >> 2).astype(np.int8))
    # --verify compares whatever the size.
    assert run(capsys, *MATMUL, "--verify", "--json").document["verified"] == "simulated"


def test_no_reference_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from csp_embed.commands.compiling import job

    monkeypatch.setattr(job, "SIMULATED_MACS", 10)
    monkeypatch.setattr(judging, "REFERENCE_MACS", 20)
    path = tmp_path / "p.npz"
    got = run(capsys, *MATMUL, "-o", path).out
    assert "the file expects no bytes" in got
    assert read_program(path).after == ()
    assert "not compared, the file expects none" in run(capsys, "simulate", path).out
    checked = run(capsys, "check", path, "--json").document
    assert checked["ok"]
    assert "values were not compared: the file expects none" in checked["remarks"]


def test_check_refuses_a_file_that_expects_what_its_simulator_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The circular file: a wrong stream, and `after` and y as the simulator computes them."""
    monkeypatch.setattr(Kernel, "words", property(without_a_product))
    program = small().program(random_tensors(small().operator, 0))
    monkeypatch.undo()
    done = functional.run(small().isa, program)
    circular = replace(program, after=done.outputs,
                       tensors={**program.tensors, "y": np.zeros((4, 3), np.int8)})  # fmt: skip
    path = tmp_path / "p.npz"
    write_program(path, circular)
    assert functional.run(small().isa, circular).values_equal
    got = run(capsys, "check", path, "--json")
    assert got.code == 5
    assert {p["kind"] for p in got.document["problems"]} == {"formula"}
    assert len(got.document["problems"]) == 2


@pytest.mark.parametrize("part", ["y", "after", "x"])
def test_formula_check_sees_one_changed_value(part: str) -> None:
    program = small().program(random_tensors(small().operator, 0))
    assert formula_problems(program) == ([], [])
    if part == "after":
        address, data = program.after[0]
        program = replace(program, after=((address, data ^ 1), *program.after[1:]))
    else:
        changed = program.tensors[part].copy()
        changed.flat[0] ^= 8
        program = replace(program, tensors={**program.tensors, part: changed})
    problems, _ = formula_problems(program)
    assert problems, part
    assert all("contradict" in p for p in problems)


def test_words_never_read_as_compared_where_nothing_was() -> None:
    kernel = small()
    assert "not judged" in kernel.report()
    assert "checks passed" not in kernel.report()
    verdict = judging.judge(kernel, None, simulate=False)
    assert (verdict.verified, verdict.program) == ("checks", None)
    assert "values were NOT compared" in verdict.words
    assert kernels.Kernel is Kernel
