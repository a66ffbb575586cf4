"""Machines that are fed commands: Gemmini, and one that is invented here (tests/data/specs)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import csp_embed as ce
from csp_embed.compiler.commands import suite as command_suite
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.file import content, read, write
from csp_embed.errors import Infeasible, InputError, SimError, SpecError
from csp_embed.judge import commands as judge
from csp_embed.machine.commands.interpreter import HostMemory, execute
from csp_embed.machine.commands.words import encode
from csp_embed.ops.data import random_tensors

MILL = Path(__file__).parents[2] / "data" / "specs" / "mill.yaml"
GEMMINI = ce.load_isa("gemmini")
WHOLE = {
    "one step": ce.matmul(m=16, n=16, k=16),
    "many steps": ce.matmul(m=64, n=64, k=64),
    "ragged, low bits": ce.matmul(m=35, n=21, k=50),
    "clip": ce.matmul(m=20, n=21, k=33, clip=(-128, 127)),
    "shift by a byte": ce.matmul(m=20, n=21, k=33, shift=8),
    "shift, ReLU": ce.matmul(m=20, n=21, k=33, shift=5, clip=(0, 127)),
    "bias behind the shift": ce.matmul(m=20, n=18, k=33, shift=6, bias=True, bias_range=100,
                                       clip=(0, 127)),
    "bias before the shift": ce.matmul(m=20, n=18, k=33, shift=6, bias_range=9000,
                                       bias_before_shift=True, clip=(0, 127)),
    "dense": ce.dense(n=2, c=70, k=30),
    "convolution": ce.conv2d(n=1, c=5, h=5, w=6, k=9, r=3, s=3, pad=1, shift=7, clip=(0, 127)),
    "strided convolution": ce.conv2d(n=1, c=3, h=6, w=6, k=4, r=2, s=2, stride=2),
    "depthwise convolution": ce.depthwise_conv2d(n=1, c=6, h=4, w=5, r=2, s=2),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_gemmini_computes_what_numpy_computes(name: str) -> None:
    kernel = compile_commands(WHOLE[name], GEMMINI, {}, options=ce.Options(top=1))
    assert kernel.check() == []


def test_one_step_point_by_point() -> None:
    kernel = compile_commands(WHOLE["one step"], GEMMINI, {}, options=ce.Options(top=1))
    assert content(kernel, random_tensors(kernel.operator, 1)).problems(whole=False) == []


@pytest.mark.parametrize(
    "op",
    [
        ce.matmul(m=9, n=5, k=7, clip=(-128, 127)),
        ce.matmul(m=33, n=21, k=40, shift=3, clip=(-128, 127)),
        ce.matmul(m=17, n=6, k=9, shift=2, bias=True, bias_range=500, clip=(0, 127)),
        ce.conv2d(n=1, c=5, h=5, w=6, k=9, r=3, s=3, pad=1, shift=4, clip=(-128, 127)),
    ],
    ids=lambda op: op.text(),
)
def test_an_invented_machine_needs_no_python(op: ce.parse_formula) -> None:
    kernel = ce.compile(op, isa=MILL)
    assert kernel.check() == []


def test_a_machine_whose_sums_never_begin_anew_loads_zeros() -> None:
    text = MILL.read_text()
    text = text.replace("          if zero:\n            S[d + b][o] = 0\n", "")
    text = text.replace(', zero: "b[3:4]"', "")
    isa = ce.load_isa(_mapping(text))
    kernel = ce.compile(ce.matmul(m=9, n=5, k=7, clip=(-128, 127)), isa=isa)
    assert kernel.lowered.counts["GETS"] == kernel.lowered.counts["PUT"]
    assert kernel.check() == []


def _mapping(text: str) -> dict:
    import yaml

    return yaml.safe_load(text)


@pytest.mark.parametrize("spec", ["gemmini", MILL], ids=["gemmini", "mill"])
def test_points_and_all_at_once_agree_on_random_contents(spec: str | Path) -> None:
    outcomes = command_suite.run(ce.load_isa(spec))
    assert [o for o in outcomes if o.kind == "wrong"] == []
    ran = [o for o in outcomes if o.kind == "equal" and o.name.startswith("meaning")]
    assert len(ran) == len(ce.load_isa(spec).commands.commands)


@pytest.mark.parametrize("shift", [1, 2, 5, 9, 12])
def test_rounding_to_even_is_met_for_every_sum(shift: int) -> None:
    """The store's formula, written out here, against the floor for all sums of 4 terms."""
    kernel = compile_commands(
        ce.matmul(m=3, n=2, k=4, shift=shift, clip=(0, 127)), GEMMINI, {},
        options=ce.Options(top=1),
    )  # fmt: skip
    e = kernel.lowered.epilogue
    bits = next(v for p, v in e.settings.items() if p.name == "st_scale")
    scale = np.uint32(bits).view(np.float32)
    sums = np.arange(-4 * 128 * 128, 4 * 128 * 128 + 1)
    stored = np.clip(np.rint((sums + e.offset).astype(np.float32) * scale), 0, 127)
    assert (stored == np.clip(sums >> shift, 0, 127)).all()


