"""Machines fed by commands, written in other ways than those that ship: each is compiled right, or
refused with its line and the reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import csp_embed as ce
from csp_embed.compiler.commands import suite
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.errors import Infeasible, SpecError
from csp_embed.machine.compilable import require
from csp_embed.machine.spec import Isa

TERN = (Path(__file__).parents[2] / "data" / "specs" / "tern.yaml").read_text()
SQUARE = re.sub(r"\b12\b(?!\]|:)", "8", TERN)
OPERATOR = ce.matmul(m=21, n=9, k=19, shift=3, clip=(0, 127))


def changed(pairs: list[tuple[str, str]], text: str = TERN) -> Isa:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return ce.load_isa(yaml.safe_load(text))


def right(isa: Isa) -> bool:
    require(isa)
    kernel = compile_commands(OPERATOR, isa, {}, options=ce.Options(top=1))
    return kernel.check() == []


@pytest.mark.parametrize(
    "names",
    [
        ("m", "f", "spread"), ("f", "_s0", "keep"), ("truth", "v_b", "clip"), ("int", "range", "m"),
    ],
    ids="-".join,
)  # fmt: skip
def test_names_of_a_spec_meet_none_of_our_own(names: tuple[str, str, str]) -> None:
    text = TERN
    for old, new in zip(("r", "k", "rows"), names, strict=True):
        text = re.sub(rf"\b{old}\b(?!: \d)", new, text)
    text = text.replace(f"kind: {names[2]}", "kind: rows")
    isa = ce.load_isa(yaml.safe_load(text))
    assert right(isa)
    assert {o.kind for o in suite.run(isa)} == {"equal"}


LOAD = "W[i, o] = WGT[w + i][o]"
LOOPS = "for i in range(8):\n        for o in range({}):\n          "


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (TERN, [(LOOPS.format(12) + LOAD,
                 "for o in range(12):\n        for i in range(8):\n          " + LOAD)]),
        # Where both have 8 lanes, nothing but values tells which is which.
        (SQUARE, [(LOAD, "W[o, i] = WGT[w + i][o]")]),
        (SQUARE, [(LOAD, "W[i, o] = WGT[w + o][i]")]),
        (SQUARE, [("* W[i, o]", "* W[o, i]")]),
    ],
    ids=["loops", "filled", "read", "used"],
)  # fmt: skip
def test_lanes_of_state_go_by_place_not_by_the_order_of_loops(
    text: str, pairs: list[tuple[str, str]]
) -> None:
    assert right(changed(pairs, text))


SWAP = """
  SWAP:
    code: {op: 11}
    fields: {}
    meaning: |
      for p in range(8):
        for q in range(12):
          W[p, q] = V[q, p]
      del V
  STEP:
