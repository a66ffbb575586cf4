"""Machines of format 2: those that ship, the worked example of the docs, variations of it, and what
is refused with file and line."""

import re
from pathlib import Path

import numpy as np
import pytest
from cases import CASES
from source_machine import DOT4, assert_equal

import csp_embed as ce
from csp_embed.compiler.source import suite as source_suite
from csp_embed.compiler.source.chain import compile_source
from csp_embed.errors import InputError, SpecError
from csp_embed.machine.compilable import require
from csp_embed.machine.load import builtin_names, load_isa, load_text
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source.tiles import most_sums
from csp_embed.targets.source.toolchain import emulate
from csp_embed.targets.source.toolchain.build import missing_features
from csp_embed.targets.source.toolchain.limit import MOST_SUMS

ROOT = Path(__file__).parents[3]
MUL = ('  MUL: {operands: {d: ACC, s: ACC}, meaning: "ACC[d] = mul(ACC[d], ACC[s])",'
       ' template: "{d} = (int32_t)((uint32_t){d} * (uint32_t){s});",'
       " cost: {per_cycle: 1, latency: 3}}\n")  # fmt: skip


def unsigned(memory):
    """The example with that factor unsigned: the compiler finds the offset in the type."""
    text = DOT4.replace(
        f"  {memory}: {{kind: registers, file: word, lanes: [i], type: int8}}",
        f"  {memory}: {{kind: registers, file: word, lanes: [i], type: uint8}}",
    )
    name = memory.lower()
    text = text.replace(f"(int8_t)({{{name}}} >> k)", f"(uint8_t)({{{name}}} >> k)")
    text = text.replace(f"{{operands: {{{name}: {memory}, a: HOST int8}}",
                        f"{{operands: {{{name}: {memory}, a: HOST uint8}}")  # fmt: skip
    assert text.count("uint8") == 3
    return text + MUL


MACHINES = {"signed": DOT4, "unsigned first": unsigned("X"), "unsigned second": unsigned("W")}


@pytest.mark.parametrize("name", MACHINES)
def test_the_worked_example_and_its_unsigned_forms_hold(name):
    isa = load_text(MACHINES[name], f"{name}.yaml", None)
    outcomes = source_suite.run(isa)
    assert {o.kind for o in outcomes} == {"equal"}, outcomes
    for row in ("matmul ragged", "conv2d same", "conv2d padding only"):
        op = CASES[row]()
        tensors = random_tensors(op, 1)
        assert_equal(compile_source(op, isa, {}), tensors)
        constants = {n: v for n, v in tensors.items() if op.tensors[n].constant}
        assert_equal(compile_source(op, isa, constants), tensors)


@pytest.mark.parametrize("name", ["x86_avx512_vnni", "x86_avx_vnni", "x86_avx2"])
def test_what_ships_holds_where_it_can_run(name):
    isa = load_isa(name)
    outcomes = source_suite.run(isa)
    wanted = {"equal", "cannot"} if missing_features(isa) else {"equal"}
    assert {o.kind for o in outcomes} == wanted


def test_the_narrow_form_computes_the_same_by_its_meanings():
    op = ce.conv2d(n=1, c=5, h=4, w=5, k=9, r=2, s=2, pad=1, shift=4, bias=True, clip=(0, 127))
    tensors = random_tensors(op, 2)
    kernel = compile_source(op, load_isa("x86_avx_vnni"), {})
    np.testing.assert_array_equal(kernel.interpret(**tensors), evaluate(op, tensors)["y"])


def test_a_template_that_does_not_do_its_meaning_is_found():
    wrong = load_text(DOT4.replace("{d} > {s} ?", "{d} < {s} ?"), "wrong.yaml", None)
    found = [o for o in source_suite.run(wrong) if o.kind == "wrong"]
    assert found[0].name == "template MAX"
    assert found[0].where.startswith("wrong.yaml:")


