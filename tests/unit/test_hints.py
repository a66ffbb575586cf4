"""What an error tells to try works when it is pasted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from command_line import run

CONV = "conv2d --n 1 --c 2 --h 5 --w 6 --k 3 --r 3 --s 3"
QUICK = "--stop-after embedding"

# Commands that are refused, each with a hint that is a command or options.
REFUSED = [
    f"compile {CONV} {QUICK} --pad 1,2,3",
    f"compile {CONV} {QUICK} --pad upper",
    f"compile {CONV} {QUICK} --stride x",
    f"compile {CONV} {QUICK} --clip 5 1",
    f"compile {CONV} {QUICK} --layout loose",
    f"compile {CONV} {QUICK} --top -1",
    f"compile {CONV} --seed -1",
    f"compile {CONV} --host-weight -1",
    f"compile {CONV} {QUICK} --multiplier 2",
    f"compile {CONV} --stop-after end",
    f"compile {CONV} --stop-after embedding --memory ddr",
    f"compile {CONV} --show",
    f"compile {CONV} {QUICK} --dot x.txt",
    f"compile {CONV} {QUICK} --dot nowhere/x.dot",
    f"compile {CONV} {QUICK} --dot folder.dot",
    f"compile conv_transpose2d --n 1 --c 6 --h 4 --w 4 --k 4 --r 2 --s 2 --groups 3 {QUICK}",
    f"compile conv_transpose2d --n 1 --c 6 --h 4 --w 4 --k 4 --r 2 --s 2 --output-pad 4 {QUICK}",
    "compile conv2d --n 1",
    "compile depthwise_conv2d",
    "compile avg_pool2d --h 9",
    "compile matmul --bogus",
    "compile nonsense",
    "compile deepbench:conv999",
    "compile conv1d --shape x=3",
    "compile elementwise --stop-after operator",
    "compile",
    "isa nonsense",
    "nonsense",
    "deepbench gemm075 --jobs 0 --no-strict",
    "deepbench gemm075 --time-limit 0 --no-strict",
    "deepbench gemm075 --resume --no-strict",
    "deepbench gemm075 --layout loose --no-strict",
    "deepbench gemm075 --out there.jsonl --no-strict",
    "partition g.json --objective speed",
    "partition g.json --cost-model exact",
    "partition g.json -o g.json",
    "partition g.json -o plan.txt",
    "partition g.json --gantt plan.txt",
    "partition generate unheard -o h.json",
    "partition generate layered -o h.npz",
    "partition sweep g.json --platforms p.json --out there.jsonl",
    "partition sweep g.json --platforms p.json --resume",
]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A folder with a graph, its platform and a file in the way."""
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "partition", "generate", "layered", "--n", 5, "-o", "g.json").code == 0
    graph = json.loads(Path("g.json").read_text("utf-8"))
    Path("p.json").write_text(json.dumps(graph["platform"]), encoding="utf-8")
    Path("there.jsonl").write_text("", encoding="utf-8")
    Path("folder.dot").mkdir()
    return tmp_path


def mended(words: list[str], hint: str) -> list[str]:
    """The refused command as the hint changes it: other options, or another name for the file."""
    if hint.startswith("csp-embed "):
        return shlex.split(hint)[1:]
    if not hint.startswith("--"):  # a path in place of the last one
        return [*words[:-1], shlex.split(hint.removeprefix("give a file name, e.g. "))[0]]
    new = shlex.split(hint)
    takes_value = {w for w, v in zip(new, [*new[1:], "--"], strict=True) if not v.startswith("--")}
    kept = list(words)
    for option in [w for w in new if w.startswith("--")]:
        while option in kept:
            at = kept.index(option)
            after = at + 1
            if option in takes_value:
                while after < len(kept) and not re.match(r"--[a-z]", kept[after]):
                    after += 1
            del kept[at:after]
    return kept + new


@pytest.mark.parametrize("command", REFUSED)
def test_the_hint_works(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    refused = run(capsys, *words)
    assert refused.code == 2, refused.err
    (hint,) = re.findall(r"^  try: (.*)$", refused.err, re.MULTILINE)
    if hint.startswith("mkdir "):
        subprocess.run(shlex.split(hint), check=True)
        got = run(capsys, *words)
    else:
        got = run(capsys, *mended(words, hint))
    assert got.code == 0, (hint, got.err)
