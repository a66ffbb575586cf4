"""Digests of what one checkout produces: streams, certificates, plans.  Run by `replay.py`.

    PYTHONPATH=TREE python replay_dump.py TREE OUT.json SAMPLE PART/PARTS

Uses names that every commit has (the public ones of `csp_embed` and the command line), so that an
old commit can be asked the same questions as a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What a stream or a plan may differ in without being another: how long it took, who made it.
IGNORED = ("seconds", "version", "sha256")
PLANS = (
    "layered --n 14 --seed 1",
    "layered --n 40 --seed 2",
    "transformer --n 4",
    "watts-strogatz --n 20 --seed 3",
)
OBJECTIVES = ("latency", "throughput")


def digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def document(value: Any) -> bytes:
    """JSON without what may differ."""
    if isinstance(value, dict):
        value = {k: json.loads(document(v)) for k, v in value.items() if k not in IGNORED}
    elif isinstance(value, list | tuple):
        value = [json.loads(document(v)) for v in value]
    return json.dumps(value, sort_keys=True, default=str).encode()


def kernels(tree: Path, sample: int) -> dict[str, Callable[[], str]]:
    """Name -> what makes the digest of a compiled operator."""
    import csp_embed
    from tests.cases import CASES, MACHINES

    def one(make: Callable[[], Any], machine: Any, layout: str) -> str:
        try:
            kernel = csp_embed.compile(make(), machine, layout=layout)
        except csp_embed.errors.CspEmbedError as error:
            return f"{type(error).__name__}: {error}"
        return digest(kernel.words.tobytes() + document(kernel.meta()))

    jobs: dict[str, Callable[[], str]] = {}
    for machine, load in MACHINES.items():
        isa = load()
        for case, make in CASES.items():
            jobs[f"{case} on {machine}"] = lambda make=make, isa=isa: one(make, isa, "relaxed")
    from csp_embed.ops.deepbench import layer, layers

    vta = MACHINES["vta"]()
    for record in layers()[::sample]:
        name = record["id"]
        jobs[f"deepbench:{name}"] = lambda name=name: one(lambda: layer(name), vta, "relaxed")
    return jobs


def plans(tree: Path) -> dict[str, Callable[[], str]]:
    """Name -> what makes the digest of a plan, by the command line."""
    run = [sys.executable, "-m", "csp_embed", "partition"]

    def one(text: str, objective: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            # Plans record their command: names relative to a folder are the same every time.
            plan = Path(folder, "p.json")
            for args in (
                ["generate", *text.split(), "-o", "g.json"],
                ["g.json", "--objective", objective, "-o", "p.json"],
            ):
                done = subprocess.run(
                    [*run, *args], cwd=folder, capture_output=True, text=True, check=False
                )
                if done.returncode:
                    return f"exit {done.returncode}: {done.stderr.strip()[-200:]}"
            return digest(document(json.loads(plan.read_text())))

    return {
        f"plan {text} {objective}": lambda text=text, objective=objective: one(text, objective)
        for text in PLANS
        for objective in OBJECTIVES
    }


def main(tree: str, out: str, sample: str, part: str) -> None:
    root = Path(tree).resolve()
    os.chdir(root)
    sys.path.insert(0, str(root))
    import csp_embed

    # An editable install elsewhere must not answer for this tree.
    if root not in Path(csp_embed.__file__).resolve().parents:
        sys.exit(f"{csp_embed.__file__} is not of {root}")
    import csp_embed.errors

    number, parts = map(int, part.split("/"))
    jobs = kernels(root, int(sample)) | plans(root)
    names = sorted(jobs)[number::parts]
    Path(out).write_text(json.dumps({name: jobs[name]() for name in names}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