def test_a_contraction_that_saturates_is_found():
    """It differs from one that wraps around at the ends of the range alone."""
    wraps = "{d} = (int32_t)((uint32_t){d} + (uint32_t)((int8_t)({x} >> k) * (int8_t)({w} >> k)));"
    sum_ = "int64_t s = (int64_t){d} + (int8_t)({x} >> k) * (int8_t)({w} >> k);"
    clipped = "{d} = (int32_t)(s > INT32_MAX ? INT32_MAX : s < INT32_MIN ? INT32_MIN : s);"
    assert wraps in DOT4
    text = DOT4.replace(wraps, f"{{{{ {sum_} {clipped} }}}}")
    found = [o for o in source_suite.run(load_text(text, "mine.yaml", None)) if o.kind == "wrong"]
    assert "template DOT" in [o.name for o in found]


def test_a_copy_in_that_reads_beyond_its_lanes_is_found():
    """Its values are right; a tensor at the end of mapped memory would end the process."""
    load = "{{ int64_t more; memcpy(&more, {a}, 8); {x} = (int32_t)more; }}"
    wide = DOT4.replace("memcpy(&{x}, {a}, 4);", load)
    assert wide != DOT4
    found = [o for o in source_suite.run(load_text(wide, "wide.yaml", None)) if o.kind == "wrong"]
    assert [o.name for o in found] == ["template GET_X"]
    assert "more than its lanes" in found[0].text


def test_attributes_stand_before_functions_that_hold_templates():
    """As SME's functions, which stream: their callers know nothing of it."""
    given = "__attribute__((flatten))"
    text = DOT4.replace("cpu_features: []", f"cpu_features: [], attributes: {given}")
    isa = load_text(text, "with.yaml", None)
    assert {o.kind for o in source_suite.run(isa)} == {"equal"}
    op = CASES["matmul ragged"]()
    kernel = compile_source(op, isa, {})
    heads = [line for line in kernel.text.split("\n") if line.startswith(f"{given} ")]
    assert [h.split("(")[2].split()[-1].split("_")[-1] for h in heads] == ["pack", kernel.file.name]
    assert_equal(kernel, random_tensors(op, 1))


