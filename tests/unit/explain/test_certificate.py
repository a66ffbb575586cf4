"""Certificates: whole, judged without the search, refused where anything in them is changed."""

from __future__ import annotations

import copy
import json

import pytest

from csp_embed import ops
from csp_embed.cli import app, register_all
from csp_embed.compiler.driver import compile as compile_operator
from csp_embed.embed import embed
from csp_embed.embed.certificate.make import certificate, refusal
from csp_embed.errors import InputError
from csp_embed.judge.embedding.certificate import check_certificate
from csp_embed.machine.load import load_isa
from csp_embed.machine.program_file import read_program, write_program

CASES = {
    "conv": ops.conv2d(n=1, c=3, h=9, w=9, k=5, r=3, s=3, pad=1, stride=2, bias=True, shift=5),
    "one channel": ops.conv2d(n=1, c=1, h=12, w=15, k=4, r=5, s=4),
    "depthwise": ops.depthwise_conv2d(n=1, c=7, h=9, w=9, r=3, s=3, pad=1, bias=True),
    "matmul": ops.matmul(m=5, n=35, k=20),
    "pool": ops.max_pool2d(n=1, c=5, h=9, w=9, r=3, s=3, stride=2, pad=1),
    "average": ops.avg_pool2d(n=1, c=5, h=8, w=8, r=2, s=2, m=64, shift=8),
    "elementwise": ops.elementwise((4, 20), [("add", "z"), ("shr", 3)]),
}


def made(name: str, mode: str = "relaxed", isa: str = "vta") -> dict:
    machine = load_isa(isa)
    embedding = embed(CASES[name], machine, layout=mode)[0]
    document = certificate(embedding, machine, cycles=1234, memory="de10")
    return json.loads(json.dumps(document, sort_keys=True))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["relaxed", "strict"])
def test_holds(name, mode):
    judged = check_certificate(made(name, mode))
    assert judged.problems == ()
    assert judged.status == "optimal"


def test_large_layers_hold():
    machine = load_isa("vta")
    for op in (ops.matmul(m=35, n=700, k=2048), ops.conv2d(n=1, c=3, h=112, w=112, k=64, r=7, s=7,
                                                           stride=2, pad=3)):  # fmt: skip
        for embedding in embed(op, machine, top=3):
            assert check_certificate(certificate(embedding, machine)).problems == ()


def changed(document: dict, *path, value):
    out = copy.deepcopy(document)
    at = out
    for key in path[:-1]:
        at = at[key]
    assert at[path[-1]] != value
    at[path[-1]] = value
    return out


TAMPERED = [
    (("embedding", "instruction"), "ALU", "rule 1"),
    (("embedding", "layouts", "lhs", "memory"), "WGT", "rule 1"),
    (("embedding", "commuted"), True, "rule 2"),
    (("embedding", "counters", 0, "extent"), 1, "rule 5"),
    (("embedding", "layouts", "rhs", "const", 0), 1, "rule 7"),
    (("embedding", "layouts", "lhs", "duplicates"), False, "rule 9"),
    (("layout",), "strict", "layout"),
    (("formula",), "o = (k.o:5)", "formula"),
    (("figures", "steps"), 1, "figure steps"),
    (("figures", "lhs_bytes"), 16.0, "figure lhs_bytes"),
    (("objective", "value"), 1.0, "objective"),
    (("objective", "bound"), 1.0e9, "bound"),
    (("objective", "bound"), 1.0, "optimal"),
    (("objective", "gap"), 0.5, "gap"),
    (("status"), "proved", "status"),
]


@pytest.mark.parametrize(("path", "value", "named"), TAMPERED)
def test_tampered_is_refused_by_name(path, value, named):
    document = made("conv")
    assert not document["embedding"]["commuted"]
    path = (path,) if isinstance(path, str) else path
    judged = check_certificate(changed(document, *path, value=value))
    assert any(named in text for text in judged.problems), judged.problems


def test_every_number_of_the_solution_matters():
    """Changing any extent, radix or coefficient of digits and coordinates is refused."""
    document = made("one channel")
    told = document["embedding"]
    missed = []
    for part in ("digits", "coordinates", "counters"):
        for n, record in enumerate(told[part]):
            for key, value in record.items():
                if isinstance(value, int) and not isinstance(value, bool):
                    other = changed(document, "embedding", part, n, key, value=value + 1)
                    missed += [(part, n, key)] * (not check_certificate(other).problems)
            for name, value in record.get("digits", {}).items() if part == "coordinates" else ():
                other = changed(document, "embedding", part, n, "digits", name, value=value + 1)
                missed += [(part, n, name)] * (not check_certificate(other).problems)
    assert not missed


@pytest.mark.parametrize(
    "broken", [[], {}, {"format": "csp-embed-certificate/1", "status": "optimal"}]
)
def test_no_certificate(broken):
    with pytest.raises(InputError):
        check_certificate(broken)


def test_infeasible_certificate_cannot_carry_a_solution():
    machine = load_isa("vta")
    document = refusal(
        CASES["conv"], machine, "relaxed", status="infeasible", why="x", conflict=["layout x=NHWC"]
    )
    assert check_certificate(document).problems == ()
    assert check_certificate(document).remarks
    both = document | {"embedding": made("conv")["embedding"]}
    assert "carries an embedding" in check_certificate(both).problems[0]


def run(*words: str) -> int:
    if not app.registered_commands:
        register_all()
    result = app(list(words), standalone_mode=False)
    return result if isinstance(result, int) else 0


def test_in_program_files_and_on_the_command_line(tmp_path, capsys):
    kernel = compile_operator(ops.matmul(m=5, n=9, k=20), load_isa("vta"))
    path = tmp_path / "p.npz"
    write_program(path, kernel.blank_program())
    program = read_program(path)
    assert program.meta["certificate"]["scheduled"]["cycles"] == kernel.cycles
    assert check_certificate(program.meta["certificate"], program.meta).problems == ()
    other = json.loads(json.dumps(program.meta))
    other["operator"]["extents"]["m"] = 6
    assert "operator" in check_certificate(program.meta["certificate"], other).problems[0]
    alone = tmp_path / "c.json"
    alone.write_text(json.dumps(program.meta["certificate"]))
    assert run("check", str(alone)) == 0
    alone.write_text(json.dumps(changed(program.meta["certificate"], "figures", "steps", value=3)))
    capsys.readouterr()
    assert run("check", str(alone), "--json") == 5
    assert "figure steps" in json.loads(capsys.readouterr().out)["problems"][0]


def test_infeasible_compile_writes_one(tmp_path):
    from csp_embed.errors import Infeasible

    path = tmp_path / "c.json"
    words = "compile conv2d --n 1 --c 3 --h 6 --w 6 --k 16 --r 3 --s 3 --layout x=NHWC"
    with pytest.raises(Infeasible, match="pad c from 3 to 16"):
        run(*words.split(), "--certificate", str(path))
    document = json.loads(path.read_text())
    assert document["status"] == "infeasible"
    assert "layout x=NHWC" in document["conflict"]
    assert check_certificate(document).problems == ()
