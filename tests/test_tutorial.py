"""Every command of docs/tutorial-network.md, in its order, and what the page says of them."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import Outcome, run

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial-network.md").read_text("utf-8")
FILES = {b.splitlines()[0][2:]: b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
ONNX = f"{onnx.__path__[0]}/backend/test/data"


def commands() -> list[list[str]]:
    lines = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [shlex.split(line[2:].replace("$ONNX", ONNX), comments=True) for line in lines]


def test_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    scripts: dict[str, dict[str, Any]] = {}
    got: dict[tuple[str, ...], Outcome] = {}
    for words in commands():
        if words[0] == "python":
            monkeypatch.setattr(sys, "argv", words[1:])
            scripts[words[1]] = runpy.run_path(words[1])
            continue
        assert words[0] == "csp-embed"
        outcome = got[tuple(words[1:3])] = run(capsys, *words[1:])
        assert outcome.code == 0, (words, outcome.err)
        for flag, name in pairwise(words):
            if flag in ("-o", "--report"):
                assert Path(name).stat().st_size > 0
        if "--explain" in words:
            got["explain", words[-1]] = outcome

    # onnxruntime is the judge: of the integers to the last bit, and the float model is near.
    names = scripts["compare.py"]
    assert np.array_equal(names["found"].reshape(names["quantised"].shape), names["quantised"])
    assert np.ptp(names["quantised"]) > 0.1  # ten equal values would prove little
    assert np.abs(names["quantised"] - names["exact"]).max() < 0.02
    (layers,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    # Cycles may move with the schedules; where a layer runs, what it computes and its bound do not.
    document = names["built"].document()
    printed = [
        (row[0], row[1], row[2].replace(",", ""), row[-3])
        for row in map(str.split, layers.splitlines()[1:])
    ]
    assert printed == [(d["name"], d["where"], str(d["macs"]), "0") for d in document["layers"]]
    assert document["one_program"]
    assert document["macs_on_accelerator"] == document["macs"]
    assert "sequence: terms: equal for every sum" in got["explain", "conv2"].out
    assert "softmax" in got["explain", "y_QuantizeLinear"].out.lower()
    assert "values: equal" in got["simulate", "net.npz"].out
    assert "net.npz: ok" in got["check", "net.npz"].out
    assert "0 of 72 elements differ" in got["build", "conv.onnx"].out