# text of the spec that is replaced, by what, the refusal
REFUSED = {
    "saturating step": ("ACC[d] += X[x][i] * W[w][i]", "ACC[d] = saturate(X[x][i] * W[w][i])",
                        "saturates on the way"),
    "difference": ("ACC[d] += X[x][i]", "ACC[d] -= X[x][i]", "only D[d][..] += L[l][..] * R[r]"),
    "lanes apart": ("X[x][i] = HOST[a + i]", "X[x][i] = HOST[a + 2 * i]", "lane i lies 2 elements"),
    "unknown function": ("= max(ACC[d]", "= avg(ACC[d]", "function 'avg' is none of"),
    "operand not in braces": ('"{d} = {v};"', '"{d} = 7;"', "operand 'v' is named by the list"),
    "unknown operand": ("GET_X: {operands: {x: X,", "GET_X: {operands: {x: Z,", "is no operand"),
    "file of compiler flags": ("flags: []", "flags: [-fplugin=x.so]", "is no machine option"),
    "other control": ("control: source", "control: chance", "'chance' is not handled"),
    "tokens": ("order: program", "order: tokens", "'tokens' is not handled"),
    "no host": ("HOST: {kind: host,", "RAM: {kind: host,", "a host memory called RAM"),
    "no registers": ("count: 16", "count: 0", "0 registers"),
    "registers of nobody": ("allocated_by: compiler", "allocated_by: us", "'us' is not handled"),
    "variables by number": ("allocated_by: compiler", "allocated_by: number",
                            "`type` has no effect"),
    "too wide a value": ("lanes: [], type: int32}", "lanes: [], type: int32, takes: 17}",
                         "a value takes 17 registers"),
    "lanes counted backwards": ("if 0 < n:", "if 1 < n:", "the first lane lies 1 elements on"),
    "half a runner": ("code: {", "runner: {arch: vax, emulator: simh}\ncode: {",
                      "a compiler without an emulator"),
    "a runner's path": ("code: {", "runner: {arch: vax, compiler: ./cc, emulator: simh}\ncode: {",
                        "begins with no name of a program"),
    "a broken rule": ("dims: {i: 4}", "dims: {i: N}\nconfiguration: {default: a, named:"
                      " {a: {N: 4}}, keys: {N: {min: 1, max: 9}}}\nrules:"
                      " [{rule: N == 8, why: of no reason}]", "N == 8 does not hold"),
    "a saturating conversion": ("MAX: {operands", "CUT: {operands: {d: ACC, s: ACC}, meaning:"
                                " 'ACC[d] = saturate(ACC[s])', template: '{d} = {s};', cost:"
                                " {per_cycle: 1, latency: 1}}\n  MAX: {operands",
                                "saturates on the way"),
    "free": ("per_cycle: 0.1", "per_cycle: 0", "a cost is not above 0"),
    "unknown file": ("file: word, lanes: [], ", "file: zmm, lanes: [], ", "unknown register file"),
    "a memory like a lane": ("  X: {kind", "  i: {kind", "a dimension has that name"),
    "a memory like a function": ("  X: {kind", "  max: {kind", "a function has that name"),
    "an operand like a function": ("MAX: {operands: {d: ACC, s: ACC}",
                                   "MAX: {operands: {d: ACC, max: ACC}", "a function has that"),
    "unknown key": ("order: program", "order: program\nqueues: [a]", "unknown key 'queues'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_with_its_line(name):
    old, new, says = REFUSED[name]
    assert old in DOT4
    with pytest.raises(SpecError) as error:
        load_text(DOT4.replace(old, new), "mine.yaml", Path())
    assert says in str(error.value)
    assert re.search(r"mine\.yaml:\d+", error.value.where)


def test_a_step_that_takes_more_registers_than_there_are_is_refused():
    text = DOT4.replace("count: 16", "count: 2")
    with pytest.raises(SpecError, match="a step takes 3 registers of word") as error:
        require(load_text(text, "mine.yaml", None))
    assert re.search(r"mine\.yaml:\d+", error.value.where)


def test_a_template_that_the_compiler_refuses_is_told_by_its_line():
    text = DOT4.replace("{d} = {v};", "{d} = nonsense({v};")
    line = next(n for n, t in enumerate(text.splitlines(), 1) if "nonsense" in t)
    found = [o for o in source_suite.run(load_text(text, "mine.yaml", None)) if o.kind == "wrong"]
    assert found[0].name == "template FILL"
    assert found[0].where == f"mine.yaml:{line}"


# lines that are left out; the refusal
LACKING = {
    "  CLEAR:": "no reset of ACC",
    "  FILL:": "no fill of ACC",
    "  GET_W:": "no copy_in of W int8",
}


@pytest.mark.parametrize("line", LACKING)
def test_a_machine_that_lacks_a_template_cannot_be_compiled_for(line):
    text = "".join(t for t in DOT4.splitlines(keepends=True) if not t.startswith(line))
    with pytest.raises(SpecError, match=LACKING[line]):
        require(load_text(text, "mine.yaml", None))


def test_an_unsigned_factor_needs_a_product_for_its_correction():
    with pytest.raises(SpecError, match="no map of ACC mul"):
        require(load_text(unsigned("X").replace(MUL, ""), "mine.yaml", None))


def test_no_machine_is_known_by_name():
    names = [n for n in builtin_names() if load_isa(n).program is not None]
    code = "".join(
        p.read_text(encoding="utf-8")
        for folder in ("targets", "machine", "compiler")
        for p in (ROOT / "csp_embed" / folder).rglob("*.py")
        if p.parts[-2:] != ("templates", "rules.py")  # names an example in a hint
    )
    assert len(names) >= 7
    assert not [n for n in names if n in code]


@pytest.mark.parametrize("name", [n for n in builtin_names() if load_isa(n).program is not None])
def test_the_bare_loop_spills_nothing(name):
    """Its sums stand in registers beside one pair of operands, or it would be no limit."""
    isa = load_isa(name)
    sums = most_sums(isa, MOST_SUMS)
    held = {}
    contract = next(t for t in isa.program.templates if t.kind == "contract")
    for role, count in (("dst", sums), ("lhs", 1), ("rhs", 1)):
        memory = contract.slot(role).memory
        file = isa.program.file_of[memory]
        held[file] = held.get(file, 0) + count * isa.program.takes.get(memory, 1)
    assert sums >= 1
    assert all(n <= isa.program.files[file].count for file, n in held.items())


def test_a_size_that_a_rule_cannot_even_be_asked_for_is_told_what_the_rule_is_for():
    with pytest.raises(SpecError) as error:
        load_isa("riscv_v", {"VLEN": 192})
    assert "vector registers have a power of two of bits" in error.value.why
    assert "riscv_v.yaml:" in error.value.where


def test_the_compilers_words_name_no_folder_that_is_gone():
    isa = load_text(DOT4.replace("memcpy(&{x}, {a}, 4);", "memcpy(&{x}, {a});"), "bad.yaml", None)
    (found,) = [o for o in source_suite.run(isa) if o.name == "template GET_X"]
    assert found.text.startswith("kernel.c:")
    assert found.where.startswith("bad.yaml:")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        # As a load that asks for alignment, or an instruction that this CPU lacks, would end.
        ("__builtin_trap(); {d} = *{a};", "ended by SIG"),
        ("{d} = *(volatile int *)0 + *{a};", "ended by SIGSEGV"),
    ],
)
def test_a_template_that_faults_is_told_and_ends_nothing_here(template: str, said: str) -> None:
    isa = load_text(DOT4.replace("{d} = *{a};", template), "mine.yaml", None)
    outcomes = {o.name: o for o in source_suite.run(isa)}
    found = outcomes["template GET_ACC"]
    assert found.kind == "wrong"
    assert said in found.text
    # The others that need it are told so; operators are run by the meanings alone.
    assert "GET_ACC" in outcomes["template ADD"].text
    assert outcomes["matmul"].text == "interpreted equal NumPy's"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{d} = *(volatile int *)0 + *{a};", "ended by SIGSEGV"),
        ("exit(3); {d} = *{a};", "ended with exit code 3"),
    ],
)
def test_a_template_that_faults_does_not_end_the_compiler(template: str, said: str) -> None:
    text = DOT4.replace("{d} = *{a};", template).replace("[string.h]", "[stdlib.h, string.h]")
    kernel = compile_source(ce.matmul(m=3, n=2, k=5, bias=True), load_text(text, "mine.yaml", None),
                            {})  # fmt: skip
    with pytest.raises(InputError, match=said) as raised:
        kernel.check()
    assert raised.value.where.startswith("mine.yaml:")