def test_gemmini_stores_by_scale_half_to_even_and_relu() -> None:
    """One mvout of hand-made sums: ties of both signs, both ends, and a scale that is no power."""
    sums = np.array([1, 2, 3, 5, 6, 7, -1, -2, -3, -5, -6, 255, -300, 254, -256, 100], np.int32)
    for act, scale in ((0, 0.5), (1, 0.5), (0, 0.3)):
        bits = int(np.float32(scale).view(np.uint32))
        stream = [("CONFIG_LD0", {"stride": 0, "block": 16}),
                  ("MVIN_ACC0", {"dram": 0x1000, "local": 0, "rows": 1, "cols": 16}),
                  ("CONFIG_ST", {"stride": 16, "act": act, "scale": bits}),
                  ("MVOUT", {"dram": 0x1040, "local": 0, "rows": 1, "cols": 16})]  # fmt: skip
        host = HostMemory([(0x1000, sums.view(np.uint8)), (0x1040, np.zeros(16, np.uint8))])
        machine = GEMMINI.commands
        words = encode(machine, [
            (machine.index(n), tuple(f[k] for k in machine.command(n).fields)) for n, f in stream
        ])  # fmt: skip
        execute(machine, GEMMINI.dims, words, host)
        product = sums.astype(np.float32) * np.float32(scale)
        want = np.clip(np.rint(product), 0 if act else -128, 127)
        assert (host.read(0x1040, 16).view(np.int8) == want).all()


@pytest.mark.parametrize(
    ("op", "why"),
    [
        (ce.matmul(m=8, n=8, k=8, shift=3, clip=(-90, 101)), "a shift keeps the floor"),
        (ce.matmul(m=8, n=8, k=8, shift=3), "keeps low bits"),
        (ce.matmul(m=8, n=8, k=8, shift=3, bias=True, clip=(0, 127)), "nothing bounds its values"),
        (ce.max_pool2d(n=1, c=4, h=4, w=4, r=2, s=2), "no products"),
    ],
)
def test_what_the_machine_cannot_do_exactly_is_refused(op: ce.parse_formula, why: str) -> None:
    with pytest.raises(Infeasible, match=why):
        ce.compile(op, isa="gemmini")


def test_factors_are_loaded_once_where_they_fit() -> None:
    """64 x 128 by 128 x 96: each byte of both factors comes once, each sum leaves once."""
    kernel = compile_commands(ce.matmul(n=64, m=96, k=128, clip=(-128, 127)), GEMMINI, {},
                              options=ce.Options(top=1))  # fmt: skip
    p = kernel.lowered
    assert (p.loaded, p.stored) == (64 * 128 + 128 * 96, 64 * 96)
    assert p.counts["COMPUTE_PRELOADED"] == 4 * 6 * 8
    assert p.counts["MVOUT"] == 4 * 6


