"""The gate for changes that should change no answer.

    scripts/replay BASE [--sample 9]

Compiles the case table on all its machines and every ninth DeepBench layer, and plans a few
generated networks, once with the code of BASE and once with the working tree; compares streams,
certificates, layouts and plans byte for byte (seconds and versions apart). Exit 1 where any differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# One process for each half of the work; both trees one after the other, so that two cores are full.
PARTS = 2


def dump(tree: Path, folder: Path, sample: int) -> dict[str, str]:
    """What that checkout produces: name -> digest or error text."""
    env = os.environ | {"PYTHONPATH": str(tree)}
    script = str(ROOT / "scripts" / "replay_dump.py")
    outs = [folder / f"{tree.name}-{n}.json" for n in range(PARTS)]
    runs = [
        subprocess.Popen(
            [sys.executable, script, str(tree), str(out), str(sample), f"{n}/{PARTS}"], env=env
        )
        for n, out in enumerate(outs)
    ]
    if any([run.wait() for run in runs]):  # a list: all are waited for
        sys.exit(f"replay: the code of {tree} could not be asked")
    found: dict[str, str] = {}
    for out in outs:
        found |= json.loads(out.read_text())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base", help="the commit that is right")
    parser.add_argument("--sample", type=int, default=9, help="every n-th DeepBench layer")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = folder / "base"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(tree), args.base], check=True)
        try:
            old = dump(tree, folder, args.sample)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
        new = dump(ROOT, folder, args.sample)
    both = sorted(old.keys() & new.keys())
    differ = [n for n in both if old[n] != new[n]]
    for n in differ:
        print(f"differs: {n}\n  {args.base}: {old[n][:160]}\n  here: {new[n][:160]}")
    for n in sorted(old.keys() ^ new.keys()):
        print(f"only {'here' if n in new else 'at ' + args.base}: {n}")
    print(f"{len(both) - len(differ)} of {len(both)} equal to {args.base}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
