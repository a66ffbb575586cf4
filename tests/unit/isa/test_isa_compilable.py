"""Machines that people write themselves: compiled right, or refused with file:line before a search.

Right values are NumPy's. Each row edits one small machine; the kinds are those that once gave wrong
programs or tracebacks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.compiler import machine_suite
from csp_embed.compiler.driver import Options, compile
from csp_embed.errors import Infeasible, InputError, SpecError
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa
from csp_embed.targets.stream.building import plan

TEXT = (Path(__file__).parents[2] / "data" / "specs" / "newcomer.yaml").read_text(encoding="utf-8")
QUICK = Options(top=2, schedules=2, refine=4)

A = "A: {id: 2, lanes: [i], type: int8, depth: 32, load_queue: main}"
B = "B: {id: 3, lanes: [o, i], type: int8, depth: 32, load_queue: main}"
ACC = "ACC: {id: 0, lanes: [o], type: int32, depth: 32, load_queue: main}"
OUT = "  OUT: {id: 1, lanes: [o], type: int8, depth: 32, store_queue: main, shadow_of: ACC}\n"
RESET = "            if zero:\n              ACC[d][o] = 0\n            else:\n  "
STEP = "ACC[d][o] += A[l][i] * B[w][o, i]"

Edits = tuple[tuple[str, str], ...]


def machine(folder: Path, edits: Edits) -> Isa:
    text = TEXT
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return load_isa(path)


RIGHT: dict[str, Edits] = {
    "as it is": (),
    "one register file for both operands": (
        (A, "R: {id: 2, lanes: [o, i], type: int8, depth: 32, load_queue: main}"),
        ("  " + B + "\n", ""),
        (STEP, "ACC[d][o] += R[l][o, i] * R[w][o, i]"),
    ),
    "one small register file": (
        (A, "R: {id: 2, lanes: [o, i], type: int8, depth: 4, load_queue: main}"),
        ("  " + B + "\n", ""),
        (STEP, "ACC[d][o] += R[l][o, i] * R[w][o, i]"),
    ),
    "accumulators stored directly": ((ACC, ACC[:-1] + ", store_queue: main}"), (OUT, "")),
    "an int16 shadow": ((OUT, OUT.replace("int8", "int16")),),
    "weights transposed": (
        ("lanes: [o, i]", "lanes: [i, o]"), (STEP, STEP.replace("[o, i]", "[i, o]")),
    ),
    "factors the other way round": ((STEP, "ACC[d][o] += B[w][o, i] * A[l][i]"),),
    "int16 and int32 operands": (
        (A, A.replace("int8", "int16")), (B, B.replace("int8", "int32")),
    ),
    "operands that widen": ((A, A.replace("type: int8", "type: int32, dram_type: int8")),),
    "micro-op fields of two bits": (
        ("{name: a, width: 5}", "{name: a, width: 2}"),
        ("{name: b, width: 5}", "{name: b, width: 1}"),
        ("{name: d, width: 5}", "{name: d, width: 2}"),
    ),
    "on-chip addresses of two bits": (("{name: here, width: 9", "{name: here, width: 2"),),
    "rows of at most three elements": (
        ("{name: width, bit: 64, width: 12", "{name: width, bit: 64, width: 2"),
        ("{name: step, width: 20", "{name: step, width: 2"),
    ),
    "loops of one bit": (
        ("{name: outer, bit: 4, width: 10}", "{name: outer, bit: 4, width: 1}"),
        ("{name: d_outer, bit: 64, width: 5}", "{name: d_outer, bit: 64, width: 1}"),
    ),
    "two micro-ops": (("CODE: {id: 7, depth: 64", "CODE: {id: 7, depth: 2"),),
    "one element each": ((A, A.replace("32", "1")), (B, B.replace("32", "1"))),
    "two codes for one operation": (
        ("MAX: {code: 1, function: max}", "MAX: {code: 1, function: add}"),
    ),
    "lanes that are no powers of two": (("dims: {o: 16, i: 4}", "dims: {o: 3, i: 5}"),),
    "a dimension that one factor alone sums over": (
        ("dims: {o: 16, i: 4}", "dims: {o: 4, i: 2, k: 3}"),
        ("lanes: [o, i]", "lanes: [o, i, k]"),
        (STEP, STEP.replace("[o, i]", "[o, i, k]")),
    ),
    "more lanes than a compiled loop has": (("dims: {o: 16, i: 4}", "dims: {o: 2, i: 4096}"),),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_machine_of_this_kind_is_compiled_right(tmp_path: Path, name: str) -> None:
    """Values by the spec interpreter (inside `run`) and by the fast simulator, against NumPy."""
    isa = machine(tmp_path, RIGHT[name])
    outcomes = machine_suite.run(isa)
    assert [o for o in outcomes if o.kind == "wrong"] == []
    assert outcomes[0].kind == "equal"
    rng = np.random.default_rng(3)
    x = rng.integers(-128, 128, (6, 41), dtype=np.int8)
    w = rng.integers(-128, 128, (37, 41), dtype=np.int8)
    kernel = compile(ops.matmul(n=6, m=37, k=41, shift=6), isa, options=QUICK)
    want = (x.astype(np.int64) @ w.astype(np.int64).T >> 6).astype(np.int8)
    assert np.array_equal(kernel.run(x, w), want)


# edits, item whose line is named (None: not checked), what the message says
REFUSED: dict[str, tuple[Edits, str | None, str]] = {
    "no reset": (((RESET, ""),), "meaning: |", "DOT has no reset"),
    "nothing loads an operand": (((B, B.replace("load_", "store_")),), B[:8], "nothing loads B"),
    "nothing stores results": (((OUT, ""),), ACC[:8], "nothing stores ACC"),
    "int16 accumulators": (
        ((ACC, ACC.replace("32, depth", "16, depth")),), ACC[:8], "accumulators in ACC are int16",
    ),
    "int8 accumulators": (
        ((ACC, ACC.replace("32, depth", "8, depth")),), ACC[:8], "accumulators in ACC are int8",
    ),
    "16,777,216 products a step": (
        (("dims: {o: 16, i: 4}", "dims: {o: 4096, i: 4096}"),), "dims:", "16,777,216",
    ),
    "a gigantic dimension": (
        (("dims: {o: 16, i: 4}", "dims: {o: 2 ** 40, i: 4}"),), "dims:", "at most 65536",
    ),
    "a gigantic memory": (((A, A.replace("32", "2 ** 40")),), A[:8], "elements"),
    "operands with one address": (
        (("w = CODE[n].b", "w = CODE[n].a"),), "meaning: |", "share the micro-op field 'a'",
    ),
    "one factor for two operands": (
        (("y * b_outer", "y * a_outer"),), "meaning: |", "'a_outer' of DOT is both",
    ),
    "a signed address": (
        (("{name: d, width: 5}", "{name: d, width: 5, signed: true}"),), "name: d,", "is signed",
    ),
    "a signed count": (
        (("{name: inner, width: 10}", "{name: inner, width: 10, signed: true}"),), "name: inner",
        "'inner' of DOT is signed",
    ),
    "a field called like a dimension": (
        (("zero", "i"),), "name: i,", "called like a dimension",
    ),
    "accumulators as an operand": (
        ((STEP, "ACC[d][o] += ACC[l][o] * B[w][o, i]"),), "meaning: |", "reads ACC and adds into",
    ),
    "maps elsewhere": (
        ((A, A.replace("[i]", "[o]")), ("A[l][i]", "A[l][o]"), ("ACC[d][o], imm", "A[d][o], imm"),
         ("else ACC[s][o]", "else A[s][o]"), ("ACC[d][o] = op", "A[d][o] = op")), None,
        "works on A",
    ),
    "narrowing loads": (
        ((A, A.replace("type: int8", "type: int8, dram_type: int32")),), A[:8], "does not fit",
    ),
    "an operand that is not portable": (
        ((B, B[:-1] + ", portable: false}"),), B[:8], "B is not portable",
    ),
    "pages of no bytes": ((("limits: {}", "limits: {page_bytes: 0}"),), "limits:", "0 bytes"),
    "no device memory": ((("limits: {}", "limits: {dram_bits: 3}"),), "limits:", "8 bytes"),
    "DRAM addresses of six bits": (
        (("{name: there, bit: 16, width: 32", "{name: there, bit: 16, width: 6"),), "name: there",
        "cannot reach",
    ),
    "queues without tokens": (
        (("queues: [main]", "queues: [side, main]"), (B, B.replace("main", "side"))), "GET:",
        "has no field for",
    ),
    "queues that are no neighbours": (
        (("queues: [main]", "queues: [side, idle, main]"), (B, B.replace("main", "side"))), B[:8],
        "no neighbour of 'main'",
    ),
    "accumulators loaded elsewhere": (
        (("queues: [main]", "queues: [side, main]"), (ACC, ACC.replace("main", "side"))), ACC[:8],
        "ACC is loaded in queue 'side'",
    ),
    "half of the costs": (
        (("limits: {}", "limits: {}\ncosts: {instruction: {bytes: 16}, contract: {fill: 1}}"),),
        "costs:", "name no memory interface",
    ),
    "a subtraction": (((STEP, STEP.replace("+=", "-=")),), None, "a contraction"),
    "one term more": (((STEP, STEP + " + 1"),), None, "a contraction"),
    "a map with swapped operands": (
        (("op(ACC[d][o], imm if use_imm else ACC[s][o])",
          "op(imm if use_imm else ACC[s][o], ACC[d][o])"),), None, "a map reads",
    ),
    "unsigned operands": (((A, A.replace("int8", "uint8")),), A[:8], "unknown type 'uint8'"),
    "an opcode for two": ((("opcode: 4", "opcode: 3"),), "opcode: 3", "stands twice"),
    "a memory id for two": (((B, B.replace("id: 3", "id: 2")),), B[:8], "id 2 stands twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_machine_of_this_kind_is_refused(tmp_path: Path, name: str) -> None:
    """By check and, in the same words, by compile; with the line, a reason and a remedy."""
    edits, item, says = REFUSED[name]

    def check() -> None:
        machine_suite.run(machine(tmp_path, edits))

    def build() -> None:
        compile(ops.matmul(n=6, m=37, k=41), machine(tmp_path, edits), options=QUICK)

    told = []
    for act in (check, build):
        with pytest.raises(SpecError) as error:
            act()
        told.append(str(error.value))
    assert told[0] == told[1]
    assert says in told[0]
    assert error.value.why
    assert error.value.hint
    file, _, line = error.value.where.rpartition(":")
    assert file == str(tmp_path / "own.yaml")
    rows = (tmp_path / "own.yaml").read_text(encoding="utf-8").splitlines()
    assert item is None or item in rows[int(line) - 1]


CANNOT = [
    ((), lambda: ops.elementwise((40,), [("mul", 3)]), "not mul"),
    ((("signed: true", "signed: false"),), lambda: ops.max_pool2d(n=1, c=3, h=4, w=4, r=2, s=2),
     "min -128"),
    ((("width: 20, signed", "width: 4, signed"),), lambda: ops.matmul(m=3, n=3, k=3, shift=9),
     "-8..7"),
    (((ACC, ACC.replace("load_queue", "store_queue")),),
     lambda: ops.matmul(m=3, n=3, k=3, bias=True), "which nothing loads"),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "make", "says"), CANNOT, ids=[c[2] for c in CANNOT])
def test_an_operator_that_the_machine_cannot_do(
    tmp_path: Path, edits: Edits, make: object, says: str
) -> None:
    assert callable(make)
    isa = machine(tmp_path, edits)
    with pytest.raises(Infeasible, match=says) as error:
        compile(make(), isa, options=QUICK)
    assert error.value.hint
    # Other operators are still compiled right, and check says which are not.
    outcomes = machine_suite.run(isa)
    assert outcomes[0].kind == "equal"
    assert all(o.kind != "wrong" for o in outcomes)


def test_the_suite_sees_a_wrong_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of which it was made: both operands from the start of one register file."""
    isa = machine(tmp_path, RIGHT["one register file for both operands"])
    monkeypatch.setattr(plan, "_shares", lambda problem, lhs, rhs, top: ((0, 16), (0, 16)))
    outcomes = machine_suite.run(isa)
    wrong = [o for o in outcomes if o.kind == "wrong"]
    assert wrong
    assert "NumPy has" in wrong[0].text
    assert wrong[0].where.rpartition(":")[0] == str(tmp_path / "own.yaml")