def test_a_tight_scratchpad_is_used_again() -> None:
    """A mill with room for few tiles: what does not fit is loaded again, and values stay right."""
    text = MILL.read_text().replace("rows: 64,", "rows: 16,").replace("rows: 32,", "rows: 3,")
    isa = ce.load_isa(_mapping(text))
    kernel = ce.compile(ce.matmul(m=33, n=21, k=40, shift=3, clip=(-128, 127)), isa=isa)
    assert kernel.check() == []
    roomy = ce.compile(ce.matmul(m=33, n=21, k=40, shift=3, clip=(-128, 127)), isa=MILL)
    assert kernel.lowered.loaded > roomy.lowered.loaded


class TestJudge:
    @pytest.fixture
    def good(self):
        op = ce.matmul(m=35, n=21, k=50, shift=5, clip=(0, 127))
        kernel = compile_commands(op, GEMMINI, {}, options=ce.Options(top=1))
        return content(kernel, random_tensors(op, 0))

    def problems(self, file, words) -> list[str]:
        stream = judge.Stream(words, file.before, file.places)
        return judge.problems(file.isa, stream, file.operator, file.tensors)

    def at(self, file, name: str) -> int:
        """The first command of that name."""
        from csp_embed.machine.commands.words import decode

        machine = file.isa.commands
        return int(np.argmax(decode(machine, file.words).code == machine.index(name)))

    def test_a_good_stream_is_accepted(self, good) -> None:
        assert self.problems(good, good.words) == []

    @pytest.mark.parametrize(
        "name", ["MVIN0", "MVIN1", "MVIN_ACC2", "PRELOAD", "CONFIG_EX", "MVOUT"]
    )
    def test_a_command_left_out_is_seen(self, good, name: str) -> None:
        words = np.delete(good.words, self.at(good, name), axis=0)
        assert self.problems(good, words)

    def test_a_missing_fence_is_seen(self, good) -> None:
        assert self.problems(good, good.words[:-1]) == ["the stream does not end in FENCE"]

    @pytest.mark.parametrize(
        ("name", "word", "bit", "text"),
        [
            ("MVIN0", 1, 40, "does not exist"),
            ("MVIN0", 2, 20, "outside SP"),
            ("MVOUT", 1, 30, "does not exist"),
            ("MVIN0", 2, 53, "at most 16"),
            ("CONFIG_EX", 1, 50, "is unknown"),
        ],
    )
    def test_a_flipped_bit_is_seen(self, good, name: str, word: int, bit: int, text: str) -> None:
        words = good.words.copy()
        words[self.at(good, name), word] ^= np.uint64(1 << bit)
        assert text in self.problems(good, words)[0]

    def test_an_operand_that_is_overwritten_is_seen(self, good) -> None:
        words = good.words.copy()
        store = words[self.at(good, "MVOUT")].copy()
        store[1] = np.uint64(good.before[0][0])  # to where x lies, behind all that reads it
        words = np.insert(words, len(words) - 1, store, axis=0)
        assert "an operand lies there" in self.problems(good, words)[0]

    def test_a_wrong_scale_is_seen_in_the_values(self, good) -> None:
        words = good.words.copy()
        words[self.at(good, "CONFIG_ST"), 2] ^= np.uint64(1 << 55)
        assert "NumPy computes" in self.problems(good, words)[0]

    def test_a_wrong_expectation_is_seen(self, good) -> None:
        tensors = dict(good.tensors, y=good.tensors["y"] + 1)
        stream = judge.Stream(good.words, good.before, good.places)
        found = judge.problems(good.isa, stream, good.operator, tensors)
        assert found == ["formula: the file's y is not what NumPy computes"]


def test_a_file_is_read_back_and_judged(tmp_path: Path) -> None:
    kernel = compile_commands(WHOLE["clip"], GEMMINI, {}, options=ce.Options(top=1))
    kernel.save(tmp_path / "a.npz")
    kernel.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    file = read(tmp_path / "a.npz")
    assert (file.problems(), file.certificate_problems()) == ([], [])
    assert np.array_equal(file.words, kernel.lowered.words)


