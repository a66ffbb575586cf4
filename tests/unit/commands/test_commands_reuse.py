"""`compile --reuse`: an earlier program's embedding for another shape, with proof or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

SMALL = ["compile", "conv2d", "--n", 1, "--c", 3, "--h", 12, "--w", 12, "--r", 5, "--s", 5]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def program(capsys: Capture, tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    assert run(capsys, *SMALL, "--k", 16, "-o", path).code == 0
    return path


def test_another_shape_takes_the_embedding_with_proof(program: Path, capsys: Capture) -> None:
    proof = program.with_suffix(".json")
    fresh = run(capsys, *SMALL, "--k", 32, "--json").document
    reused = run(capsys, *SMALL, "--k", 32, "--json", "--reuse", program, "--certificate", proof)
    assert reused.document["verified"] == "simulated"
    assert reused.document["status"] == "OPTIMAL"
    assert reused.document["embedding"] == fresh["embedding"]
    assert "status optimal" in run(capsys, "check", proof).out


def test_a_worse_embedding_is_refused_with_its_gap_or_allowed(
    program: Path, capsys: Capture
) -> None:
    refused = run(capsys, *SMALL, "--k", 3, "--reuse", program)
    assert refused.code == 3
    assert "more than the least" in refused.err
    share = refused.err.partition("--within ")[2].partition(")")[0]
    allowed = run(capsys, *SMALL, "--k", 3, "--reuse", program, "--within", share)
    assert allowed.code == 0
    assert "bit-equal" in allowed.out


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--k", 16, "--isa", "toy_dot"], 2, "another machine"),
        (["--k", 16, "--layout", "strict"], 2, "from the program"),
        (["--k", 16, "--within", -1], 2, "no share"),
    ],
)
def test_what_cannot_be_reused(
    program: Path, capsys: Capture, more: list[object], code: int, said: str
) -> None:
    got = run(capsys, *SMALL, *more, "--reuse", program)
    assert (got.code, said in got.err) == (code, True)


def test_other_operators_files_and_options(program: Path, capsys: Capture) -> None:
    other = run(capsys, "compile", "matmul", "--m", 4, "--n", 4, "--k", 4, "--reuse", program)
    assert other.code == 3
    assert "cannot be reused for matmul" in other.err
    assert run(capsys, *SMALL, "--k", 16, "--reuse", program.parent / "none.npz").code == 2
    assert "needs --reuse" in run(capsys, *SMALL, "--k", 16, "--within", 0.1).err
