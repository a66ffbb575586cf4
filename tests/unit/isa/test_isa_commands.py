"""`csp-embed isa …` and `csp-embed disasm`: what they print and how they exit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from csp_embed.commands import isa as commands
from csp_embed.errors import CspEmbedError, EncodeError, InputError, SpecError
from csp_embed.machine.program_file import read_program
from csp_embed.machine.resources import folder

GOLDEN = Path(__file__).parents[2] / "golden" / "reference"


def call(*arguments: str) -> str:
    """Standard output; the command's error is raised, as `cli.main` expects."""
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, CspEmbedError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_names_every_machine() -> None:
    assert "toy_outer    std, tiny" in call("isa", "list")
    assert json.loads(call("isa", "list", "--json"))["vta"][0] == "1x16x16"


def test_show() -> None:
    text = call("isa", "show", "vta", "--vta-config", "1x8x8")
    assert "ACC[dst][b, o] += INP[src][b, i] * WGT[wgt][o, i]" in text
    assert "b=1 o=8 i=8" in text
    document = json.loads(call("isa", "show", "toy_dot", "--json"))
    assert document["dims"] == {"b": 1, "o": 1, "i": 8}


@pytest.mark.parametrize("spec", ["vta", "toy_dot", "toy_outer"])
def test_check_covers_every_configuration(spec: str) -> None:
    document = json.loads(call("isa", "check", spec, "--json"))
    assert document["ok"]
    assert list(document["checks"]) == list(json.loads(call("isa", "list", "--json"))[spec])
    assert "checks hold" in call("isa", "check", spec)


def test_check_of_a_file_and_of_a_broken_one(tmp_path: Path) -> None:
    text = (folder("isa_specs") / "toy_dot.yaml").read_text(encoding="utf-8")
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert f"{path} tiny: 26 of 26 checks hold" in call("isa", "check", str(path))
    path.write_text(text.replace("bit: 80, width: 14", "bit: 66, width: 14"))
    with pytest.raises(SpecError, match="overlap"):
        call("isa", "check", str(path))


def test_check_refuses_an_illegal_configuration(tmp_path: Path) -> None:
    base = json.loads((folder("isa_specs") / "configs" / "1x16x16.json").read_text())
    path = tmp_path / "big.json"
    path.write_text(json.dumps(base | {"LOG_UOP_BUFF_SIZE": 16}))
    with pytest.raises(SpecError, match="u <= 13"):
        call("isa", "check", "vta", "--vta-config", str(path))


def test_disasm() -> None:
    path = str(GOLDEN / "dense_1x16x16.npz")
    lines = call("disasm", path).splitlines()
    assert len(lines) == 16
    assert lines[12] == "  12 STORE OUT sram=0x0 dram=0x300 1x1/1 | pop prev, push prev"
    document = json.loads(call("disasm", path, "--json"))
    assert document["isa"] == "vta"
    record = document["instructions"][12]
    assert (record["insn"], record["name"]) == (12, "STORE")
    assert record["fields"]["dram_base"] == 0x300
    assert record["text"] == lines[12].strip()


def test_disasm_shows_micro_ops() -> None:
    """As many as were recorded, with fields picked from their bytes by hand."""
    path = GOLDEN / "dense_4x128x64.npz"
    program = read_program(path)
    lines = call("disasm", str(path), "--uops").splitlines()
    shown = [text for text in lines if " wgt=" in text]
    assert len(shown) == program.meta["stats"]["uop_bytes"] // 4
    packed = b"".join(d.tobytes() for _, d in program.before if len(d) == 4 * len(shown))
    words = [int.from_bytes(packed[n : n + 4], "little") for n in range(0, len(packed), 4)]
    wanted = [f"dst={w & 2047} src={w >> 11 & 2047} wgt={w >> 22}" for w in words]
    assert sorted(text.split(": ")[1] for text in shown) == sorted(wanted)


def test_disasm_as_another_machine_and_of_no_program(tmp_path: Path) -> None:
    path = str(GOLDEN / "dense_1x16x16.npz")
    assert "unknown opcode" in call("disasm", path, "--isa", "toy_dot")
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(InputError):
        call("disasm", str(tmp_path / "x.npz"))


@pytest.mark.parametrize(("error", "code"), [(SpecError, 2), (InputError, 2), (EncodeError, 5)])
def test_exit_codes(error: type[CspEmbedError], code: int) -> None:
    assert error("x").exit_code == code