def test_a_file_of_an_own_machine_carries_it(tmp_path: Path) -> None:
    kernel = ce.compile(ce.matmul(m=9, n=5, k=7, clip=(-128, 127)), isa=MILL)
    kernel.save(tmp_path / "a.npz")
    file = read(tmp_path / "a.npz")
    assert file.isa.name == "mill"
    assert file.problems() == []


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    kernel = compile_commands(WHOLE["clip"], GEMMINI, {}, options=ce.Options(top=1))
    file = content(kernel, random_tensors(kernel.operator, 0))
    write(tmp_path / "a.npz", file)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{op: 2}", "{op: 1}", "can have the same words"),
        ('h: "a[0:24]", l: "c[0:8]", n', 'h: "a[0:24]", l: "a[8:16]", n', "overlaps"),
        ("X[l + r][c] = HOST", "Y[l + r][c] = HOST", "is no reference"),
        ("HOST.int8[h + c]", "HOST.int8[h + q]", "is not known"),
        ("S[d + b][o] += X", "S[d + b][o] -= X", "is no statement of a meaning"),
        ("lanes: 16, type: int8", "lanes: 8, type: int8", "16 lanes of W, which has 8"),
        ('"b[3:4]"', '"b[3:44]"', "bits 3..43 of b"),
        ("control: stream", "control: source", "unknown key"),
        ("order: program", "order: tokens", "is not handled"),
        ("b in range(4)", "b in range(3)", "walks 3 of 4"),
    ],
)  # fmt: skip
def test_bad_specs_say_where(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = MILL.read_text()
    assert old in text
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(SpecError, match=said.replace("[", r"\[")) as caught:
        ce.compile(ce.matmul(m=4, n=4, k=4, clip=(-128, 127)), isa=path)
    assert caught.value.where.startswith(str(path))


TERN = ce.load_isa(Path(__file__).parents[2] / "data" / "specs" / "tern.yaml")


def test_weights_that_the_machine_holds_change_seldom() -> None:
    """A step whose weights are in the array needs no command that loads them."""
    kernel = compile_commands(ce.matmul(m=100, n=70, k=90), TERN, {}, options=ce.Options(top=1))
    counts = kernel.lowered.counts
    tiles = 6 * 12  # of weights that the embedding has: columns by terms
    assert counts["STEP"] == 25 * tiles
    assert counts["HOLD"] <= 2 * tiles
    assert kernel.check() == []


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('y: "c[0:12]"', 'y: "c[0:5]"', ""),  # 32 of the 256 rows of sums
        ('{x: "a[0:12]"', '{x: "a[0:10]"', ""),  # 1,024 of the 2,048 rows of activations
        ('{x: "a[0:12]"', '{x: "a[0:6]"', ""),  # 64, half as many as one copy could move
        ('{at: "a[0:30]"', '{at: "a[0:13]"', "all commands can name 8,192"),
    ],
)
def test_what_narrow_fields_cannot_name_is_not_used(old: str, new: str, why: str) -> None:
    text = TERN.spec_text
    assert old in text
    isa = ce.load_isa(_mapping(text.replace(old, new)))
    op = ce.matmul(m=100, n=270, k=190)
    if why:
        with pytest.raises(Infeasible) as error:
            compile_commands(op, isa, {}, options=ce.Options(top=1))
        assert why in error.value.why
        return
    assert compile_commands(op, isa, {}, options=ce.Options(top=1)).check() == []


def test_the_host_address_that_is_wrong_is_named() -> None:
    """Not the least of those that were asked for."""
    host = HostMemory([(0x1000, np.zeros(16, np.uint8)), (0x1040, np.zeros(16, np.uint8))])
    for places, bad in (([0x1000, 0x1010, 0x1048], 0x1010), ([0x1000, 0x2000], 0x2000)):
        with pytest.raises(SimError, match=f"{bad:#x} does not exist"):
            host.at(np.array(places), 4)
