"""`vta_config.json` files as they are found: derived keys, rectangular blocks, contradictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.compiler import machine_suite
from csp_embed.compiler.driver import Options, compile
from csp_embed.errors import SpecError
from csp_embed.machine.load import load_isa

SQUARE = {
    "TARGET": "pynq", "HW_VER": "0.0.1", "LOG_INP_WIDTH": 3, "LOG_WGT_WIDTH": 3,
    "LOG_ACC_WIDTH": 5, "LOG_BATCH": 0, "LOG_BLOCK": 4, "LOG_UOP_BUFF_SIZE": 15,
    "LOG_INP_BUFF_SIZE": 15, "LOG_WGT_BUFF_SIZE": 18, "LOG_ACC_BUFF_SIZE": 17,
}  # fmt: skip
# The early form of the file, in which both blocks stand and some hardware options.
EARLY = {k: v for k, v in SQUARE.items() if k != "LOG_BLOCK"} | {
    "HW_FREQ": 100, "HW_CLK_TARGET": 8, "LOG_OUT_WIDTH": 3, "LOG_BLOCK_IN": 4, "LOG_BLOCK_OUT": 4,
    "LOG_OUT_BUFF_SIZE": 15,
}  # fmt: skip
WIDE = {k: v for k, v in SQUARE.items() if k != "LOG_BLOCK"} | {
    "LOG_INP_BUFF_SIZE": 13, "LOG_WGT_BUFF_SIZE": 16, "LOG_BLOCK_IN": 2, "LOG_BLOCK_OUT": 4,
}  # fmt: skip


def written(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "board.json"
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return path


AGREE: list[dict[str, Any]] = [
    {},
    {"LOG_BLOCK_IN": 4},
    {"LOG_BLOCK_IN": 4, "LOG_BLOCK_OUT": 4},
    {"LOG_OUT_WIDTH": 3, "LOG_OUT_BUFF_SIZE": 15},
    {"LOG_BUS_WIDTH": 6},
    {"LOG_UOP_WIDTH": 5, "LOG_INS_WIDTH": 7},
    {"HW_FREQ": 142, "HW_CLK_TARGET": 6.5, "GEMM_II": 1, "NAMES": ["a"], "ON": True},
]


@pytest.mark.parametrize("more", AGREE, ids=str)
def test_keys_that_agree_change_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    plain, full = load_isa("vta", "1x16x16"), load_isa("vta", written(tmp_path, SQUARE | more))
    assert full.dims == plain.dims
    assert full.memories == plain.memories
    assert full.instructions == plain.instructions
    assert full.uop_fields == plain.uop_fields


def test_the_early_form_is_the_same_machine(tmp_path: Path) -> None:
    full = load_isa("vta", written(tmp_path, EARLY))
    assert full.memories == load_isa("vta", "1x16x16").memories
    assert load_isa("vta", EARLY).config_name == "1x16x16"


REFUSED: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    (SQUARE | {"LOG_BLOCK_IN": 2}, "LOG_BLOCK_IN", ("LOG_BLOCK_IN is 2", "LOG_BLOCK = 4")),
    (SQUARE | {"LOG_BLOCK_OUT": 5}, "LOG_BLOCK_OUT", ("LOG_BLOCK_OUT is 5", "makes it 4")),
    (SQUARE | {"LOG_OUT_BUFF_SIZE": 17}, "LOG_OUT_BUFF_SIZE",
     ("LOG_OUT_BUFF_SIZE is 17", "LOG_ACC_BUFF_SIZE = 17", "makes it 15")),
    (SQUARE | {"LOG_BUS_WIDTH": 7}, "LOG_BUS_WIDTH", ("LOG_BUS_WIDTH is 7", "allows 6")),
    (SQUARE | {"LOG_OUT_WIDTH": 5}, "LOG_OUT_WIDTH", ("LOG_OUT_WIDTH is 5", "allows 3")),
    (SQUARE | {"LOG_BLOCKIN": 4}, "LOG_BLOCKIN", ("unknown key LOG_BLOCKIN", "LOG_BLOCK_IN")),
    (SQUARE | {"LOG_BATCH": "0"}, "LOG_BATCH", ("LOG_BATCH is '0'", "whole number")),
    (SQUARE | {"LOG_BATCH": True}, "LOG_BATCH", ("LOG_BATCH is True", "whole number")),
    ({k: v for k, v in SQUARE.items() if k != "LOG_BLOCK"}, "",
     ("lacks LOG_BLOCK_IN, LOG_BLOCK_OUT", "LOG_BLOCK would give")),
    ({k: v for k, v in WIDE.items() if k != "LOG_BLOCK_IN"}, "",
     ("lacks LOG_BLOCK_IN", "LOG_BLOCK would give")),
]  # fmt: skip


@pytest.mark.parametrize(("config", "key", "says"), REFUSED, ids=[r[2][0] for r in REFUSED])
def test_contradictions_name_both_values_and_the_line(
    tmp_path: Path, config: dict[str, Any], key: str, says: tuple[str, ...]
) -> None:
    path = written(tmp_path, config)
    with pytest.raises(SpecError) as error:
        load_isa("vta", path)
    assert all(text in str(error.value) for text in says)
    assert error.value.hint
    rows = path.read_text(encoding="utf-8").splitlines()
    line = 1 + next((n for n, row in enumerate(rows) if f'"{key}"' in row), -1)
    assert error.value.where == (f"{path}:{line}" if key else str(path))


@pytest.mark.parametrize(("into", "out"), [(2, 4), (4, 2), (0, 4), (3, 0)])
def test_rectangular_blocks_are_compiled_right(tmp_path: Path, into: int, out: int) -> None:
    sizes = {"INP": 11 + into, "WGT": 10 + into + out, "ACC": 12 + out}
    config = WIDE | {"LOG_BLOCK_IN": into, "LOG_BLOCK_OUT": out}
    config |= {f"LOG_{name}_BUFF_SIZE": size for name, size in sizes.items()}
    isa = load_isa("vta", written(tmp_path, config))
    assert dict(isa.dims) == {"b": 1, "o": 2**out, "i": 2**into}
    depths = {m: isa.memory(m).depth for m in ("INP", "WGT", "ACC", "OUT")}
    assert depths == {"INP": 2**11, "WGT": 2**10, "ACC": 2**10, "OUT": 2**10}
    assert all(o.kind == "equal" for o in machine_suite.run(isa))
    op = ops.conv2d(n=1, c=5, h=6, w=5, k=19, r=3, s=3, pad=1, stride=2, shift=4)
    kernel = compile(op, isa, options=Options(top=2, schedules=2, refine=4))
    tensors = machine_suite.random_tensors(op, 2)
    wide = np.pad(tensors["x"].astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    want = np.zeros((1, 19, 3, 3), np.int64)
    for r in range(3):
        for s in range(3):
            part = wide[:, :, r : r + 5 : 2, s : s + 5 : 2]
            want += np.einsum("nchw,kc->nkhw", part, tensors["w"][:, :, r, s].astype(np.int64))
    assert np.array_equal(kernel.run(tensors["x"], tensors["w"]), (want >> 4).astype(np.int8))
