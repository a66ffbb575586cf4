"""Machines that this computer is not, by their cross compiler and emulator. Where scripts/emulators
could not get these, a warning names what was not run, and the meanings are run instead."""

import warnings

import numpy as np
import pytest
import random_native
from cases import CASES

import csp_embed as ce
from csp_embed.compiler import doctor
from csp_embed.compiler.source.chain import compile_source
from csp_embed.compiler.source.suite import engine_of
from csp_embed.errors import CspEmbedError, MissingLibrary
from csp_embed.machine.load import builtin_names, config_names, load_isa, load_text
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate
from csp_embed.targets.source import emulate

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