def test_a_cross_compiler_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulate, "COMPILE_SECONDS", 0.1)
    # The shell starts another process, as `python -m ziglang` does: both have to go.
    with pytest.raises(InputError, match="compiles for plain_dot4"):
        emulate._compiled(["sh", "-c", "sleep 60; true"], load_text(DOT4, "mine.yaml", None))


@pytest.mark.parametrize("count", [4, 200])
def test_another_count_of_registers_spills_and_stays_right(count: int) -> None:
    """The C compiler allocates: more sums than the CPU has registers for lie on the stack."""
    isa = load_text(DOT4.replace("count: 16", f"count: {count}"), "mine.yaml", None)
    kernel = compile_source(ce.matmul(m=24, n=30, k=9, shift=2, clip=(0, 127)), isa, {})
    assert kernel.check() == []


def test_a_template_may_declare_variables_and_stand_twice_in_one_block() -> None:
    text = DOT4.replace("memcpy(&{x}, {a}, 4);", "int32_t four; memcpy(&four, {a}, 4); {x} = four;")
    text = text.replace("{d} = *{a};", "const int32_t * from = {a}; {d} = *from;")
    isa = load_text(text, "mine.yaml", None)
    assert {o.kind for o in source_suite.run(isa)} <= {"equal", "cannot"}
    assert compile_source(ce.matmul(m=24, n=30, k=9, bias=True), isa, {}).check() == []


def test_sums_may_lie_in_wider_registers() -> None:
    """By its meanings on any CPU; natively where IFMA is (`isa check` then runs the templates)."""
    isa = load_isa(str(ROOT / "tests" / "data" / "specs" / "ifma.yaml"))
    assert {o.kind for o in source_suite.run(isa)} <= {"equal", "cannot"}
    kernel = compile_source(ce.matmul(m=20, n=3, k=9, shift=3, clip=(-5, 99)), isa, {})
    assert kernel.check() == []
