"""csp_embed as people use it from Python: names, one-line texts, formulas, mappings, refusals."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import yaml

import csp_embed as ce
from csp_embed.compiler.driver import Options
from csp_embed.compiler.kernel import Kernel
from csp_embed.errors import CspEmbedError, InputError, OperatorError, SpecError
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.machine.resources import folder

QUICK = Options(schedules=2, refine=2, top=2)
FORMULA = "y[n,k,p] += x[n,c,p+2*r] * w[k,c,r]"
SHAPES = {"x": (1, 3, 20), "w": (16, 3, 5)}


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return ce.compile(FORMULA, shapes=SHAPES, options=QUICK)


def data(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (1, 3, 20), np.int8), rng.integers(-9, 9, (16, 3, 5), np.int8)


def answer(x: Any, w: Any) -> Any:
    """The formula with NumPy, tap by tap."""
    acc = sum(
        np.einsum("ncp,kc->nkp", x[:, :, 2 * r : 2 * r + 12].astype(int), w[:, :, r].astype(int))
        for r in range(5)
    )
    return acc.astype(np.int8)


def test_names_are_listed_and_lead_somewhere() -> None:
    assert set(ce.__all__) <= set(dir(ce))
    assert "import_module" not in dir(ce)
    for name in ce.__all__:
        assert callable(getattr(ce, name)), name


def test_type_checkers_see_the_names_that_python_has() -> None:
    tree = ast.parse(Path(ce.__file__).read_text("utf-8"))
    (seen,) = [
        n for n in tree.body
        if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]  # fmt: skip
    found = {a.asname for n in seen.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert found == set(ce.__all__)


def test_help_needs_no_solver() -> None:
    code = "import csp_embed, sys; dir(csp_embed); print('ortools' in sys.modules)"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "False"


def test_the_wheel_is_typed(request: pytest.FixtureRequest) -> None:
    """py.typed lies in the package and setuptools is told to ship it."""
    root = request.config.rootpath
    stated = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert "py.typed" in stated["package-data"]["csp_embed"]
    assert (root / "csp_embed" / "py.typed").is_file()


def test_texts_of_one_line(kernel: Kernel) -> None:
    plan = ce.partition
    assert callable(plan)
    for thing in (kernel, kernel.isa, kernel.embedding):
        text = repr(thing)
        assert "\n" not in text
        assert len(text) < 500
        page = thing._repr_html_()
        assert page.startswith("<")
        assert len(page) < 10_000
        assert "<Kernel" not in page.replace("&lt;Kernel", "")
    assert f"{kernel.cycles:,} cycles" in repr(kernel)
    run = kernel.simulate()
    for thing, words in (
        (run, "values as expected>"),
        (run.program, f"{len(run.program.insn)} instructions, tensors x, w, y"),
        (kernel.certify(), "certified for all inputs>"),
        (kernel.embedding.operator, "<Operator "),
    ):
        assert words in repr(thing)
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 200


def test_a_plan_of_one_line() -> None:
    from csp_embed.ir.network import Assignment, Plan

    rows = tuple(Assignment(f"t<{n}>", "gpu", float(n), n + 1.0) for n in range(70))
    plan = Plan("latency", 70.0, 35.0, 0.5, "FEASIBLE", "heft", assignments=rows)
    assert repr(plan) == (
        "<Plan FEASIBLE latency: 70 ms, bound 35 ms, 70 tasks on 1 devices, by heft>"
    )
    page = plan._repr_html_()
    assert "t&lt;0&gt;" in page
    assert "20 more rows" in page


def test_a_formula_with_shapes(kernel: Kernel, tmp_path: Path) -> None:
    x, w = data()
    assert np.array_equal(kernel.run(x, w), answer(x, w))
    assert np.array_equal(kernel.run(w=w, x=x), answer(x, w))
    assert kernel.simulate(x, w).values_equal
    assert kernel.check() == []
    assert kernel.check(x, w=w) == []
    kernel.save(tmp_path / "p.npz", x, w)
    stored = read_program(tmp_path / "p.npz")
    assert np.array_equal(stored.tensors["y"], answer(x, w))
    assert len(kernel.disassemble().splitlines()) == len(stored.insn)
    assert "alternatives that were scheduled" in kernel.explain()


def test_operands_by_name_where_they_are_called_otherwise() -> None:
    """w is the first operand here: by name it is w, by position the first."""
    kernel = ce.compile(
        "x[i,j] += w[i,k] * a[j,k]", shapes={"w": (4, 8), "a": (3, 8)}, options=QUICK
    )
    rng = np.random.default_rng(1)
    w, a = rng.integers(-9, 9, (4, 8), np.int8), rng.integers(-9, 9, (3, 8), np.int8)
    want = (w.astype(int) @ a.T.astype(int)).astype(np.int8)
    assert np.array_equal(kernel.run(w, a), want)
    assert np.array_equal(kernel.run(a=a, w=w), want)


def test_a_mapping_is_a_machine(tmp_path: Path) -> None:
    text = (folder("isa_specs") / "toy_outer.yaml").read_text("utf-8")
    document = yaml.safe_load(text)
    named, mapped = ce.load_isa("toy_outer"), ce.load_isa(MappingProxyType(document))
    assert mapped.instructions == named.instructions
    assert (mapped.dims, mapped.memories, mapped.costs) == (
        named.dims, named.memories, named.costs,
    )  # fmt: skip
    # A program file takes the machine along.
    kernel = ce.compile(ce.matmul(m=3, n=2, k=5), document, options=QUICK)
    kernel.save(tmp_path / "p.npz")
    assert isa_of(read_program(tmp_path / "p.npz")).instructions == named.instructions


OP = ce.matmul(m=3, n=4, k=5)
REFUSED = {
    "w is no array": (lambda: ce.compile(OP, w=1), OperatorError, "shape"),
    "contradiction": (lambda: ce.compile(OP, layout="relaxed", options=Options(layout="strict")),
                      InputError, "contradicts"),
    "memory twice": (lambda: ce.compile(OP, memory="pynq", options=Options(memory="de10")),
                     InputError, "contradicts"),
    "layout": (lambda: ce.compile(OP, layout="loose"), InputError, "relaxed or strict"),
    "options": (lambda: ce.compile(OP, options={"top": 1}), InputError, "Options"),
    "top": (lambda: Options(top=-1), InputError, "top=0"),
    "refine": (lambda: Options(refine=-1), InputError, "refine=0"),
    "weight": (lambda: Options(host_weight=-1.0), InputError, "host_weight"),
    "idle weight": (lambda: Options(host_weight=1.0, top=1), InputError, "no effect"),
    "idle within": (lambda: Options(within=0.1), InputError, "no effect"),
    "pins": (lambda: Options(pins="fix i=k"), InputError, "pins="),
    "no operator": (lambda: ce.compile(3), OperatorError, "formula"),
    "shapes of an operator": (lambda: ce.compile(OP, shapes={"x": (1, 2)}), OperatorError,
                              "no effect"),
    "no shapes": (lambda: ce.compile(FORMULA), OperatorError, "extent"),
    "no formula": (lambda: ce.compile("conv2d"), OperatorError, ""),
    "config": (lambda: ce.compile(OP, ce.load_isa("vta"), config={}), InputError, "no effect"),
    "no weights": (lambda: ce.compile(ce.elementwise((4,), []), w=np.ones(4)), InputError,
                   "no second operand"),
    "no bias": (lambda: ce.compile(OP, b=np.ones(3)), InputError, "no epilogue tensor"),
    "float w": (lambda: ce.compile(OP, w=np.ones((3, 5))), OperatorError, "quantise"),
    "ragged w": (lambda: ce.compile(OP, w=[[1], [1, 2]]), OperatorError, "no array"),
    "list of shapes": (lambda: ce.compile(FORMULA, shapes=[(1, 2)]), OperatorError, "shapes={"),
    "memory number": (lambda: Options(memory=4), InputError, "memory='de10'"),
    "reuse a path": (lambda: Options(reuse="p.npz"), InputError, "kernel.embedding"),
    "idle channel": (lambda: ce.parse_formula(FORMULA, SHAPES, channel=1), OperatorError,
                     "no effect"),
    "idle bias range": (lambda: ce.matmul(m=1, n=1, k=1, bias_range=3), OperatorError,
                        "no effect"),
    "unknown values": (lambda: ce.parse_formula(FORMULA, SHAPES, values={"q": 1}), OperatorError,
                       "tensors are"),
    "config number": (lambda: ce.load_isa("vta", 3), SpecError, "load_isa"),
    "isa": (lambda: ce.load_isa(3), SpecError, "load_isa"),
    "empty mapping": (lambda: ce.load_isa({}), SpecError, "mapping"),
    "a set in a mapping": (lambda: ce.load_isa({"format": {object()}}), SpecError, "mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_argument_and_a_way(name: str) -> None:
    call, kind, word = REFUSED[name]
    with pytest.raises(kind) as refusal:
        call()
    assert isinstance(refusal.value, CspEmbedError)
    assert word in refusal.value.render()
    assert refusal.value.hint or refusal.value.why


@pytest.mark.parametrize(
    ("operands", "named", "message"),
    [
        ((), {"foo": 3}, "foo is no operand"),
        ((), {"y": 3}, "y is the result"),
        ((1,), {"x": 3}, "x comes twice"),
        ((1, 2, 3), {}, "3 operands are given"),
        ((), {"x": np.zeros((1, 3, 20), np.int8)}, "tensor w is missing"),
        (("text",), {}, "shape"),
    ],
)
def test_run_refuses_what_it_would_ignore(
    kernel: Kernel, operands: Any, named: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        kernel.run(*operands, **named)


def test_a_keyword_beside_options_holds() -> None:
    """`layout=` and `options=` together: both have their effect."""
    op = ce.conv2d(n=1, c=3, h=8, w=8, k=16, r=3, s=3)
    got = ce.compile(op, layout="strict", options=Options(top=1, schedules=2, refine=2))
    assert got.embedding.layout_mode == "strict"
    assert {e.layout_mode for e, _ in got.candidates} == {"strict"}


def test_what_people_hold_is_compared_and_kept_in_dictionaries(kernel: Kernel) -> None:
    """Machines by what they are; what holds arrays by which one it is."""
    assert {ce.load_isa("vta"): 1}[ce.load_isa("vta")] == 1
    assert hash(ce.load_isa("vta")) != hash(ce.load_isa("toy_dot"))
    run, program = kernel.simulate(), kernel.blank_program()
    for value, other in ((run, kernel.simulate()), (program, kernel.blank_program())):
        assert value == value
        assert value != other
        assert {value: 1}[value] == 1
    assert kernel == kernel
    assert kernel != ce.compile(kernel.operator)
    assert {kernel: 1}[kernel] == 1


def test_a_cluster_that_is_none() -> None:
    with pytest.raises(ce.CspEmbedError, match="instance is None"):
        ce.serve(None)
