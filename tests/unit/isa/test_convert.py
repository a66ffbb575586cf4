"""Files of format 1 in format 2: the same machine, the same streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import run

import csp_embed as ce
from csp_embed.machine.load import load_isa
from csp_embed.machine.reading.schema import shape_problems

SPECS = Path(__file__).parents[3] / "isa_specs"


@pytest.fixture
def vta(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """VTA in format 2, beside its configurations."""
    (tmp_path / "configs").symlink_to(SPECS / "configs")
    old = tmp_path / "old.yaml"
    old.write_text((SPECS / "vta.yaml").read_text())
    done = run(capsys, "isa", "convert", str(old), "-o", str(tmp_path / "new.yaml"))
    assert done.code == 0, done.err
    return tmp_path / "new.yaml"


def test_the_streams_are_byte_identical(vta: Path) -> None:
    text = vta.read_text()
    assert shape_problems(yaml.safe_load(text)) == []
    assert "format: csp-embed-isa/2" in text
    assert "control: instruction" in text
    for op in (ce.matmul(m=20, n=9, k=33, shift=3, bias=True),
               ce.conv2d(n=1, c=5, h=6, w=6, k=9, r=3, s=3, pad=1)):  # fmt: skip
        options = ce.Options(top=1)
        old = ce.compile(op, isa="vta", options=options)
        new = ce.compile(op, isa=load_isa(vta), options=options)
        assert isinstance(old, ce.Kernel)
        assert isinstance(new, ce.Kernel)
        assert np.array_equal(old.words, new.words)
        tensors = {n: np.ones(t.shape, t.dtype) for n, t in op.tensors.items() if n != "y"}
        pairs = zip(old.program(tensors).before, new.program(tensors).before, strict=True)
        assert all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs)


def test_a_program_of_a_converted_machine_is_read_back(vta: Path, tmp_path: Path) -> None:
    from csp_embed.machine.program_file import isa_of, read_program

    ce.compile(ce.matmul(m=4, n=4, k=4), isa=load_isa(vta)).save(tmp_path / "p.npz")
    assert isa_of(read_program(tmp_path / "p.npz")).dims == load_isa("vta").dims


@pytest.mark.parametrize("name", ["gemmini", "x86_avx_vnni"])
def test_what_is_of_format_2_is_not_converted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.yaml"
    done = run(capsys, "isa", "convert", str(SPECS / f"{name}.yaml"), "-o", str(out))
    assert done.code == 2
    assert "is not of csp-embed-isa/1" in done.err
    assert not out.exists()
