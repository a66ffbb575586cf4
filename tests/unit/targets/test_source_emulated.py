"""Machines that this computer is not, by their cross compiler and emulator. Where scripts/emulators
could not get these, a warning names what was not run, and the meanings are run instead."""

import warnings

import numpy as np
import pytest
import random_native
from cases import CASES
from source_machine import DOT4

import csp_embed as ce
from csp_embed.compiler import doctor
from csp_embed.compiler.source import suite as source_suite
from csp_embed.compiler.source.chain import compile_source
from csp_embed.compiler.source.suite import engine_of
from csp_embed.errors import CspEmbedError, MissingLibrary
from csp_embed.machine.load import builtin_names, config_names, load_isa, load_text
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source.toolchain import emulate

# Warnings are errors elsewhere; these are listed behind the tests.
pytestmark = pytest.mark.filterwarnings("default:NOT RUN")

OTHERS = [
    n for n in builtin_names()
    if (program := load_isa(n).program) is not None and program.runner.emulator
]  # fmt: skip
# Padding, a bias with shift and clip, a ragged end; and two shapes of the random sweep.
SMALL = {
    "ragged": CASES["matmul ragged"](),
    "epilogue": ce.matmul(m=9, n=5, k=17, shift=5, bias=True, clip=(-90, 101)),
    "padding": ce.conv2d(n=1, c=5, h=4, w=5, k=9, r=2, s=2, pad=1, shift=3),
    "batches": random_native.operator(1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_emulator_computes_what_numpy_does(name):
    for config in config_names(name)[:2]:
        isa = load_isa(name, config)
        engine = engine_of(isa)
        if engine != "emulated":
            warnings.warn(f"NOT RUN: {name} {config} by its emulator", stacklevel=1)
        for n, (what, op) in enumerate(SMALL.items()):
            kernel, tensors = compile_source(op, isa, {}), random_tensors(op, n)
            assert not kernel.verify()
            result = kernel.by(engine or "interpreted", tensors)
            np.testing.assert_array_equal(result, evaluate(op, tensors)["y"], err_msg=what)


def test_five_machines_are_emulated():
    assert len(OTHERS) >= 5


def test_the_doctor_says_what_runs_each():
    found = doctor.machines()
    for name in OTHERS:
        here = engine_of(load_isa(name)) == "emulated"
        assert ("emulated" in found[name]["engines"]) == here
        assert bool(found[name]["missing"]) != here


ABSENT = {
    "emulator": ("emulator: qemu-aarch64-static", "emulator: qemu-nothing-static"),
    "compiler": ("python -m ziglang", "python -m nothinglang"),
}


@pytest.mark.parametrize("what", ABSENT)
def test_what_is_missing_is_named_with_a_way_to_get_it(what):
    from csp_embed.machine.resources import folder

    text = (folder("isa_specs") / "arm_sdot.yaml").read_text(encoding="utf-8")
    old, new = ABSENT[what]
    if what == "emulator":  # the compiler is looked for first: one that every environment has
        text = text.replace("python -m ziglang", "python -m pip")
    with pytest.raises(MissingLibrary, match="nothing") as error:
        emulate.commands(load_text(text.replace(old, new), "mine.yaml", None))
    assert "scripts/emulators" in error.value.hint
    assert error.value.where.startswith("mine.yaml:")


def test_a_size_that_the_emulator_lacks_is_said():
    isa = load_isa("riscv_v", {"VLEN": 2048})
    op = ce.matmul(m=3, n=2, k=4)
    kernel, tensors = compile_source(op, isa, {}), random_tensors(op, 1)
    if engine_of(isa) != "emulated":
        warnings.warn("NOT RUN: riscv_v of 2048 bits by an emulator", stacklevel=1)
        np.testing.assert_array_equal(kernel.interpret(**tensors), evaluate(op, tensors)["y"])
        return
    with pytest.raises(CspEmbedError, match=r"vlen|VLEN|2048"):
        kernel.emulate(**tensors)


def here_as_another(emulator):
    """The docs' machine, as if this computer were not it: its own compiler, and a command that runs
    the program, or does not."""
    runner = f"runner: {{arch: vax, compiler: cc, emulator: {emulator}}}\ncode: {{"
    return load_text(DOT4.replace("code: {", runner), "other.yaml", None)


def test_a_runner_by_the_computers_own_compiler_proves_all_templates():
    outcomes = source_suite.run(here_as_another("env"))
    assert {o.kind for o in outcomes} == {"equal"}, outcomes
    assert any("emulated" in o.text for o in outcomes)


@pytest.mark.parametrize(
    ("emulator", "why"), [("false", "exit code 1"), ("head -c 16", "other bytes")]
)
def test_a_runner_that_runs_nothing_is_one_fault_not_one_for_each_template(emulator, why):
    found = [o for o in source_suite.run(here_as_another(emulator)) if o.kind == "wrong"]
    assert [o.name for o in found] == ["runner"]
    assert why in found[0].text
    assert found[0].where.startswith("other.yaml:")


def test_people_are_told_what_a_long_compilation_waits_for(monkeypatch, capsys):
    monkeypatch.setattr(emulate, "PATIENCE", 0.0)
    assert source_suite.runner_fault(here_as_another("env")) == ""
    told = capsys.readouterr().err
    assert "`cc` is compiling for plain_dot4" in told
    assert "runner.system" in told


def test_an_emulator_that_computes_wrongly_is_found():
    """As qemu 7 does with Arm's tiles: the program runs, and its sums are others."""
    isa = here_as_another("env")
    assert source_suite.contraction_fault(isa) == ""
    text = DOT4.replace("({x} >> k)", "(({x} & 0xffffff) >> k)")
    assert text != DOT4
    runner = "runner: {arch: vax, compiler: cc, emulator: env}\ncode: {"
    wrong = load_text(text.replace("code: {", runner), "other.yaml", None)
    assert source_suite.contraction_fault(wrong).startswith("template DOT: lane 0 is")


def test_a_big_endian_machine_is_told_so():
    """Each of its templates would seem wrong instead."""
    runner = """runner:
  arch: s390x
  compiler: python -m ziglang cc -target s390x-linux-musl
  emulator: qemu-s390x-static
  system: |
    void begin(void);
    void _start(void) { begin(); }
    enum { READ = 3, WRITE = 4, EXIT = 1 };
    static long system_call(long number, long a, long b, long c) {
      register long r1 __asm__("r1") = number;
      register long r2 __asm__("r2") = a;
      register long r3 __asm__("r3") = b;
      register long r4 __asm__("r4") = c;
      __asm__ volatile("svc 0" : "+r"(r2) : "r"(r1), "r"(r3), "r"(r4) : "memory");
      return r2;
    }
"""
    text = DOT4.replace("instructions:\n", runner + "instructions:\n", 1)
    isa = load_text(text, "other.yaml", None)
    if engine_of(isa) != "emulated":
        warnings.warn("NOT RUN: a big-endian machine by its emulator", stacklevel=1)
        return
    (first, *others) = source_suite.run(isa)
    assert first.kind == "wrong"
    assert "big-endian" in first.text
    assert not any(o.name.startswith("template") for o in others)
