"""Every way to write a wrong spec: file:line, the item and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from csp_embed.errors import SpecError
from csp_embed.machine.load import load_isa
from csp_embed.machine.resources import folder

VTA = (folder("isa_specs") / "vta.yaml").read_text(encoding="utf-8")
CONFIG = Path(__file__).parents[2] / "data" / "configs" / "1x16x16.json"

# (text in vta.yaml, what replaces its first occurrence, what the message says)
WRONG = [
    ("{name: pop_next, width: 1}", "{name: pop_next, bit: 3, width: 1}", "'pop_next' overlap"),
    ("opcode: {bit: 0, width: 3}", "opcode: {bit: 1, width: 3}", "'opcode' and 'pop_prev' overlap"),
    ("opcode: {bit: 0, width: 3}", "opcode: {bit: 126, width: 3}", "opcode covers bits 126..128"),
    ("{name: x_pad_1, width: 4}", "{name: x_pad_1, width: 5}", "'x_pad_1' covers bits 124..128"),
    ("{name: x_pad_1, width: 4}", "{name: x_pad_1, width: 0}", "0 bits wide"),
    ("{name: x_pad_1, width: 4}", "{name: x_pad_1, width: 4, bit: -1}", "covers bits -1..2"),
    ("{name: x_pad_1, width: 4}", "{name: x_pad_0, width: 4}", "'x_pad_0' stands twice"),
    ("{name: x_pad_1, width: 4}", "{name: unused_9, width: 4}", "reserved name"),
    ("{name: x_pad_1, width: 4}", "{name: other, width: 4}", "padding needs all four roles"),
    ("{name: x_pad_1, width: 4}", "{name: x_pad_1, widht: 4}", "unknown key 'widht'"),
    ("{name: x_pad_1, width: 4}", "{name: x_pad_1}", "missing key: width"),
    ("{name: x_pad_1, width: 4}", "{name: x_pad_1, width: 4, role: sram}", "role 'sram' stands"),
    ("{name: x_pad_1, width: 4}", "{name: p, width: 4, role: colour}", "unknown role 'colour'"),
    ("- {name: wgt, width: w}", "- {name: wgt, width: w + 1}", "the word has bits 0..31"),
    ("depth: 2 ** i,", "depth: 2 ** i + 1,", "2049 is not a power of two"),
    ("depth: 2 ** i,", "depth: 0,", "0 is not a power of two"),
    ("depth: 2 ** i,", "depth: 2 ** depht,", "'depht' is not defined"),
    ("depth: 2 ** i,", "depth: 2 ** 99999,", "far too large"),
    ("depth: 2 ** i,", "depth: 2 // 0,", "division by zero"),
    ("depth: 2 ** i,", "depth: open('x'),", "not allowed"),
    ("depth: 2 ** i,", "depth: '1 +',", "is not an expression"),
    ("depth: 2 ** i,", "depth: log2(3),", "must be a power of two"),
    ("depth: 2 ** i,", "depth: 1.5,", "integer arithmetic only"),
    ("depth: 2 ** i,", "depth: [1],", "plain text is expected"),
    ("INP: {id: 2", "INP: {id: 1", "id 1 stands twice"),
    ("INP: {id: 2", "INP: {id: 9", "cannot name memory INP"),
    ("INP: {id: 2", "INP: {id: -2", "id -2 is negative"),
    ("INP: {id: 2", "INP: {idd: 2", "unknown key 'idd'"),
    ("  INP: {id: 2", "  WGT: {id: 2", "'WGT' stands twice"),
    ("  INP: {id: 2", "  DRAM: {id: 2", "'DRAM' cannot name a memory"),
    ("lanes: [b, i]", "lanes: [b, z]", "unknown dimension 'z'"),
    ("lanes: [b, i]", "lanes: [i, i]", "dimension 'i' stands twice"),
    ("lanes: [b, i]", "lanes: b", "a list is expected"),
    ("lanes: [b, i], type: int8", "lanes: [b, i], type: fp16", "unknown type 'fp16'"),
    ("lanes: [b, i], type: int8", "lanes: [b, i]", "`lanes` and `type` belong together"),
    ("load_queue: load}", "load_queue: lod}", "unknown queue 'lod'"),
    ("shadow_of: ACC", "shadow_of: ACCU", "unknown memory 'ACCU'"),
    ("shadow_of: ACC", "shadow_of: INP", "differ in lanes or depth"),
    ("shadow_of: ACC", "shadow_of: ACC, load_queue: load", "a shadow cannot be loaded"),
    ("shadow_of: ACC", "shadow_of: ACC, alias_of: ACC", "exclude each other"),
    ("alias_of: ACC", "alias_of: OUT", "is itself a shadow"),
    ("  memory: UOP\n", "  memory: INP\n", "'INP' is no micro-op memory"),
    ("  bits: 32\n", "  bits: 16\n", "a micro-op must have 32 bits"),
    ("  B: 2 ** LOG_BATCH", "  LOG_BLOCK: 2 ** LOG_BATCH", "'LOG_BLOCK' is defined twice"),
    ("  B: 2 ** LOG_BATCH", "  B: 2 ** LOG_BATCHES", "'LOG_BATCHES' is not defined"),
    ("dims: {b: B,", "dims: {b: 0,", "dimension 'b' is 0"),
    ("queues: [load, compute, store]", "queues: []", "no queue is given"),
    ("queues: [load, compute, store]", "queues: [load, compute, store, load]", "stands twice"),
    ("opcode: 1\n", "opcode: 0\n", "opcode 0 stands twice"),
    ("opcode: 1\n", "opcode: 8\n", "8 does not fit 3 bits"),
    ("kind: store", "kind: load", "a second instruction of kind 'load'"),
    ("kind: store", "kind: saxpy", "unknown kind 'saxpy'"),
    ("    kind: finish\n    queue: compute\n", "    kind: finish\n", "missing key: queue"),
    ("- group: loops", "- group: loop", "unknown field group 'loop'"),
    ("    kind: store\n", "    kind: store\n    queue: store\n", "the memory decides the queue"),
    ("MIN: {code: 0, function: min}", "MIN: {code: 0, function: mean}", "unknown function 'mean'"),
    ("MIN: {code: 0, function: min}", "MIN: {code: 1, function: min}", "code 1 stands twice"),
    ("MIN: {code: 0, function: min}", "MIN: {code: 8, function: min}", "does not fit the 3 bits"),
    ("max_tokens: 255", "max_token: 255", "did you mean 'max_tokens'?"),
    ("stale_shadow: true", "stale_shadow: 1", "neither true nor false"),
    ("page_bytes: 4096", "page_bytes: -1", "-1 is negative"),
    ("default: 1x16x16", "default: 1x17x17", "not among the named"),
    ("configs/1x8x8.json", "configs/none.json", "no file 'configs/none.json'"),
    ("format: csp-embed-isa/1", "format: csp-embed-isa/3", "not a format we read"),
    ("queues: [load", "queues: [load: [", "not YAML"),
    ("name: vta", "name: vta\nname: vtb", "'name' stands twice"),
    ("limits:", "limit:", "unknown key 'limit'"),
    # Meanings.
    ("ACC[dst][b, o] += INP", "ACC[dst][b, o] += += INP", "does not parse"),
    ("INP[src][b, i] * WGT", "INP[src][b, q] * WGT", "unknown dimension 'q'"),
    ("INP[src][b, i] * WGT", "INP[src][i, b] * WGT", "lanes of INP are [b, i]"),
    ("INP[src][b, i] * WGT", "IMP[src][b, i] * WGT", "unknown memory 'IMP'"),
    ("INP[src][b, i] * WGT", "INP[sr][b, i] * WGT", "address 'sr' is not computed"),
    ("INP[src][b, i] * WGT", "INP[src][b, i] + WGT", "a contraction reads"),
    ("ACC[dst][b, o] = 0", "ACC[dst][b, o] = 1", "a contraction ends with"),
    ("range(uop_bgn, uop_end)", "range(uop_end)", "the micro-op loop reads"),
    ("range(uop_bgn, uop_end)", "range(uop_bgn, uop_stop)", "'uop_stop' is no field"),
    ("for x in range(iter_in)", "for x in range(iter_out)", "'iter_out' plays two roles"),
    ("dst = UOP[n].dst + y", "dst = UOP[n].dest + y", "'dest' is no micro-op field"),
    ("dst = UOP[n].dst + y", "dst = UOP[n].dst - y", "an address reads"),
    ("wgt = UOP[n].wgt", "imp = UOP[n].wgt", "'wgt' is not computed"),
    ("alu_opcode(ACC[dst][b, o], imm", "alu_opcode(ACC[src][b, o], imm", "a map reads"),
    ("* x_stride + x - x_pad_0]", "* x_stride + x]", "a load with these fields must read"),
    ("SRAM[sram_base + y * x_size + x]", "SRAM[sram_base + x]", "a store with these fields"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "says"), WRONG)
def test_each_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in VTA, "the table no longer fits vta.yaml"
    (tmp_path / "configs").symlink_to(Path(str(folder("isa_specs"))) / "configs")
    path = tmp_path / "mine.yaml"
    path.write_text(VTA.replace(old, new, 1))
    with pytest.raises(SpecError) as error:
        load_two(path)
    message = str(error.value)
    assert says in message
    file, _, number = error.value.where.rpartition(":")
    assert file == str(path)
    assert 1 <= int(number) <= VTA.count("\n") + 1


def load_two(path: Path) -> None:
    load_isa(path)
    load_isa(path, "1x8x8")


EXACT = [
    ("{name: pop_next, width: 1}", "{name: pop_next, bit: 3, width: 1}"),
    ("depth: 2 ** i,", "depth: 2 ** i + 1,"),
    ("lanes: [b, i]", "lanes: [b, z]"),
    ("INP: {id: 2", "INP: {idd: 2"),
    ("max_tokens: 255", "max_token: 255"),
    ("MIN: {code: 0, function: min}", "MIN: {code: 1, function: min}"),
    ("ACC[dst][b, o] += INP[src][b, i]", "ACC[dst][b, o] += INP[src][b, q]"),
    ("ACC[dst][b, o] += INP[src]", "ACC[dst][b, o] += += INP[src]"),
    ("range(uop_bgn, uop_end)", "range(uop_end)"),
]


@pytest.mark.parametrize(("old", "new"), EXACT)
def test_the_line_is_that_of_the_mistake(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(VTA.replace(old, new, 1))
    edited = VTA[: VTA.index(old)].count("\n") + 1
    # `MIN` now clashes with `MAX`, which is on the line below and is the one named.
    expected = edited + 1 if old.startswith("MIN") else edited
    with pytest.raises(SpecError) as error:
        load_isa(path, CONFIG)
    assert error.value.where == f"{path}:{expected}"


@pytest.mark.parametrize(
    "text", ["", "a: [", "- 1\n- 2", "\t", "x", "a: *b", "[" * 3_000, "{}", "\0"]
)
def test_foreign_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        load_isa(path)
    assert str(path) in error.value.where


def test_a_spec_of_ones_own_loads(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(VTA.replace("name: vta", "name: mine", 1))
    isa = load_isa(path, CONFIG)
    assert (isa.name, isa.spec_text) == ("mine", path.read_text())