"""


def test_weights_wait_in_state_until_a_command_of_their_own_swaps_them_in() -> None:
    isa = changed([
        ("  W: {dims: [i, o], type: int8}",
         "  W: {dims: [i, o], type: int8}\n  V: {dims: [o, i], type: int8}"),
        (LOAD, "V[o, i] = WGT[w + i][o]"),
        ("  STEP:\n", SWAP.lstrip("\n")),
    ])  # fmt: skip
    assert right(isa)
    kernel = compile_commands(OPERATOR, isa, {}, options=ce.Options(top=1))
    counts = kernel.lowered.counts
    assert 0 < counts["SWAP"] == counts["HOLD"]


def test_few_rows_are_filled_by_small_groups() -> None:
    """A copy may move more rows than the memory has."""
    assert right(changed([("rows: 2048", "rows: 9")]))


IN_LOOP = "for r in range(rows):\n        for k in range({}):\n          {}"
WGT_FIELDS = '{op: 3}\n    fields: {at: "a[0:30]", to: "c[0:%d]"'
ACT_FIELDS = '{op: 2}\n    fields: {at: "a[0:30]", to: "c[0:12]", rows: "c[%s] <= 128"%s'
ACT_LOOP, OUT_LOOP = IN_LOOP.format(8, "ACT"), IN_LOOP.format(12, "HOST.int8")
ROUNDED = "clip((SUM[at + r][k] + (1 << s >> 1)) >> s, 0"
WORD = [("words: {op: 8, a: 32, c: 32}", "words: {op: 8, a: 32, c: 32, d: 32}"),
        ('s: "c[24:29]", relu: "c[30:31]"', 's: "d", relu: "c[30:31]"')]  # fmt: skip


def scaled(by: str) -> tuple[str, str]:
    return ROUNDED, f"clip(rint(float32(SUM[at + r][k]) * {by}), 0"


NATURAL = {
    "rows of 32 bytes in HOST": [("at + act_stride * r + k", "at + 32 * r + k"),
                                 ("to + out_stride * r + k", "to + 20 * r + k")],
    "sums of 64 bytes a row": [("at + bias_stride * r + 4 * k", "at + 64 * r + 4 * k")],
    "a bias copy that repeats one row": [("at + bias_stride * r + 4 * k", "at + 4 * k")],
    "byte addresses of rows of 12": [
        ('w: "a[0:12]"', 'w: "a[0:16]"'), (WGT_FIELDS % 12, WGT_FIELDS % 16),
        ("WGT[to + r]", "WGT[to // 12 + r]"), ("WGT[w + i]", "WGT[w // 12 + i]"),
    ],
    "a byte address behind a shift": [("ACT[to + r]", "ACT[(to >> 3) + r]")],
    "state set and used in one command": [
        (ACT_LOOP, f"act_stride = pitch\n      {ACT_LOOP}"),
        (ACT_FIELDS % ("16:24", ""), ACT_FIELDS % ("12:20", ', pitch: "c[20:32]"')),
    ],
    "state set and used by a contraction": [
        ("for b in range(rows):", "fresh = add\n      for b in range(rows):"),
        ("if not add", "if not fresh"), ("  act_stride: {}\n", "  act_stride: {}\n  fresh: {}\n"),
    ],
    "a scale in the store's own field": [*WORD, scaled("as_float32(s)")],
    "a scale that the store sets for itself": [
        *WORD, scaled("scale"), (OUT_LOOP, f"scale = as_float32(s)\n      {OUT_LOOP}"),
        ("  act_stride: {}\n", "  act_stride: {}\n  scale: {type: float32}\n"),
    ],
}  # fmt: skip
BIASED = ce.matmul(m=21, n=9, k=19, shift=3, bias=True, bias_range=500, clip=(0, 127))


@pytest.mark.parametrize("name", NATURAL)
def test_other_ways_of_saying_the_same_are_compiled_right(name: str) -> None:
    isa = changed(NATURAL[name])
    require(isa)
    assert {o.kind for o in suite.run(isa)} == {"equal"}
    for op in (OPERATOR, BIASED):
        kernel = compile_commands(op, isa, {}, options=ce.Options(top=1))
        assert kernel.check() == []
        assert kernel.certify().ok


def test_a_copy_that_repeats_a_row_adds_no_tensor_whose_rows_differ() -> None:
    isa = changed(NATURAL["a bias copy that repeats one row"])
    op = ce.parse_formula("y[n,m] += x[n,k] * w[m,k]; add z[n,m]",
                          {"x": (9, 8), "w": (12, 8), "z": (9, 12)})  # fmt: skip
    with pytest.raises(Infeasible, match="fills all rows of a tile with one row"):
        compile_commands(op, isa, {}, options=ce.Options(top=1))


REFUSED = {
    "a loop that repeats": ("            SUM[y + b][o] += ACT",
                            "            for z in range(2):\n              SUM[y + b][o] += ACT",
                            "loop 'z'"),
    "a copy of fewer lanes": ("for k in range(8):", "for k in range(6):", "it moves 6 lanes"),
    "a load of fewer lanes": ("for i in range(8):\n        for o",
                              "for i in range(7):\n        for o", "walks 7 of 8 lanes of i"),
    "a guard": ("            SUM[y + b][o] += ACT",
                "            if i < 6:\n              SUM[y + b][o] += ACT", "from 6 on"),
    "a guard of a load": (LOAD, LOAD + " if o < 11 else 0", "from 11 on"),
    "no room for sums": ("rows: 256", "rows: 3", "tiles of 4 rows need 4"),
    "no room for two tiles": ("rows: 1024", "rows: 15", "tiles of 8 rows need 16"),
    "unsigned state": ("type: int8}\n  act", "type: uint8}\n  act", "fills uint8 lanes of W"),
    "an index too few": (LOAD, "W[i] = WGT[w + i][o]", "other loops"),
    "an index that moves": (LOAD, "W[i + 1, o] = WGT[w + i][o]", "a loop's name"),
    "rows that overlap": ("at + act_stride * r", "at + 4 * r", "lie 4 bytes apart"),
    "one row for all": ("at + act_stride * r", "at", "lie 0 bytes apart"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_program_could_use_is_refused(name: str) -> None:
    old, new, said = REFUSED[name]
    with pytest.raises(SpecError) as error:
        require(changed([(old, new)]))
    assert said in f"{error.value.what} {error.value.why}"


def test_two_commands_that_fill_state_differently_are_told() -> None:
    other = """  HOLD_T:
    code: {op: 11}
    fields: {w: "a[0:12]"}
    meaning: |
      for i in range(8):
        for o in range(8):
          W[i, o] = WGT[w + o][i]
  STEP:
"""
    with pytest.raises(SpecError, match="HOLD and HOLD_T fill W in different ways"):
        changed([("  STEP:\n", other)], SQUARE)


def test_small_operators_are_beyond_a_step_whatever_dimensions_are_called() -> None:
    text = re.sub(r"\bb\b", "row", re.sub(r"\bi\b(?!n)", "deep", re.sub(r"\bo\b", "out", TERN)))
    outcomes = {o.name: o for o in suite.run(ce.load_isa(yaml.safe_load(text)))}
    same = {o.name: o for o in suite.run(ce.load_isa(yaml.safe_load(TERN)))}
    assert outcomes.keys() == same.keys()
    assert {o.kind for o in outcomes.values()} == {"equal"}
