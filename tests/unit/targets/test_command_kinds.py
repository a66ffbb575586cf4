"""Kinds of command machines beside Gemmini's: sums that stay in state, addresses in units, tiles of
which a part takes part, commands that say how long they take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import csp_embed as ce
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.kernel import CommandKernel
from csp_embed.compiler.commands.runs import runs_of, values_of
from csp_embed.errors import Infeasible, SpecError
from csp_embed.machine.commands.cycles import stream_cycles

SPECS = Path(__file__).parents[2] / "data" / "specs"
STAY = (SPECS / "stay.yaml").read_text()
MILL = (SPECS / "mill.yaml").read_text()
PRESET = """  PRESET:
    code: {op: 9}
    fields: {h: "w0"}
    meaning: |
      for r in range(8):
        for c in range(4):
          C[r, c] = HOST.int32[h + pitch * r + 4 * c]
"""


def direct() -> str:
    """Sums are stored straight from state, and may begin with numbers from HOST."""
    begin, end = STAY.index("  DRAIN:"), STAY.index("  PUT8:")
    stores = STAY[end:].replace("OUT[l + r][c]", "C[r, c]").replace('l: "w1[0:16]", ', "")
    return STAY[:begin] + PRESET + stores


def kept() -> str:
    """A field says whether sums begin anew; nothing clears them."""
    text = direct()
    begin, end = text.index("  CLEAR:"), text.index("  MUL:")
    text = text[:begin] + text[end:]
    text = text.replace('k: "w1[0:8] <= 16"', 'k: "w1[0:8] <= 16", keep: "w1[8:9]"')
    first = "          for i in range(k):"
    return text.replace(first, f"          if not keep:\n            C[b, o] = 0\n{first}")


def units() -> str:
    """The mill, whose addresses in HOST count 8, 16 or 32 bytes, and its pitch 8."""
    text = MILL
    for old, new in (
        ("int8[h + pitch * r", "int8[8 * h + 8 * pitch * r"), ("int8[h + c", "int8[16 * h + c"),
        ("int32[h +", "int32[32 * h +"), ("int16[h +", "int16[16 * h +"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    return text


OPERATORS = [
    ce.matmul(m=9, n=11, k=19, clip=(-128, 127)),
    ce.matmul(m=7, n=5, k=33, shift=3, clip=(0, 127)),
    ce.conv2d(n=1, c=5, h=5, w=6, k=9, r=3, s=3, pad=1, stride=2, shift=4, clip=(-128, 127)),
]
BIASED = ce.matmul(m=9, n=11, k=19, shift=3, bias=True, bias_range=500, clip=(0, 127))


def compiled(text: str, op: ce.Operator) -> CommandKernel:
    kernel = ce.compile(op, isa=yaml.safe_load(text))
    assert isinstance(kernel, CommandKernel)
    return kernel


@pytest.mark.parametrize("make", [lambda: STAY, direct, kept, units],
                         ids=["drained", "direct", "kept", "units"])  # fmt: skip
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_values_equal_and_certified(make: object, op: ce.Operator) -> None:
    assert callable(make)
    kernel = compiled(make(), op)
    assert kernel.check() == []
    assert kernel.certify().ok


def test_sums_in_state_begin_with_a_bias_where_a_copy_brings_it() -> None:
    kernel = compiled(direct(), BIASED)
    assert kernel.check() == []
    assert kernel.lowered.counts["PRESET"] == kernel.lowered.counts["PUT8"]
    assert "CLEAR" not in kernel.lowered.counts
    with pytest.raises(Infeasible, match="sums must begin with numbers from HOST"):
        compiled(STAY, BIASED)


def test_each_tile_of_sums_is_cleared_once_and_drained_once() -> None:
    counts = compiled(STAY, OPERATORS[0]).lowered.counts
    assert counts["CLEAR"] == counts["DRAIN"] == counts["PUT8"]


def test_fixed_rows_that_are_no_units_are_refused() -> None:
    text = units().replace("int32[32 * h + 32 * r", "int32[64 * h + 32 * r")
    kernel = compiled(text, OPERATORS[0])  # nothing needs that copy
    assert kernel.check() == []
    text = units().replace("int16[16 * h + 16 * r", "int16[32 * h + 16 * r")
    with pytest.raises(SpecError, match="addresses count units of 32"):
        compiled(text, OPERATORS[0])


@pytest.mark.parametrize(("n", "m", "k"), [(5, 16, 16), (16, 7, 16), (16, 9, 3)])
def test_ragged_tiles_move_and_store_what_they_hold(n: int, m: int, k: int) -> None:
    """On Gemmini's 16 x 16 x 16 lanes each byte of the three matrices moves once, and no other."""
    kernel = compile_commands(ce.matmul(n=n, m=m, k=k, clip=(-128, 127)), ce.load_isa("gemmini"),
                              {}, options=ce.Options(top=1))  # fmt: skip
    p = kernel.lowered
    assert (p.loaded, p.stored) == (n * k + k * m, n * m)
    assert kernel.check() == []
    assert kernel.certify().ok