def test_results_of_stored_accumulators_are_found_in_dram(tmp_path: Path) -> None:
    """`meta` tells where y lies: the low byte of each int32, read here by its digits alone."""
    isa = machine(tmp_path, RIGHT["accumulators stored directly"])
    op = ops.matmul(n=3, m=20, k=9)
    kernel = compile(op, isa, options=QUICK)
    tensors = machine_suite.random_tensors(op, 5)
    program = kernel.program(tensors)
    place = program.meta["tensors"]["y"]
    # Only the low bytes are known from the formula: each is a range of its own.
    known = {a + i: v for a, data in program.after for i, v in enumerate(data.tolist())}
    index = np.indices(place["shape"])
    address = np.full(place["shape"], place["addr"])
    for d in place["digits"]:
        address += d["stride_bytes"] * (index[d["axis"]] // d["div"] % d["mod"])
    found = (
        np.array([known[a] for a in address.ravel()], np.uint8).view(np.int8).reshape(address.shape)
    )
    want = tensors["x"].astype(np.int64) @ tensors["w"].astype(np.int64).T
    assert place["dtype"] == "int8"
    assert np.array_equal(found, want.astype(np.int8))


def test_packed_operands_past_the_address_field_are_refused(tmp_path: Path) -> None:
    field = "{name: there, bit: 16, width: "
    isa = machine(tmp_path, ((field + "32", field + "13"),))
    with pytest.raises(InputError, match="13 bits") as error:
        compile(ops.matmul(n=40, m=400, k=400), isa, options=QUICK)
    assert error.value.where.startswith(str(tmp_path / "own.yaml"))
