"""Whether a copy out's value never falls: what is claimed, against every sum of a range."""

from __future__ import annotations

import ast

import numpy as np
import pytest

import csp_embed as ce
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.errors import Infeasible
from csp_embed.targets.commands.rising import function_of, never_falls

SUMS = np.arange(-700, 701)
NAMED = {"s": 3, "h": 4, "relu": 1, "scale": np.float32(0.125), "low": -7}
# Value of a copy out -> whether its form shows that it never falls.
FORMS = {
    "acc": True,
    "rint(float32(acc) * scale)": True,
    "clip((acc + (1 << s >> 1)) >> s, 0 if relu else -128, 127)": True,
    "(acc + h) >> s if acc >= 0 else -((h - acc) >> s)": True,
    "-((h - acc) >> s) if acc < 0 else (acc + h) >> s": True,
    "(acc + h) // (1 << s)": True,
    "min(acc, 2 * acc + 3)": True,
    "5 - (3 - acc)": True,
    "acc - acc // 2": False,  # rises, but its form does not show it
    "-acc": False,
    "acc * low": False,
    "acc % 16": False,
    "acc & 255": False,
    "acc if acc < 10 else acc - 30": False,
    "acc if acc <= 10 else 2 * acc - 13": False,
    "abs(acc)": False,
    "acc * acc": False,
}


@pytest.mark.parametrize("text", FORMS)
def test_what_is_said_to_never_fall_does_not(text):
    value = ast.parse(text, mode="eval").body
    claimed = never_falls(value, NAMED)
    assert claimed == FORMS[text]
    got = function_of(value, NAMED)(SUMS)
    by_one = [eval(text, {"rint": np.rint, "float32": np.float32, "min": min,
                          "clip": lambda x, a, b: min(max(x, a), b), "acc": int(x), **NAMED})
              for x in SUMS]  # fmt: skip
    np.testing.assert_array_equal(got, np.array(by_one).astype(np.int64))
    if claimed:
        assert (np.diff(got) >= 0).all()


@pytest.mark.parametrize(
    "rounding",
    [
        "(ACC[local + r][c] + (1 << n >> 1)) >> n",
        "(ACC[local + r][c] + (1 << n >> 1)) >> n if ACC[local + r][c] >= 0"
        " else -(((1 << n >> 1) - ACC[local + r][c]) >> n)",
        "ACC[local + r][c] >> n",
    ],
)
def test_a_drain_that_shifts_and_rounds_is_met_exactly(rounding):
    from csp_embed.machine.load import load_text
    from csp_embed.machine.resources import folder

    text = (folder("isa_specs") / "gemmini.yaml").read_text("utf-8")
    text = text.replace('scale: "rs2[32:64]"', 'n: "rs2[32:37]"')
    text = text.replace("st_scale = as_float32(scale)", "st_shift = n")
    text = text.replace("st_scale: {type: float32, default: 0x3f800000}", "st_shift: {default: 0}")
    old = "clip(rint(float32(ACC[local + r][c]) * st_scale), 0 if st_act else -128, 127)"
    assert old in text
    new = rounding.replace(" n)", " st_shift)").replace("<< n ", "<< st_shift ")
    new = new.replace(">> n", ">> st_shift")
    isa = load_text(text.replace(old, f"clip({new}, 0 if st_act else -128, 127)"), "d.yaml", None)
    for op in (
        ce.matmul(m=20, n=21, k=33, shift=5, clip=(0, 127)),
        ce.matmul(m=20, n=18, k=33, shift=6, bias=True, bias_range=100, clip=(0, 127)),
        ce.matmul(m=20, n=18, k=33, clip=(-128, 127)),
    ):
        kernel = compile_commands(op, isa, {}, options=ce.Options(top=1))
        assert kernel.check() == []
    signed = ce.matmul(m=20, n=9, k=33, shift=5, clip=(-128, 127))
    if "else" not in rounding:
        assert compile_commands(signed, isa, {}, options=ce.Options(top=1)).check() == []
    else:  # half away from zero is no floor below zero
        with pytest.raises(Infeasible, match="computed exactly"):
            compile_commands(signed, isa, {}, options=ce.Options(top=1))