def test_one_field_for_two_loops_cuts_neither() -> None:
    """A bound that rows and columns share cannot be two numbers."""
    text = MILL
    for old, new in (
        ("for b in range(4):\n        for o in range(8):\n          if zero",
         "for b in range(n):\n        for o in range(n):\n          if zero"),
        ('zero: "b[3:4]"', 'zero: "b[3:4]", n: "b[4:8]"'), ("b: 4, o: 8", "b: 8, o: 8"),
        ("for r in range(4):", "for r in range(8):"), ("<= 8", "<= 15"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    kernel = compiled(text, ce.matmul(m=9, n=5, k=7, clip=(-128, 127)))
    assert kernel.check() == []


def test_cycles_of_a_stream_by_hand() -> None:
    """Preloads of weights work beside the step before them; short steps take four cycles."""
    machine = ce.load_isa("gemmini").commands
    assert machine is not None

    def command(name: str, **fields: int) -> tuple[int, tuple[int, ...]]:
        return machine.index(name), tuple(fields.get(f, 0) for f in machine.command(name).fields)

    stream = [
        command("PRELOAD"), command("COMPUTE_PRELOADED", a_rows=16),  # 16 in front, then 16
        command("PRELOAD_NONE"), command("COMPUTE_ACCUMULATED", a_rows=1),  # hidden, 4
        command("PRELOAD_NONE"), command("COMPUTE_ACCUMULATED", a_rows=9),  # hidden, 9 behind 16
        command("PRELOAD"), command("COMPUTE_PRELOADED", a_rows=5), command("FENCE"),
    ]  # fmt: skip
    assert stream_cycles(machine, stream) == 16 + 16 + 4 + 16 + 5


def test_cycles_name_fields_only() -> None:
    text = STAY.replace("  MUL:\n", "  MUL:\n    cycles: max(k, other)\n")
    with pytest.raises(SpecError, match="'other'"):
        ce.load_isa(yaml.safe_load(text))


@pytest.mark.parametrize("seed", range(6))
def test_runs_are_the_numbers_again(seed: int) -> None:
    """Against a plain walk; rows of a tensor become as many runs."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([
        rng.integers(-1, 1000) + rng.integers(0, 60) * np.arange(rng.integers(1, 9))
        for _ in range(rng.integers(1, 30))
    ]).astype(np.int64)  # fmt: skip
    runs = runs_of(values)
    assert [a + s * k for a, s, n in runs.tolist() for k in range(n)] == values.tolist()
    assert (values_of(runs, len(values)) == values).all()
    with pytest.raises(ValueError, match="more than"):
        values_of(runs, len(values) - 1)
    rows = (np.arange(16)[None] * 49 + np.arange(50)[:, None]).reshape(-1)
    assert len(runs_of(rows)) == 50
    assert len(runs_of(np.zeros(0, np.int64))) == 0
